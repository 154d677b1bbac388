"""Columns of labels: the same answers as the items give, whatever was changed, and damage is seen."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.galleries import DamagedGallery, _column_data, _columns_table, _items_table, open_gallery

NUM = 60
NEVER = datetime(1, 1, 1, tzinfo=UTC)


def units(num, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(_column_data, "CHUNK", 8)


@pytest.fixture
def path(tmp_path):
    """Sixty items of which some were removed, with columns of all but the last few."""
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            units(NUM),
            sources=range(NUM),
            cameras=[("door", 3, None)[n % 3] for n in range(NUM)],
            identities=[n % 7 for n in range(NUM)],
            times=[None if n % 5 == 0 else n for n in range(NUM)],
            tracklets=[n // 2 for n in range(NUM)],
            labels={
                "height": [1.5 + n / 100 if n % 4 else None for n in range(NUM)],
                "seen": [datetime(2024, 5, 1 + n % 9, tzinfo=UTC) for n in range(NUM)],
                "hat": [n % 2 == 0 for n in range(NUM)],
                "few": [1 if n == 30 else True if n == 31 else "1" if n == 32 else None for n in range(NUM)],
            },
        )
        gallery.remove(ids=[2, 9])
    return tmp_path / "g"


FILTERS = {
    "a camera": ({"camera": 3}, lambda item: item.camera == 3),
    "no camera": ({"camera": {"not": ["door", None]}}, lambda item: item.camera not in ("door", None)),
    "a time": (
        {"identity": [1, 2], "time": {"from": 10, "to": 40}},
        lambda item: item.identity in ("1", "2") and item.time is not None and 10 <= item.time < 40,
    ),
    "unknown": (
        {"identity": {"not": "5"}, "camera": None},
        lambda item: item.identity != "5" and item.camera is None,
    ),
    "sources": (
        {"time": {"to": 7}, "source": {"not": "1"}},
        lambda item: item.time is not None and item.time < 7 and item.source != "1",
    ),
    "tracklet": ({"tracklet": [3, "15"]}, lambda item: item.tracklet in ("3", "15")),
    "a number": (
        {"height": {"from": 1.6, "to": 2}},
        lambda item: 1.6 <= item.labels.get("height", 0) < 2,
    ),
    "a day": (
        {"seen": {"from": datetime(2024, 5, 3)}},
        lambda item: item.labels.get("seen", NEVER) >= datetime(2024, 5, 3, tzinfo=UTC),
    ),
    "truth": ({"hat": True}, lambda item: item.labels.get("hat") is True),
    "one": ({"few": 1}, lambda item: item.labels.get("few") == 1 and item.labels["few"] is not True),
}


def check(gallery):
    """All filters answer as the items themselves do."""
    items = gallery.items()
    for where, passes in FILTERS.values():
        expected = {item.id for item in items if passes(item)}
        assert {item.id for item in gallery.items(where=where)} == expected
        assert {hit.id for hit in gallery.search(units(1), top=99, where=where)[0]} == expected


def change(gallery, number):
    """One of the changes that there are."""
    rng = np.random.default_rng(number)
    items = gallery.items()
    some = rng.choice([item.id for item in items], 5, replace=False).tolist()
    sources = [item.source for item in gallery.items(ids=some)]
    labels = {"height": rng.random(5), "seen": [datetime(2024, 5, 7)] * 5, "few": [1, True, "1", None, 1]}
    if number % 5 == 0:
        gallery.add(units(5, number), sources=sources, cameras=[3] * 5, identities=[1] * 5, labels=labels)
    elif number % 5 == 1:
        gallery.add(units(5, number), identities=[2] * 5, labels=labels, cameras=["attic"] * 5)
    elif number % 5 == 2:
        gallery.remove(ids=some)
    elif number % 5 == 3:
        gallery.relabel(some, cameras=["door", 3, None, 3, 3], times=[None, 20, 3, 3, 3], labels=labels)
    else:
        gallery.compact()


def test_filters_answer_as_the_items_do_after_any_change(path):
    with open_gallery(path) as writer, open_gallery(path) as reader:
        check(reader)
        for number in range(12):
            change(writer, number)
            check(reader)
            with open_gallery(path) as new:
                check(new)
                assert new.verify().damaged == ()


def read_rows(monkeypatch):
    """How many items are read from the table in full, from now on; grows."""
    counted, read = [], _items_table.ItemsTable.with_checksums

    def counting(table, state, rows):
        counted.append(len(rows))
        return read(table, state, rows)

    monkeypatch.setattr(_items_table.ItemsTable, "with_checksums", counting)
    return counted


def test_a_filter_reads_only_the_items_that_have_no_columns_yet(path, monkeypatch):
    counted = read_rows(monkeypatch)
    with open_gallery(path) as gallery, open_gallery(path) as writer:
        assert len(gallery.search(units(1), top=99, where={"camera": 3})[0]) == 20 - 1
        assert counted == [NUM % 8]
        writer.add(units(3, 5), cameras=[3] * 3)
        assert len(gallery.search(units(1), top=99, where={"camera": {"not": 3}})[0]) == 40 - 1
        assert counted == [NUM % 8, 3]
        writer.add(units(3, 6), cameras=[3] * 3)
        assert len(gallery.search(units(1), top=99, where={"camera": 3})[0]) == 20 - 1 + 6
        assert counted == [NUM % 8, 3, 2]


def test_removing_items_reads_one_chunk_and_not_all(path):
    asked = []
    with open_gallery(path) as gallery:
        gallery._table.db.set_trace_callback(asked.append)
        gallery.remove(ids=[20])
    changed = {statement.split("first = ")[1] for statement in asked if "DELETE FROM columns" in statement}
    assert changed == {"16"}


def columns_of(path, change):
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute(change)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE columns SET data = x'00' || substr(data, 2) WHERE label = 'camera' AND first = 16",
        "UPDATE columns SET data = substr(data, 1, 9) WHERE label = 'camera'",
        "UPDATE columns SET data = 'text' WHERE label = 'camera'",
        "UPDATE columns SET checksum = 7 WHERE label = 'camera'",
        "UPDATE columns SET part = 1 WHERE label = '' AND first = 8",
        "UPDATE columns SET first = 800 WHERE label = '' AND first = 48",
        "UPDATE columns SET first = 11 WHERE label = '' AND first = 8",
        "DELETE FROM columns WHERE label = '' AND first = 8",
    ],
)
def test_damage_of_the_columns_is_refused_and_mended_without_loss(path, damage):
    columns_of(path, damage)
    with open_gallery(path) as gallery:
        with pytest.raises(DamagedGallery, match="gallery repair"):
            gallery.search(units(1), where={"camera": 3})
        with pytest.raises(DamagedGallery, match="gallery repair"):
            gallery.verify()
        assert gallery.repair() == ()
        check(gallery)
        assert gallery.verify().damaged == ()


def test_columns_that_say_something_else_are_found_by_a_check_of_all(path):
    columns_of(path, "DELETE FROM columns WHERE label = 'camera' AND first = 16")
    with open_gallery(path) as gallery, pytest.raises(DamagedGallery, match="columns of labels"):
        gallery.verify()


@pytest.mark.parametrize(
    "values",
    ["", "[", "{}", '[["a"]]', "[1]", "[null]", "[" * 100_000, '[{"time":1e300}]', "[1" + "0" * 400 + "]"],
)
def test_nonsense_with_checksums_that_fit_is_refused(path, values):
    """A chunk as it could be crafted."""
    data = len(values).to_bytes(4, "little") + values.encode() + np.arange(8, dtype="<i4").tobytes()
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute(
            "UPDATE columns SET data = ?, checksum = ? WHERE label = 'height' AND first = 8",
            (data, _columns_table._checksum("height", 8, 0, 1, data)),
        )
        connection.execute("UPDATE columns SET revision = 1 WHERE label = 'height' AND first = 8")
    with open_gallery(path) as gallery, pytest.raises(DamagedGallery, match="columns of labels"):
        gallery.search(units(1), where={"height": {"from": 0}})


def test_a_gallery_without_columns_answers_and_gets_them_with_the_next_change(path):
    columns_of(path, "DROP TABLE columns")
    with open_gallery(path) as gallery:
        check(gallery)
        gallery.remove(ids=[5])
        check(gallery)
    with sqlite3.connect(path / "items.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM columns WHERE label = ''").fetchone() == (NUM // 8,)
        assert connection.execute("SELECT sql FROM sqlite_master WHERE name = 'columns'").fetchone() == (
            _columns_table.TABLE,
        )
    with open_gallery(path) as gallery:
        check(gallery)
        assert gallery.verify().damaged == ()


def test_a_change_that_is_taken_back_leaves_the_columns(path, monkeypatch):
    with open_gallery(path) as gallery:
        with monkeypatch.context() as patch:
            patch.setattr(_items_table.ItemsTable, "record", lambda *_: 1 / 0)
            for verb in (lambda: gallery.remove(ids=[20]), lambda: gallery.relabel([21], cameras=["x"])):
                with pytest.raises(ZeroDivisionError):
                    verb()
        gallery.add(units(1))
        check(gallery)
        assert gallery.verify().damaged == ()


def test_long_texts_are_kept_in_parts(path, monkeypatch):
    monkeypatch.setattr(_columns_table, "_PART", 1000)
    names = [f"{n}" * 3000 for n in range(100, 140)]
    with open_gallery(path) as gallery:
        gallery.add(units(40), labels={"story": names})
        [item] = gallery.items(where={"story": names[7]})
        assert item.labels["story"] == names[7]
        assert gallery.verify().damaged == ()


def test_a_gallery_that_was_put_back_and_went_another_way(path, tmp_path):
    shutil.copytree(path, tmp_path / "copy")
    with open_gallery(path) as gallery:
        gallery.add(units(5, 3), cameras=["door"] * 5)
    with open_gallery(tmp_path / "copy") as gallery:
        gallery.add(units(5, 3), cameras=[3] * 5)
        gallery.relabel([1, 4], cameras=[3, None])
        check(gallery)


@pytest.mark.parametrize("column", ["camera = 4", "row = row + 100", "row = 1", "checksum = 7", "row = 'x'"])
def test_a_filter_finds_damage_of_items_that_have_no_columns_yet(path, column):
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute(f"UPDATE items SET {column} WHERE id = {NUM - 1}")
    with open_gallery(path) as gallery:
        with pytest.raises(DamagedGallery):
            gallery.search(units(1), where={"camera": "door"})
        with pytest.raises(DataError):
            gallery.search(units(1), top=99)
