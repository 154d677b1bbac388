"""Cutting one's own images: nobody in two parts, every query with something to find, the table read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reidkit.datasets import load_dataset
from reidkit.datasets._splits import make_splits, why_not_split, write_table
from reidkit.errors import ConfigError, DataError
from reidkit.types import JUNK, Dataset, Sample

Labels = list[tuple[int, int]]


def dataset(labels: Labels, *, has_cameras: bool = True) -> Dataset:
    samples = tuple(
        Sample(Path(f"photos/{index:03}.jpg"), identity, camera if has_cameras else 0, index)
        for index, (identity, camera) in enumerate(labels)
    )
    return Dataset("x", Path("photos"), train=samples, has_cameras=has_cameras)


def identities(split: tuple[Sample, ...]) -> set[int]:
    return {sample.identity for sample in split}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 9), st.integers(1, 3)), min_size=10, max_size=60),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 1),
)
def test_no_identity_is_in_two_parts_and_every_query_finds_something(
    labels: Labels, has_cameras: bool, seed: int, num_val: int
) -> None:
    data = dataset(labels, has_cameras=has_cameras)
    try:
        cut = make_splits(data, val_identities=num_val, seed=seed)
    except (ConfigError, DataError):
        return  # too few identities; the messages have tests of their own
    test = identities(cut.query)
    parts = [identities(cut.train), identities(cut.val), test]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len({i for i, _ in labels} - {JUNK})
    assert identities(cut.gallery) - {JUNK} == test
    assert len(parts[1]) == num_val
    paths = [sample.path for split in cut.splits.values() for sample in split]
    assert sorted(paths) == sorted(sample.path for sample in data.train)
    for query in cut.query:
        found = [s for s in cut.gallery if s.identity == query.identity]
        assert found
        if has_cameras:
            assert any(sample.camera != query.camera for sample in found)
    for split in cut.splits.values():
        assert [sample.index for sample in split] == [*range(len(split))]


def test_the_first_image_of_each_identity_and_camera_asks() -> None:
    labels = [(identity, camera) for identity in range(4) for camera in (1, 2, 3) for _ in range(3)]
    cut = make_splits(dataset(labels))
    test = identities(cut.query)
    first = [9 * identity + 3 * camera for identity in sorted(test) for camera in range(3)]
    assert [sample.path.stem for sample in cut.query] == [f"{number:03}" for number in first]
    assert len(cut.gallery) == 2 * 9 - 6


def test_one_image_under_each_of_two_cameras_is_one_query_and_one_to_find() -> None:
    cut = make_splits(dataset([(identity, camera) for identity in range(40) for camera in (1, 2)]))
    assert len(cut.query) == len(cut.gallery) == 20
    assert {sample.camera for sample in cut.query} == {1, 2}, "either camera asks"


def test_without_cameras_one_image_of_each_identity_asks_at_random() -> None:
    cut = make_splits(dataset([(n // 5, 0) for n in range(100)], has_cameras=False))
    assert len(cut.query) == len(identities(cut.query)) == 10
    assert len({int(sample.path.stem) % 5 for sample in cut.query}) > 1


def test_the_seed_decides() -> None:
    data = dataset([(n // 4, n % 2) for n in range(120)])
    assert make_splits(data, seed=3) == make_splits(data, seed=3)
    assert identities(make_splits(data, seed=3).query) != identities(make_splits(data, seed=4).query)


@pytest.mark.parametrize(("wanted", "num_test"), [(0.5, 4), (0.25, 2), (3, 3), (1.0, 1)])
def test_test_identities_are_a_share_or_a_number_of_those_that_can_be_found(
    wanted: float, num_test: int
) -> None:
    labels = [(n // 2, n % 2) for n in range(16)] + [(20 + n, 1) for n in range(7)]
    cut = make_splits(dataset(labels), test_identities=wanted)
    assert len(identities(cut.query)) == num_test
    assert identities(cut.query) <= set(range(8))


def test_parts_are_put_together_and_an_image_listed_twice_counts_once() -> None:
    data = dataset([(n // 4, n % 2) for n in range(40)])
    parts = replace(data, train=data.train[:20], query=data.train[20:24], gallery=data.train[20:])
    assert make_splits(parts) == make_splits(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"test_identities": 9},
            "9 test and 0 val identities: of 10 identities 10 have .* from 1 to 8 in all",
        ),
        ({"val_identities": 4}, "5 test and 4 val"),
        ({"test_identities": 0}, "0 test and 0 val"),
        ({"val_identities": -1}, "5 test and -1 val"),
        ({"test_identities": -2}, "-2"),
        ({"test_identities": 2.5}, "test_identities = 2.5; give a share below 1 or a whole number"),
    ],
)
def test_numbers_that_cannot_be_met(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_splits(dataset([(n // 4, n % 2) for n in range(40)]), **options)


@pytest.mark.parametrize(("has_cameras", "word"), [(True, "under two cameras"), (False, "twice")])
def test_nobody_to_find(has_cameras: bool, word: str) -> None:
    labels = [(n // 2 if has_cameras else n, 1) for n in range(12)]
    with pytest.raises(DataError, match=f"no identity of photos is shown {word}"):
        make_splits(dataset(labels, has_cameras=has_cameras))


def test_three_people_are_cut_and_two_are_too_few() -> None:
    three, two = (dataset([(n // 4, n % 2) for n in range(4 * num)]) for num in (3, 2))
    cut = make_splits(three)
    assert (len(identities(cut.train)), len(identities(cut.query))) == (2, 1)
    assert why_not_split(three) == ""
    with pytest.raises(DataError, match="photos shows 2 identities, and 3 are the least to cut"):
        make_splits(two)
    assert why_not_split(two).startswith("photos shows 2 identities")


def photos(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 4)).save(root / name)


def as_written(data: Dataset) -> dict[str, list[tuple[object, ...]]]:
    return {
        name: [
            (s.path.resolve(), s.identity_name or s.identity, s.camera, s.tracklet, s.frame, s.time)
            for s in split
        ]
        for name, split in data.splits.items()
    }


@pytest.mark.parametrize("identity", ["anna, the first", "anna;b", '"anna"', "änna", "007"])
@pytest.mark.parametrize("table", ["photos/people.csv", "people.csv", "elsewhere/people.csv"])
def test_the_table_is_read_back_as_it_was_cut(tmp_path: Path, identity: str, table: str) -> None:
    names = [
        f"{name}_c{camera}_{frame}_{7 * frame + camera}.jpg"
        for name in (identity, "ben", "cleo", "8", "-1")
        for camera in (1, 4)
        for frame in (10, 20)
    ]
    photos(tmp_path / "photos", names)
    data = load_dataset("folder", tmp_path / "photos", pattern="{identity}_c{camera}_{frame}_{tracklet}.jpg")
    cut = make_splits(data, test_identities=1, val_identities=1)
    read = load_dataset("table", write_table(cut, tmp_path / table))
    assert as_written(read) == as_written(cut)
    assert read.has_cameras


def test_absent_labels_are_no_columns(tmp_path: Path) -> None:
    photos(tmp_path, [f"{identity}/{n}.jpg" for identity in "abcd" for n in range(3)])
    cut = make_splits(load_dataset("folder", tmp_path))
    text = write_table(cut, tmp_path / "people.csv").read_text("utf-8")
    assert text.splitlines()[0] == "path,identity,split"
    assert not load_dataset("table", tmp_path / "people.csv").has_cameras


def test_a_table_is_not_overwritten_nor_called_otherwise(tmp_path: Path) -> None:
    cut = make_splits(dataset([(n // 4, n % 2) for n in range(40)]))
    (tmp_path / "old.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"old\.csv exists already"):
        write_table(cut, tmp_path / "old.csv")
    assert (tmp_path / "old.csv").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"must end in \.csv"):
        write_table(cut, tmp_path / "people.txt")


def test_what_a_table_cannot_hold(tmp_path: Path) -> None:
    data = dataset([(n // 4, n % 2) for n in range(40)])
    boxed = replace(data, train=(replace(data.train[0], box=(0, 0, 2, 2)), *data.train[1:]))
    with pytest.raises(DataError, match="a table has no column for boxes"):
        write_table(boxed, tmp_path / "people.csv")
    spaced = replace(data, train=(replace(data.train[0], identity_name=" anna"),))
    with pytest.raises(DataError, match="the identity ' anna' begins or ends with a space"):
        write_table(spaced, tmp_path / "people.csv")
    assert not (tmp_path / "people.csv").exists()


def test_a_name_that_is_no_unicode_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = Dataset("x", tmp_path, train=(Sample(tmp_path / "caf\udce9.jpg", 1, 1, 0),))
    with pytest.raises(
        DataError, match=r"the name 'caf\\udce9.jpg' is not UTF-8, as a table is; rename the file"
    ):
        write_table(data, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_labels_as_written_go_through_a_table(tmp_path: Path) -> None:
    names = [
        f"{person}_c{camera}_{n}.jpg" for person in ("0001", "0002") for camera in ("02", "5") for n in (1, 2)
    ]
    for name in names:
        (tmp_path / name).touch()
    data = load_dataset("folder", tmp_path, pattern="{identity}_c{camera}_{frame}.jpg")
    write_table(data, tmp_path / "t.csv")
    read = load_dataset("table", tmp_path / "t.csv")
    assert [(s.identity, s.identity_name, s.camera, s.camera_name) for s in read.train] == [
        (s.identity, s.identity_name, s.camera, s.camera_name) for s in data.train
    ]
    assert (data.train[0].identity_name, data.train[0].camera_name) == ("0001", "02")
