"""Columns of labels: the same answers as the table's, whatever became of the file they are kept in."""

from __future__ import annotations

import json
import shutil
import sqlite3

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.galleries import DamagedGallery, _columns, _items_table, open_gallery

NUM = 60


def units(num, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A gallery whose columns were kept."""
    monkeypatch.setattr(_columns, "WORTH_KEEPING", 1)
    path = tmp_path / "g"
    with open_gallery(path) as gallery:
        gallery.add(
            units(NUM),
            sources=range(NUM),
            cameras=[("door", 3, None)[n % 3] for n in range(NUM)],
            identities=[n % 7 for n in range(NUM)],
            times=[None if n % 5 == 0 else n for n in range(NUM)],
        )
        gallery.remove(ids=[2, 9])
        gallery.items(where={"camera": 3})
    assert (path / _columns.FILE).exists()
    return path


FILTERS = [
    {"camera": 3},
    {"camera": {"not": ["door", None]}},
    {"identity": [1, 2], "time": {"from": 10, "to": 40}},
    {"identity": {"not": "5"}, "camera": None},
    {"time": {"to": 7}, "source": {"not": "1"}},
]


def answers(path):
    with open_gallery(path, create=False) as gallery:
        return [(gallery.items(where=where), gallery.search(units(2, 1), where=where)) for where in FILTERS]


def read_rows(monkeypatch):
    """How many items are read from the table in full, from now on; grows."""
    counted, read = [], _items_table.ItemsTable.with_checksums

    def counting(table, state, rows):
        counted.append(len(rows))
        return read(table, state, rows)

    monkeypatch.setattr(_items_table.ItemsTable, "with_checksums", counting)
    return counted


def test_kept_columns_answer_as_the_table_does(kept, monkeypatch):
    from_file = answers(kept)
    (kept / _columns.FILE).unlink()
    monkeypatch.setattr(_columns, "WORTH_KEEPING", 10**9)
    assert answers(kept) == from_file
    assert not (kept / _columns.FILE).exists()
    assert any(items for items, _ in from_file)


def test_a_process_reads_only_what_the_kept_columns_do_not_know(kept, monkeypatch):
    with open_gallery(kept) as gallery:
        gallery.add(units(4, 5), cameras=[3] * 4)
        counted = read_rows(monkeypatch)
        assert len(gallery.search(units(1), top=99, where={"camera": 3})[0]) == 24 - 1
        assert counted == [4]
        gallery.search(units(1), where={"camera": {"not": 3}})
        assert counted == [4]


@pytest.mark.parametrize("where", range(0, 400, 45))
def test_damage_to_the_kept_columns_changes_no_answer(kept, where):
    expected = answers(kept)
    file = kept / _columns.FILE
    content = bytearray(file.read_bytes())
    content[where * len(content) // 400] ^= 1 << where % 8
    file.write_bytes(content)
    assert answers(kept) == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 15, b"x" * 24, bytes(10_000), None],
    ids=["none", "short", "odd", "zeros", "a link"],
)
def test_something_else_in_place_of_the_kept_columns(kept, content):
    expected = answers(kept)
    file = kept / _columns.FILE
    file.unlink()
    if content is None:
        file.symlink_to(kept / "items.sqlite")
    else:
        file.write_bytes(content)
    before = (kept / "items.sqlite").read_bytes()
    assert answers(kept) == expected
    assert (kept / "items.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    "values",
    [
        {"identity": [], "camera": [], "more": []},
        {"identity": [[1]] * 99, "camera": ["x"] * 99, "more": []},
        {"identity": "7" * 99, "camera": ["x"] * 99, "more": []},
        {"camera": ["x"] * 99},
        [],
        None,
    ],
)
def test_kept_columns_with_a_digest_that_fits_and_nonsense_within(kept, values):
    expected = answers(kept)
    [vectors] = kept.glob("vectors*")
    whole = _columns.read_file(kept, vectors.name)
    body = NUM.to_bytes(8, "little") + whole.records.tobytes() + json.dumps(values).encode()
    body = (NUM - 2).to_bytes(8, "little") + body[8:]
    (kept / _columns.FILE).write_bytes(_columns._digest(vectors.name, body) + body)
    assert len(_columns.read_file(kept, vectors.name).rows) == 0
    assert answers(kept) == expected


def test_columns_of_a_gallery_that_was_put_back_and_went_another_way(kept, tmp_path):
    """A copy from before, other items in the same rows, and the columns of the first way beside them."""
    (kept / _columns.FILE).rename(tmp_path / "first way")
    shutil.copytree(kept, tmp_path / "copy")
    with open_gallery(kept) as gallery:
        gallery.add(units(5, 3), cameras=["door"] * 5)
        gallery.items(where={"camera": "door"})
    with open_gallery(tmp_path / "copy") as gallery:
        gallery.add(units(5, 3), cameras=[3] * 5)
        gallery.relabel([1, 4], cameras=[3, None])
        shutil.copy(kept / _columns.FILE, tmp_path / "copy")
        expected = {item.id for item in gallery.items() if item.camera == 3}
    with open_gallery(tmp_path / "copy") as gallery:
        assert {item.id for item in gallery.items(where={"camera": 3})} == expected


def test_another_handle_sees_labels_change(kept):
    with open_gallery(kept) as reader, open_gallery(kept) as writer:
        assert 1 not in {item.id for item in reader.items(where={"camera": 3})}
        writer.relabel([1], cameras=[3])
        assert 1 in {item.id for item in reader.items(where={"camera": 3})}
        writer.remove(ids=[1])
        assert 1 not in {item.id for item in reader.items(where={"camera": 3})}


@pytest.mark.parametrize("column", ["camera = 4", "row = row + 100", "row = 1", "checksum = 7", "row = 'x'"])
def test_a_filter_finds_damage_of_labels_that_are_new_to_it(kept, column):
    (kept / _columns.FILE).unlink()
    with sqlite3.connect(kept / "items.sqlite") as connection:
        connection.execute(f"UPDATE items SET {column} WHERE id = 20")
    with open_gallery(kept) as gallery:
        with pytest.raises(DamagedGallery):
            gallery.search(units(1), where={"camera": "door"})
        with pytest.raises(DataError):
            gallery.search(units(1))


def test_what_was_removed_is_not_in_the_kept_columns(kept):
    with open_gallery(kept) as gallery:
        gallery.add(units(1, 9), identities=["somebody in particular"])
        gallery.items(where={"camera": 3})
        assert b"somebody in particular" in (kept / _columns.FILE).read_bytes()
        gallery.remove(where={"identity": "somebody in particular"})
        assert not (kept / _columns.FILE).exists()
        gallery.items(where={"camera": 3})
        with open_gallery(kept) as other:
            other.items(where={"camera": 3})
        assert b"somebody in particular" not in b"".join(f.read_bytes() for f in kept.glob("labels*"))


def test_columns_are_not_kept_where_nothing_can_be_written(kept, monkeypatch):
    (kept / _columns.FILE).unlink()

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    with open_gallery(kept) as gallery, monkeypatch.context() as patch:
        patch.setattr(_columns, "open_regular", refuse)
        assert gallery.items(where={"camera": 3})
    assert sorted(file.name for file in kept.glob("labels*")) == []
