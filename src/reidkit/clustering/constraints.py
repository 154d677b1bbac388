"""What is known before clustering: who is one person, and who is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from reidkit.errors import DataError

UNKNOWN = -1


@dataclass(frozen=True, slots=True, eq=False)
class Constraints:
    """What clusters have to hold, of N items.

    Args:
        must_link: (N,) integers; items of one number are one person, such as those of one tracklet. A
            negative number says nothing.
        identities: (N,) integers; items of one number are one person, and of two numbers two people. A
            negative number says nothing.
        cannot_link: (M, 2) places of items that show two people.
    """

    must_link: ArrayLike | None = None
    identities: ArrayLike | None = None
    cannot_link: ArrayLike | None = None

    def units(self, num: int) -> Units:
        """Items that must be together, as one; :class:`DataError` where that contradicts the rest."""
        ties = [_codes(codes, num) for codes in (self.must_link, self.identities)]
        unit_of = _united(ties, num)
        identities = _of_units(ties[1], unit_of)
        pairs = np.asarray([] if self.cannot_link is None else self.cannot_link, np.int64).reshape(-1, 2)
        if len(pairs) and not (pairs.min() >= 0 and pairs.max() < num):
            raise DataError(f"cannot_link names items outside of 0 to {num - 1}")
        apart: list[set[int]] = [set() for _ in identities]
        for one, other in unit_of[pairs].tolist():
            if one == other:
                raise DataError(
                    "two items are told apart that must be together, by a tracklet, an identity or both; "
                    "leave out what is wrong"
                )
            apart[one].add(other)
            apart[other].add(one)
        return Units(unit_of, identities, apart)


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Items (N,) by their units, and of each unit (U,) the identity and the units that it is not."""

    unit_of: NDArray[np.int64]
    identities: NDArray[np.int64]
    apart: list[set[int]]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Items of each unit (U,)."""
        return np.bincount(self.unit_of, minlength=len(self.identities))

    def among(self, units: NDArray[np.int64]) -> Units:
        """Only these units, (K,) ascending, by their places among them."""
        place_of = {unit: place for place, unit in enumerate(units.tolist())}
        apart = [{place_of[o] for o in self.apart[unit] if o in place_of} for unit in place_of]
        places = np.flatnonzero(np.isin(self.unit_of, units))
        unit_of = np.searchsorted(units, self.unit_of[places])
        return Units(unit_of, self.identities[units], apart)

    def conflict(self, units: NDArray[np.int64]) -> bool:
        """Whether some of these units must not be together."""
        known = self.identities[units]
        if len(np.unique(known[known != UNKNOWN])) > 1:
            return True
        among = set(units.tolist())
        return any(self.apart[unit] & among for unit in among)


def _codes(values: ArrayLike | None, num: int) -> NDArray[np.int64]:
    """Numbers (N,) from 0 on; -1 where nothing is said."""
    if values is None:
        return np.full(num, UNKNOWN, np.int64)
    given = np.asarray(values)
    if given.shape != (num,) or given.dtype.kind not in "iu":
        raise DataError(f"expected {num} integers, one an item, not {given.dtype} of shape {given.shape}")
    codes = np.full(num, UNKNOWN, np.int64)
    said = given >= 0
    codes[said] = np.unique(given[said], return_inverse=True)[1]
    return codes


def _united(ties: list[NDArray[np.int64]], num: int) -> NDArray[np.int64]:
    """Units (N,) of items that share a number, directly or by others; numbered by their first items."""
    rows, columns, start = [], [], num
    for codes in ties:
        tied = np.flatnonzero(codes != UNKNOWN)
        rows.append(tied)
        columns.append(start + codes[tied])
        start += int(codes.max(initial=UNKNOWN)) + 1
    ones = np.ones(sum(map(len, rows)), np.int8)
    graph = csr_array((ones, (np.concatenate(rows), np.concatenate(columns))), shape=(start, start))
    labels = connected_components(graph, directed=False)[1][:num]
    return numbered(labels)


def _of_units(identities: NDArray[np.int64], unit_of: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.full(int(unit_of.max(initial=-1)) + 1, UNKNOWN, np.int64)
    known = identities != UNKNOWN
    found[unit_of[known]] = identities[known]
    if np.any(found[unit_of[known]] != identities[known]):
        raise DataError(
            "items that must be together have two identities; leave the tracklet out in which that is so"
        )
    return found


def numbered(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The same groups (N,), numbered from 0 in the order of their first items."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
