"""The engine for PostgreSQL beyond what all engines do: its errors, lost connections, damage, the index."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.postgres_server import PASSWORD, running_server

from reidkit.errors import ConfigError, DataError, MissingExtra
from reidkit.galleries import DamagedGallery, NoGallery, forget, open_gallery

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from reidkit.galleries._postgres import batch, index, tables  # noqa: E402
from reidkit.galleries._postgres import server as connections  # noqa: E402
from reidkit.galleries._postgres.address import read_address  # noqa: E402


def units(num, dim=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def location(postgres_server):
    return postgres_server.gallery()


def schema(location):
    return f'"reid_{location.rpartition("=")[2]}"'


def execute(server, location, statement):
    """A statement of another program, in the gallery's schema."""
    name = schema(location)
    return server.execute(f"SET search_path = {name}, public; {statement}", database="galleries")


def before_each_insert(server, location, body):
    """Let the server do something of its own whenever an item is inserted."""
    execute(
        server,
        location,
        "CREATE FUNCTION interfere() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {body} RETURN new; END $$; "
        "CREATE TRIGGER interfere BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION interfere()",
    )


def refused(location, work=lambda gallery: None, error=DataError, **options):
    """The message of an error: one line without the password."""
    with pytest.raises(error) as caught, open_gallery(location, **options) as gallery:
        work(gallery)
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    return message


# --- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ann:secret@host:5433/people", "postgresql://ann@host:5433/people?gallery=people"),
        ("host/people?gallery=shop-2", "postgresql://host/people?gallery=shop-2"),
        ("/people?host=/run/sockets", "postgresql://%2Frun%2Fsockets/people?gallery=people"),
        ("[::1]:5432/people", "postgresql://[::1]:5432/people?gallery=people"),
        (
            "a%40b:se%2Fcret@host/my%20db?index=hnsw",
            "postgresql://a%40b@host/my%20db?gallery=people&index=hnsw",
        ),
        ("host/people?password=secret&sslmode=require", "postgresql://host/people?gallery=people"),
    ],
)
def test_addresses_are_shown_without_passwords(address, shown):
    read = read_address(address)
    assert str(read) == shown
    assert "secret" not in repr(read)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("host:5432", "names no database; expected postgresql://user@host:port/database"),
        ("ann:secret@host:port/people", "has the port 'port'; expected 1 to 65535"),
        ("ann:secret@host:99999999/people", "has the port '99999999'"),
        ("ann:secret@ho st:99999999/people", "is none that PostgreSQL's library reads|names no"),
        ("ann:secr#et@host/people", "holds a '#'; write %23"),
        ("host/people?galery=x", "unknown parameter 'galery'; did you mean 'gallery'"),
        ("host/people?gallery=", "gallery='' in the address is no name"),
        ('host/people?gallery=x";drop', "is no name of one; expected A to Z, digits"),
        (f"host/people?gallery={'x' * 41}", "at most 40"),
        ("host/people?index=hsnw", "index='hsnw' in the address; did you mean 'hnsw'"),
        ("host/people?secret", "is none that|unknown parameter|names no"),
    ],
)
def test_addresses_that_cannot_be_read_are_not_shown(address, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_address(address)
    assert "secret" not in str(caught.value).replace("'secret'", "")
    assert "\n" not in str(caught.value)


def test_without_psycopg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "reidkit.galleries._postgres.gallery", raising=False)
    with pytest.raises(MissingExtra, match=r'needs psycopg: pip install "reidkit\[postgres\]"'):
        open_gallery("postgresql://host/people")


# --- a server that does not do as it is told --------------------------------------------------------------


def test_a_server_that_is_not_there_is_named():
    message = refused(f"postgresql://tester:{PASSWORD}@127.0.0.1:1/people")
    assert "no PostgreSQL server answers at 127.0.0.1:1" in message
    assert "check host, port" in message
    assert "no PostgreSQL server answers at nowhere.invalid" in refused("postgresql://nowhere.invalid/people")


def test_a_wrong_password_user_or_database_is_named(postgres_server):
    wrong = postgres_server.address("galleries", password="wrong")
    assert "refuses the user tester or the password; give it in the address" in refused(wrong)
    stranger = postgres_server.address("galleries", user="stranger")
    assert "the user stranger" in refused(stranger)
    assert "has no database nowhere; make it with createdb" in refused(postgres_server.address("nowhere"))


