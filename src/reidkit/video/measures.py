"""How right tracks and identities are: IDF1 and HOTA, within cameras and across them.

Counted by ``trackers.eval``, which follows TrackEval. IDF1: Ristani et al., ECCV workshops 2016; HOTA: Luiten
et al., IJCV 2021. Across cameras all pictures of all cameras are one sequence (Ristani et al., section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra
from reidkit.video.boxes import NO_TRACK, Boxes


@dataclass(frozen=True, slots=True)
class TrackScores:
    """Scores from 0 to 1: of identities (``idf1``, its precision ``idp`` and recall ``idr``); ``hota``, its
    part of detection ``deta`` and of association ``assa``."""

    idf1: float
    idp: float
    idr: float
    hota: float
    deta: float
    assa: float


def track_scores(truth: Sequence[Boxes], found: Sequence[Boxes], *, across: bool) -> TrackScores:
    """Compare boxes with tracks to the true ones.

    Args:
        truth, found: the boxes of each camera, whose ``tracks`` name the person; boxes of no track are left
            out.
        across: whether a number means the same person under every camera; otherwise only within one.

    Raises:
        DataError: another number of cameras on one side.
        MissingExtra: ``trackers`` is not installed.
    """
    try:
        from trackers.eval import box_iou, compute_hota_metrics, compute_identity_metrics
    except ImportError:
        raise MissingExtra("trackers", extra="video", needed_for="measuring tracks") from None
    if len(truth) != len(found):
        raise DataError(f"{len(truth)} cameras of truth, but {len(found)} with tracks; give as many")
    true_ids, found_ids, overlaps = [], [], []
    for true_boxes, found_boxes in zip(truth, found, strict=True):
        sides = [_by_frame(boxes) for boxes in (true_boxes, found_boxes)]
        for frame in sorted(sides[0].keys() | sides[1].keys()):
            true_rows, found_rows = (side.get(frame, np.empty(0, np.intp)) for side in sides)
            true_ids.append(true_boxes.tracks[true_rows])
            found_ids.append(found_boxes.tracks[found_rows])
            overlaps.append(box_iou(true_boxes.corners[true_rows], found_boxes.corners[found_rows]))
    lengths = [len(_by_frame(t).keys() | _by_frame(f).keys()) for t, f in zip(truth, found, strict=True)]
    cameras = np.repeat(np.arange(len(lengths)), lengths)
    arguments = (_codes(true_ids, cameras, across), _codes(found_ids, cameras, across), overlaps)
    identity, hota = compute_identity_metrics(*arguments), compute_hota_metrics(*arguments)
    return TrackScores(
        *(float(identity[name]) for name in ("IDF1", "IDP", "IDR")),
        *(float(hota[name]) for name in ("HOTA", "DetA", "AssA")),
    )


def _by_frame(boxes: Boxes) -> dict[int, NDArray[np.intp]]:
    """Places of the boxes that have a track, by frame."""
    kept = ((frame, rows[boxes.tracks[rows] != NO_TRACK]) for frame, rows in boxes.by_frame())
    return {frame: rows for frame, rows in kept if len(rows)}


def _codes(
    ids: Sequence[NDArray[np.int64]], cameras: NDArray[np.intp], across: bool
) -> list[NDArray[np.int64]]:
    """Ids counted from 0; those of different cameras are different unless they mean the same ``across``."""
    codes: dict[tuple[int, int], int] = {}
    return [
        np.array([codes.setdefault((0 if across else camera, one), len(codes)) for one in frame], np.int64)
        for frame, camera in zip((ids.tolist() for ids in ids), cameras.tolist(), strict=True)
    ]
