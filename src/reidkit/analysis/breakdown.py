"""Where an evaluation's mean comes from: recall levels, pairs of cameras, confusions, single queries.

All is counted by cosine similarity to the whole gallery, under the camera filter of the comparison. What is
counted of every negative pair reads tiles of scores, so that one pass serves all
(:meth:`reidkit.evaluation.comparison.Comparison.read_negatives`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.evaluation.comparison import Comparison
from reidkit.evaluation.metrics import average_precisions
from reidkit.evaluation.ranks import RankCounter, match_ranks, ranks_of, spans
from reidkit.evaluation.row_labels import shared_codes
from reidkit.evaluation.unit_rows import Indices
from reidkit.types import JUNK, Features

RECALL_LEVELS = np.linspace(0, 1, 101)
"""Where a precision-recall curve is read off: 0, 0.01, ..., 1."""

_RANDOM_SEED = 0  # which queries are "drawn at random" must not change between two reports of one run


@dataclass(frozen=True, slots=True, eq=False)
class MatchRanks:
    """Ranks of every query's matches by cosine score.

    Attributes:
        ranks: (M,), 1-based, by query, ascending within each.
        first: (Q,), where a query's ranks begin.
        count: (Q,), how many they are; 0 where a query is not valid.
    """

    ranks: NDArray[np.int64]
    first: Indices
    count: Indices

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(Q,), whether a query has a match."""
        return self.count > 0

    def of(self, query: int) -> NDArray[np.int64]:
        """The ranks of one query's matches, ascending."""
        return self.ranks[self.first[query] :][: self.count[query]]

    @property
    def first_match_ranks(self) -> NDArray[np.int64]:
        """(Q,), 0 where a query is not valid."""
        first_ranks = np.zeros(len(self.count), np.int64)
        first_ranks[self.valid] = self.ranks[self.first[self.valid]]
        return first_ranks

    @property
    def average_precisions(self) -> NDArray[np.float64]:
        """(Q,), of the "step" kind; NaN where a query is not valid."""
        queries = np.repeat(np.arange(len(self.count)), self.count)
        return average_precisions(queries, self.ranks, self.first, self.count, "step")


@dataclass(frozen=True, slots=True, eq=False)
class CameraPairs:
    """Metrics by the camera of the query and the camera of the gallery items.

    A query of camera a meets the gallery items of camera b only; it counts where one of them is right.

    Attributes:
        query_cameras: (A,) labels; rows without a camera are in none.
        gallery_cameras: (B,) labels.
        num_queries: (A, B), queries that count.
        mean_average_precision: (A, B), NaN where no query counts.
        rank1: (A, B), likewise.
    """

    query_cameras: NDArray[Any]
    gallery_cameras: NDArray[Any]
    num_queries: NDArray[np.int64]
    mean_average_precision: NDArray[np.float64]
    rank1: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """``num_queries`` queries of ``identity`` have an image of ``taken_for`` at rank 1, and no match."""

    identity: Any
    taken_for: Any
    num_queries: int


