"""Several sets as one: labels kept apart, one of them left out to be tested on."""

from __future__ import annotations

from pathlib import Path

import pytest

from reidkit.datasets import load_dataset
from reidkit.errors import ConfigError
from reidkit.types import JUNK
from tests.dataset_writers import WRITERS, write_images

SETS = ("market1501", "viper", "mars")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for layout in SETS:
        (root / layout).mkdir()
        WRITERS[layout](root / layout)
    return root


def test_training_parts_are_joined_and_labels_kept_apart(root):
    union = load_dataset("union", root)
    single = {layout: load_dataset(layout, root / layout) for layout in SETS}
    assert len(union.train) == sum(len(data.train) for data in single.values())
    assert union.num_identities == sum(data.num_identities for data in single.values())
    assert [sample.index for sample in union.train] == list(range(len(union.train)))
    assert not union.query
    for layout, data in single.items():
        mine = [sample for sample in union.train if sample.dataset == layout]
        others = [sample for sample in union.train if sample.dataset != layout]
        for label in ("identity", "camera", "tracklet"):
            values = {getattr(sample, label) for sample in mine} - {None}
            assert len(values) == len({getattr(sample, label) for sample in data.train} - {None})
            assert values.isdisjoint(getattr(sample, label) for sample in others)
        names = {sample.path: f"{layout}/{sample.identity_name or sample.identity}" for sample in data.train}
        assert all(sample.identity_name == names[sample.path] for sample in mine)


def test_one_set_is_left_out_to_be_tested_on_under_its_own_protocol(root):
    union = load_dataset("union", root, test="viper")
    viper = load_dataset("viper", root / "viper")
    assert {sample.dataset for sample in union.train} == {"market1501", "mars"}
    assert [sample.path for sample in union.query] == [sample.path for sample in viper.query]
    assert [sample.path for sample in union.gallery] == [sample.path for sample in viper.gallery]
    assert (union.protocol, union.camera_filter) == (viper.protocol, viper.camera_filter)
    # Who is the same person, and which camera is the same camera, does not change.
    for mine, theirs in ((union.query, viper.query), (union.gallery, viper.gallery)):
        pairs = {(a.identity, b.identity) for a, b in zip(mine, theirs, strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    trained = {sample.identity for sample in union.train}
    assert trained.isdisjoint(sample.identity for sample in union.query + union.gallery)


def test_multi_query_images_come_with_the_set_that_is_tested_on(tmp_path):
    for layout in ("market1501", "viper"):
        WRITERS[layout](tmp_path / layout)
    name = next(tmp_path.rglob("query/*.jpg")).name
    write_images(tmp_path / "market1501", [f"gt_bbox/{name}"])
    union = load_dataset("union", tmp_path, sets=["market1501", "viper"], test="market1501")
    market = load_dataset("market1501", tmp_path / "market1501")
    assert [sample.path for sample in union.multi_query] == [sample.path for sample in market.multi_query]
    assert len(union.multi_query) == 1
    assert union.multi_query[0].identity == union.query[0].identity


def test_further_sets_can_be_kept_out_of_training(root):
    union = load_dataset("union", root, test="market1501", without=["mars"])
    assert {sample.dataset for sample in union.train} == {"viper"}
    assert {sample.dataset for sample in union.query} == {"market1501"}


def test_junk_stays_junk(root):
    gallery = load_dataset("union", root, test="market1501").gallery
    truth = load_dataset("market1501", root / "market1501").gallery
    assert [s.identity == JUNK for s in gallery] == [s.identity == JUNK for s in truth]
    assert any(sample.identity == JUNK for sample in gallery)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ["market1501", "viperr"]}, r"unknown data ?set 'viperr'; did you mean 'viper'"),
        ({"sets": ["viper", "viper:other"]}, "sets has 'viper' twice"),
        ({"sets": "viper"}, r"sets = 'viper' is a text; expected a list, for example \[\"viper\"\]"),
        ({"without": ["viper", "mras"]}, "without = 'mras' is none of the sets; did you mean 'mars'"),
        ({"test": "mars", "without": ["viper", "market1501"]}, "none is left to train on"),
        ({"test": "vipre"}, "test = 'vipre' is none of the sets; did you mean 'viper'"),
    ],
)
def test_says_what_is_wrong(root, options, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset("union", root, **options)


def test_a_folder_without_sets_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder in .* is called as a layout is"):
        load_dataset("union", tmp_path)


def test_a_set_can_have_options(root):
    set_of_one = {"layout": "viper", "split": 3}
    union = load_dataset("union", root, sets=[set_of_one, "mars"], test="viper")
    viper = load_dataset("viper", root / "viper", split=3)
    assert [sample.path for sample in union.query] == [sample.path for sample in viper.query]
    assert union.split_name == viper.split_name


@pytest.mark.parametrize(
    ("entry", "message"),
    [({"layout": "viper", "splitt": 3}, "did you mean 'split'"), ({"folder": "viper"}, "names no layout")],
)
def test_options_of_a_set_are_checked(root, entry, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset("union", root, sets=[entry])
