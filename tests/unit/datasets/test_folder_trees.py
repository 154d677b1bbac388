"""Market-1501's tree, the order of samples, labels as integers."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from reidkit.datasets._layouts import labelled_dataset, market_tree, numbered
from reidkit.errors import DataError
from reidkit.types import Sample

DATA = Path(os.environ.get("REIDKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))

NAMES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c6s2_000001_00.jpg", "0007_c3s1_000009_01.jpg"],
    "query": ["1488_c1s6_023021_00.jpg.jpg"],
    "bounding_box_test": ["-1_c1s1_000401_03.jpg", "0000_c2s1_000151_01.jpg", "1488_c2s3_065527_00.jpg"],
}


def write_tree(folder: Path, names: dict[str, list[str]] = NAMES) -> Path:
    for part, files in names.items():
        (folder / part).mkdir(parents=True)
        for name in files:
            (folder / part / name).touch()
    return folder


def test_fields_are_read_from_the_names(tmp_path: Path) -> None:
    data = market_tree(write_tree(tmp_path), name="mine")
    assert [(s.path.name, s.identity, s.camera, s.frame, s.index) for s in data.train] == [
        ("0002_c1s1_000451_03.jpg", 2, 1, 451, 0),
        ("0002_c6s2_000001_00.jpg", 2, 6, 1, 1),
        ("0007_c3s1_000009_01.jpg", 7, 3, 9, 2),
    ]
    assert [(s.identity, s.camera, s.frame) for s in data.query] == [(1488, 1, 23021)]
    assert [s.identity for s in data.gallery] == [-1, 0, 1488]
    assert (data.name, data.train[0].dataset, data.num_identities) == ("mine", "mine", 2)
    assert data.has_cameras
    assert data.skipped == ()


@pytest.mark.parametrize("below", ["", "Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15"])
def test_the_tree_is_found_at_most_two_levels_down(tmp_path: Path, below: str) -> None:
    tree = write_tree(tmp_path / below)
    assert market_tree(tmp_path, name="m").root == tree


def test_a_tree_three_levels_down_is_not_found(tmp_path: Path) -> None:
    write_tree(tmp_path / "a/b/c")
    with pytest.raises(
        DataError, match=r"no Market-1501 tree in .*2 levels below; found a and 0 files there"
    ):
        market_tree(tmp_path, name="m")


def test_names_tell_the_set_among_others_with_the_same_folders(tmp_path: Path) -> None:
    other = {part: ["0001_c2_f0046182.jpg"] for part in NAMES}
    write_tree(tmp_path / "DukeMTMC-reID", other)
    tree = write_tree(tmp_path / "Market-1501")
    assert market_tree(tmp_path, name="m").root == tree
    write_tree(tmp_path / "Market-copy")
    with pytest.raises(DataError, match=r"holds 2 sets .*: Market-1501, Market-copy; give one as root"):
        market_tree(tmp_path, name="m")


def test_other_files_are_skipped_and_named(tmp_path: Path) -> None:
    tree = write_tree(tmp_path)
    for name in ("query/Thumbs.db", "bounding_box_train/0002_c1.jpg", "query/0002_c1s1_000451_03.txt"):
        (tree / name).touch()
    assert [path.relative_to(tree).as_posix() for path in market_tree(tree, name="m").skipped] == [
        "bounding_box_train/0002_c1.jpg",
        "query/0002_c1s1_000451_03.txt",
        "query/Thumbs.db",
    ]


def test_wrong_layouts_say_what_was_looked_for_and_found(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="gone does not exist; expected a folder that holds bounding_box_train, q"
    ):
        market_tree(tmp_path / "gone", name="m")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file, not a folder"):
        market_tree(tmp_path / "file", name="m")
    write_tree(tmp_path / "set")
    with pytest.raises(DataError, match="query is one of them: give the folder above"):
        market_tree(tmp_path / "set/query", name="m")
    for path in (tmp_path / "set/query").iterdir():
        path.unlink()
    (tmp_path / "set/query").rmdir()
    with pytest.raises(DataError, match=r"looked for the folders bounding_box_train, .*; .*set lacks query$"):
        market_tree(tmp_path, name="m")


def test_foreign_names_are_an_error_not_an_empty_set(tmp_path: Path) -> None:
    write_tree(tmp_path, NAMES | {"query": ["0001_c2_f0046182.jpg", "0001_c2_f0046183.jpg"]})
    with pytest.raises(
        DataError, match=r"none of the 2 images in .*query is named like .*0001_c2_f0046182\.jpg"
    ):
        market_tree(tmp_path, name="m")


def test_one_part_may_be_empty_but_not_all(tmp_path: Path) -> None:
    data = market_tree(write_tree(tmp_path / "a", NAMES | {"bounding_box_train": []}), name="m")
    assert (len(data.train), len(data.query), len(data.gallery)) == (0, 1, 3)
    with pytest.raises(
        DataError, match="holds no images: bounding_box_train, query, bounding_box_test are all"
    ):
        market_tree(write_tree(tmp_path / "b", {part: [] for part in NAMES}), name="m")


def test_counts_of_the_full_release(tmp_path: Path) -> None:
    """Every file name of the release is understood, and the published counts come out."""
    lists = DATA / "meta" / "market1501"
    if not lists.is_dir():
        pytest.skip(f"no file lists of Market-1501 in {lists}")
    for part, folder in (("train", "bounding_box_train"), ("query", "query"), ("test", "bounding_box_test")):
        (tmp_path / folder).mkdir()
        with (lists / f"market1501_{part}.csv").open() as file:
            for _, name in csv.reader(file):
                (tmp_path / name).touch()
    data = market_tree(tmp_path, name="market1501")
    assert [len(split) for split in (data.train, data.query, data.gallery)] == [12_936, 3_368, 19_732]
    assert (data.num_identities, len({s.identity for s in data.query})) == (751, 750)
    gallery = [sample.identity for sample in data.gallery]
    assert (gallery.count(-1), gallery.count(0)) == (3_819, 2_798)
    assert {sample.camera for sample in data.train} == set(range(1, 7))
    assert data.skipped == ()


def test_samples_are_numbered_in_plain_string_order() -> None:
    samples = [Sample(Path(name), 1, 1, 9) for name in ("b/1.jpg", "b-c/1.jpg", "a10.jpg", "a2.jpg")]
    ordered = numbered(samples)
    assert [sample.path.as_posix() for sample in ordered] == ["a10.jpg", "a2.jpg", "b-c/1.jpg", "b/1.jpg"]
    assert [sample.index for sample in ordered] == [0, 1, 2, 3]


def test_names_are_kept_where_the_number_does_not_say_them() -> None:
    def names(*labels: str) -> list[str | None]:
        images = [("train", Path(f"{n}.jpg"), {"identity": label}) for n, label in enumerate(labels)]
        return [sample.identity_name for sample in labelled_dataset(images, name="x", root=Path()).train]

    assert names("7", "12", "-1") == [None, None, None]
    assert names("0007", "12", "-1") == ["0007", None, None]
    assert names("7", "anna", "-1") == ["7", "anna", None]
