"""The approximate index of a folder: what it finds, what stays exact, and which files are not believed."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError, ReidError
from reidkit.files import WriteError
from reidkit.galleries import DamagedGallery, _approximate, erase, open_gallery

pytest.importorskip("faiss", reason="faiss is not installed")
NUM, DIM = 400, 24


def people(num=NUM, seed=0):
    """Unit embeddings, ten of each person."""
    centres = np.random.default_rng(0).normal(size=(num // 10 + 1, DIM))
    rows = centres[np.arange(num) % len(centres)] + 0.5 * np.random.default_rng(seed).normal(size=(num, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(people(), cameras=[number % 4 for number in range(NUM)])
        assert gallery.build_index(min_recall=0.9) >= 0.9
    return tmp_path / "g"


@pytest.fixture
def used(monkeypatch):
    """How often the index was asked."""
    asked = []
    real = _approximate.Approximate.candidates

    def candidates(self, query, num):
        asked.append(num)
        return real(self, query, num)

    monkeypatch.setattr(_approximate.Approximate, "candidates", candidates)
    return asked


def found(gallery, queries=None, **asked):
    queries = people(20, seed=9) if queries is None else queries
    return [[(hit.id, hit.score) for hit in hits] for hits in gallery.search(queries, **asked)]


def exactly(gallery, monkeypatch, **asked):
    with monkeypatch.context() as patch:
        patch.setattr(_approximate.Approximate, "nearest", lambda *args, **options: None)
        return found(gallery, **asked)


def index_of(path):
    [file] = path.glob("index-*")
    return file


def test_it_finds_what_exact_search_finds(path, used, monkeypatch):
    with open_gallery(path) as gallery:
        assert found(gallery) == exactly(gallery, monkeypatch)
        assert len(used) == 20
        info = gallery.info()
        assert (info["index"], info["recall"]["num_items"], info["recall"]["num_added_since"]) == (
            "hnsw",
            NUM,
            0,
        )
        assert info["recall"]["all"] >= 0.9
        gallery.drop_index()
        assert gallery.info()["index"] == "exact"
        assert not list(path.glob("index-*"))


@pytest.mark.parametrize("asked", [{"where": {"camera": {"not": 1}}}, {"group": "tracklet"}])
def test_conditions_and_groups_are_answered_exactly(path, used, asked):
    with open_gallery(path) as gallery:
        gallery.search(people(20, seed=9), **asked)
    assert not used


def test_what_came_and_went_since(path, used, monkeypatch):
    with open_gallery(path) as gallery:
        queries = people(20, seed=9)
        new = gallery.add(queries[:5], sources=list("abcde"))
        gallery.remove(ids=[hits[0].id for hits in gallery.search(queries[5:10], top=1)])
        gallery.add(people(1, seed=4), sources=["b"])
        used.clear()
        assert found(gallery) == exactly(gallery, monkeypatch)
        assert used
        assert [hits[0].id for hits in gallery.search(queries[[0, 2]], top=1)] == new[[0, 2]].tolist()
        assert gallery.info()["recall"]["num_added_since"] == 6


def test_where_most_are_gone_search_is_exact(path, monkeypatch):
    with open_gallery(path) as gallery:
        gallery.remove(where={"camera": [0, 1, 2]})
        assert found(gallery, top=80) == exactly(gallery, monkeypatch, top=80)


def test_storages_have_indexes(tmp_path, used, monkeypatch):
    for storage in ("float16", "int8"):
        with open_gallery(tmp_path / storage, storage=storage) as gallery:
            gallery.add(people())
            gallery.build_index(min_recall=0.9)
            assert found(gallery) == exactly(gallery, monkeypatch)
            assert used


def test_below_the_recall_asked_for_nothing_is_kept(path, monkeypatch):
    before = index_of(path).read_bytes()
    monkeypatch.setattr(_approximate.Approximate, "candidates", lambda self, query, num: np.arange(60))
    told = r"finds \d+\.\d % of the 10 nearest, fewer than the 95.0 % asked"
    with open_gallery(path) as gallery, pytest.raises(DataError, match=told):
        gallery.build_index(min_recall=0.95)
    assert index_of(path).read_bytes() == before


def test_compacting_and_erasing_drop_it(path):
    with open_gallery(path) as gallery:
        gallery.compact()
        assert not list(path.glob("index-*"))
        gallery.build_index()
        erase(gallery, {"camera": 1})
        assert not list(path.glob("index-*"))
        assert gallery.info()["index"] == "exact"


def flipped(place):
    def change(file):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)

    return change


@pytest.mark.parametrize(
    "change",
    [
        flipped(40),
        flipped(-4090),
        flipped(-4096),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(b"{" * 5000),
    ],
)
def test_a_damaged_index_is_not_used(path, used, caplog, change):
    change(index_of(path))
    with caplog.at_level(logging.WARNING), open_gallery(path) as gallery:
        gallery.search(people(3))
        gallery.search(people(3))
    assert not used
    [told] = caplog.messages
    assert "is not used (it " in told
    assert "search is exact. `reid gallery index" in told


def test_an_index_that_somebody_else_built_is_not_read(path, used, caplog, tmp_path, monkeypatch):
    for place in ("never", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
        if place == "other":
            with open_gallery(tmp_path / "mine") as gallery:
                gallery.add(people(30))
                gallery.build_index()
            used.clear()
        with open_gallery(path) as gallery:
            assert len(gallery.search(people(1))[0]) == 10
        assert "it was not built by this user on this machine" in caplog.messages[-1]
    assert not used


def test_an_index_of_another_gallery_is_not_used(path, used, caplog, tmp_path):
    with open_gallery(tmp_path / "other") as gallery:
        gallery.add(people(seed=5))
        gallery.build_index()
    index_of(path).write_bytes(index_of(tmp_path / "other").read_bytes())
    used.clear()
    with open_gallery(path) as gallery:
        gallery.search(people(1))
    assert "it is of another gallery" in caplog.messages[-1]
    assert not used


def test_a_damaged_vector_is_refused_though_an_index_knows_it(path):
    with open_gallery(path) as gallery:
        number = gallery.search(people(1), top=1)[0][0].id
    [file] = path.glob("vectors-*")
    words = np.memmap(file, "<u8", mode="r+").reshape(NUM, -1)
    words[number - 1, 0] ^= np.uint64(1 << 40)
    words.flush()
    with open_gallery(path) as gallery, pytest.raises(DamagedGallery, match="embeddings of 1 of 400 items"):
        gallery.search(people(1))


def test_there_must_be_something_to_index_and_room_for_it(tmp_path, monkeypatch):
    with open_gallery(tmp_path / "g") as gallery:
        with pytest.raises(DataError, match="is empty; add embeddings first"):
            gallery.build_index()
        gallery.add(people(30))
        for wrong in (-0.1, 1.5, True, "much"):
            with pytest.raises(ConfigError, match=r"min_recall is .*; expected a share from 0 to 1"):
                gallery.build_index(min_recall=wrong)
        with pytest.raises(ConfigError, match="sample is 0"):
            gallery.build_index(sample=0)

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(_approximate._index_file, "seal", full)
        with pytest.raises(WriteError, match="No space left on device; there is no new index"):
            gallery.build_index()
        assert not list((tmp_path / "g").glob("index-*"))


def test_without_the_library_it_says_what_to_install(path, monkeypatch, caplog):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(_approximate.importlib, "import_module", absent)
    with open_gallery(path) as gallery:
        assert len(gallery.search(people(1))[0]) == 10
        assert 'pip install "reidkit[ann]"' in caplog.text
        with pytest.raises(ReidError, match="an approximate index needs faiss"):
            gallery.build_index()
