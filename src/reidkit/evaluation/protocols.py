"""The protocols of the field, and the names of their options.

*Which pairs a protocol keeps.* Gallery items with identity -1 (integers) or "-1" (strings) leave every list,
and queries so marked have no match. The camera filter says which others leave: ``"same_identity"`` the items
of the query's identity under the query's camera (Market-1501's rule), ``"other_cameras"`` every item under
the query's camera, ``"none"`` no item. An item never meets itself. A query that has gallery rows of its own
meets no other items.
"""

from __future__ import annotations

from reidkit.errors import UnknownName

PROTOCOLS = {
    "market1501": "same_identity",
    "single_gallery_shot": "other_cameras",
    "recall": "none",
    "tracklets": "same_identity",
}
"""Protocols, each with its usual camera filter."""

CAMERA_FILTERS = ("same_identity", "other_cameras", "none")
DISTANCES = ("cosine", "l1")
AVERAGE_PRECISIONS = ("step", "trapezoid")


def check_choice(kind: str, name: str, known: tuple[str, ...]) -> None:
    """Raise :class:`UnknownName` where ``name`` is none of ``known``."""
    if name not in known:
        raise UnknownName(kind, name, known)
