"""Queries set against a gallery: which pairs a protocol keeps, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import check_one_encoder
from reidkit.errors import DataError
from reidkit.evaluation.protocols import CAMERA_FILTERS, DISTANCES, check_choice
from reidkit.evaluation.row_labels import shared_codes
from reidkit.evaluation.same_picture import pairs_of, picture_codes
from reidkit.evaluation.unit_rows import GRID, Indices, UnitRows, cut
from reidkit.types import JUNK, Features

_BLOCK_BYTES = 64 * 2**20
_QUERIES_PER_TILE = 512
_WORTH_CENTRING = 0.1  # squared length of the mean: below, scores would come no closer together


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Queries and gallery items that share an identity or are one picture, by query, best score first.

    Ties come by gallery order.

    All arrays (M,): ``queries`` and ``items`` are rows of the two splits, ``scores`` are exact,
    ``positive`` is false for pairs that the protocol leaves out, those of one picture among them.
    """

    queries: Indices
    items: Indices
    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Those pairs where ``chosen`` (M,) is true."""
        return Pairs(self.queries[chosen], self.items[chosen], self.scores[chosen], self.positive[chosen])


class TileReader(Protocol):
    """A counter that reads the scores one tile at a time."""

    def read(self, queries: Indices, items: Indices, scores: NDArray[np.float64], /) -> None:
        """Read the scores (m, n) of these rows of both sides; pairs that do not count score -inf.

        The scores are overwritten afterwards. Gallery rows ascend, also from one tile of a query to the next.
        """


@dataclass(frozen=True, slots=True, eq=False)
class FirstLook:
    """Centred embeddings, whose float32 scores distinguish items that lie close together.

    Where embeddings have collapsed, all scores are nearly equal, and float32 spends its digits on what they
    have in common. With q = c + q' and g = c + g' about a centre c, q.g = q.c + q'.g' + g'.c: the first term
    is the same for all items of a query and is left out; the closer the embeddings, the smaller the others.

    Attributes:
        centre: c (D,).
        query_products: q.c (Q,), the term left out.
        item_products: g'.c (G,).
        error: how far a float32 score may be from the exact one less q.c, including the rounding of bounds.
    """

    centre: NDArray[np.float64]
    query_products: NDArray[np.float64]
    item_products: NDArray[np.float64]
    error: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Queries (Q) against gallery items (G). Labels are codes that both share; JUNK stays JUNK.

    ``query_features`` and ``gallery_features`` hold the labels as they were written; without a gallery both
    are the same. A missing camera is -1 among the queries' and -2 among the gallery's: it is no other row's
    camera. Rows with equal numbers in ``query_pictures`` and ``gallery_pictures`` show the same picture.
    ``listed`` (Q, G): the items in each query's own gallery, if queries have one.
    """

    query: UnitRows
    gallery: UnitRows
    query_identities: NDArray[np.int64]
    gallery_identities: NDArray[np.int64]
    query_cameras: NDArray[np.int64]
    gallery_cameras: NDArray[np.int64]
    camera_filter: str
    distance: str
    query_pictures: NDArray[np.int64]
    gallery_pictures: NDArray[np.int64]
    query_features: Features
    gallery_features: Features
    listed: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def is_one_set(self) -> bool:
        """Whether there is no gallery: every item queries all others."""
        return self.query is self.gallery

    @property
    def identified_queries(self) -> Indices:
        """Queries that ask for an identity: all but those with identity -1."""
        return np.flatnonzero(self.query_identities != JUNK)

    @cached_property
    def first_look(self) -> FirstLook:
        """Centred embeddings for float32 scores, and the error bound of these.

        Summing D terms to at most R errs by sqrt(D) roundings of at most R 2^-25 each, R 2^-25/sqrt(3) in the
        mean square: seven of those standard deviations are allowed. R is the largest length of a q' times
        that of a g', by Cauchy-Schwarz. A fixed 1e-6 would not do: products of features without negative
        values were seen to be 1.4e-6 off at D = 512 (MKL), 7e-7 with OpenBLAS.
        """
        centre = self.gallery.sample_mean()
        if centre @ centre < _WORTH_CENTRING:
            centre = np.zeros_like(centre)
        squared_length, num_dimensions = centre @ centre, self.query.num_dimensions
        query_products, item_products = self.query.products(centre), self.gallery.products(centre)
        # |g'|^2 = |g|^2 - 2 g.c + |c|^2, and the grid may make |g| longer than 1 by sqrt(D) / 2 of its steps.
        radii = [
            np.sqrt(max(1 + squared_length - 2 * products.min(), 0)) + np.sqrt(num_dimensions) / GRID
            for products in (query_products, item_products)
        ]
        item_products -= squared_length
        error = max(2e-6, 2.0 * np.sqrt(num_dimensions) * 2.0**-24) * radii[0] * radii[1]
        error += 2.0**-22 * np.abs(item_products).max()
        return FirstLook(centre, query_products, item_products, float(error))

    def meets(self, queries: Indices, items: Indices) -> NDArray[np.bool_]:
        """Whether an item is in its query's gallery at all, before any filter; rows of both, broadcast."""
        met: NDArray[np.bool_] = self.query_pictures[queries] != self.gallery_pictures[items]
        if self.listed is not None:
            met &= self.listed[queries, items]
        return met

    def keeps(self, queries: Indices, items: Indices) -> NDArray[np.bool_]:
        """Whether the protocol leaves an item in its query's list; rows of both, broadcast."""
        return self.meets(queries, items) & ~self.hides(queries, items)

    def hides(self, queries: Indices, items: Indices) -> NDArray[np.bool_]:
        """Whether the camera filter takes an item out of its query's list; rows of both, broadcast."""
        if self.camera_filter == "none":
            return np.zeros(np.broadcast_shapes(queries.shape, items.shape), np.bool_)
        hidden: NDArray[np.bool_] = self.query_cameras[queries] == self.gallery_cameras[items]
        if self.camera_filter == "same_identity":
            hidden &= self.query_identities[queries] == self.gallery_identities[items]
        return hidden

    @cached_property
    def same_identity_pairs(self) -> Pairs:
        """Every pair of one identity, positive or left out, scored exactly, an identity at a time.

        A picture that stands under two identities is left out of its own list too.
        """
        parts = [
            self._identity_pairs(queries, items)
            for queries, items in _shared_groups(self.query_identities, self.gallery_identities)
        ]
        parts.append(self._twice_named_pictures())
        queries = np.concatenate([part.queries for part in parts])
        items = np.concatenate([part.items for part in parts])
        scores = np.concatenate([part.scores for part in parts])
        positive = np.concatenate([part.positive for part in parts])
        order = np.lexsort((items, -scores, queries))
        return Pairs(queries[order], items[order], scores[order], positive[order])

    def exact_scores(self, queries: Indices, items: Indices) -> NDArray[np.float64]:
        """Scores (M,) of the pairs (queries[m], items[m])."""
        scores = np.empty(len(queries))
        for part in cut(np.arange(len(queries)), max(1, 2**20 // max(1, self.query.num_dimensions))):
            left, right = self.query.take(queries[part]), self.gallery.take(items[part])
            if self.distance == "cosine":
                scores[part] = np.einsum("nd,nd->n", left, right)
            else:
                scores[part] = -np.abs(left - right).sum(axis=1)
        return scores

    def read_negatives(self, *readers: TileReader) -> None:
        """Score every negative pair once, exactly, and show the scores to all readers.

        What is left out, and every pair of one identity, scores -inf.
        """
        for tile in self.tiles(self.identified_queries, self.same_identity_pairs, exact=True):
            for reader in readers:
                reader.read(*tile)

    def tiles(
        self,
        queries: Indices,
        hidden: Pairs,
        *,
        items: Indices | None = None,
        block_size: int | None = None,
        exact: bool = False,
    ) -> Iterator[tuple[Indices, Indices, NDArray[Any]]]:
        """Pairs of ``queries`` and ``items`` (both ascending), a tile at a time, gallery blocks outermost.

        Yields query rows (m,), gallery rows (n,) ascending and scores (m, n), float64 where ``exact``, else
        float32 as :class:`FirstLook` says; left-out pairs and ``hidden`` ones score -inf. The next tile
        overwrites the scores.
        Without ``items`` all are taken but junk. ``block_size`` is the n of a tile; by default that of
        about 64 MB.
        """
        if not len(queries):
            return
        dtype: type[np.floating[Any]] = np.float64 if exact else np.float32
        bytes_per_item = (_QUERIES_PER_TILE + self.query.num_dimensions) * np.dtype(dtype).itemsize
        origin = None if exact else self.first_look.centre
        block_size = block_size or max(1, _BLOCK_BYTES // bytes_per_item)
        candidates = np.flatnonzero(self.gallery_identities != JUNK) if items is None else items
        buffer = np.empty(min(_QUERIES_PER_TILE, len(queries)) * min(block_size, len(candidates)), dtype)
        for block in cut(candidates, block_size):
            unit_items = self.gallery.take(block, dtype, origin=origin)
            for rows in cut(queries, _QUERIES_PER_TILE):
                scores = buffer[: len(rows) * len(block)].reshape(len(rows), len(block))
                _score(self.query.take(rows, dtype, origin=origin), unit_items, self.distance, out=scores)
                if not exact:
                    scores += self.first_look.item_products[block].astype(np.float32)
                self._hide(scores, rows, block, hidden)
                yield rows, block, scores

    def _identity_pairs(self, queries: Indices, items: Indices) -> Pairs:
        unit_queries, unit_items = self.query.take(queries), self.gallery.take(items)
        scores = np.empty((len(queries), len(items)))
        _score(unit_queries, unit_items, self.distance, out=scores)
        positive = self.keeps(queries[:, None], items)
        return Pairs(
            np.repeat(queries, len(items)), np.tile(items, len(queries)), scores.ravel(), positive.ravel()
        )

    def _twice_named_pictures(self) -> Pairs:
        queries, items = pairs_of(self.query_pictures, self.gallery_pictures)
        odd = self.query_identities[queries] != self.gallery_identities[items]
        odd &= self.gallery_identities[items] != JUNK
        queries, items = queries[odd], items[odd]
        return Pairs(queries, items, self.exact_scores(queries, items), np.zeros(len(queries), np.bool_))

    def _hide(self, scores: NDArray[Any], rows: Indices, items: Indices, hidden: Pairs) -> None:
        if self.camera_filter == "other_cameras":
            scores[self.query_cameras[rows, None] == self.gallery_cameras[items]] = -np.inf
        if self.listed is not None:
            scores[~self.listed[rows[:, None], items]] = -np.inf
        start, end = np.searchsorted(hidden.queries, [rows[0], rows[-1] + 1])
        hidden_queries, hidden_items = hidden.queries[start:end], hidden.items[start:end]
        row = np.minimum(np.searchsorted(rows, hidden_queries), len(rows) - 1)
        column = np.minimum(np.searchsorted(items, hidden_items), len(items) - 1)
        inside = (rows[row] == hidden_queries) & (items[column] == hidden_items)
        scores[row[inside], column[inside]] = -np.inf


def compare(
    query: Features,
    gallery: Features | None = None,
    *,
    camera_filter: str = "same_identity",
    distance: str = "cosine",
    gallery_rows: Sequence[Sequence[int]] | None = None,
) -> Comparison:
    """Check both sides and set them against each other; without a gallery every item meets all others.

    ``gallery_rows`` gives each query the items it meets; all where left out.

    Raises :class:`DataError` for an empty side, different dimensions, values that are not finite, labels
    that are neither integers nor strings, gallery rows that do not fit; :class:`UnknownName` for an unknown
    option.
    """
    check_choice("camera filter", camera_filter, CAMERA_FILTERS)
    check_choice("distance", distance, DISTANCES)
    items = query if gallery is None else gallery
    if query.embeddings.shape[1] != items.embeddings.shape[1]:
        raise DataError(
            f"query embeddings have {query.embeddings.shape[1]} dimensions, gallery embeddings "
            f"{items.embeddings.shape[1]}; encode both with the same model"
        )
    check_one_encoder(query.embeddings, items.embeddings)
    unit_queries = UnitRows(query.embeddings, "query")
    unit_items = unit_queries if gallery is None else UnitRows(items.embeddings, "gallery")
    query_identities, gallery_identities = shared_codes(query.identities, items.identities, "identities")
    notes = list(unit_queries.notes if gallery is None else unit_queries.notes + unit_items.notes)
    query_cameras, gallery_cameras = np.zeros(len(query), np.int64), np.zeros(len(items), np.int64)
    if query.cameras is not None and items.cameras is not None:
        query_cameras, gallery_cameras = shared_codes(query.cameras, items.cameras, "cameras")
        notes += _missing_camera_notes(query_cameras, gallery_cameras, is_one_set=gallery is None)
    elif camera_filter != "none":
        side = "query" if query.cameras is None else "gallery"
        notes.append(f"no camera labels ({side}): camera filter none is used instead of {camera_filter}")
        camera_filter = "none"
    num_junk = int((gallery_identities == JUNK).sum())
    if num_junk:
        notes.append(f"{num_junk} of {len(items)} gallery items have identity -1 (junk) and leave every list")
    comparison = Comparison(
        unit_queries,
        unit_items,
        query_identities,
        gallery_identities,
        query_cameras,
        gallery_cameras,
        camera_filter,
        distance,
        *picture_codes(query, gallery),
        query,
        items,
        listed=None if gallery_rows is None else _listed(gallery_rows, len(query), len(items)),
    )
    notes += _own_picture_notes(comparison)
    return replace(comparison, notes=tuple(notes))


def _missing_camera_notes(
    query_cameras: NDArray[np.int64], gallery_cameras: NDArray[np.int64], *, is_one_set: bool
) -> list[str]:
    sides = [("query", query_cameras), ("gallery", gallery_cameras)][: 1 if is_one_set else 2]
    return [
        f"{(cameras < 0).sum()} of {len(cameras)} {side} rows have no camera: they count as under another "
        "camera than every other row"
        for side, cameras in sides
        if (cameras < 0).any()
    ]


def _own_picture_notes(comparison: Comparison) -> list[str]:
    """How many pairs are left out because they are one picture, and for no other reason."""
    queries, items = pairs_of(comparison.query_pictures, comparison.gallery_pictures)
    kept = ~comparison.hides(queries, items) & (comparison.gallery_identities[items] != JUNK)
    kept &= comparison.query_identities[queries] != JUNK
    if comparison.listed is not None:
        kept &= comparison.listed[queries, items]
    if comparison.is_one_set:  # where a row is not expected to meet itself
        kept &= queries != items
    if not kept.any():
        return []
    num_queries = len(np.unique(queries[kept]))
    return [
        f"{num_queries} of {len(comparison.query)} queries have the very same picture in the gallery, "
        f"which is no match of itself: {kept.sum()} such pairs are left out"
    ]


def _listed(gallery_rows: Sequence[Sequence[int]], num_queries: int, num_items: int) -> NDArray[np.bool_]:
    """Which gallery items (Q, G) each query meets."""
    if len(gallery_rows) != num_queries:
        raise DataError(
            f"there are {len(gallery_rows)} galleries for {num_queries} queries; give each its own"
        )
    listed = np.zeros((num_queries, num_items), np.bool_)
    for query, items in enumerate(gallery_rows):
        rows = np.asarray(items, dtype=np.intp)
        if len(rows) and not 0 <= rows.min() <= rows.max() < num_items:
            raise DataError(
                f"the gallery of query {query} holds rows {rows.min()} to {rows.max()}; "
                f"the gallery has rows 0 to {num_items - 1}"
            )
        listed[query, rows] = True
    return listed


def _score(
    queries: NDArray[Any], items: NDArray[Any], distance: str, *, out: NDArray[np.floating[Any]]
) -> None:
    """Scores (m, n) of unit rows (m, D) and (n, D) into ``out``: the higher, the nearer."""
    if distance == "cosine":
        # NumPy's product, not torch's: autocast and torch's matmul precision, both process-wide settings
        # that training code changes, would lower the precision of a torch product unseen.
        np.matmul(queries, items.T, out=out)
    else:
        import torch

        out[...] = torch.cdist(torch.from_numpy(queries), torch.from_numpy(items), p=1.0).numpy()
        np.negative(out, out=out)


def _shared_groups(
    query_labels: NDArray[np.int64], gallery_labels: NDArray[np.int64]
) -> Iterator[tuple[Indices, Indices]]:
    """For each label but JUNK that both sides hold: its query rows and its gallery rows, ascending."""
    query_order = np.argsort(query_labels, kind="stable")
    gallery_order = np.argsort(gallery_labels, kind="stable")
    shared = np.intersect1d(query_labels, gallery_labels)
    shared = shared[shared != JUNK]
    query_ends = np.searchsorted(query_labels[query_order], [shared, shared + 1])
    gallery_ends = np.searchsorted(gallery_labels[gallery_order], [shared, shared + 1])
    for query_start, query_end, gallery_start, gallery_end in zip(*query_ends, *gallery_ends, strict=True):
        yield query_order[query_start:query_end], gallery_order[gallery_start:gallery_end]
