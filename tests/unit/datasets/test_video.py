"""MARS, PRID2011 and iLIDS-VID: tracklets, splits, damaged releases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reidkit.datasets import mars
from reidkit.datasets._matlab import load_variable
from reidkit.datasets.ilidsvid import ilidsvid
from reidkit.datasets.prid2011 import prid2011
from reidkit.errors import DataError
from reidkit.types import Split
from tests import dataset_writers as writers


def persons(split: Split) -> list[int]:
    return sorted({sample.identity for sample in split})


# MARS


def test_mars_tracklets(tmp_path: Path) -> None:
    writers.mars(tmp_path)
    data = mars.mars(tmp_path)
    first = data.train[0]
    assert (first.path.name, first.identity, first.camera) == ("0001C1T0001F001.jpg", 1, 1)
    assert (first.tracklet, first.frame) == (1, 1)
    assert [(s.path.name, s.identity, s.tracklet) for s in data.gallery] == [
        ("00-1C1T0001F001.jpg", -1, 1),
        ("00-1C1T0001F002.jpg", -1, 1),
        ("0000C2T0001F001.jpg", 0, 2),
        ("0002C1T0001F001.jpg", 2, 3),
        ("0002C1T0001F002.jpg", 2, 3),
        ("0002C3T0001F001.jpg", 2, 4),
        ("0002C3T0001F002.jpg", 2, 4),
        ("0002C3T0001F003.jpg", 2, 4),
        ("0004C1T0001F001.jpg", 4, 5),
        ("0004C2T0001F001.jpg", 4, 6),
    ]
    assert {s.tracklet for s in data.query} == {3, 5}
    without = mars.mars(tmp_path, gallery="without_queries")
    assert {s.tracklet for s in without.gallery} == {2, 4, 6}
    assert without.query == data.query


def test_mars_with_tables_that_do_not_fit(tmp_path: Path) -> None:
    writers.mars(tmp_path)
    _, rows = writers.mars_names([(1, 1, 1, 2), (1, 2, 1, 1), (3, 1, 2, 3)])
    info = tmp_path / "info"

    def with_table(table: np.ndarray) -> None:
        writers.save_mat(info / "tracks_train_info.mat", {"track_train_info": table})

    with_table(rows + np.array([0, 1, 0, 0]))
    with pytest.raises(DataError, match=r"track 1 is of identity 1 and camera 1, but its image is '0001C2T0"):
        mars.mars(tmp_path)
    with_table(rows + np.array([100, 100, 0, 0]))
    with pytest.raises(DataError, match=r"track 1 is images 101 to 102 of a list of 6"):
        mars.mars(tmp_path)
    with_table(rows[:, :3])
    with pytest.raises(DataError, match=r"shape \(3, 3\); expected \(tracks, 4\)"):
        mars.mars(tmp_path)
    with_table(rows)
    writers.save_mat(info / "query_IDX.mat", {"query_IDX": np.array([[3, 7]])})
    with pytest.raises(DataError, match=r"query_IDX\.mat names row 7 of 6 test tracks"):
        mars.mars(tmp_path)
    (info / "query_IDX.mat").unlink()
    with pytest.raises(DataError, match=r"info lacks query_IDX\.mat; the folder info holds train_name\.txt"):
        mars.mars(tmp_path)


def test_mars_images_that_are_missing_or_too_many(tmp_path: Path) -> None:
    writers.mars(tmp_path)
    writers.touch(tmp_path, "bbox_train/0001/0001C1T0001F999.jpg")
    assert mars.mars(tmp_path).skipped == (tmp_path / "bbox_train/0001/0001C1T0001F999.jpg",)
    (tmp_path / "bbox_test/0004/0004C2T0001F001.jpg").unlink()
    with pytest.raises(
        DataError, match=r"bbox_test lacks 1 of the 10 files that test_name\.txt lists: 0004/0004C2T0001F001"
    ):
        mars.mars(tmp_path)


def test_mars_on_the_true_tables(real_data: Path) -> None:
    """Names are made up to fit the published tables, cut to the first two frames of each tracklet."""
    folder = real_data / "meta/mars"
    tables = {
        part: load_variable(folder / f"tracks_{part}_info.mat", f"track_{part}_info").astype(np.int64)
        for part in ("train", "test")
    }
    query_rows = load_variable(folder / "query_IDX.mat", "query_IDX").astype(np.int64)
    assert tables["train"][-1, 1] == mars.PUBLISHED_TRAIN["images"]
    assert tables["test"][-1, 1] == mars.PUBLISHED_GALLERY["all"]["images"]

    def samples(part: str, rows: np.ndarray) -> Split:
        tracks = [(identity, camera, row, 2) for row, (_, _, identity, camera) in enumerate(tables[part], 1)]
        names, table = writers.mars_names(tracks)
        return mars.track_samples(Path(part), names, table.astype(np.int64), rows)

    train = samples("train", np.arange(1, len(tables["train"]) + 1))
    assert (len({s.tracklet for s in train}), len(persons(train)), len(train)) == (8_298, 625, 2 * 8_298)
    query = samples("test", query_rows)
    assert (len({s.tracklet for s in query}), len(persons(query))) == (1_980, 626)
    for gallery, num_tracklets, num_valid in (("all", 12_180, 1_980), ("without_queries", 9_330, 1_840)):
        searched = samples("test", mars.searched_rows(tables["test"], query_rows, gallery))
        tracklets = {s.tracklet: s for s in searched}
        assert len(tracklets) == num_tracklets
        views = {(s.identity, s.camera) for s in tracklets.values()}
        valid = {
            s.tracklet
            for s in query
            if any((s.identity, camera) in views for camera in range(1, 7) if camera != s.camera)
        }
        assert len(valid) == num_valid
        if gallery == "all":
            counts = Counter(s.identity for s in tracklets.values())
            assert (counts[-1], counts[0]) == (870, 3_248)
            assert len(counts) == 636


# PRID2011, iLIDS-VID


def test_prid_single_shot_at_its_true_protocol(tmp_path: Path) -> None:
    writers.prid2011_single(tmp_path)
    data = prid2011(tmp_path, shots="single", split=1)
    assert (len(data.train), data.num_identities) == (200, 100)
    assert (len(data.query), len(data.gallery)) == (100, 103)
    assert max(persons(data.query)) <= 200
    assert {201, 385, 749} <= {*persons(data.gallery)}
    assert not any(s.identity == 385 and s.camera == 1 for s in data.train + data.query + data.gallery)


def test_prid_video_keeps_long_sequences_of_shared_persons(tmp_path: Path) -> None:
    writers.prid2011(tmp_path)
    tree = tmp_path / "prid_2011/multi_shot"
    (tree / "cam_b/person_0007/0028.png").unlink()
    for camera in ("cam_a", "cam_b"):
        writers.touch(tree, *(f"{camera}/person_0201/{frame:04}.png" for frame in range(1, 30)))
    data = prid2011(tmp_path)
    assert persons(data.train + data.query) == [1, 2, 3]
    first = data.query[0]
    assert (first.tracklet, first.frame, data.query[1].frame) == (10 * first.identity + 1, 1, 2)
    assert len({s.tracklet for s in data.gallery}) == len(persons(data.gallery))


def test_ilids_rows_are_orders_of_persons_that_test_first(tmp_path: Path) -> None:
    writers.ilidsvid(tmp_path)
    # Persons are 1, 2, 4, 9; row 0 is 1 2 3 4, row 1 is 4 1 2 3.
    assert persons(ilidsvid(tmp_path, split=0).query) == [1, 2]
    assert persons(ilidsvid(tmp_path, split=1).query) == [1, 9]
    data = ilidsvid(tmp_path, split=1)
    assert persons(data.train) == [2, 4]
    assert {sample.camera for sample in data.train} == {1, 2}
    assert (data.gallery[0].camera, data.gallery[0].tracklet, data.gallery[0].frame) == (2, 12, 317)


def test_ilids_faults_are_told(tmp_path: Path) -> None:
    writers.ilidsvid(tmp_path)
    path = tmp_path / "train-test people splits/train_test_splits_ilidsvid.mat"
    for orders in (np.ones((10, 4)), np.ones((3, 4)), np.tile([1, 2, 3, 4, 5], (10, 1))):
        writers.save_mat(path, {"ls_set": orders})
        with pytest.raises(DataError, match=r"ls_set has shape .*; expected ten orders \(10, 4\) of the 4"):
            ilidsvid(tmp_path)
    path.unlink()
    assert "drawn from seed" in ilidsvid(tmp_path).split_name
    sequences = tmp_path / "i-LIDS-VID/sequences"
    writers.touch(sequences, "cam1/person011/cam1_person011_00001.png", "cam1/readme.txt", "cam1/other/a.png")
    with pytest.raises(DataError, match="person011 is under one camera only"):
        ilidsvid(tmp_path)
    writers.touch(sequences, "cam2/person011/cam2_person011_00001.png")
    assert [path.name for path in ilidsvid(tmp_path).skipped] == ["a.png", "readme.txt"]