def test_a_gallery_that_is_not_there_is_not_made_unasked(postgres_server, location):
    message = refused(location, error=NoGallery, create=False)
    assert "there is no gallery at postgresql://tester@" in message
    open_gallery(location).close()
    own = postgres_server.gallery("alone")
    open_gallery(own).close()
    other = refused(own.replace("=test", "=other"), error=NoGallery, create=False)
    assert f"the database has {own.rpartition('=')[2]}; check the name" in other
    postgres_server.execute("CREATE DATABASE empty")
    assert "nor pgvector" in refused(postgres_server.address("empty"), error=NoGallery, create=False)
    assert (
        postgres_server.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'", database="empty") == []
    )


def test_a_user_without_rights_is_told_what_to_ask_for(postgres_server, location):
    postgres_server.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    postgres_server.execute("CREATE DATABASE bare")
    bare = postgres_server.address("bare", user="guest")
    assert "has no pgvector, and the user may not create it; ask its administrator" in refused(bare)
    postgres_server.execute("CREATE EXTENSION vector", database="bare")
    assert "the user guest may not do this (permission denied for database bare)" in refused(bare)
    open_gallery(location).close()
    guest = location.replace("tester:", "guest:")
    assert "the user may not use this gallery; ask its owner for GRANT USAGE ON SCHEMA" in refused(guest)


def test_a_role_that_may_only_read_reads(postgres_server, location):
    with open_gallery(location) as gallery:
        gallery.add(units(3), sources=list("abc"))
    name = schema(location)
    postgres_server.execute(
        f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT USAGE ON SCHEMA {name} TO reader; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO reader",
        database="galleries",
    )
    with open_gallery(location.replace("tester:", "reader:"), create=False) as gallery:
        assert len(gallery.search(units(1))[0]) == len(gallery.items()) == 3
        assert gallery.verify().damaged == ()
        for change in (
            lambda: gallery.add(units(1)),
            lambda: gallery.relabel([1], cameras=[2]),
            lambda: gallery.remove(where={}),
        ):
            with pytest.raises(
                DataError, match=r"the user reader may not do this \(permission denied"
            ) as caught:
                change()
            assert "\n" not in str(caught.value)
        assert len(gallery) == 3


def test_an_old_pgvector_is_told(postgres_server):
    postgres_server.execute("CREATE DATABASE old")
    forged = "CREATE EXTENSION vector; UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'"
    postgres_server.execute(forged, database="old")
    assert "has pgvector 0.7.4; 0.8 or later is needed" in refused(postgres_server.address("old"))


def test_a_gallery_of_a_later_version_is_not_touched(postgres_server, location):
    open_gallery(location).close()
    execute(postgres_server, location, "UPDATE gallery SET format = 99")
    assert "has format 99; this version of reidkit reads up to format" in refused(location)


def test_a_schema_of_something_else_is_not_touched(postgres_server, location):
    postgres_server.execute(
        f"CREATE SCHEMA {schema(location)}; CREATE TABLE {schema(location)}.items (x int)",
        database="galleries",
    )
    assert "holds tables of something else; name another gallery" in refused(location)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("53100", "the server's disk is full; nothing was changed: make room there"),
        ("53200", "the server is out of memory; nothing was changed"),
        ("58030", "cannot read or write its files"),
        ("53400", "the server's limit was reached"),
    ],
)
def test_what_the_server_lacks_is_told_and_nothing_is_stored(postgres_server, location, code, message):
    """The server raises its own code for it while rows arrive, as it does where a page cannot be added."""
    with open_gallery(location) as gallery:
        gallery.add(units(3))
        before_each_insert(
            postgres_server, location, f"RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{code}';"
        )
        with pytest.raises(DataError, match=message) as caught:
            gallery.add(units(5), sources=list("abcde"))
        assert "\n" not in str(caught.value)
        assert len(gallery) == 3
        execute(postgres_server, location, "DROP TRIGGER interfere ON items")
        gallery.add(units(5), sources=list("abcde"))
        assert len(gallery) == 8


