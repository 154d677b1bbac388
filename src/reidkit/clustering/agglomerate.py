"""Average linkage on a sparse graph, in which units that are known to be two people never meet.

The nearness of two clusters is the mean over all pairs of their items; pairs that are not stored count 0. The
nearest two are united first, equal ones in their order, as long as they are near enough. Two that must not be
united stay apart, and so does whatever they grow into.
"""

from __future__ import annotations

import heapq
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from reidkit.clustering.constraints import UNKNOWN, Units


def agglomerate(sums: csr_array, units: Units, *, least: float) -> NDArray[np.int64]:
    """Clusters (U,) of units, by the number of one of the units in each.

    Args:
        sums: (U, U), symmetric, without the diagonal: sums of nearness over the pairs of items of two units.
        units: what is known of them.
        least: mean nearness from which on two clusters are united; above 0.
    """
    sizes = units.sizes
    mean = sums.copy()
    first = np.repeat(np.arange(len(sizes)), np.diff(sums.indptr))
    mean.data = sums.data / (sizes[first] * sizes[sums.indices])
    # A mean reaches what one of its pairs does: clusters lie within the components of such pairs.
    mean.data = (mean.data >= least).astype(np.int8)
    mean.eliminate_zeros()
    component = connected_components(mean, directed=False)[1]
    clusters = np.arange(len(sizes))
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    for start, stop in pairwise([*starts.tolist(), len(order)]):
        if stop - start > 1:
            members = order[start:stop]
            clusters[members] = members[_Linkage(sums, units, members).united(least)]
    return clusters


class _Linkage:
    """The clusters of some units, by their places among these, while they are united."""

    def __init__(self, sums: csr_array, units: Units, members: NDArray[np.int64]) -> None:
        among = units.among(members)
        part = sums[members][:, members].tocsr()
        self._sums: list[dict[int, float]] = [
            dict(zip(part.indices[a:b].tolist(), part.data[a:b].tolist(), strict=True))
            for a, b in pairwise(part.indptr.tolist())
        ]
        self._sizes = among.sizes.tolist()
        self._identities = among.identities.tolist()
        self._apart = among.apart
        self._cluster = list(range(len(members)))

    def united(self, least: float) -> NDArray[np.int64]:
        """The cluster (M,) of each unit once none is near enough to another any more."""
        heap = [
            entry for one in range(len(self._sums)) for entry in self._entries(one, least) if entry[1] == one
        ]
        heapq.heapify(heap)
        while heap:
            nearness, one, other = heapq.heappop(heap)
            # Entries of clusters that have grown or gone since are not up to date.
            if other in self._sums[one] and -nearness == self._mean(one, other) and self._may(one, other):
                kept = self._unite(one, other)
                for entry in self._entries(kept, least):
                    heapq.heappush(heap, entry)
        return np.array([self._root(place) for place in range(len(self._cluster))], np.int64)

    def _mean(self, one: int, other: int) -> float:
        # Always read on one side: rounding may tell the two sides of a sum apart.
        total = self._sums[min(one, other)][max(one, other)]
        num_pairs: int = self._sizes[one] * self._sizes[other]
        return total / num_pairs

    def _entries(self, one: int, least: float) -> list[tuple[float, int, int]]:
        """Of a cluster with each near enough to it, for the heap."""
        means = ((self._mean(one, other), other) for other in self._sums[one])
        return [(-mean, min(one, other), max(one, other)) for mean, other in means if mean >= least]

    def _may(self, one: int, other: int) -> bool:
        names = self._identities[one], self._identities[other]
        return other not in self._apart[one] and (UNKNOWN in names or names[0] == names[1])

    def _unite(self, one: int, other: int) -> int:
        """Make two clusters one: that which has more neighbours, since its sums stay in place."""
        if len(self._sums[one]) < len(self._sums[other]):
            one, other = other, one
        del self._sums[one][other], self._sums[other][one]
        for third, total in self._sums[other].items():
            del self._sums[third][other]
            self._sums[one][third] = self._sums[third][one] = self._sums[one].get(third, 0.0) + total
        self._sums[other] = {}
        for third in self._apart[other]:
            self._apart[third].add(one)
        self._apart[one] |= self._apart[other]
        self._sizes[one] += self._sizes[other]
        self._identities[one] = max(self._identities[one], self._identities[other])
        self._cluster[other] = one
        return one

    def _root(self, place: int) -> int:
        while self._cluster[place] != place:
            place = self._cluster[place]
        return place
