"""How well clusters agree with the truth: pairs, entropy, and how many people there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array

from reidkit.errors import DataError


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of clusters with the truth, as fractions.

    Attributes:
        precision: of the pairs of items in one cluster, those that show one person.
        recall: of the pairs that show one person, those in one cluster.
        v_measure: harmonic mean of homogeneity and completeness (Rosenberg and Hirschberg, EMNLP 2007).
        num_clusters, num_people: how many there are, and should be.
    """

    precision: float
    recall: float
    v_measure: float
    num_clusters: int
    num_people: int

    @property
    def pairwise_f1(self) -> float:
        """Harmonic mean of the pairs' precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    def __str__(self) -> str:
        return (
            f"pairwise F1 {100 * self.pairwise_f1:.1f} (precision {100 * self.precision:.1f}, recall "
            f"{100 * self.recall:.1f}), V-measure {100 * self.v_measure:.1f}, {self.num_clusters:,} clusters "
            f"of {self.num_people:,} people"
        )


def agreement(people: ArrayLike, clusters: ArrayLike) -> Agreement:
    """How clusters (N,) agree with the people (N,) that items show; both any labels.

    Raises :class:`DataError` where they are not of one length, or empty.

    >>> print(agreement(["a", "a", "b", "b"], [0, 0, 0, 1]))
    pairwise F1 40.0 (precision 33.3, recall 50.0), V-measure 34.4, 2 clusters of 2 people
    """
    truth, found = np.asarray(people), np.asarray(clusters)
    if truth.ndim != 1 or truth.shape != found.shape or not len(truth):
        raise DataError(
            f"people have shape {truth.shape}, clusters {found.shape}; expected one label of each an item"
        )
    rows, columns = (np.unique(labels, return_inverse=True)[1] for labels in (truth, found))
    table = coo_array((np.ones(len(rows)), (rows, columns)))
    table.sum_duplicates()
    of_people, of_clusters = np.bincount(rows), np.bincount(columns)
    together, same, right = (_pairs(counts) for counts in (of_clusters, of_people, table.data))
    homogeneity = _explained(of_people, table.data / of_clusters[table.col], table.data)
    completeness = _explained(of_clusters, table.data / of_people[table.row], table.data)
    total = homogeneity + completeness
    return Agreement(
        precision=right / together if together else 1.0,
        recall=right / same if same else 1.0,
        v_measure=2 * homogeneity * completeness / total if total else 0.0,
        num_clusters=len(of_clusters),
        num_people=len(of_people),
    )


def _pairs(counts: NDArray[np.number]) -> float:
    return float((counts * (counts - 1.0) / 2).sum())


def _explained(counts: NDArray[np.int64], shares: NDArray[np.float64], num: NDArray[np.float64]) -> float:
    """1 - H(labels | others) / H(labels), 1 where there is one label only."""
    of_labels = counts / counts.sum()
    entropy = -float((of_labels * np.log(of_labels)).sum())
    left = -float((num / counts.sum() * np.log(shares)).sum())
    return 1 - left / entropy if entropy > 0 else 1.0