@pytest.fixture
def small_disk(monkeypatch):
    """A file system of 300 MB for what is temporary, a server's files among it."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder]).returncode:
            pytest.skip("no file system can be mounted here")
        monkeypatch.setattr(tempfile, "tempdir", folder)
        Path(folder).chmod(0o755)
        yield Path(folder)
        subprocess.run(["umount", folder], check=True)


def fill_disk(path):
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_and_nothing_is_stored(small_disk):
    with running_server(min_wal_size="32MB", max_wal_size="32MB") as server:
        location = server.gallery()
        with open_gallery(location) as gallery:
            gallery.add(units(10, dim=512), sources=list("abcdefghij"))
            fill_disk(full := small_disk / "full")

            def add_until_it_is_full():
                for seed in range(100):
                    gallery.add(units(500, dim=512, seed=seed), cameras=["new"] * 500)

            with pytest.raises(DataError, match="the server's disk is full; nothing was changed") as caught:
                add_until_it_is_full()
            assert "\n" not in str(caught.value)
            full.unlink()
            assert len(gallery.items(where={"camera": "new"})) % 500 == 0
            gallery.add(units(2, dim=512), sources=["a", "z"])
            assert len(gallery.items(where={"camera": None})) == 11
            assert gallery.verify().damaged == ()


def test_a_statement_that_takes_too_long_is_told(postgres_server, location):
    with open_gallery(location) as gallery:
        gallery.add(units(1))
    before_each_insert(postgres_server, location, "PERFORM pg_sleep(5);")
    hasty = f"{location}&options=-c%20statement_timeout%3D1s"
    message = refused(hasty, lambda gallery: gallery.add(units(1)))
    assert "the server ended the statement (canceling statement due to statement timeout)" in message
    assert "ALTER ROLE tester SET statement_timeout" in message


def test_a_standby_is_told(location):
    open_gallery(location).close()
    standby = f"{location}&options=-c%20default_transaction_read_only%3Don"
    assert "the server takes no changes" in refused(standby, lambda gallery: gallery.add(units(1)))
    with open_gallery(standby, create=False) as gallery:
        assert gallery.search(units(1)) == [[]]


def test_a_gallery_that_is_dropped_meanwhile_is_told(postgres_server, location):
    with open_gallery(location) as gallery:
        gallery.add(units(1))
        postgres_server.execute(f"DROP SCHEMA {schema(location)} CASCADE", database="galleries")
        with pytest.raises(DataError, match="is not there any more"):
            gallery.search(units(1))


def test_passwords_are_not_shown(location):
    with open_gallery(location) as gallery:
        assert PASSWORD not in f"{gallery!r} {gallery.info()} {gallery.location}"
    with pytest.raises(DataError, match="is closed; open it again") as caught:
        gallery.add(units(1))
    assert PASSWORD not in str(caught.value)


# --- connections that are lost ----------------------------------------------------------------------------


def terminate_all(server):
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reidkit'"
    )


def test_a_connection_that_is_lost_is_made_anew(postgres_server, location):
    with open_gallery(location) as gallery:
        gallery.add(units(5))
        terminate_all(postgres_server)
        assert len(gallery.search(units(1))[0]) == 5
        terminate_all(postgres_server)
        gallery.add(units(2))
        assert len(gallery) == 7


def test_a_server_that_ends_idle_connections_is_asked_again(location):
    hasty = f"{location}&options=-c%20idle_session_timeout%3D300ms&client_encoding=latin1"
    with open_gallery(hasty) as gallery:
        gallery.add(units(3), identities=["\u0416", "b", "c"])
        time.sleep(0.8)
        assert len(gallery.search(units(1), where={"identity": "\u0416"})[0]) == 1
        time.sleep(0.8)
        assert gallery.compact() >= 0
        time.sleep(0.8)
        assert gallery.remove(where={}) == 3


def test_an_add_that_is_interrupted_happens_once(postgres_server, location):
    with open_gallery(location) as gallery:
        gallery.add(units(1))
        before_each_insert(postgres_server, location, "PERFORM pg_sleep(0.02);")
        added = []
        worker = threading.Thread(target=lambda: added.append(gallery.add(units(20, seed=1))))
        worker.start()
        for _ in range(3):
            time.sleep(0.2)
            terminate_all(postgres_server)
        worker.join(120)
        assert len(added[0]) == 20
        assert [item.id for item in gallery.items(ids=added[0])] == added[0].tolist()
        assert len(gallery) == 21


def test_a_commit_whose_answer_is_lost_is_not_repeated(location, monkeypatch):
    """The worst moment: the server has committed, and the client does not hear of it."""
    answers = iter([False, True, False])

    @contextlib.contextmanager
    def deaf(connection, begin):
        with original(connection, begin):
            yield
        if begin == "BEGIN" and next(answers, False):
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    with open_gallery(location) as gallery:
        original = connections._transaction
        monkeypatch.setattr(connections, "_transaction", deaf)
        first = gallery.add(units(2), sources=["a", "b"])
        second = gallery.add(units(3, seed=1), sources=["c", None, None])
        assert len(gallery) == 5
        assert [item.source for item in gallery.items(ids=[*first, *second])] == ["a", "b", "c", None, None]
        np.testing.assert_array_equal(gallery.embeddings(ids=second), units(3, seed=1))


def test_keys_of_changes_are_not_kept_for_ever(postgres_server, location):
    with open_gallery(location) as gallery:
        gallery.add(units(1))
        execute(postgres_server, location, "UPDATE writes SET at = now() - interval '2 hours'")
        gallery.add(units(1))
        assert execute(postgres_server, location, "SELECT count(*) FROM writes") == [(1,)]


def test_a_server_that_does_not_come_back_is_told(location, monkeypatch, caplog):
    with open_gallery(location) as gallery:
        gallery.add(units(1))
        monkeypatch.setattr(connections, "PATIENCE", 0.4)
        monkeypatch.setattr(connections, "SILENCE", 0.0)
        gallery.close()
        gallery._server._open = True  # without a connection, and with a server that is gone
        gallery.address.connection["port"] = "1"
        with pytest.raises(DataError, match=r"the server is gone, and did not come back within"):
            gallery.search(units(1))
    [told] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "the server is gone; trying for 0 s more" in told.getMessage()


def test_writers_at_the_same_time_agree(location):
    """Four add the same sources and others, two read: no error, each source once, all else there."""
    with open_gallery(location) as gallery:
        gallery.add(units(1, seed=99), sources=["first"])
    errors = []

    def write(number):
        try:
            with open_gallery(location) as gallery:
                for turn in range(8):
                    sources = [f"shared-{(turn + k) % 5}" for k in range(3)]
                    gallery.add(units(3, seed=turn), sources=sources)
                    gallery.add(units(2, seed=number))
        except Exception as error:
            errors.append(error)

    def read():
        try:
            with open_gallery(location) as gallery:
                for _ in range(20):
                    hits = gallery.search(units(1), top=100)[0]
                    assert len({hit.id for hit in hits}) == len(hits)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_gallery(location) as gallery:
        assert len(gallery) == 1 + 5 + 4 * 8 * 2
        assert gallery.verify().damaged == ()


# --- the same answers as the embedded engine --------------------------------------------------------------


def filled_alike(galleries):
    """Both hold the same: many equal and nearly equal embeddings, labels of all kinds, replaced items."""
    rng = np.random.default_rng(3)
    vectors = units(400, seed=4)
    vectors[100:140] = vectors[100]
    vectors[140:180] = vectors[100] + 1e-7 * rng.normal(size=(40, 16)).astype(np.float32)
    zones = [
        "hall",
        "Hall",
        "h\u00e4ll",
        "3",
        3,
        3.0,
        True,
        None,
        1e300,
        -0.5,
        datetime(2024, 5, 1, tzinfo=UTC),
    ]
    for gallery in galleries:
        gallery.add(
            vectors,
            sources=[f"{n}.jpg" if n % 3 else None for n in range(400)],
            identities=[None if n % 7 == 0 else f"p{n % 23}" for n in range(400)],
            cameras=[["door", 3, "03", None][n % 4] for n in range(400)],
            times=[1714557600.0 + 7.3 * n if n % 5 else None for n in range(400)],
            tracklets=[n // 6 for n in range(400)],
            labels={"zone": [zones[n % 11] for n in range(400)]},
        )
        gallery.add(vectors[101:104], sources=["1.jpg", "200.jpg", "2.jpg"], cameras=[3, 3, 3])
        gallery.remove(where={"identity": "p9"})
    return vectors


WHERES = [
    {},
    {"camera": {"not": ["door", None]}},
    {"identity": ["p1", "p2", None], "time": {"from": 1714557700.0}},
    {"zone": {"from": "H", "to": "i"}},
    {"zone": [3, "hall", True]},
    {"zone": {"not": [3, None]}, "tracklet": ["17", "18", "3"]},
    {"zone": {"from": -1, "to": 1e300}},
    {"zone": {"to": datetime(2025, 1, 1, tzinfo=UTC)}},
    {"camera": {"query": "other"}, "time": {"within": "10m"}},
    {"zone": {"query": "same"}},
    {"source": {"not": ["1.jpg", None]}},
]


def test_it_answers_as_the_embedded_engine_does(location, tmp_path):
    with open_gallery(location) as server, open_gallery(tmp_path / "folder") as folder:
        vectors = filled_alike([server, folder])
        assert server.items() == folder.items()
        queries, known = vectors[[100, 120, 150, 7]], folder.items()[:4]
        for where in WHERES:
            for top in (1, 10, 1000):
                options = {"top": top, "where": where, "queries": known}
                assert server.search(queries, **options) == folder.search(queries, **options), (where, top)
            many = np.tile(queries, (5, 1))  # so many are compared here, and not by the server
            options = {"top": 60, "where": where, "queries": known * 5}
            assert server.search(many, **options) == folder.search(many, **options), where
            for kind in ("identity", "tracklet"):
                options = {"top": 5, "where": where, "queries": known, "group": kind, "items": 3}
                assert server.search(queries, **options) == folder.search(queries, **options), (where, kind)


def test_many_queries_are_compared_block_by_block(location, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_AT_ONCE", 37)
    with open_gallery(location) as server, open_gallery(tmp_path / "folder") as folder:
        for gallery in (server, folder):
            gallery.add(units(148, dim=7), cameras=[n % 3 for n in range(148)])
        queries = units(20, dim=7, seed=1)
        for where in ({}, {"camera": 1}, {"camera": 9}, {"camera": {"not": "x'y"}}):
            for top in (1, 10, 1000):
                assert server.search(queries, top=top, where=where) == folder.search(
                    queries, top=top, where=where
                )


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE items; --", "%s %(x)s", "{}", "\\", '"', "a" * 9000, "\u00e9" * 600]
)
def test_values_are_never_part_of_the_sql(location, text):
    with open_gallery(location) as gallery:
        ids = gallery.add(
            units(2),
            identities=[text, "x"],
            cameras=[text, 1],
            sources=[text, "y"],
            labels={"zone": [text, 1]},
        )
        for key in ("identity", "camera", "source", "zone"):
            assert [item.id for item in gallery.items(where={key: text})] == [ids[0]]
            assert [item.id for item in gallery.items(where={key: {"not": text}})] == [ids[1]]
        [[group, _]] = gallery.search(units(1), group="identity")
        assert group.label == text


def test_a_text_that_the_server_cannot_keep_is_refused(location):
    with open_gallery(location) as gallery:
        ids = gallery.add(units(1))
        for labels in ({"identities": ["a\0b"]}, {"labels": {"zone": ["a\0b"]}}, {"tracklets": ["a\0b"]}):
            with pytest.raises(DataError, match="holds a NUL character, which PostgreSQL cannot keep"):
                gallery.add(units(1), **labels)
            with pytest.raises(DataError, match="holds a NUL character"):
                gallery.relabel(ids, **labels)
        gallery.relabel(ids, labels={"zone": ["\\u0000"]})
        assert gallery.items(where={"zone": "\\u0000"})[0].labels == {"zone": "\\u0000"}
        assert gallery.items(where={"identity": ["a\0b"]}) == []


def test_galleries_of_one_database_are_apart(postgres_server):
    one, other = postgres_server.gallery(), postgres_server.gallery()
    with open_gallery(one) as first, open_gallery(other) as second:
        first.add(units(3), sources=["a", "b", "c"])
        second.add(units(2, dim=8), sources=["a", "b"])
        assert (len(first), len(second), first.dimension, second.dimension) == (3, 2, 16, 8)
        second.remove(where={})
        assert len(first) == 3


def test_dimensions_have_limits(location):
    with open_gallery(location) as gallery:
        with pytest.raises(DataError, match=r"have 16,001 numbers each; .* takes 16,000 at most"):
            gallery.add(np.ones((1, 16_001)))
        assert gallery.dimension is None
        gallery.add(units(2, dim=5000))
        assert gallery.search(units(1, dim=5000))[0][0].score == pytest.approx(1)
        with pytest.raises(DataError, match="pgvector's index takes 2000 at most"):
            gallery.build_index()


# --- damage, room and versions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("camera = 'roof'", "labels"),
        ("place = 1000", "labels"),
        ('more = \'{"labels":{"zone": 1}}\'', "labels"),
        ("time = time + 1e-3", "labels"),
        ("embedding = (SELECT embedding FROM items WHERE source = 'b')", "vectors"),
    ],
)
def test_what_another_program_changed_is_found(postgres_server, location, change, kind):
    with open_gallery(location) as gallery:
        ids = gallery.add(units(3), sources=["a", "b", "c"], times=[1.0, 2.0, 3.0])
        execute(postgres_server, location, f"UPDATE items SET {change} WHERE source = 'a'")
        for verb in (gallery.embeddings, lambda: gallery.search(units(1))):
            with pytest.raises(
                DamagedGallery, match=r"1 items are not what was written \(#\d+\); drop"
            ) as caught:
                verb()
            assert caught.value.ids == (ids[0],)
        assert getattr(gallery.verify(), kind) == (ids[0],)
        with pytest.raises(DamagedGallery, match=r"repair\(drop=True\) drops them"):
            gallery.repair()
        assert gallery.repair(drop=True) == (ids[0],)
        assert gallery.verify().damaged == ()
        assert len(gallery) == 2


def test_a_damaged_thumbnail_is_not_shown(postgres_server, location):
    small = [b"\xff\xd8\xff" + bytes([number]) * 50 + b"\xff\xd9" for number in range(3)]
    with open_gallery(location) as gallery:
        ids = gallery.add(units(3), thumbnails=small).tolist()
        execute(
            postgres_server, location, f"UPDATE thumbnails SET data = '\\xffd8ff00ffd9' WHERE id = {ids[1]}"
        )
        assert gallery.thumbnails(ids=ids[:1]) == {ids[0]: small[0]}
        with pytest.raises(DamagedGallery, match="the thumbnails of 1 items are not what was written"):
            gallery.thumbnails(ids=ids)
        assert gallery.verify().damaged == gallery.verify().thumbnails == (ids[1],)
        assert gallery.repair(drop=True) == (ids[1],)
        assert gallery.thumbnails(ids=ids) == {ids[0]: small[0], ids[2]: small[2]}
        assert execute(postgres_server, location, "SELECT count(*) FROM thumbnails") == [(2,)]


def test_what_is_forgotten_is_in_no_table_of_the_server(postgres_server, location):
    names = [b"Zachariah-Forgotten", b"pictures-of-zachariah", b"zone-of-zachariah"]
    with open_gallery(location) as gallery:
        gallery.add(
            units(600, seed=1234),
            identities=[names[0].decode() if n % 2 else "ann" for n in range(600)],
            sources=[f"{names[1].decode()}/{n}.jpg" if n % 2 else f"ann/{n}" for n in range(600)],
            labels={"zone": [names[2].decode() if n % 2 else "hall" for n in range(600)]},
        )
        vector = gallery.embeddings(where={"identity": names[0].decode()})[0].tobytes()
        postgres_server.execute("CHECKPOINT; ANALYZE", database="galleries")
        assert all(found_in_files(postgres_server, text) for text in [*names, vector])
        assert forget(gallery, names[0].decode()) == 300
        assert len(gallery) == 300
        assert gallery.verify().damaged == ()
    postgres_server.execute("CHECKPOINT")
    assert not [text for text in [*names, vector] if found_in_files(postgres_server, text)]


def found_in_files(server, text):
    """In any file but the journal."""
    return any(text in path.read_bytes() for path in (server.data / "base").rglob("*") if path.is_file())


def test_compact_frees_what_was_removed(location):
    with open_gallery(location) as gallery:
        gallery.add(units(500))
        gallery.remove(where={})
        before = gallery.info()["bytes"]
        gallery.compact()
        gallery.compact(erase=True)
        assert gallery.info()["bytes"] < before
        gallery.add(units(5))
        assert len(gallery.search(units(1))[0]) == 5


def test_tables_of_an_earlier_version_are_brought_up_to_date(postgres_server, location, monkeypatch):
    with open_gallery(location) as gallery:
        gallery.add(units(3))
    later = (*tables.MIGRATIONS, ("ALTER TABLE items ADD remark text", "SELECT 1"))
    monkeypatch.setattr(tables, "MIGRATIONS", later)
    monkeypatch.setattr(tables, "FORMAT", len(later))
    with open_gallery(location, create=False) as gallery:
        assert len(gallery.search(units(1))[0]) == 3
    assert execute(postgres_server, location, "SELECT format FROM gallery") == [(len(later),)]
    assert execute(postgres_server, location, "SELECT count(*) FROM decisions") == [(0,)]
    broken = (*later, ("ALTER TABLE items ADD other text", "SELECT nothing FROM nowhere"))
    monkeypatch.setattr(tables, "MIGRATIONS", broken)
    monkeypatch.setattr(tables, "FORMAT", len(broken))
    with pytest.raises(DataError):
        open_gallery(location)
    columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'items'::regclass AND attname = 'other'"
    assert execute(postgres_server, location, columns) == [(0,)], (
        "a migration is done as a whole or not at all"
    )


# --- the approximate index --------------------------------------------------------------------------------


def test_the_index_is_used_where_it_is_asked_for(postgres_server, location, monkeypatch):
    with open_gallery(location) as gallery:
        with pytest.raises(DataError, match="is empty; add embeddings first"):
            gallery.build_index()
        gallery.add(units(800), cameras=["rare" if n % 200 == 0 else "many" for n in range(800)])
        exact = gallery.search(units(20, seed=5))
        assert gallery.info()["index"] == "exact"
    with open_gallery(f"{location}&index=hnsw") as gallery:
        info = gallery.info()
        assert info["index"] == "hnsw"
        assert min(info["recall"]["all"], info["recall"]["half"]) > 0.9
        found = gallery.search(units(20, seed=5))
        same = sum(len({h.id for h in a} & {h.id for h in b}) for a, b in zip(exact, found, strict=True))
        assert same >= 0.9 * 200
        [hits] = gallery.search(units(1, seed=5), where={"camera": "rare"})
        assert len(hits) == 4, "what passes a filter is found, however few"
        gallery.add(units(1, seed=77))
        assert gallery.search(units(1, seed=77), top=1)[0][0].score == pytest.approx(1)
        monkeypatch.setattr(index, "measure", lambda *arguments, **options: {"all": 0.9, "half": 0.5})
        with pytest.raises(DataError, match=r"finds 50.0 % of the 10 nearest, fewer than the 95.0 %"):
            gallery.build_index(min_recall=0.95)
        assert gallery.info()["index"] == "hnsw", "the former index stays"


def test_an_index_can_be_there_from_the_start(location):
    with open_gallery(f"{location}&index=hnsw") as gallery:
        assert gallery.search(units(1)) == [[]]
        gallery.add(units(50))
        assert gallery.info()["index"] == "hnsw"
        assert gallery.search(units(50)[7], top=1)[0][0].score == pytest.approx(1)


# --- a server that is killed ------------------------------------------------------------------------------


def kills(num, seconds):
    """Kill the server so many times while two threads add, remove and search; check what they were told."""
    with running_server() as server:
        location = server.gallery()
        stop, errors = threading.Event(), []
        kept = [{}, {}]  # sources that each thread knows to be there, with the seeds of their embeddings

        def work(number):
            rng = np.random.default_rng(number)
            try:
                with open_gallery(location) as gallery:
                    while not stop.is_set():
                        seed = int(rng.integers(2**31))
                        sources = [f"{number}-{seed}-{k}" for k in range(int(rng.integers(1, 20)))]
                        gallery.add(
                            units(len(sources), seed=seed), sources=sources, cameras=[number] * len(sources)
                        )
                        gallery.add(units(1, seed=seed), cameras=["nameless"], labels={"key": [seed]})
                        kept[number] |= dict.fromkeys(sources, seed)
                        if rng.random() < 0.2:
                            gone = [source for source in kept[number] if rng.random() < 0.2]
                            gallery.remove(where={"source": gone})
                            kept[number] = {s: v for s, v in kept[number].items() if s not in set(gone)}
                        gallery.search(units(1))
            except Exception as error:
                errors.append(error)

        with open_gallery(location) as gallery:
            gallery.add(units(1), cameras=["nameless"], labels={"key": [-1]})
        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(num):
            time.sleep(seconds)
            server.kill()
            server.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join(90)
        assert errors == []
        with open_gallery(location) as gallery:
            assert gallery.verify().damaged == ()
            for number in range(2):
                items = gallery.items(where={"camera": number})
                assert {item.source for item in items} == set(kept[number])
            keys = [item.labels["key"] for item in gallery.items(where={"camera": "nameless"})]
            assert len(set(keys)) == len(keys), "an item was stored twice"
            assert len(keys) > num


def test_a_server_that_is_killed_loses_and_doubles_nothing():
    kills(2, 0.4)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_server_that_is_killed_often_loses_and_doubles_nothing():
    kills(100, 0.3)
