"""Whether the probabilities of hits hold: of hits that are called 80 % probable, 80 % should be right.

A search shows the top of a list, and the probabilities of these hits are what is promised. So they are
counted on whole searches, each against a gallery with its own prior, and not on pairs drawn evenly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.analysis.calibration import Calibration, fit_calibration
from reidkit.errors import DataError
from reidkit.evaluation.comparison import Comparison, compare
from reidkit.evaluation.nearest import nearest_items
from reidkit.types import JUNK, Features

NUM_BINS = 10
TOP = 10
HIGHEST_PRIOR = 0.5
MIN_IDENTITIES = 20  # of a data set that is halved, one half to calibrate on


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Probabilities in ten equal ranges; those without any are left out.

    Attributes:
        predicted: (B,), the mean probability given.
        observed: (B,), the share that was right.
        counts: (B,), how many.
        chance_error: the expected calibration error that would be seen if every probability were right.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]
    chance_error: float

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean difference of the two, each range by its count.

        Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
        binning", AAAI 2015.
        """
        return float(np.abs(self.predicted - self.observed) @ self.counts / self.counts.sum())


def reliability(
    probabilities: NDArray[np.float64], right: NDArray[np.bool_], searches: NDArray[np.int64]
) -> Reliability:
    """Compare probabilities (M,) with what was right (M,).

    ``searches`` (M,) numbers the search of each: hits of one search are right or wrong together, and
    :attr:`Reliability.chance_error` allows for it.

    Raises :class:`DataError` where there are none.
    """
    if not len(probabilities):
        raise DataError(
            "there are no hits whose probabilities could be compared; give a gallery with matches"
        )
    bins = np.minimum((probabilities * NUM_BINS).astype(np.intp), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = np.bincount(bins, probabilities, NUM_BINS)
    num_right = np.bincount(bins, right, NUM_BINS)
    _, codes = np.unique(searches, return_inverse=True)
    surprise = np.bincount(codes * NUM_BINS + bins, right - probabilities, NUM_BINS * (codes.max() + 1))
    spread = np.sqrt((surprise.reshape(-1, NUM_BINS) ** 2).sum(axis=0))
    seen = counts > 0
    return Reliability(
        predicted=sums[seen] / counts[seen],
        observed=num_right[seen] / counts[seen],
        counts=counts[seen],
        # The mean of |x| of a normal x is sqrt(2 / pi) of its standard deviation.
        chance_error=float(math.sqrt(2 / math.pi) * spread.sum() / counts.sum()),
    )


def prior_of(images_per_identity: float, num_images: int) -> float:
    """How probable it is that an image drawn from a gallery shows the identity that is searched for.

    It is the share of the gallery that shows one identity; at most 0.5, since who is searched for need not be
    there.
    """
    return min(images_per_identity / max(num_images, 1), HIGHEST_PRIOR)


def hits_reliability(comparisons: Iterable[tuple[Comparison, Calibration]], *, top: int = TOP) -> Reliability:
    """Probabilities of the ``top`` hits of every query, each comparison by its calibration.

    The prior is that of the gallery: mean images of one identity over all of its images.

    Raises :class:`DataError` without a hit.
    """
    probabilities, right, searches = [], [], []
    num_searches = 0
    for comparison, calibration in comparisons:
        shown = comparison.gallery_identities[comparison.gallery_identities != JUNK]
        prior = prior_of(len(shown) / max(len(np.unique(shown)), 1), len(shown))
        ranking = nearest_items(comparison, top=top, rows=comparison.identified_queries)
        kept = ranking.indices >= 0
        probabilities.append(calibration.probability(ranking.scores[kept], prior=prior))
        right.append(ranking.matches[kept])
        searches.append(num_searches + np.nonzero(kept)[0])
        num_searches += len(kept)
    return reliability(np.concatenate(probabilities), np.concatenate(right), np.concatenate(searches))


def held_out_reliability(comparison: Comparison, *, top: int = TOP, seed: int = 0) -> Reliability:
    """Probabilities of hits in searches for identities that the calibration was not fitted on.

    Identities are halved; each half is searched with the calibration fitted on the other.

    Args:
        comparison: queries and gallery, and by its camera filter which pairs count.
        top: hits of each search.
        seed: of the halves.

    Raises:
        DataError: fewer than :data:`MIN_IDENTITIES` identities, a half without a pair to fit on, or queries
            that have galleries of their own.
    """
    if comparison.listed is not None:
        raise DataError("queries have galleries of their own, which cannot be halved; give one gallery")
    asked = np.intersect1d(comparison.query_identities, comparison.gallery_identities)
    asked = asked[asked != JUNK]
    if len(asked) < MIN_IDENTITIES:
        raise DataError(
            f"{len(asked)} identities are too few to halve; give at least {MIN_IDENTITIES} that are on both "
            "sides"
        )
    others = np.setdiff1d(comparison.gallery_identities, [*asked, JUNK])
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(part) for part in (asked, others)]
    halves = [_part(comparison, np.concatenate([part[half::2] for part in drawn])) for half in range(2)]
    calibrations = [fit_calibration(half, num_resamples=1) for half in halves]
    return hits_reliability(zip(halves, calibrations[::-1], strict=True), top=top)


def _part(comparison: Comparison, identities: NDArray[np.int64]) -> Comparison:
    """The rows of some identities, on both sides."""
    query = _rows(comparison.query_features, np.isin(comparison.query_identities, identities))
    gallery = _rows(comparison.gallery_features, np.isin(comparison.gallery_identities, identities))
    one_set = comparison.is_one_set
    return compare(query, None if one_set else gallery, camera_filter=comparison.camera_filter)


def _rows(features: Features, chosen: NDArray[np.bool_]) -> Features:
    parts: dict[str, Any] = {}
    for field in fields(features):
        values = getattr(features, field.name)
        parts[field.name] = None if values is None else values[chosen]
    return Features(**parts)
