"""Identity loss: softmax cross-entropy over the training identities."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError, DataError
from reidkit.ops import can_look_at_values, check_count, check_number, prepare_batch
from reidkit.registry import register


@register("loss", "identity")
class IdentityLoss(nn.Module):
    """Softmax cross-entropy with its classifier, one class for each training identity.

    Eq. 4-5 in Li, Zhu, Gong 2017 (JLML, arXiv 1705.04724)::

        L = mean over i of  -log softmax(W x_i)[y_i]

    ``x`` is the embedding as it comes, not normalised. With label smoothing e the target is
    ``(1 - e) onehot(y) + e / num_identities``. The classifier belongs to the loss, so that the network
    that is saved knows no identities.

    Use with: every set of labelled identities; alone it is the strong plain baseline. Put it after a
    BNNeck when a metric loss stands beside it. ``label_smoothing=0.1`` where identities are few.

    Pitfalls: labels must be 0..num_identities-1. It has parameters: give them to the optimiser
    (:class:`reidkit.Trainer` does). With many identities and few images each, it learns the training
    identities by heart.

    See also: :class:`MarginSampleMiningLoss`, :class:`BatchHardTripletLoss`, which shape distances.

    Args:
        num_identities: number of classes; None waits for :meth:`fill`.
        dim: width D of the embeddings; None waits for :meth:`fill`.
        label_smoothing: share of the target spread over all identities, in [0, 1).
        bias: whether the classifier has one.
        dropout: share of the embedding's values dropped before the classifier in training, in [0, 1).
        init_std: standard deviation of the classifier's first weights.

    Shapes: embeddings (N, dim), labels (N,) integers; returns a scalar, float32 or float64; 0 for N = 0.

    Raises:
        ConfigError: an option out of its range; no sizes yet at the first call.
        DataError: embeddings and labels that do not make a batch; a label outside 0..num_identities-1
            (looked for in eager mode on the CPU).

    >>> import torch
    >>> loss = IdentityLoss(num_identities=4, dim=8, init_std=0.0)
    >>> loss(torch.ones(2, 8), torch.tensor([0, 3])).item()  # nothing learned yet: log 4
    1.3862943649291992
    """

    reads: ClassVar[str] = "classification"
    classifier: nn.Linear | None

    def __init__(
        self,
        num_identities: int | None = None,
        dim: int | None = None,
        *,
        label_smoothing: float = 0.0,
        bias: bool = False,
        dropout: float = 0.0,
        init_std: float = 0.001,
    ) -> None:
        super().__init__()
        check_number("label_smoothing", label_smoothing, high=1.0)
        check_number("dropout", dropout, high=1.0)
        check_number("init_std", init_std)
        for name, size in (("num_identities", num_identities), ("dim", dim)):
            if size is not None:
                check_count(name, size, also=", or None to take it from the data and the model")
        self.num_identities = num_identities
        self.dim = dim
        self.label_smoothing = label_smoothing
        self.bias = bias
        self.dropout = dropout
        self.init_std = init_std
        self.classifier = None
        self._build()

    def fill(self, *, num_identities: int, dim: int) -> None:
        """Give the sizes that were None and build the classifier; do so before moving it to a device.

        Raises :class:`ConfigError` where a size given to the constructor differs.
        """
        for name, size in (("num_identities", num_identities), ("dim", dim)):
            if getattr(self, name) not in (None, size):
                raise ConfigError(
                    f"identity loss has {name} {getattr(self, name)}, but the data and the model need "
                    f"{size}; leave {name} out to have it filled in"
                )
            setattr(self, name, size)
        if self.classifier is None:
            self._build()

    def _build(self) -> None:
        if self.num_identities is None or self.dim is None:
            return
        self.classifier = nn.Linear(self.dim, self.num_identities, bias=self.bias)
        nn.init.normal_(self.classifier.weight, std=self.init_std)
        if self.bias:
            nn.init.zeros_(self.classifier.bias)

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.classifier is None:
            raise ConfigError(
                f"identity loss has num_identities {self.num_identities} and dim {self.dim}; give both, "
                "or call fill(num_identities=..., dim=...) before the first batch"
            )
        if embeddings.shape[1] != self.classifier.in_features:
            raise DataError(
                f"embeddings have {embeddings.shape[1]} values each, but the classifier reads "
                f"{self.classifier.in_features}; give dim the width of the feature that the loss reads"
            )
        if can_look_at_values(labels):
            check_range(labels, self.classifier.out_features)
        embeddings = F.dropout(embeddings, self.dropout, self.training)
        logits = linear_in_its_precision(embeddings, self.classifier)  # (N, num_identities)
        return F.cross_entropy(logits, labels.long(), label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        return (
            f"num_identities={self.num_identities}, dim={self.dim}, label_smoothing={self.label_smoothing}, "
            f"bias={self.bias}, dropout={self.dropout}, init_std={self.init_std}"
        )


def linear_in_its_precision(embeddings: Tensor, layer: nn.Linear) -> Tensor:
    """The layer's output in the precision of the embeddings, not of its weights."""
    parameters = {name: parameter.to(embeddings.dtype) for name, parameter in layer.named_parameters()}
    return F.linear(embeddings, **parameters)


def check_range(labels: Tensor, num_identities: int) -> None:
    outside = (labels < 0) | (labels >= num_identities)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise DataError(
            f"label {int(labels[row])} in row {row} is outside 0..{num_identities - 1}; "
            "number the training identities from 0, without gaps"
        )
