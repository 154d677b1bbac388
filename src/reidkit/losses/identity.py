"""Identity loss: softmax cross-entropy over the training identities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError, UnknownName
from reidkit.losses._classes import OfIdentities
from reidkit.losses._domain_dropout import guided_values
from reidkit.ops import check_number, check_positive, prepare_batch
from reidkit.registry import register

DomainDropout = Literal["none", "deterministic", "stochastic"]
DOMAIN_DROPOUTS = ("none", "deterministic", "stochastic")


@register("loss", "identity")
class IdentityLoss(OfIdentities):
    """Softmax cross-entropy with its classifier, one class for each training identity.

    Eq. 4-5 in Li, Zhu, Gong 2017 (JLML, arXiv 1705.04724)::

        L = mean over i of  -log softmax(W x_i)[y_i]

    ``x`` is the embedding as it comes, not normalised. With label smoothing e the target is
    ``(1 - e) onehot(y) + e / num_identities``. The classifier belongs to the loss, so that the network
    that is saved knows no identities.

    Use with: every set of labelled identities; alone it is the strong plain baseline. Put it after a
    BNNeck when a metric loss stands beside it. ``label_smoothing=0.1`` where identities are few.

    Pitfalls: labels must be 0..num_identities-1. It has parameters: give them to the optimiser
    (:class:`reidkit.Trainer` does). With many identities and few images each, it memorises the
    training set.

    See also: :class:`MarginSampleMiningLoss`, :class:`BatchHardTripletLoss`, which shape distances.

    Args:
        num_identities: number of classes; None waits for :meth:`fill`.
        dim: width D of the embeddings; None waits for :meth:`fill`.
        label_smoothing: share of the target spread over all identities, in [0, 1).
        bias: whether the classifier has one.
        dropout: share of the embedding's values dropped before the classifier in training, in [0, 1).
        init_std: standard deviation of the classifier's first weights.
        domain_dropout: "none"; or drop, in training, the values that do not help to tell the people of an
            image's data set apart (Xiao et al. 2016, DGD): "deterministic", or "stochastic", where each is
            kept with a chance of sigmoid(impact / temperature). For a union of data sets, after a training
            without. The paper finds the impacts on all images once; here they are those of the batch.
        temperature: of "stochastic", in units of the loss.

    Shapes: embeddings (N, dim), labels (N,) integers; returns a scalar, float32 or float64; 0 for N = 0.

    Raises:
        UnknownName: another domain_dropout.
        ConfigError: an option out of its range; no sizes, or no data sets for domain_dropout, at a call.
        DataError: embeddings and labels that do not make a batch; a label outside 0..num_identities-1
            (looked for in eager mode on the CPU).

    >>> import torch
    >>> loss = IdentityLoss(num_identities=4, dim=8, init_std=0.0)
    >>> loss(torch.ones(2, 8), torch.tensor([0, 3])).item()  # nothing learned yet: log 4
    1.3862943649291992
    """

    reads: ClassVar[str] = "classification"
    title: ClassVar[str] = "identity loss"
    part: ClassVar[str] = "classifier"
    added_later: ClassVar[dict[str, Any]] = {"domain_dropout": "none", "temperature": 1e-6}
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
        domain_dropout: DomainDropout = "none",
        temperature: float = 1e-6,
    ) -> None:
        super().__init__(num_identities, dim)
        check_number("label_smoothing", label_smoothing, high=1.0)
        check_number("dropout", dropout, high=1.0)
        check_number("init_std", init_std)
        self.label_smoothing = label_smoothing
        self.bias = bias
        self.dropout = dropout
        self.init_std = init_std
        check_positive("temperature", temperature)
        if domain_dropout not in DOMAIN_DROPOUTS:
            raise UnknownName("domain_dropout", domain_dropout, DOMAIN_DROPOUTS)
        self.domain_dropout = domain_dropout
        self.temperature = temperature
        self.sets: Tensor | None = None
        self.classifier = None
        self._build()

    def fill_sets(self, sets: Sequence[int]) -> None:
        """Give the number of each identity's data set, from 0, (num_identities,); for ``domain_dropout``."""
        self.sets = torch.as_tensor(sets)

    def draw(self, num_identities: int, dim: int) -> None:
        self.classifier = nn.Linear(dim, num_identities, bias=self.bias)
        nn.init.normal_(self.classifier.weight, std=self.init_std)
        if self.bias:
            nn.init.zeros_(self.classifier.bias)

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check(embeddings, labels)
        assert self.classifier is not None  # it is built with the sizes
        embeddings = F.dropout(embeddings, self.dropout, self.training)
        if self.training and self.domain_dropout != "none":
            embeddings = embeddings * self._guided(embeddings, labels)
        logits = linear_in_its_precision(embeddings, self.classifier)  # (N, num_identities)
        return F.cross_entropy(logits, labels.long(), label_smoothing=self.label_smoothing)

    def _guided(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        assert self.classifier is not None
        if self.sets is None:
            raise ConfigError(
                "domain_dropout needs the data set of each identity: call fill_sets(...), as rk.Trainer does"
            )
        weight, bias = (
            None if parameter is None else parameter.to(embeddings.dtype)
            for parameter in (self.classifier.weight, self.classifier.bias)
        )
        assert weight is not None
        temperature = self.temperature if self.domain_dropout == "stochastic" else 0.0
        sets = self.sets.to(labels.device)
        return guided_values(embeddings, labels, weight, bias, sets, temperature)

    def extra_repr(self) -> str:
        return (
            f"num_identities={self.num_identities}, dim={self.dim}, label_smoothing={self.label_smoothing}, "
            f"bias={self.bias}, dropout={self.dropout}, "
            f"domain_dropout={self.domain_dropout!r}, temperature={self.temperature}, "
            f"init_std={self.init_std}"
        )


def linear_in_its_precision(embeddings: Tensor, layer: nn.Linear) -> Tensor:
    """The layer's output in the precision of the embeddings, not of its weights."""
    parameters = {name: parameter.to(embeddings.dtype) for name, parameter in layer.named_parameters()}
    return F.linear(embeddings, **parameters)
