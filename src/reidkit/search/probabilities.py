"""How probable it is that a hit shows who was searched for, and when nothing can be said of it.

The probability is the calibration's likelihood ratio times the odds before looking, and these are the
gallery's: of 1,000 images 10 of which show one identity, a hit drawn blindly is right one time in 100. On
Market-1501, with people that the calibration had not seen, the ten first hits' probabilities are right to 4
points this way, and 30 points too high with even odds.

A calibration holds where scores are distributed as where it was fitted. Before one is used, the gallery's own
items are searched for, and what it says of them is compared with their labels; a query must be as near to the
gallery's items on average as these are to each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from reidkit.analysis.calibration import Calibration
from reidkit.analysis.reliability import TOP, prior_of, reliability
from reidkit.errors import ConfigError, shown
from reidkit.galleries import Gallery, Hit, Item
from reidkit.texts.printable import counted

IMAGES_PER_IDENTITY = 5
"""Taken for the mean where a gallery has no identity labels."""

TOLERANCE = 0.05
"""How far probabilities, or shares of scores, may be off, beyond what chance explains."""

MIN_ITEMS = 20
MIN_PAIRS = 50
"""Of one person, that a calibration has to rest on: with fewer, chance moves its probabilities by several
points."""
_NUM_SAMPLED = 300
_NUM_CHECKED = 4 * TOP  # hits, of which those of the query's own camera are left out
_MIN_SEARCHES = 20
_RATE = 0.1
_MARGIN = 0.1  # of the width of the usual mean scores, on both sides
_JUNK = "-1"


@dataclass(frozen=True, slots=True)
class Prior:
    """How probable it is, before looking, that an item shows who is searched for; and where that is from."""

    value: float
    reason: str

    def __str__(self) -> str:
        return f"{self.value:.2g} ({self.reason})"


def gallery_prior(items: Sequence[Item]) -> Prior:
    """The share of the items that shows one identity: by their labels, as far as they have some."""
    named = Counter(item.identity for item in items if item.identity not in (None, _JUNK))
    among = f"among {len(items):,}"
    if not named:
        reason = f"{counted(IMAGES_PER_IDENTITY, 'image')} of one identity, a guess, {among}"
        return Prior(prior_of(IMAGES_PER_IDENTITY, len(items)), reason)
    mean = sum(named.values()) / len(named)
    images = f"{mean:.3g} image" + ("" if mean == 1 else "s")
    return Prior(prior_of(mean, len(items)), f"{images} of one identity by the labels, {among}")


def given_prior(value: float) -> Prior:
    """One that somebody asks for; raises :class:`ConfigError` where it is no probability."""
    if not is_number(value) or not 0 < value < 1:
        raise ConfigError(f"prior is {shown(value)}; give a probability between 0 and 1")
    return Prior(value, "as asked for")


def is_number(value: object) -> bool:
    """Whether a value can be compared with scores and shares."""
    return not isinstance(value, bool) and isinstance(value, Real) and not math.isnan(value)


class Plausibility:
    """Whether a calibration can be believed in a gallery.

    ``doubt`` is empty, or says why it cannot; :meth:`doubt_of` says the same of one query.
    """

    def __init__(self, gallery: Gallery, calibration: Calibration) -> None:
        items = [item for item in gallery.items() if item.identity != _JUNK]
        self._usual = (-1.0, 1.0)
        self._embeddings = np.empty((0, 0), np.float32)
        self.doubt = ""
        if calibration.num_positive < MIN_PAIRS:
            pairs = counted(calibration.num_positive, "pair")
            self.doubt = (
                f"the encoder was calibrated on {pairs} of one person, too few to tell a probability by"
            )
            return
        if len(items) < MIN_ITEMS:
            self.doubt = (
                f"the gallery holds {counted(len(items), 'item')}, too few to check the calibration on"
            )
            return
        chosen = np.random.default_rng(0).choice(len(items), min(_NUM_SAMPLED, len(items)), replace=False)
        sample = [items[place] for place in chosen]
        self._embeddings = gallery.embeddings(ids=[item.id for item in sample])
        scores = (self._embeddings @ self._embeddings.T).astype(np.float64)
        np.fill_diagonal(scores, np.nan)
        means = np.nanmean(scores, axis=1)
        margin = _MARGIN * np.ptp(means)
        self._usual = (float(means.min() - margin), float(means.max() + margin))
        self.doubt = _doubt_of_strangers(sample, scores, calibration) or _doubt_of_hits(
            gallery, sample, self._embeddings, calibration, gallery_prior(items)
        )

    def doubt_of(self, embedding: NDArray[np.float32]) -> str:
        """Why nothing can be said of the hits of this query (D,); empty where something can."""
        if self.doubt:
            return self.doubt
        mean = float((self._embeddings @ embedding).mean())
        low, high = self._usual
        if low <= mean <= high:
            return ""
        return (
            f"this picture is unlike those of the gallery: its mean score is {mean:.2f}, theirs among each "
            f"other are {low:.2f} to {high:.2f}"
        )


def _doubt_of_strangers(sample: Sequence[Item], scores: NDArray[np.float64], calibration: Calibration) -> str:
    """Whether scores of two identities are spread as in the calibration. Without labels most pairs are."""
    if not calibration.false_match_rates:
        return ""
    codes = _codes(item.identity for item in sample)
    contents = _codes(item.content for item in sample)
    same = (codes[:, None] == codes) | (contents[:, None] == contents)
    seen = scores[~same]
    if not len(seen):
        return ""
    share = float((seen >= calibration.threshold_at(_RATE)).mean())
    if abs(share - _RATE) <= TOLERANCE:
        return ""
    return (
        f"{100 * share:.0f} % of this gallery's pairs score as high as {100 * _RATE:.0f} % of two people's "
        f"did where the encoder was calibrated, {calibration.source or 'on unnamed data'}"
    )


def _doubt_of_hits(
    gallery: Gallery,
    sample: Sequence[Item],
    embeddings: NDArray[np.float32],
    calibration: Calibration,
    prior: Prior,
) -> str:
    """Whether probabilities of the gallery's own items' hits are right, by their labels where they have some.

    As in a calibration, pairs of one identity under one camera do not count: they show one moment.
    """
    rows = [row for row, item in enumerate(sample) if item.identity is not None]
    if len(rows) < _MIN_SEARCHES:
        return ""
    hits, searches, right = [], [], []
    for row, found in zip(rows, gallery.search(embeddings[rows], top=_NUM_CHECKED), strict=True):
        kept = [hit for hit in found if _counts(sample[row], hit)][:TOP]
        hits += kept
        searches += [row] * len(kept)
        right += [hit.identity == sample[row].identity for hit in kept]
    if not hits:
        return ""
    given = calibration.probability([hit.score for hit in hits], prior=prior.value)
    measured = reliability(given, np.array(right), np.array(searches))
    error = measured.expected_error
    if error - measured.chance_error <= TOLERANCE:
        return ""
    return (
        f"among this gallery's own labelled items they are {100 * error:.0f} points off; they were "
        f"calibrated on {calibration.source or 'unnamed data'}"
    )


def _counts(item: Item, hit: Hit) -> bool:
    own = hit.id == item.id or (item.content is not None and hit.content == item.content)
    if own or hit.identity in (None, _JUNK):
        return False
    return hit.identity != item.identity or hit.camera is None or hit.camera != item.camera


def _codes(values: Iterable[str | None]) -> NDArray[np.int64]:
    """Numbers that are equal where the values are; each missing one is unlike all others."""
    seen: dict[str | int, int] = {}
    return np.array([seen.setdefault(-n if v is None else v, n) for n, v in enumerate(values)], np.int64)
