"""MARS: tracklets (Zheng et al., ECCV 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.datasets._layouts import check_option, find_tree, unlisted_files
from reidkit.datasets._matlab import load_variable, understood
from reidkit.errors import DataError
from reidkit.registry import register
from reidkit.texts.foreign import read_text
from reidkit.types import JUNK, Dataset, Sample

Tracks = NDArray[np.int64]
"""(T, 4): start, end (1-based, inclusive, into the list of names), identity, camera."""

NAME = re.compile(r"(?P<identity>\d{4}|00-1)C(?P<camera>\d)T(?P<tracklet>\d+)F(?P<frame>\d+)\.jpg")
INFO = ("train_name.txt", "test_name.txt", "tracks_train_info.mat", "tracks_test_info.mat", "query_IDX.mat")
PUBLISHED_TRAIN = {"images": 509_914, "identities": 625, "tracklets": 8_298}
PUBLISHED_QUERY = {"identities": 626, "tracklets": 1_980}
PUBLISHED_GALLERY = {
    "all": {"images": 681_089, "identities": 626, "tracklets": 12_180},
    "without_queries": {"tracklets": 9_330},
}


@register("dataset", "mars")
def mars(root: Path, *, gallery: str = "all") -> Dataset:
    """MARS: Market-1501's persons as tracklets, found by a detector and a tracker under six cameras.

    Zheng, Bie, Sun, Wang, Su, Wang, Tian, "MARS: A Video Benchmark for Large-Scale Person
    Re-identification", ECCV 2016.

    ============== ========= ==================================================
    part           tracklets of which
    ============== ========= ==================================================
    train           8,298    625 identities (509,914 images)
    query           1,980    626 others, from the set's own list
    gallery, all   12,180    all test tracklets: 870 junk (-1), 3,248 distractors
                             (0), the queries themselves (681,089 images)
    ============== ========= ==================================================

    Read from the set's own lists in ``info``; images are ``bbox_train/0001/0001C1T0001F001.jpg``:
    identity, camera, tracklet, frame. ``Sample.tracklet`` is the row in the table of the part, counted from
    1; a query has the number it has in the gallery.

    Args:
        root: the folder with bbox_train, bbox_test and info, or one that holds it.
        gallery: "all", as the authors' code has it: a query leaves its own list as an item of its own
            camera, and all queries are valid. "without_queries" takes out the query tracklets and junk,
            as Torchreid does: 9,330 tracklets are left and 1,840 queries are valid.

    Raises:
        DataError: folders or lists are missing or damaged, the tables do not fit the names, a listed image
            is not there.
        ConfigError: unknown gallery.
    """
    check_option("gallery", gallery, tuple(PUBLISHED_GALLERY))
    tree = find_tree(Path(root), ("bbox_train", "bbox_test", "info"), known_as="MARS")
    info = tree / "info"
    for name in INFO:
        if not (info / name).is_file():
            raise DataError(f"{info} lacks {name}; the folder info holds {', '.join(INFO)}")
    train_names, test_names = (_read_names(info / name) for name in INFO[:2])
    with understood(info):
        train_tracks = _tracks(load_variable(info / INFO[2], "track_train_info"))
        test_tracks = _tracks(load_variable(info / INFO[3], "track_test_info"))
        query_rows = np.atleast_1d(load_variable(info / INFO[4], "query_IDX")).astype(np.int64)
        gallery_rows = searched_rows(test_tracks, query_rows, gallery)
    train_rows = np.arange(1, len(train_tracks) + 1)
    skipped = [
        *unlisted_files(tree / "bbox_train", list(map(_below, train_names)), source=INFO[0]),
        *unlisted_files(tree / "bbox_test", list(map(_below, test_names)), source=INFO[1]),
    ]
    return Dataset(
        name="mars",
        root=tree,
        train=track_samples(tree / "bbox_train", train_names, train_tracks, train_rows),
        query=track_samples(tree / "bbox_test", test_names, test_tracks, query_rows),
        gallery=track_samples(tree / "bbox_test", test_names, test_tracks, gallery_rows),
        protocol="tracklets",
        skipped=tuple(skipped),
        published={
            "train": PUBLISHED_TRAIN,
            "query": PUBLISHED_QUERY,
            "gallery": PUBLISHED_GALLERY[gallery],
        },
    )


def searched_rows(tracks: Tracks, query_rows: Tracks, gallery: str) -> Tracks:
    """1-based rows of the test tracks that make the gallery."""
    if query_rows.min(initial=1) < 1 or query_rows.max(initial=1) > len(tracks):
        raise DataError(
            f"query_IDX.mat names row {query_rows.max()} of {len(tracks)} test tracks; "
            "copy the folder info again"
        )
    rows = np.arange(1, len(tracks) + 1)
    if gallery == "all":
        return rows
    kept: Tracks = rows[~np.isin(rows, query_rows) & (tracks[:, 2] != JUNK)]
    return kept


def track_samples(folder: Path, names: Sequence[str], tracks: Tracks, rows: Tracks) -> tuple[Sample, ...]:
    """The frames of the given rows, in path order.

    Raises :class:`DataError` where a row does not fit the names it points to.
    """
    folders: dict[str, Path] = {}
    samples = []
    for index, (name, row, identity, camera) in enumerate(sorted(_frames(names, tracks, rows))):
        identity_name = name[:4]
        path = folders.setdefault(identity_name, folder / identity_name) / name
        frame = int(name.rpartition("F")[2].partition(".")[0])
        samples.append(Sample(path, identity, camera, index, tracklet=row, frame=frame, dataset="mars"))
    return tuple(samples)


def _frames(names: Sequence[str], tracks: Tracks, rows: Tracks) -> Iterator[tuple[str, int, int, int]]:
    """Name, row, identity and camera of each frame."""
    for row in rows.tolist():
        start, end, identity, camera = tracks[row - 1].tolist()
        listed = names[start - 1 : end] if 1 <= start <= end <= len(names) else ()
        if not listed:
            raise DataError(
                f"track {row} is images {start} to {end} of a list of {len(names)}; "
                "copy the folder info again"
            )
        identity_name = "00-1" if identity == JUNK else f"{identity:04}"
        for name in listed:
            fields = NAME.fullmatch(name)
            if fields is None or (fields["identity"], int(fields["camera"])) != (identity_name, camera):
                raise DataError(
                    f"track {row} is of identity {identity} and camera {camera}, but its image is {name!r}; "
                    "tables and lists are not of one release: copy the folder info again"
                )
            yield name, row, identity, camera


def _tracks(table: Any) -> Tracks:
    tracks = np.atleast_2d(table).astype(np.int64)
    if tracks.ndim != 2 or tracks.shape[1] != 4:
        raise DataError(f"a table of tracks has shape {tracks.shape}; expected (tracks, 4)")
    return tracks


def _read_names(path: Path) -> list[str]:
    return read_text(path).split()


def _below(name: str) -> str:
    return f"{name[:4]}/{name}"