class MatchRankCounter:
    """Finds the ranks of all matches while the scores of all negatives pass by."""

    def __init__(self, comparison: Comparison, among: Indices | None = None) -> None:
        """With ``among``, only matches among these gallery rows count; read only these rows as well."""
        pairs = comparison.same_identity_pairs
        counted = pairs.positive
        if among is not None:
            counted = counted & np.isin(pairs.items, among)
        self._matches = pairs.where(counted)
        self._first, self._count = spans(self._matches, len(comparison.query))
        self._counter = RankCounter(self._matches, len(comparison.query))

    def read(self, queries: Indices, items: Indices, scores: NDArray[Any]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        self._counter.read(queries, items, scores)

    def result(self) -> MatchRanks:
        """The ranks, when all has been read."""
        ranks = ranks_of(self._matches, self._counter.before, self._first)
        return MatchRanks(ranks, self._first, self._count)


def ranks_of_matches(comparison: Comparison, *, rows: Indices | None = None) -> MatchRanks:
    """Ranks of all matches of all queries, in one pass over the gallery.

    With ``rows`` only these queries have matches in the result.
    """
    matches, ranks = match_ranks(comparison, rows=rows)
    return MatchRanks(ranks, *spans(matches, len(comparison.query)))


def precision_recall(matches: MatchRanks) -> NDArray[np.float64]:
    """Interpolated precision (101,) at :data:`RECALL_LEVELS`, mean over valid queries.

    A query's interpolated precision at a recall level is the best precision that it reaches at that recall
    or a higher one (Manning, Raghavan, Schuetze 2008, section 8.4).

    Raises :class:`DataError` where no query is valid.
    """
    if not matches.valid.any():
        raise DataError("no query has a match, so there is no precision to draw; look at the notes")
    precisions = np.zeros(len(RECALL_LEVELS))
    for query in np.flatnonzero(matches.valid).tolist():
        count = matches.count[query]
        at_match = np.arange(1, count + 1) / matches.of(query)
        best_from = np.maximum.accumulate(at_match[::-1])[::-1]
        # Matches needed for k percent, in whole numbers: 0.07 * 100 is more than 7 in floating point.
        needed = -(-np.arange(len(RECALL_LEVELS)) * count // 100)
        precisions += best_from[np.maximum(needed, 1) - 1]
    mean: NDArray[np.float64] = precisions / matches.valid.sum()
    return mean


class CameraPairCounter:
    """Counts :class:`CameraPairs` while the scores of all negatives pass by.

    Under "same_identity" and "other_cameras" a camera has no score with itself: all its matches leave.

    Raises :class:`DataError` where camera labels are absent.
    """

    def __init__(self, comparison: Comparison) -> None:
        query, gallery = comparison.query_features, comparison.gallery_features
        if query.cameras is None or gallery.cameras is None:
            raise DataError(
                "there are no camera labels to break the scores down by; give cameras to both sides"
            )
        self._query_cameras, self._query_codes = _cameras(query.cameras, comparison.query_cameras)
        self._gallery_cameras, self._gallery_codes = _cameras(gallery.cameras, comparison.gallery_cameras)
        self._counters = [
            MatchRankCounter(comparison, np.flatnonzero(self._gallery_codes == code))
            for code in range(len(self._gallery_cameras))
        ]

    def read(self, queries: Indices, items: Indices, scores: NDArray[Any]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        for code, counter in enumerate(self._counters):
            under_it = self._gallery_codes[items] == code
            counter.read(queries, items[under_it], scores[:, under_it])

    def result(self) -> CameraPairs:
        """The pairs, when all has been read."""
        shape = len(self._query_cameras), len(self._gallery_cameras)
        num_queries = np.zeros(shape, np.int64)
        mean_average_precision, rank1 = np.full(shape, np.nan), np.full(shape, np.nan)
        for column, counter in enumerate(self._counters):
            matches = counter.result()
            average_precisions, first_is_right = matches.average_precisions, matches.first_match_ranks == 1
            for row in range(len(self._query_cameras)):
                chosen = matches.valid & (self._query_codes == row)
                num_queries[row, column] = chosen.sum()
                if chosen.any():
                    mean_average_precision[row, column] = average_precisions[chosen].mean()
                    rank1[row, column] = first_is_right[chosen].mean()
        return CameraPairs(
            self._query_cameras, self._gallery_cameras, num_queries, mean_average_precision, rank1
        )


def camera_pairs(comparison: Comparison) -> CameraPairs:
    """:class:`CameraPairs`, in one pass over the gallery; raises as :class:`CameraPairCounter` does."""
    counter = CameraPairCounter(comparison)
    comparison.read_negatives(counter)
    return counter.result()


def confusions(comparison: Comparison, matches: MatchRanks, nearest: Indices) -> list[Confusion]:
    """Which identity is taken for which at rank 1, the most frequent first, then in the order of the queries.

    ``matches`` says which queries have their first match later than rank 1, and ``nearest`` (Q,) holds the
    gallery row of every query's nearest negative (:class:`reidkit.evaluation.nearest.NearestNegatives`).
    """
    wrong = np.flatnonzero(matches.first_match_ranks > 1)
    asked = comparison.query_features.identities[wrong].tolist()
    found = comparison.gallery_features.identities[nearest[wrong]].tolist()
    counts = Counter(zip(asked, found, strict=True))
    return [Confusion(identity, other, num) for (identity, other), num in counts.most_common()]


def choose_queries(average_precisions: NDArray[np.float64], num: int) -> dict[str, Indices]:
    """Rows of valid queries to show: the "worst" (half), some at "random" and the "best" (a quarter each).

    Args:
        average_precisions: (Q,), NaN where a query is not valid.
        num: how many in all; fewer come where fewer are valid. No row comes twice.
    """
    valid = np.flatnonzero(np.isfinite(average_precisions))
    order = valid[np.argsort(average_precisions[valid], kind="stable")]
    num_worst, num_best = num - num // 2, num // 4
    worst, others = order[:num_worst], order[num_worst:]
    num_middle = max(len(others) - num_best, 0)
    middle, best = others[:num_middle], others[num_middle:]
    num_random = min(num - num_worst - num_best, len(middle))
    places = np.random.default_rng(_RANDOM_SEED).choice(len(middle), num_random, replace=False)
    return {"worst": worst, "random": middle[np.sort(places)], "best": best[::-1]}


def choose_identities(query: Features, gallery: Features, *, num: int, max_rows: int) -> Indices:
    """Gallery rows of the ``num`` identities asked for that have most gallery images.

    An identity with more than ``max_rows / num`` images gives that many, evenly spaced. Identities that no
    query asks for are not chosen: junk, distractors.
    """
    asked, shown = shared_codes(query.identities, gallery.identities, "identities")
    labels, counts = np.unique(shown[np.isin(shown, asked[asked != JUNK])], return_counts=True)
    chosen = labels[np.argsort(-counts, kind="stable")[:num]]
    parts = [np.empty(0, np.intp)]
    for label in chosen:
        rows = np.flatnonzero(shown == label)
        num_kept = min(len(rows), max_rows // num)
        parts.append(rows[np.arange(num_kept) * len(rows) // num_kept])
    return np.concatenate(parts)


def _cameras(labels: NDArray[Any], codes: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Labels (A,) of the cameras of one side, and the place of each row's in them; -1 where it is missing."""
    known = np.unique(codes[codes >= 0])
    first = np.array([np.flatnonzero(codes == code)[0] for code in known], np.intp)
    place = np.where(codes >= 0, np.searchsorted(known, codes), -1)
    return labels[first], place
