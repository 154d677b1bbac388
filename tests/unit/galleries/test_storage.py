"""Vectors in float16 and int8: half and a quarter is read, and the answer is exact of what is stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import DamagedGallery, _storage, open_gallery
from reidkit.galleries._nearest import nearest

DIM = 24


def units(num, seed=0, dim=DIM):
    vectors = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stored(vectors, name):
    """As they are searched once they were written to a file of this name."""
    dimension = vectors.shape[1]
    floats = _storage.numbers_of(
        _storage.packed(vectors, _storage.float_name(name)), _storage.float_name(name), dimension
    )
    if not name.endswith(".i8"):
        return _storage.Stored(floats)
    words = _storage.packed(vectors, name)
    return _storage.Stored(floats, _storage.numbers_of(words, name, dimension), _storage.factors_of(words))


@pytest.mark.parametrize("name", ["x.f16", "x.i8"])
@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(1, 700),
    dim=st.sampled_from([1, 3, 8, 65]),
    top=st.integers(1, 12),
    share=st.sampled_from([0.1, 0.6, 1]),
    kind=st.sampled_from(["any", "near", "axes", "equal"]),
    seed=st.integers(0, 99),
)
def test_a_search_is_exact_of_what_is_stored(name, num, dim, top, share, kind, seed):
    rng = np.random.default_rng(seed)
    vectors = units(num, seed, dim)
    if kind == "near":
        vectors = vectors[:1] + 1e-4 * vectors
    elif kind == "axes":
        vectors = np.eye(dim, dtype=np.float32)[rng.integers(0, dim, num)] + 1e-7 * vectors
    elif kind == "equal":
        vectors = np.repeat(vectors[:1], num, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    there = stored(vectors, name)
    rows = np.flatnonzero(rng.random(num) < share)
    queries = np.concatenate([units(2, seed + 1, dim), vectors[:1]])
    for query, (found, scores) in zip(queries, nearest(there, rows, queries, top=top), strict=True):
        exact = (there.vectors[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort([rows, -exact])[:top]
        assert found.tolist() == rows[order].tolist()
        np.testing.assert_array_equal(scores, np.clip(exact[order], -1, 1))


@pytest.fixture(params=["float16", "int8"])
def storage(request):
    return request.param


def files(path):
    return sorted(file.suffix for file in path.glob("vectors*"))


def test_a_gallery_of_either_storage_through_all_its_verbs(tmp_path, storage):
    path = tmp_path / "g"
    with open_gallery(path, storage=storage) as gallery:
        ids = gallery.add(units(300), sources=range(300), cameras=[n % 3 for n in range(300)])
        gallery.remove(ids=ids[:20])
        gallery.add(units(5, 1), sources=range(100, 105))
        gallery.compact()
        gallery.add(units(5, 2))
    assert files(path) == ([".f16", ".i8"] if storage == "int8" else [".f16"])
    with open_gallery(path) as gallery:
        assert gallery.info()["storage"] == storage
        vectors, items = gallery.embeddings(), gallery.items()
        expected = {item.id: vector for item, vector in zip(items, vectors, strict=True)}
        given = np.concatenate([units(300), units(5, 2)])
        given[100:105] = units(5, 1)
        assert max(np.abs(expected[id] - given[id - 1]).max() for id in expected) < 1e-3
        query = units(1, 9)
        exact = {id: float(vector.astype(np.float64) @ query[0]) for id, vector in expected.items()}
        for where in ({}, {"camera": 1}, {"source": "299"}):
            scores = {item.id: exact[item.id] for item in gallery.items(where=where)}
            [hits] = gallery.search(query, top=20, where=where)
            assert [hit.id for hit in hits] == sorted(scores, key=lambda id: -scores[id])[:20]
            assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], abs=1e-12)
        assert gallery.verify().damaged == ()
        [groups] = gallery.search(query, top=2, group="identity")
        assert groups[0].hits[0].id == gallery.search(query, top=1)[0][0].id


def test_what_is_read_and_kept_is_told(tmp_path):
    sizes = {}
    for storage in _storage.STORAGES:
        with open_gallery(tmp_path / storage, storage=storage) as gallery:
            gallery.add(units(10, dim=512))
            sizes[storage] = gallery.info()["searched_bytes"] / 10
    assert sizes == {"float32": 2056, "float16": 1032, "int8": 528}


@pytest.mark.parametrize("suffix", ["f16", "i8"])
def test_damage_in_either_file_is_found(tmp_path, suffix):
    path = tmp_path / "g"
    with open_gallery(path, storage="int8") as gallery:
        gallery.add(units(50))
    [file] = path.glob(f"vectors*.{suffix}")
    content = bytearray(file.read_bytes())
    content[20 * len(content) // 50 + 3] ^= 4
    file.write_bytes(content)
    with open_gallery(path) as gallery:
        with pytest.raises(DamagedGallery, match="1 of 50 items"):
            gallery.search(units(1))
        assert gallery.verify().damaged == (21,)
        assert gallery.repair(drop=True) == (21,)
        assert len(gallery.search(units(1), top=99)[0]) == 49
        file.unlink()
    with open_gallery(path) as gallery, pytest.raises(DataError, match="it was cut or replaced"):
        gallery.search(units(1))


def test_storage_is_chosen_once(tmp_path):
    with pytest.raises(ConfigError, match="storage is 'float'; did you mean 'float32'"):
        open_gallery(tmp_path / "g", storage="float")
    assert not (tmp_path / "g").exists()
    open_gallery(tmp_path / "g", storage="int8").close()
    with pytest.raises(ConfigError, match="stores int8, not float16, which is chosen when a gallery is made"):
        open_gallery(tmp_path / "g", storage="float16")
    with open_gallery(tmp_path / "g", storage="int8") as gallery:
        assert gallery.search(units(1)) == [[]]
