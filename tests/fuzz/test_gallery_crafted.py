"""Galleries made to do harm: none touches a file outside its folder, keeps us busy, or gives a traceback."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import zlib

import numpy as np
import pytest

from reidkit.errors import ReidError
from reidkit.galleries import open_gallery

DIM = 16
VICTIM = b"precious" * 4096


def units(num, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "g"
    with open_gallery(path, encoder={"fingerprint": "abc", "path": "runs/x"}) as gallery:
        gallery.add(units(40), sources=[f"{n}.jpg" for n in range(40)], cameras=[1, 2] * 20)
        gallery.remove(ids=[3])
    return path


def sql(*statements):
    """Change the table without a care for its checksums."""

    def craft(path):
        connection = sqlite3.connect(path / "items.sqlite", isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return craft


def state(**changes):
    """Change the state, with a checksum that fits."""

    def craft(path):
        connection = sqlite3.connect(path / "items.sqlite", isolation_level=None)
        names = "revision, vectors, num_rows, num_items, next_id, dimension, encoder"
        values = list(connection.execute(f"SELECT {names} FROM gallery").fetchone())
        for name, value in changes.items():
            values[names.split(", ").index(name)] = value
        checksum = zlib.crc32(ascii(tuple(values)).encode())
        connection.execute(f"UPDATE gallery SET ({names}, checksum) = (?,?,?,?,?,?,?,?)", [*values, checksum])
        connection.close()

    return craft


def item(**changes):
    """Change an item, with a checksum that fits."""

    def craft(path):
        connection = sqlite3.connect(path / "items.sqlite", isolation_level=None)
        names = "id, row, source, identity, camera, time, content, more"
        values = list(connection.execute(f"SELECT {names} FROM items WHERE id = 7").fetchone())
        for name, value in changes.items():
            values[names.split(", ").index(name)] = value
        checksum = zlib.crc32(ascii(tuple(values)).encode())
        connection.execute(
            f"UPDATE OR REPLACE items SET ({names}, checksum) = (?,?,?,?,?,?,?,?,?) WHERE id = 7",
            [*values, checksum],
        )
        connection.close()

    return craft


def schema(statement, *others):
    """Rewrite what SQLite says of its own tables."""
    return sql("PRAGMA writable_schema = ON", statement, *others)


def vectors(path):
    [file] = path.glob("vectors*")
    return file


def linked(name):
    def craft(path):
        place = vectors(path) if name == "vectors" else path / name
        place.unlink(missing_ok=True)
        place.symlink_to(path.parent / "victim")

    return craft


def hard_linked(name):
    def craft(path):
        place = vectors(path) if name == "vectors" else path / name
        os.link(place, path.parent / f"twin of {name}")

    return craft


def piped(name):
    def craft(path):
        place = vectors(path) if name == "vectors" else path / name
        place.unlink(missing_ok=True)
        os.mkfifo(place)

    return craft


def journal_that_names_a_file(path):
    """SQLite deletes the file that the end of a journal names, once it has rolled it back."""
    page = (path / "items.sqlite").read_bytes()[:4096]
    magic = bytes.fromhex("d9d505f920a163d7")
    pages = (path / "items.sqlite").stat().st_size // 4096
    numbers = [number.to_bytes(4, "big") for number in (1, 0, pages, 512, 4096)]
    header = (magic + b"".join(numbers)).ljust(512, b"\0")
    checksum = sum(page[index] for index in range(4096 - 200, 0, -200))
    record = (1).to_bytes(4, "big") + page + checksum.to_bytes(4, "big")
    name = str(path.parent / "victim").encode()
    lock_page = 0x40000000 // 4096 + 1
    end = lock_page.to_bytes(4, "big") + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big")
    (path / "items.sqlite-journal").write_bytes(header + record + end + magic)


def vectors_of_any_length(path):
    """Rows of NaN, of infinity and of length 1000, with checksums that fit."""
    from reidkit.galleries import _storage, _vector_file

    file = vectors(path)
    words = np.fromfile(file, "<u8").reshape(40, -1).copy()
    values = _storage.numbers_of(words, file.name, DIM)
    values[0], values[1], values[4] = np.nan, np.inf, 1000
    words[:, -1] = _vector_file.checksums(words, np.arange(40), file.name)
    words.tofile(file)


def many_pages_lead_to_one(path):
    """A tree whose branches all lead to the same leaf has more rows than can ever be read."""
    file = path / "items.sqlite"
    content = bytearray(file.read_bytes())
    with sqlite3.connect(file) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'items'").fetchone()[0]
    start = (root - 1) * 4096
    cells = 400
    page = bytearray(4096)
    page[0] = 5
    page[3:5] = cells.to_bytes(2, "big")
    page[5:7] = (4096 - 5 * cells).to_bytes(2, "big")
    page[8:12] = root.to_bytes(4, "big")
    for cell in range(cells):
        place = 4096 - 5 * (cell + 1)
        page[12 + 2 * cell : 14 + 2 * cell] = place.to_bytes(2, "big")
        page[place : place + 5] = root.to_bytes(4, "big") + bytes([min(cell, 127)])
    content[start : start + 4096] = page
    file.write_bytes(content)


def to_format_1(path):
    """The tables of format 1, naming a file elsewhere."""
    from reidkit.galleries._records import TABLES

    (path / "items.sqlite").unlink()
    connection = sqlite3.connect(path / "items.sqlite", isolation_level=None)
    for statement in TABLES[1]:
        connection.execute(statement)
    connection.execute("PRAGMA application_id = 0x52454944")
    connection.execute("PRAGMA user_version = 1")
    return connection


def format_1(name="vectors.f32", num_rows=5, dimension=DIM, encoder=None, **label):
    def craft(path):
        connection = to_format_1(path)
        connection.execute(
            "INSERT INTO gallery VALUES (1, ?, ?, 9, ?, ?)", (name, num_rows, dimension, encoder)
        )
        values = {"id": 1, "row": 0, "source": "a.jpg", "identity": "1", "camera": 1, "time": None, **label}
        connection.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", tuple(values.values()))
        units(5).tofile(path / "vectors.f32")

    return craft


CASES = {
    "a time before all calendars": item(time=-1e300),
    "a time without an end": item(time=float("inf")),
    "another file": state(vectors="../victim"),
    "a whole path": state(vectors="/etc/passwd"),
    "a name with a zero": state(vectors="vectors-0123456789abcdef.f32\0../victim"),
    "a name of bytes": sql("UPDATE gallery SET vectors = x'2e2e2f76696374696d'"),
    "the table itself": state(vectors="items.sqlite"),
    "more rows than the file has": state(num_rows=2**40, num_items=2**40),
    "rows beyond all numbers": state(num_rows=2**63 - 1, num_items=2**62),
    "a dimension of nothing": state(dimension=0),
    "a dimension beyond memory": state(dimension=2**40),
    "a dimension that is text": sql("UPDATE gallery SET dimension = 'many'"),
    "less than no rows": state(num_rows=-1, num_items=-1),
    "an encoder that is no JSON": state(encoder="{"),
    "an encoder nested without end": state(encoder="[" * 100_000),
    "an encoder of a gigabyte": sql("UPDATE gallery SET encoder = zeroblob(100000000)"),
    "no state": sql("DELETE FROM gallery"),
    "two states": sql("INSERT INTO gallery SELECT * FROM gallery"),
    "an item beyond the file": item(row=10**12),
    "an item before the file": item(row=-1),
    "an item that is text": item(row="seven"),
    "a source of a gigabyte": sql("UPDATE items SET source = zeroblob(100000000) WHERE id = 7"),
    "an identity of bytes": sql("UPDATE items SET identity = x'ff' WHERE id = 7"),
    "a text that is not UTF-8": sql("UPDATE items SET identity = CAST(x'ff80' AS TEXT) WHERE id = 7"),
    "a camera that is a fraction": item(camera=1.5),
    "a time beyond all times": sql("UPDATE items SET time = 9e999 WHERE id = 7"),
    "labels that are no JSON": item(more="{"),
    "labels nested without end": item(more="[" * 100_000),
    "labels of another kind": item(more='{"labels":{"zone":[1]}}'),
    "labels of no name": item(more='{"labels":{"a b":1}}'),
    "labels of a time that is none": item(more='{"labels":{"zone":{"time":1e300}}}'),
    "labels beside others": item(more='{"label":{"zone":1}}'),
    "a tracklet that is a number": item(more='{"tracklet":3}'),
    "an item that was not counted": sql("DELETE FROM items WHERE id = 7"),
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END"),
    "a view in place of a table": sql(
        "ALTER TABLE items RENAME TO x",
        "CREATE VIEW items AS WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) "
        "SELECT i FROM r",
    ),
    "an index that calls a function": sql("CREATE INDEX evil ON items (abs(row))"),
    "a column that computes itself": sql("ALTER TABLE items ADD COLUMN z GENERATED ALWAYS AS (hex(source))"),
    "another table": sql("CREATE TABLE twin (x)"),
    "a table of any module": sql("CREATE VIRTUAL TABLE f USING fts5(x)"),
    "tables of other words": schema("UPDATE sqlite_master SET sql = replace(sql, 'INTEGER', 'integer')"),
    "roots in each other's place": schema(
        "UPDATE sqlite_master SET rootpage = 5 - rootpage WHERE rootpage IN (2, 3)"
    ),
    "a root beyond the file": schema("UPDATE sqlite_master SET rootpage = 99999 WHERE name = 'items'"),
    "a schema that is no SQL": schema(
        "UPDATE sqlite_master SET sql = 'CREATE TABLE items (' WHERE name = 'items'"
    ),
    "branches that lead to one leaf": many_pages_lead_to_one,
    "a later format": sql("PRAGMA user_version = 77"),
    "another program's": sql("PRAGMA application_id = 1"),
    "vectors that are a link": linked("vectors"),
    "a table that is a link": linked("items.sqlite"),
    "a journal that is a link": linked("items.sqlite-journal"),
    "a write-ahead log that is a link": linked("items.sqlite-wal"),
    "an index of a log that is a link": linked("items.sqlite-shm"),
    "a journal that names a file": journal_that_names_a_file,
    "vectors with a second name": hard_linked("vectors"),
    "a table with a second name": hard_linked("items.sqlite"),
    "vectors that are a pipe": piped("vectors"),
    "a table that is a pipe": piped("items.sqlite"),
    "a journal that is a pipe": piped("items.sqlite-journal"),
    "vectors of any length": vectors_of_any_length,
    "format 1: another file": format_1("../victim"),
    "format 1: more rows than the file has": format_1(num_rows=2**40),
    "format 1: a dimension of nothing": format_1(dimension=0),
    "format 1: an item beyond the file": format_1(row=5),
    "format 1: an item that is text": format_1(row="x"),
    "format 1: an identity of bytes": format_1(identity=b"\xff"),
    "format 1: a time that is text": format_1(time="noon"),
    "format 1: an encoder that is no JSON": format_1(encoder="}"),
}


def tried(path):
    """Everything that one does with a gallery; the errors it answers with."""
    verbs = [
        lambda gallery: gallery.search(units(3), top=5),
        lambda gallery: gallery.search(units(1), where={"camera": 1}),
        lambda gallery: gallery.items(),
        lambda gallery: gallery.verify(),
        lambda gallery: gallery.add(units(2, seed=1), sources=["7.jpg", "new.jpg"]),
        lambda gallery: gallery.remove(where={"camera": 2}),
        lambda gallery: gallery.compact(),
        lambda gallery: gallery.repair(drop=True),
        lambda gallery: gallery.info(),
    ]
    errors = []
    for verb in verbs:
        try:
            with open_gallery(path, encoder={"fingerprint": "abc"}) as gallery:
                verb(gallery)
        except ReidError as error:
            errors.append(str(error))
    return errors


@pytest.mark.parametrize("case", CASES)
def test_a_crafted_gallery_is_refused_and_harms_nothing(whole, tmp_path, case):
    path = tmp_path / "g"
    shutil.copytree(whole, path)
    (tmp_path / "victim").write_bytes(VICTIM)
    CASES[case](path)
    twins = {twin: twin.read_bytes() for twin in tmp_path.glob("twin of *")}
    started = time.monotonic()
    errors = tried(path)
    assert time.monotonic() - started < 50
    assert errors, "it was taken for a gallery"
    for error in errors:
        assert "\n" not in error
        assert len(error) < 1000
    assert (tmp_path / "victim").read_bytes() == VICTIM
    for twin, content in twins.items():
        assert twin.read_bytes() == content
    assert {file.name for file in tmp_path.iterdir()} == {"g", "victim", *(twin.name for twin in twins)}
