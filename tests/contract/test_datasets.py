"""What every registered data set layout must keep."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from reidkit import registry
from reidkit.datasets import load_dataset
from reidkit.errors import ConfigError, DataError
from reidkit.images.reading import is_image, load_image
from reidkit.types import JUNK, Dataset
from tests.dataset_writers import WRITERS

PROTOCOLS = {"market1501", "single_gallery_shot", "recall", "tracklets"}
COUNTED = {"images", "identities", "junk", "distractors", "tracklets"}
ONES_OWN = {"folder", "table", "synthetic"}
DOCUMENTS = Path(__file__).parents[2] / "docs/datasets"


# A union is made of other layouts, and has tests of its own.
@pytest.fixture(params=[name for name in registry.names("dataset") if name != "union"])
def name(request: pytest.FixtureRequest) -> str:
    if request.param not in WRITERS:
        pytest.fail(f"data set {request.param!r} has no small tree; add one to dataset_writers.WRITERS")
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    """A small data set of the layout, in its own folder."""
    root = tmp_path / "set"
    root.mkdir()
    WRITERS[name](root)
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
    assert {*data.splits} >= {"train", "query"}
    assert bool(data.gallery) == (data.protocol != "recall")
    paths = {sample.path for split in data.splits.values() for sample in split}
    assert paths == {path for path in root.rglob("*") if path.is_file() and is_image(path)}
    assert not any(is_image(path) for path in data.skipped)
    for split in data.splits.values():
        assert [sample.index for sample in split] == list(range(len(split)))
        texts = [sample.path.as_posix() for sample in split]
        assert texts == sorted(texts)
        assert len({(sample.path, sample.box) for sample in split}) == len(split)
        assert all(load_image(sample.path, box=sample.box).size for sample in split[:3])


def test_labels_are_integers(data: Dataset) -> None:
    samples = [sample for split in data.splits.values() for sample in split]
    assert all(type(sample.identity) is int and sample.identity >= JUNK for sample in samples)
    assert {type(sample.camera) for sample in samples} == {int if data.has_cameras else type(None)}
    assert all(sample.dataset == data.name for sample in samples)
    assert data.num_identities >= 2
    assert {s.identity for s in data.train}.isdisjoint(s.identity for s in data.query + data.gallery)


def test_the_protocol_can_be_followed(data: Dataset) -> None:
    assert data.protocol in PROTOCOLS
    assert data.camera_filter in ("same_identity", "other_cameras", "none")
    assert data.has_cameras or data.camera_filter == "none"
    if data.protocol == "tracklets":
        assert all(type(sample.tracklet) is int for sample in data.query + data.gallery)
    for split in (data.train, data.query, data.gallery):
        labels: dict[int | None, set[tuple[int, int | None]]] = {}
        for sample in split:
            labels.setdefault(sample.tracklet, set()).add((sample.identity, sample.camera))
        assert all(len(seen) == 1 for tracklet, seen in labels.items() if tracklet is not None)
    if data.galleries is not None:
        assert len(data.galleries) == len(data.query)
        assert all(list(chosen) == sorted({*chosen}) for chosen in data.galleries)
        assert {index for chosen in data.galleries for index in chosen} == set(range(len(data.gallery)))


def test_queries_find_somebody(data: Dataset) -> None:
    searched = data.gallery or data.query
    for query in data.query:
        own = searched if data.galleries is None else [searched[i] for i in data.galleries[query.index]]
        found = [
            s for s in own if s.identity == query.identity and (s.path, s.box) != (query.path, query.box)
        ]
        if data.camera_filter != "none":
            found = [sample for sample in found if sample.camera != query.camera]
        assert found, query


def test_all_splits_load_and_one_more_is_refused(name: str, root: Path, data: Dataset) -> None:
    layout = registry.get("dataset", name)
    if data.num_splits == 1:
        assert data.name in ONES_OWN or "split" not in inspect.signature(layout).parameters or data.split_name
        return
    splits = [layout(root, split=split) for split in range(data.num_splits)]
    assert splits[0] == data
    assert len({other.split_name for other in splits}) == data.num_splits
    assert len({tuple(s.path for s in other.query) for other in splits}) > 1
    for split in (-1, data.num_splits):
        with pytest.raises(ConfigError, match=rf"split = {split} is outside 0\.\.{data.num_splits - 1}"):
            layout(root, split=split)


def test_published_counts_name_parts_and_what_is_counted(data: Dataset) -> None:
    assert bool(data.published) == (data.name not in ONES_OWN)
    for part, counts in data.published.items():
        assert part in data.splits
        assert counts
        assert counts.keys() <= COUNTED
        assert all(type(count) is int for count in counts.values())


def test_published_counts_stand_in_the_documentation(data: Dataset) -> None:
    if data.name in ONES_OWN:
        return
    page = (DOCUMENTS / f"{data.name}.md").read_text(encoding="utf-8")
    layout = registry.get("dataset", data.name)
    for text in (page, inspect.getdoc(layout) or ""):
        for part, counts in data.published.items():
            for what, count in counts.items():
                if (part, what) in (("query", "identities"), ("gallery", "identities")):
                    continue  # the same persons, told once
                assert f"{count:,}" in text, (part, what)
    for option in list(inspect.signature(layout).parameters)[1:]:
        assert f"`{option}=" in page, option


def test_reading_twice_gives_the_same(name: str, data: Dataset, root: Path) -> None:
    assert load_dataset(name, str(root)) == data


def test_strangers_are_listed_and_change_nothing(name: str, data: Dataset, root: Path) -> None:
    if name == "table":
        return  # it reads what its rows name and looks at nothing else
    folder = data.query[0].path.parent
    (folder / "Thumbs.db").touch()
    again = registry.get("dataset", name)(root)
    assert folder / "Thumbs.db" in again.skipped
    assert again.splits == data.splits


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
