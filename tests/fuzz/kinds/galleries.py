"""Galleries: vectors and SQLite damaged byte by byte, crafted by SQL, and asked nonsense in Python."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fuzz.cases import Answer, Case, Maker, kind
from tests.fuzz.hostile import HOSTILE_TEXTS, scalars, texts, values
from tests.fuzz.mutation import damaged, flipped
from tests.fuzz.world import World

_TOP = 96


def _with_gallery(maker: Maker) -> Path:
    shutil.copytree(maker.world.gallery(), maker.folder / "g")
    shutil.copy(maker.world.photo(".jpg"), maker.folder / "p.jpg")
    return maker.folder / "g"


def same_hits(world: World) -> Answer:
    """That a search answers as the undamaged gallery does."""

    def right(stdout: str) -> str | None:
        found, expected = json.loads(stdout)[0]["hits"], _expected_hits(world)
        if len(found) not in (10, len(expected)):
            return "hits are missing"
        for ours, theirs in zip(found, expected, strict=False):
            for key, value in theirs.items():
                if ours[key] != value:
                    return f"{key} of a hit differs"
        return None

    return right


def _expected_hits(world: World) -> list[dict[str, Any]]:
    """Hits of the undamaged gallery, asked once in Python and kept."""
    kept = world.folder / "expected.json"
    if not kept.exists():
        copy = world.folder / "asked.gallery"
        shutil.copytree(world.gallery(), copy, dirs_exist_ok=True)
        kept.write_text(_hits(copy, _query(world)))
    found: list[dict[str, Any]] = json.loads(kept.read_text())[0]["hits"]
    return found


def _query(world: World) -> NDArray[np.float32]:
    """The embedding (1, 96) of the photo that galleries are searched for."""
    kept = world.folder / "query.npy"
    if not kept.exists():
        import reidkit as rk

        np.save(kept, rk.load_encoder(world.encoder()).encode(world.photo(".jpg")))
    embedding: NDArray[np.float32] = np.load(kept)
    return embedding


def _hits(gallery: Path | str, query: NDArray[np.float32]) -> str:
    """What ``reid search --json`` prints, in Python."""
    import reidkit as rk

    with rk.open_gallery(gallery, create=False) as opened:
        hits = opened.search(query, top=_TOP)[0]
    return json.dumps([{"hits": [dataclasses.asdict(hit) for hit in hits]}])


def _search(maker: Maker) -> Case:
    """The damaged gallery is asked: by the command, and mostly in Python, which takes a tenth of the time."""
    right = same_hits(maker.world)
    if maker.random.random() < 0.25:
        command = ("search", "p.jpg", "--gallery", "g", "--top", str(_TOP), "--json")
        return Case(command, keeps=("g",), right=right)  # the gallery notes where its encoder lies now
    query = _query(maker.world)
    return Case(lambda: _hits("g", query), writes=("g",), right=right)


def _files(gallery: Path) -> list[Path]:
    return sorted(path for path in gallery.iterdir() if path.is_file() and path.stat().st_size)


def _index(maker: Maker) -> Case:
    """Images are added to the damaged gallery, which keeps what was stored before it is refused."""
    shutil.copytree(maker.world.photos(), maker.folder / "photos")
    return Case(("index", str(maker.world.encoder()), "photos", "--gallery", "g"), keeps=("g",))


@kind("gallery bit flips", weight=60)
def one_bit(maker: Maker) -> Case:
    gallery = _with_gallery(maker)
    file = maker.random.choice(_files(gallery))
    file.write_bytes(flipped(file.read_bytes(), maker.random))
    return _search(maker)


@kind("gallery bytes", weight=50)
def content(maker: Maker) -> Case:
    gallery = _with_gallery(maker)
    file = maker.random.choice(_files(gallery))
    file.write_bytes(damaged(file.read_bytes(), maker.random))
    way = maker.random.randrange(5)
    if way == 0:
        file.unlink()
    if way < 4:
        return _search(maker)
    return _index(maker)


_SQL_VALUES = (
    "NULL", "-1", "0", "1", "95", "96", "1000000", "9223372036854775807", "-9223372036854775808", "1e300",
    "9e999",
    "'x'", "''", "x'00ff'", "zeroblob(1000)", "randomblob(9)", "zeroblob(300000000)", "'../sentinel/victim'",
    "'../../sentinel/victim'", "'/etc/passwd'", "'/dev/zero'", "'items.sqlite'", "char(27)||'[31m'", "'[/]'",
    "char(8238)", "'{\"path\": \"/dev/zero\", \"fingerprint\": 3}'", "'[]'", "'{'", "'null'", "'{}'",
    "'{\"path\": \"../../sentinel\", \"fingerprint\": \"x\"}'",
)  # fmt: skip
_SQL_SCHEMA = (
    "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
    "CREATE TRIGGER t BEFORE UPDATE ON {table} BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t AFTER UPDATE ON {table} BEGIN UPDATE {table} SET rowid = rowid; END",
    "ALTER TABLE {table} RENAME TO hidden; CREATE VIEW {table} AS SELECT * FROM hidden",
    "ALTER TABLE {table} RENAME TO hidden; CREATE VIEW {table} AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL "
    "SELECT n + 1 FROM r) SELECT n, n, n, n, n, n FROM r",
    "DROP TABLE {table}",
    "DELETE FROM {table}",
    "ALTER TABLE {table} ADD COLUMN more TEXT DEFAULT 'x'",
    "ALTER TABLE {table} ADD COLUMN made INTEGER GENERATED ALWAYS AS (1) VIRTUAL",
    "ALTER TABLE {table} RENAME COLUMN {column} TO other",
    "CREATE TABLE more (x); INSERT INTO more VALUES (zeroblob(100000))",
    "CREATE INDEX more ON {table} ({column})",
    "PRAGMA user_version = 99",
    "PRAGMA user_version = -1",
    "PRAGMA application_id = 7",
    "PRAGMA journal_mode = WAL",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA encoding = 'UTF-16'",
    "VACUUM",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE x(y)' WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 1 WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = '{table}'",
    "INSERT INTO {table} SELECT * FROM {table}",
)


@kind("gallery crafted by SQL", weight=50)
def crafted(maker: Maker) -> Case:
    """Changes that an honest writer never makes: refused, or the answer is that of the whole gallery."""
    gallery = _with_gallery(maker)
    with contextlib.closing(sqlite3.connect(gallery / "items.sqlite")) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = maker.random.choice(names)
        column = maker.random.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
        value = maker.random.choice(_SQL_VALUES)
        statements = [
            f"UPDATE {table} SET {column} = {value}",
            f"UPDATE {table} SET {column} = {value} WHERE rowid = {maker.random.randrange(1, 97)}",
            f"DELETE FROM {table} WHERE rowid = {maker.random.randrange(1, 97)}",
            maker.random.choice(_SQL_SCHEMA).format(table=table, column=column),
            maker.random.choice(_SQL_SCHEMA).format(table=table, column=column),
        ]
        with contextlib.suppress(sqlite3.Error, MemoryError):
            connection.executescript(maker.random.choice(statements))
            connection.commit()
    if maker.random.random() < 0.7:
        return _search(maker)
    return _index(maker)


_KEYS = st.sampled_from(("source", "identity", "camera", "time", "id", "row", "sources", "", "camera "))
_WHERE_TEXTS = st.one_of(
    st.builds(
        lambda key, operator, value: f"{key}{operator}{value}",
        _KEYS,
        st.sampled_from(("=", "!=", ">=", "<", "<=", ">", "==", "", " = ", "=!")),
        st.one_of(
            texts(), st.sampled_from(("1", "0,1", ",", "2024-05-01T10:00", "2024-13-01", "99999-01-01", "-5"))
        ),
    ),
    texts(),
)


_CONDITIONS = st.lists(_WHERE_TEXTS, min_size=1, max_size=3)


@kind("--where", weight=50)
def where_texts(maker: Maker) -> Case:
    _with_gallery(maker)
    conditions = [text.replace("\0", "") for text in maker.draw(_CONDITIONS)]
    given = [part for text in conditions for part in ("--where", text[:60_000])]
    return Case(("search", "p.jpg", "--gallery", "g", *given), keeps=("g",))


_LEAVES = st.one_of(
    scalars(),
    st.sampled_from(
        (b"x", b"\xff", datetime.datetime(2024, 1, 1), datetime.date(2024, 1, 1), 1 + 2j, np.int64(3))
    ),
    st.sampled_from(
        (np.float32(1), np.array([1, 2]), np.array(3), np.datetime64("NaT"), object, Path("x"), {1, 2})
    ),
    st.binary(max_size=4),
)
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("not", "from", "to", "x", 3, None)), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)
_WHERES = st.one_of(_ANYTHING, st.dictionaries(_KEYS | st.integers() | st.none(), _ANYTHING, max_size=3))


def _with_open(maker: Maker, use: Callable[[Any], object]) -> Case:
    _with_gallery(maker)

    def call() -> None:
        import reidkit as rk

        with rk.open_gallery("g", create=False) as gallery:
            use(gallery)

    return Case(call, writes=("g",))


@kind("where of another shape", weight=60)
def where_mappings(maker: Maker) -> Case:
    where = maker.draw(_WHERES)
    verb = maker.random.choice(("items", "search", "embeddings", "remove"))
    query = np.eye(1, 96, dtype=np.float32)
    if verb == "search":
        return _with_open(maker, lambda gallery: gallery.search(query, where=where))
    return _with_open(maker, lambda gallery: getattr(gallery, verb)(where=where))


_ARRAYS = st.one_of(
    _ANYTHING,
    st.builds(
        lambda shape, kind: np.ones(shape, kind),
        st.sampled_from(((0,), (0, 96), (1, 96), (2, 96), (96,), (1, 1, 96), (1, 95), (0, 0), (3, 0), ())),
        st.sampled_from(("f2", "f4", "f8", "i4", "u1", "?", "c8", "O", "U3", ">f4", "g", "M8[s]")),
    ),
    st.sampled_from(
        (np.full((1, 96), np.nan), np.full((1, 96), np.inf), np.zeros((1, 96)), np.full((1, 96), 1e308))
    ),
    st.lists(st.floats(), min_size=96, max_size=96),
)
_CALLS = st.fixed_dictionaries(
    {"verb": st.sampled_from(("add", "search", "remove", "items", "embeddings"))},
    optional={
        "embeddings": _ARRAYS, "sources": _ANYTHING, "identities": _ANYTHING, "cameras": _ANYTHING,
        "times": _ANYTHING,
        "on_duplicate": _ANYTHING, "top": _ANYTHING, "ids": _ANYTHING,
    },
)  # fmt: skip
_TAKEN = {
    "add": ("sources", "identities", "cameras", "times", "on_duplicate"),
    "search": ("top",),
    "remove": ("ids",),
    "items": ("ids",),
    "embeddings": ("ids",),
}


@kind("gallery in Python", weight=60)
def methods(maker: Maker) -> Case:
    call = maker.draw(_CALLS)
    verb = call["verb"]
    options = {name: call[name] for name in _TAKEN[verb] if name in call}
    first = (call.get("embeddings", np.eye(1, 96, dtype=np.float32)),) if verb in ("add", "search") else ()
    return _with_open(maker, lambda gallery: getattr(gallery, verb)(*first, **options))


_LOCATIONS = st.one_of(
    texts(), st.sampled_from(("postgres://x", "embedded://", "://", "p.jpg", "g/items.sqlite"))
)
_ENCODERS = st.none() | values()


@kind("gallery opened oddly", weight=20)
def locations(maker: Maker) -> Case:
    location, encoder = maker.draw(_LOCATIONS), maker.draw(_ENCODERS)
    _with_gallery(maker)
    if str(location).startswith(("/", "~", "..")) or location in HOSTILE_TEXTS[:2]:
        location = "g"

    def call() -> None:
        import reidkit as rk

        rk.open_gallery(location, create=False, encoder=encoder).close()

    return Case(call, writes=("g",))
