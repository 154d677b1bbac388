"""Each published layout: labels, protocols, splits and what is wrong with damaged releases."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.check import check_dataset
from reidkit.datasets import load_dataset, mars
from reidkit.datasets.cars196 import cars196
from reidkit.datasets.cub200 import cub200
from reidkit.datasets.cuhk01 import cuhk01
from reidkit.datasets.cuhk03 import cuhk03, new_protocol_samples
from reidkit.datasets.cuhksysu import cuhksysu
from reidkit.datasets.dukemtmcreid import dukemtmcreid
from reidkit.datasets.grid import grid
from reidkit.datasets.ilidsvid import ilidsvid
from reidkit.datasets.market1501 import market1501
from reidkit.datasets.msmt17 import msmt17
from reidkit.datasets.prid2011 import prid2011
from reidkit.datasets.veri776 import veri776
from reidkit.datasets.viper import viper
from reidkit.errors import ConfigError, DataError
from reidkit.files import WriteError
from reidkit.matlab import load_variable
from reidkit.types import Sample, Split

sys.path.append(str(Path(__file__).parents[1]))
import dataset_writers as writers


def persons(split: Split) -> list[int]:
    return sorted({sample.identity for sample in split})


def labels(split: Split) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.identity, sample.camera) for sample in split]


# market1501


@pytest.mark.parametrize("folder", ["distractors_500k", "images", "images/distractors_500k"])
def test_distractors_end_the_gallery_as_identity_0(tmp_path: Path, folder: str) -> None:
    writers.market1501(tmp_path)
    writers.touch(tmp_path, f"{folder}/0_c3s1_000451_03.jpg", f"{folder}/a/box_1.jpg", f"{folder}/Thumbs.db")
    plain, data = market1501(tmp_path), market1501(tmp_path, distractors=True)
    assert data.gallery[: len(plain.gallery)] == plain.gallery
    assert labels(data.gallery[len(plain.gallery) :]) == [("0_c3s1_000451_03.jpg", 0, 3), ("box_1.jpg", 0, 0)]
    assert [sample.index for sample in data.gallery] == list(range(len(data.gallery)))
    assert data.skipped == (tmp_path / folder / "Thumbs.db",)
    assert data.published["gallery"]["distractors"] == 502_798
    assert plain.published["gallery"]["distractors"] == 2_798


def test_distractors_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    writers.market1501(tmp_path)
    with pytest.raises(DataError, match=r"has no folder distractors_500k or .*; unpack distractors_"):
        market1501(tmp_path, distractors=True)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="images holds no images"):
        market1501(tmp_path, distractors=True)


# DukeMTMC-reID, VeRi-776


def test_duke_names_are_read(tmp_path: Path) -> None:
    writers.dukemtmcreid(tmp_path)
    data = dukemtmcreid(tmp_path)
    assert labels(data.train)[:2] == [("0001_c2_f0046182.jpg", 1, 2), ("0001_c8_f0046182.jpg", 1, 8)]
    assert data.train[0].frame == 46_182
    with pytest.raises(DataError, match=r"none of the 4 images .* is named like 0002_c1s1_000451_03\.jpg"):
        market1501(tmp_path)


def test_each_set_is_found_among_others_in_the_same_folders(tmp_path: Path) -> None:
    writers.dukemtmcreid(tmp_path)
    writers.market1501(tmp_path / "Market")
    assert dukemtmcreid(tmp_path).root == tmp_path / "DukeMTMC-reID"
    assert market1501(tmp_path).root == tmp_path / "Market"


def test_veri_names_are_read_and_a_missing_folder_is_named(tmp_path: Path) -> None:
    writers.veri776(tmp_path)
    data = veri776(tmp_path)
    assert labels(data.train)[1] == ("0001_c020_00016450_0.jpg", 1, 20)
    (tmp_path / "VeRi/image_test").rename(tmp_path / "VeRi/test")
    with pytest.raises(DataError, match=r"no VeRi-776 tree in .*; .*VeRi lacks image_test$"):
        veri776(tmp_path)


def test_identities_in_both_parts_load_and_are_reported(tmp_path: Path) -> None:
    writers.dukemtmcreid(tmp_path)
    writers.write_images(tmp_path / "DukeMTMC-reID", ["bounding_box_train/0003_c4_f0000009.jpg"])
    findings = check_dataset(load_dataset("dukemtmcreid", tmp_path)).findings
    assert any("identities of train that are also in query or gallery" in f.title for f in findings)


# MSMT17


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_both_versions_of_msmt17(tmp_path: Path, folders: tuple[str, str]) -> None:
    writers.msmt17(tmp_path, folders=folders)
    data = msmt17(tmp_path)
    assert [(s.identity, s.camera, s.identity_name) for s in data.train] == [
        (1, 1, "train 0"),
        (1, 14, "train 0"),
        (2, 15, "train 1"),
    ]
    assert [(s.identity, s.camera, s.identity_name) for s in data.gallery] == [
        (1042, 6, "test 0"),
        (1043, 7, "test 1"),
    ]
    assert data.train[0].path.relative_to(data.root).parts[:2] == (folders[0], "0000")


def test_msmt17_needs_the_folders_of_one_version(tmp_path: Path) -> None:
    writers.msmt17(tmp_path)
    tree = tmp_path / "MSMT17"
    for part in ("train", "test"):
        (tree / part).mkdir()
    with pytest.raises(DataError, match="holds both train and test / mask_train_v2 and mask_test_v2"):
        msmt17(tmp_path)
    (tree / "train").rmdir()
    (tree / "mask_test_v2").rename(tree / "mask_test")
    with pytest.raises(DataError, match="holds neither"):
        msmt17(tmp_path)


def test_msmt17_images_off_the_lists(tmp_path: Path) -> None:
    writers.msmt17(tmp_path)
    tree = tmp_path / "MSMT17"
    writers.touch(tree, "mask_test_v2/0001/0001_000_09_0303morning_0002_0.jpg", "mask_train_v2/Thumbs.db")
    assert [path.name for path in msmt17(tmp_path).skipped] == [
        "Thumbs.db",
        "0001_000_09_0303morning_0002_0.jpg",
    ]
    (tree / "mask_test_v2/0000/0000_001_06_0303morning_0022_0.jpg").unlink()
    with pytest.raises(DataError, match=r"mask_test_v2 lacks 1 of the 3 files that list_query\.txt, .*_06_"):
        msmt17(tmp_path)


@pytest.mark.parametrize("line", ["0000/0000_000_01_0303.jpg", "0000/0000.jpg 0", "0000/0000_000_x_03.jpg 1"])
def test_bad_lines_of_msmt17_are_told(tmp_path: Path, line: str) -> None:
    writers.msmt17(tmp_path)
    with (tmp_path / "MSMT17/list_val.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(
        DataError, match=r"list_val\.txt, line 2 is '0000/0000.*; expected '0000/0000_000_01_"
    ):
        msmt17(tmp_path)


# VIPeR


def test_viper_directions(tmp_path: Path) -> None:
    writers.viper(tmp_path)
    both, forth, back = (viper(tmp_path, direction=d) for d in ("both", "a_to_b", "b_to_a"))
    assert persons(both.query) == persons(both.gallery) == persons(forth.query) == persons(back.gallery)
    assert both.query == both.gallery
    assert {s.camera for s in forth.query} == {s.camera for s in back.gallery} == {1}
    assert {s.camera for s in forth.gallery} == {s.camera for s in back.query} == {2}
    assert both.train == forth.train == back.train
    with pytest.raises(ConfigError, match="direction = 'a_to_c' is unknown; did you mean 'a_to_b'"):
        viper(tmp_path, direction="a_to_c")


@pytest.mark.parametrize("place", ["SDALF_VIPeR_sets.txt", "VIPeR/SDALF_VIPeR_sets.txt"])
def test_viper_reads_its_splits_in_or_beside_the_set(tmp_path: Path, place: str) -> None:
    writers.viper(tmp_path)
    (tmp_path / place).write_text(writers.viper_splits([[0, 3], [4, 7]] * 5))
    assert persons(viper(tmp_path, split=0).query) == [0, 3]
    assert persons(viper(tmp_path, split=9).query) == [4, 7]
    assert viper(tmp_path, split=9).split_name == "split 9 of 0..9 of SDALF_VIPeR_sets.txt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds 0 splits"),
        (writers.viper_splits([[0, 3]] * 7), r"holds 7 splits of \[2\] persons; expected 10 of one size"),
        (writers.viper_splits([[0, 3]] * 9 + [[4]]), r"holds 10 splits of \[1, 2\] persons"),
        (writers.viper_splits([[]] * 10), r"holds 10 splits of \[0\] persons"),
        (writers.viper_splits([[0, 5]] * 10), r"split 0 names person 005, who has no image"),
        ("1 - cam_a/001_45.bmp  cam_b/001_90.bmp", "begins without '% Experiment Number 1'"),
    ],
)
def test_damaged_splits_of_viper_are_told(tmp_path: Path, text: str, message: str) -> None:
    writers.viper(tmp_path)
    (tmp_path / "SDALF_VIPeR_sets.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        viper(tmp_path)


def test_seeded_splits_say_so_and_stay_the_same(tmp_path: Path) -> None:
    writers.viper(tmp_path)
    assert viper(tmp_path, split=3).split_name == "split 3 of 0..9, drawn from seed 3"
    drawn = [persons(viper(tmp_path, split=split).query) for split in range(4)]
    assert drawn == [[3, 7], [3, 4], [0, 3], [3, 4]]


def test_viper_as_released(real_data: Path) -> None:
    splits = [load_dataset("viper", real_data / "viper", split=split) for split in range(10)]
    for data in splits:
        assert (len(data.train), len(data.query), len(data.gallery)) == (632, 632, 632)
        assert (data.num_identities, len(persons(data.query))) == (316, 316)
        assert "SDALF_VIPeR_sets.txt" in data.split_name
    # The first lines of the published file.
    assert {1, 2, 3, 4, 6, 7, 8, 9, 11, 12} <= {*persons(splits[0].query)}
    assert {0, 5, 10}.isdisjoint(persons(splits[0].query))
    assert len({tuple(persons(data.query)) for data in splits}) == 10


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


# CUHK03


def test_cuhk03_new_protocol_and_pixels(tmp_path: Path) -> None:
    writers.cuhk03(tmp_path)
    data = cuhk03(tmp_path, boxes="labeled")
    assert persons(data.train) == list(range(1, 13))
    assert persons(data.query) == list(range(13, 31))
    assert labels(data.query)[0] == ("1_013_1_01.png", 13, 1)
    assert ("2_010_2_06.png", 30, 2) in labels(data.gallery)
    assert data.protocol == "market1501"
    for sample in data.train + data.query + data.gallery:
        pair, person, _, cell = (int(text) for text in sample.path.stem.split("_"))
        assert (np.asarray(Image.open(sample.path)) == writers.cuhk03_pixels(pair, person, cell)).all()


def test_cuhk03_classic_splits(tmp_path: Path) -> None:
    writers.cuhk03(tmp_path)
    for split in (0, 19):
        for boxes in ("labeled", "detected"):
            data = cuhk03(tmp_path, protocol="classic", boxes=boxes, split=split)
            assert persons(data.query) == [split + 1, 21]  # person 1 of pair 2 comes after the 20 of pair 1
            assert data.num_identities == 28
            assert data.query == data.gallery
            assert {sample.camera for sample in data.query} == {1, 2}
    assert data.camera_filter == "other_cameras"


def test_cuhk03_is_unpacked_once_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writers.cuhk03(tmp_path)
    cache = tmp_path / "elsewhere"
    first = cuhk03(tmp_path, cache=str(cache))
    captured = capsys.readouterr()
    assert f"into {cache / 'labeled'}, once" in captured.err
    assert captured.out == ""
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")}
    assert cuhk03(tmp_path, cache=str(cache)) == first
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")} == written
    assert {sample.path.parent for sample in first.train} == {cache / "labeled"}
    assert [path.name for path in (tmp_path / "cuhk03_release").iterdir()] == ["cuhk-03.mat"]


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers.cuhk03(tmp_path)
    saved = 0

    def full_disk(*args: object, **options: object) -> None:
        nonlocal saved
        saved += 1
        if saved > 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_disk)
        with pytest.raises(WriteError, match=r"images_labeled_png: No space left .* cache=FOLDER"):
            cuhk03(tmp_path)
    assert [path.name for path in (tmp_path / "cuhk03_release").iterdir()] == ["cuhk-03.mat"]
    assert len(cuhk03(tmp_path).train) > 0


def test_cuhk03_faults_are_told(tmp_path: Path) -> None:
    writers.cuhk03(tmp_path)
    with pytest.raises(
        ConfigError, match=r"split = 3, but the new protocol has one split; ask for protocol="
    ):
        cuhk03(tmp_path, split=3)
    with pytest.raises(ConfigError, match="boxes = 'labelled' is unknown; did you mean 'labeled'"):
        cuhk03(tmp_path, boxes="labelled")
    cuhk03(tmp_path)
    (tmp_path / "cuhk03_release/images_labeled_png/1_001_1_01.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 images that .*labeled\.mat lists \(1_001_1_01\.png is the"):
        cuhk03(tmp_path)
    (tmp_path / "cuhk03_new_protocol_config_labeled.mat").unlink()
    with pytest.raises(DataError, match=r"no cuhk03_new_protocol_config_labeled\.mat in or beside"):
        cuhk03(tmp_path)
    release = tmp_path / "cuhk03_release/cuhk-03.mat"
    release.write_bytes(release.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"cuhk-03\.mat is truncated or damaged"):
        cuhk03(tmp_path, boxes="detected")
    assert not (tmp_path / "cuhk03_release/images_detected_png").exists()


@pytest.mark.parametrize(
    ("boxes", "counts"), [("labeled", (7_368, 1_400, 5_328)), ("detected", (7_365, 1_400, 5_332))]
)
def test_cuhk03_new_protocol_on_the_true_arrays(
    real_data: Path, boxes: str, counts: tuple[int, int, int]
) -> None:
    config = real_data / f"meta/cuhk03-np/cuhk03_new_protocol_config_{boxes}.mat"
    names, labels_, cameras = (load_variable(config, name) for name in ("filelist", "labels", "camId"))
    train, query, gallery = (
        new_protocol_samples(Path("x"), map(str, names), labels_, cameras, load_variable(config, part))
        for part in ("train_idx", "query_idx", "gallery_idx")
    )
    assert (len(train), len(query), len(gallery)) == counts
    assert (len(persons(train)), len(persons(query)), len(persons(gallery))) == (767, 700, 700)
    assert not {*persons(train)} & {*persons(query)}
    # Identities of the classic protocol, counted over the pairs, are the new protocol's own.
    order = sorted({tuple(map(int, str(name).split("_")[:2])) for name in names})
    assert [Counter(pair for pair, _ in order)[pair] for pair in range(1, 6)] == [843, 440, 77, 58, 49]
    for sample in train + query + gallery:
        pair, person, view = map(int, sample.path.name.split("_")[:3])
        assert (order[sample.identity - 1], sample.camera) == ((pair, person), view)


# CUHK01


@pytest.mark.parametrize("num_test", [100, 486])
def test_cuhk01_at_its_true_size(tmp_path: Path, num_test: int) -> None:
    writers.touch(tmp_path, *(f"campus/{i:04}{n:03}.png" for i in range(1, 972) for n in range(1, 5)))
    data = cuhk01(tmp_path, num_test=num_test, split=9)
    for part, counts in data.published.items():
        split = data.splits[part]
        assert (len(split), len(persons(split))) == (counts["images"], counts["identities"])
    assert {sample.camera for sample in data.query} == {1}
    assert {sample.camera for sample in data.gallery} == {2}


def test_cuhk01_shots(tmp_path: Path) -> None:
    writers.cuhk01(tmp_path)
    single, multi = cuhk01(tmp_path), cuhk01(tmp_path, shots="multi")
    assert single.protocol == "single_gallery_shot"
    assert multi.protocol == "tracklets"
    assert labels(single.gallery) == labels(multi.gallery)
    assert len({s.tracklet for s in multi.gallery}) == 100
    assert len({s.tracklet for s in multi.query}) == 200
    with pytest.raises(DataError, match="486 test identities are to be drawn from only 102"):
        cuhk01(tmp_path, num_test=486)
    with pytest.raises(ConfigError, match=r"num_test = 200 is unknown; allowed are 100, 486"):
        cuhk01(tmp_path, num_test=200)


# GRID


def test_grid_splits_and_distractors(tmp_path: Path) -> None:
    writers.grid(tmp_path)
    data = grid(tmp_path, split=2)
    assert persons(data.train) == [3, 5, 6]
    assert labels(data.train)[0] == ("0003_5_25023_116_134_128_330.jpeg", 3, 5)
    assert persons(data.query) == [1, 2, 4]
    assert persons(data.gallery) == [0, 1, 2, 4]
    assert data.split_name == "split 2 of 0..9 of features_and_partitions.mat"
    (tmp_path / "underground_reid/features_and_partitions.mat").unlink()
    seeded = grid(tmp_path, split=2)
    assert (len(persons(seeded.train)), len(persons(seeded.query))) == (3, 3)
    assert "drawn from seed 2" in seeded.split_name


def test_grid_partitions_of_another_kind_are_refused(tmp_path: Path) -> None:
    writers.grid(tmp_path)
    path = tmp_path / "underground_reid/features_and_partitions.mat"
    for partitions, message in (
        (np.eye(3), "does not hold structs of three fields"),
        (writers.cells([writers.structs([{"a": 1, "b": 2, "c": 3}])] * 4), "holds 4 splits; expected 10"),
        (writers.cells([writers.structs([{"a": 1, "b": 2, "c": 77}])] * 10), "split 0 names person 0077"),
    ):
        writers.save_mat(path, {"trainIdxAll": partitions})
        with pytest.raises(DataError, match=message):
            grid(tmp_path)


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


# CUB-200-2011, Cars196


def test_cub_classes_part_at_a_hundred(tmp_path: Path) -> None:
    writers.cub200(tmp_path)
    data = cub200(tmp_path)
    assert (persons(data.train), persons(data.query)) == ([1, 100], [101, 200])
    assert data.query[0].identity_name == "101.Bird_101"
    labels_file = tmp_path / "CUB_200_2011/image_class_labels.txt"
    text = labels_file.read_text()
    labels_file.write_text(text.replace("8 200\n", ""))
    with pytest.raises(DataError, match=r"differ, image 8 is in one only"):
        cub200(tmp_path)
    labels_file.write_text(text.replace("8 200\n", "8 x\n"))
    with pytest.raises(DataError, match=r"Bird_200_0002_18\.jpg the class 'x'; expected a number"):
        cub200(tmp_path)
    labels_file.write_text(text.replace("8 200\n", "8200\n"))
    with pytest.raises(DataError, match=r"image_class_labels\.txt, line 8 is '8200'; expected an image num"):
        cub200(tmp_path)


def test_both_releases_of_cars196(tmp_path: Path) -> None:
    writers.cars196(tmp_path / "one")
    writers.cars196_devkit(tmp_path / "two")
    one, two = cars196(tmp_path / "one"), cars196(tmp_path / "two")
    for data in (one, two):
        assert (persons(data.train), persons(data.query)) == ([1, 98], [99, 196])
        assert sorted(s.identity for s in data.train + data.query) == sorted(writers.CAR_CLASSES)
    assert [(s.path.parent.name, s.path.name, s.identity) for s in two.query][1:3] == [
        ("cars_test", "00004.jpg", 196),
        ("cars_train", "00003.jpg", 99),
    ]
    (tmp_path / "two/cars_test_annos_withlabels.mat").rename(tmp_path / "two/devkit/cars_test_annos.mat")
    with pytest.raises(DataError, match=r"has no cars_test_annos_withlabels\.mat, there or in devkit"):
        cars196(tmp_path / "two")
    writers.save_mat(tmp_path / "one/cars_annos.mat", {"annotations": writers.structs([{"fname": "a"}])})
    with pytest.raises(DataError, match="annotations have no field class and relative_im_path"):
        cars196(tmp_path / "one")


# CUHK-SYSU


def described(split: tuple[Sample, ...]) -> list[tuple[str, int, tuple[int, int, int, int] | None]]:
    return [(sample.path.name, sample.identity, sample.box) for sample in split]


def test_cuhksysu_boxes_and_galleries(tmp_path: Path) -> None:
    writers.cuhksysu(tmp_path)
    data = cuhksysu(tmp_path)
    assert described(data.train) == [
        ("s1.jpg", 3, (0, 0, 8, 16)),
        ("s1.jpg", 12, (20, 0, 28, 16)),
        ("s2.jpg", 3, (4, 4, 12, 20)),
    ]
    assert described(data.query) == [("s3.jpg", 7, (0, 2, 8, 18)), ("s4.jpg", 9, (24, 1, 32, 17))]
    assert data.query[0].identity_name == "p7"
    assert described(data.gallery) == [
        ("s3.jpg", 7, (0, 2, 8, 18)),
        ("s4.jpg", 7, (1, 1, 9, 17)),
        ("s4.jpg", 0, (12, 1, 20, 17)),
        ("s4.jpg", 9, (24, 1, 32, 17)),
        ("s5.jpg", 9, (3, 3, 11, 19)),
    ]
    assert data.galleries == ((1, 2, 3, 4), (0, 4))
    assert (data.has_cameras, data.camera_filter) == (False, "none")
    assert cuhksysu(tmp_path, gallery_size=50).galleries == ((0, 1, 2), (3,))


def test_cuhksysu_faults_are_told(tmp_path: Path) -> None:
    writers.cuhksysu(tmp_path)
    tree = tmp_path / "dataset"
    with pytest.raises(ConfigError, match="gallery_size = 99 is unknown; allowed are 50, 100, 500"):
        cuhksysu(tmp_path, gallery_size=99)
    with pytest.raises(DataError, match=r"TestG500\.mat is missing"):
        cuhksysu(tmp_path, gallery_size=500)
    (tree / "Image/SSM/s5.jpg").rename(tree / "Image/SSM/s6.jpg")
    with pytest.raises(DataError, match=r"SSM lacks 1 of the 5 files that Images\.mat lists: s5\.jpg"):
        cuhksysu(tmp_path)
    images = tree / "annotation/Images.mat"
    writers.save_mat(images, {"Img": writers.structs([{"name": "s1.jpg", "box": 1}] * 2)})
    with pytest.raises(DataError, match=r"Images\.mat has no field imname"):
        cuhksysu(tmp_path)
