"""Layouts of images of persons, vehicles, birds and cars: labels, splits, damaged releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reidkit.checks.check import check_dataset
from reidkit.datasets import load_dataset
from reidkit.datasets.cars196 import cars196
from reidkit.datasets.cub200 import cub200
from reidkit.datasets.dukemtmcreid import dukemtmcreid
from reidkit.datasets.grid import grid
from reidkit.datasets.market1501 import market1501
from reidkit.datasets.msmt17 import msmt17
from reidkit.datasets.veri776 import veri776
from reidkit.datasets.viper import viper
from reidkit.errors import ConfigError, DataError
from reidkit.types import Split
from tests import dataset_writers as writers


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
    assert labels(data.gallery[len(plain.gallery) :]) == [
        ("0_c3s1_000451_03.jpg", 0, 3),
        ("box_1.jpg", 0, None),
    ]
    assert [sample.index for sample in data.gallery] == list(range(len(data.gallery)))
    assert data.skipped == (tmp_path / folder / "Thumbs.db",)
    assert data.published["gallery"]["distractors"] == 502_798
    assert plain.published["gallery"]["distractors"] == 2_798


def test_so_many_distractors_are_the_first_by_name(tmp_path: Path) -> None:
    writers.market1501(tmp_path)
    writers.touch(tmp_path, *(f"distractors_500k/box_{number}.jpg" for number in range(5)))
    plain, data = market1501(tmp_path), market1501(tmp_path, distractors=3)
    assert [sample.path.name for sample in data.gallery[len(plain.gallery) :]] == [
        f"box_{number}.jpg" for number in range(3)
    ]
    assert data.published["gallery"]["images"] == 19_735
    with pytest.raises(DataError, match="holds 5 images, 6 are asked for; take fewer"):
        market1501(tmp_path, distractors=6)
    with pytest.raises(ConfigError, match="distractors = -1; give true, false, or how many"):
        market1501(tmp_path, distractors=-1)


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
    assert drawn == [[3, 7], [3, 4], [0, 7], [3, 4]]


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


# Lists as other systems write them

LABELLED = ("list_train.txt", "image_class_labels.txt")


@pytest.mark.parametrize("layout", ["msmt17", "cub200", "mars"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_may_begin_with_a_byte_order_mark(tmp_path: Path, layout: str, encoding: str) -> None:
    getattr(writers, layout)(tmp_path)
    plain = load_dataset(layout, tmp_path)
    lists = sorted(tmp_path.rglob("*.txt"))
    assert lists
    for path in lists:
        path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert load_dataset(layout, tmp_path) == plain
    for path in lists:
        path.write_bytes(b"M\xfcller\n")
    with pytest.raises(DataError, match="is not UTF-8 text: byte 0xfc in line 1; in Windows-1252 it would"):
        load_dataset(layout, tmp_path)


@pytest.mark.parametrize("layout", ["msmt17", "cub200", "mars"])
@pytest.mark.parametrize(("old", "new"), [("\n", "\r\n"), ("\n", " \n\n"), (" ", "\t")])
def test_lists_may_have_other_spaces_and_line_ends(tmp_path: Path, layout: str, old: str, new: str) -> None:
    getattr(writers, layout)(tmp_path)
    plain = load_dataset(layout, tmp_path)
    for path in tmp_path.rglob("*.txt"):
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8", newline="")
    assert load_dataset(layout, tmp_path) == plain


@pytest.mark.parametrize("layout", ["msmt17", "cub200"])
def test_a_label_of_thousands_of_digits_in_a_list_is_refused(tmp_path: Path, layout: str) -> None:
    getattr(writers, layout)(tmp_path)
    path = next(path for path in sorted(tmp_path.rglob("*.txt")) if path.name in LABELLED)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(f"{line.rpartition(' ')[0]} {'9' * 5000}" for line in lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_dataset(layout, tmp_path)
    assert len(str(caught.value)) < 600
