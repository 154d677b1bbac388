"""Signs that a loss no longer teaches anything, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PATIENCE = 5  # records in a row before a sign is taken for more than chance
_AT_MARGIN = 0.01  # share of the margin
_DIVERGED = 10.0  # times the first loss


class LossHealth:
    """Watches the records of a run. A sign is reported once, and again only if it went away and came back."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._first: dict[frozenset[str], float] = {}

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, as plain values: a run that goes on is measured against its own first loss."""
        return {"seen": self._seen, "first": [[sorted(names), loss] for names, loss in self._first.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._seen = dict(state["seen"])
        self._first = {frozenset(names): loss for names, loss in state["first"]}

    def signs(
        self, terms: Mapping[str, float], *, margins: Mapping[str, float], batch: Mapping[str, Any]
    ) -> list[str]:
        """Sentences to show for one record.

        Args:
            terms: mean of each loss term, times its weight, since the record before.
            margins: of the metric losses that have one, times their weight.
            batch: :func:`reidkit.ops.batch_statistics` of the last batch as the first of these losses sees
                it, empty without a metric loss.
        """
        told = [
            self._told(
                "collapse",
                bool(batch.get("collapsed")),
                "all embeddings have fallen onto one point; metric losses give no gradient there. Lower "
                "optim.lr, lengthen the warm-up, or add an identity loss",
                patience=1,
            ),
            self._told(
                "idle",
                bool(margins) and batch.get("margin_violation_share") == 0.0,
                f"no image of the last {PATIENCE} batches looked at violates the margin: "
                f"{next(iter(margins), '')!r} hardly learns. If validation has stopped rising, too, take "
                "more identities a batch or a larger margin, or end earlier",
            ),
            self._told(
                "divergence",
                self._has_diverged(terms),
                f"the loss is more than {_DIVERGED:g} times what it was at first: training diverges. Lower "
                "optim.lr, lengthen the warm-up, or set optim.clip_norm",
                patience=1,
            ),
        ]
        for name, margin in margins.items():
            stuck = name in terms and abs(terms[name] - margin) <= _AT_MARGIN * margin
            advice = (
                f"loss {name!r} has stood at its margin for {PATIENCE} records: hard positives and negatives "
                "are equally far, as when embeddings fall together. Lower optim.lr, lengthen the warm-up, "
                "or begin with an identity loss"
            )
            told.append(self._told(f"margin of {name}", stuck, advice))
        return [sentence for sentence in told if sentence]

    def _told(self, sign: str, is_there: bool, advice: str, *, patience: int = PATIENCE) -> str | None:
        self._seen[sign] = self._seen.get(sign, 0) + 1 if is_there else 0
        return advice if self._seen[sign] == patience else None

    def _has_diverged(self, terms: Mapping[str, float]) -> bool:
        total = sum(terms.values())
        # Losses may start and end; the first value of one sum says nothing about another's.
        return total > _DIVERGED * self._first.setdefault(frozenset(terms), total) > 0
