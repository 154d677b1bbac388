"""What a search found for one picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reidkit.galleries import Hit
from reidkit.search.probabilities import Prior


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found for one picture.

    ``own`` are hits that show that very picture, by their source or by their content; they are among the
    ``hits`` only where that was asked for. ``probabilities`` are those that the hits show the same person, in
    their order; empty where the encoder is not calibrated, or where ``no_probability`` says why none can be
    told; ``prior`` is what they rest on. ``num_low`` hits were left out for their scores, ``num_rejected``
    because somebody decided that they show somebody else.
    """

    hits: tuple[Hit, ...]
    own: tuple[Hit, ...] = ()
    probabilities: tuple[float, ...] = ()
    num_low: int = 0
    no_probability: str = ""
    prior: Prior | None = None
    num_rejected: int = 0

    def __bool__(self) -> bool:
        """Whether there was anything to find, shown or not."""
        return bool(self.hits or self.own or self.num_low or self.num_rejected)

    def is_own(self, hit: Hit) -> bool:
        """Whether a hit shows the very picture that was searched for."""
        return hit in self.own

    def as_list(self) -> list[dict[str, Any]]:
        """Plain values of each hit, for JSON."""
        known = [{"probability": value} for value in self.probabilities] or [{}] * len(self.hits)
        return [
            {**asdict(hit), "is_query": self.is_own(hit), **more}
            for hit, more in zip(self.hits, known, strict=True)
        ]
