"""What every registered data set layout must keep."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from PIL import Image

from reidkit import registry
from reidkit.datasets import load_dataset
from reidkit.errors import DataError
from reidkit.types import JUNK, Dataset

MARKET_NAMES = [
    *(
        f"bounding_box_train/{identity:04}_c{camera}s1_000001_00.jpg"
        for identity in (2, 7)
        for camera in (1, 2)
    ),
    "query/0009_c1s1_000001_00.jpg",
    "bounding_box_test/0009_c2s1_000001_00.jpg",
    "bounding_box_test/-1_c2s1_000001_00.jpg",
]
FOLDER_NAMES = [
    "train/ben/2.jpg",
    "train/ben/10.jpg",
    "train/anna/1.jpg",
    "query/cleo/1.jpg",
    "test/cleo/2.jpg",
]

TREES = {
    "market1501": MARKET_NAMES,
    "synthetic": MARKET_NAMES,
    "folder": FOLDER_NAMES,
    "table": FOLDER_NAMES,
}


@pytest.fixture(params=registry.names("dataset"))
def name(request: pytest.FixtureRequest) -> str:
    if request.param not in TREES:
        pytest.fail(f"data set {request.param!r} has no small tree in this test; add one to TREES")
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    """A small data set of the layout, in its own folder."""
    root = tmp_path / "set"
    for path in TREES[name]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(root / path)
    if name == "table":
        rows = (f"{path},{path.split('/')[1]},{path.split('/')[0]}" for path in TREES[name])
        (root / "samples.csv").write_text("\n".join(["path,identity,split", *rows]))
    return root


@pytest.fixture
def data(name: str, root: Path) -> Dataset:
    result = registry.get("dataset", name)(root)
    assert isinstance(result, Dataset)
    return result


def test_it_takes_a_root_and_keyword_options_and_is_documented(name: str) -> None:
    layout = registry.get("dataset", name)
    first, *options = inspect.signature(layout).parameters.values()
    assert first.name == "root"
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    assert all(option.default is not option.empty for option in options)
    assert len(inspect.getdoc(layout) or "") > 40


def test_every_image_has_its_place(name: str, data: Dataset, root: Path) -> None:
    assert data.name == name
    assert {*data.splits} >= {"train", "query", "gallery"}
    paths = [sample.path for split in data.splits.values() for sample in split]
    assert sorted(paths) == sorted(root / path for path in TREES[name])
    for split in data.splits.values():
        assert [sample.index for sample in split] == list(range(len(split)))
        texts = [sample.path.as_posix() for sample in split]
        assert texts == sorted(texts)


def test_labels_are_integers(data: Dataset) -> None:
    samples = [sample for split in data.splits.values() for sample in split]
    assert all(type(sample.identity) is int and sample.identity >= JUNK for sample in samples)
    assert all(type(sample.camera) is int for sample in samples)
    assert all(sample.dataset == data.name for sample in samples)
    if not data.has_cameras:
        assert {sample.camera for sample in samples} == {0}
    assert data.num_identities == 2


def test_reading_twice_gives_the_same(name: str, data: Dataset, root: Path) -> None:
    assert load_dataset(name, str(root)) == data


def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(DataError, match=r"gone.* does not exist; .*expected ") as caught:
        registry.get("dataset", name)(gone)
    assert str(gone) in str(caught.value)
    with pytest.raises(DataError, match=r"gone does not exist"):
        load_dataset(name, gone)


def test_an_empty_folder_is_an_error_that_says_what_is_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for|suffixes are|must hold exactly one table"):
        registry.get("dataset", name)(tmp_path)
