"""Domain guided dropout: of each data set, the values of the embedding that its people are told apart by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def guided_values(
    embeddings: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, sets: Tensor, temperature: float
) -> Tensor:
    """Which values (N, D) are kept: those without which the loss of the image's data set would rise.

    Xiao, Li, Ouyang, Wang, CVPR 2016 (arXiv 1604.07528). The impact of a value, averaged over the batch's
    images of a data set, decides for all of them: it is kept where that is above 0, or with a chance of
    ``sigmoid(impact / temperature)`` where the temperature is above 0.

    Args:
        embeddings: (N, D), the classifier's input.
        labels: (N,).
        weight, bias: of the classifier, (C, D) and (C,).
        sets: (C,) number of each identity's data set.
        temperature: 0 or above.
    """
    with torch.no_grad():
        impact = impact_of_values(embeddings, labels, weight, bias)
        own = sets[labels.long()]  # (N,)
        number = int(sets.max()) + 1
        count = torch.bincount(own, minlength=number).clamp_min(1)
        of_sets = impact.new_zeros(number, impact.shape[1]).index_add_(0, own, impact) / count[:, None]
        if temperature > 0:
            kept = torch.bernoulli((of_sets / temperature).sigmoid())
        else:
            kept = (of_sets > 0).to(embeddings.dtype)
        # A data set of which nothing helps yet, as before the first step, keeps all.
        kept = torch.where(kept.any(dim=1, keepdim=True), kept, 1.0)
        return kept[own]


def impact_of_values(embeddings: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """By how much each image's loss would rise without each value, (N, D): the paper's Taylor expansion.

    ``-g dL/dg + g^2 / 2 d2L/dg2``, with both derivatives of the softmax cross-entropy in closed form.
    """
    chance = F.linear(embeddings, weight, bias).softmax(dim=1)  # (N, C)
    mean = chance @ weight  # (N, D)
    slope = mean - weight[labels.long()]
    curvature = chance @ weight.square() - mean.square()
    return -embeddings * slope + embeddings.square() / 2 * curvature
