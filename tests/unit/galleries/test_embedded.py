"""The embedded gallery: exactness, crashes, full disks, several processes, damage."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import DataError
from reidkit.galleries import (
    DamagedGallery,
    NoGallery,
    _items_table,
    _records,
    _searching,
    _storage,
    _table_file,
    _vector_file,
    embedded,
    open_gallery,
)
from reidkit.galleries._nearest import nearest

DIM = 32
ROW = 8 * _storage.num_words(".f32", DIM)  # bytes


def units(num, dim=DIM, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def child(script, *arguments, prefix=(), **options):
    """Start a Python process that has this module's imports at hand."""
    lines = [
        "import os, resource, signal, sys",
        "import numpy as np",
        "from reidkit.errors import DataError",
        "from reidkit.galleries import open_gallery",
        script,
    ]
    command = [*prefix, sys.executable, "-c", "\n".join(lines), *map(str, arguments)]
    source = str(Path(embedded.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


# --- exactness --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(0, 60),
    num_queries=st.integers(1, 5),
    top=st.integers(1, 70),
    share=st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]),
    block=st.sampled_from([1, 7, 16, 1000]),
    seed=st.integers(0, 10_000),
)
def test_nearest_equals_a_sort_of_all_scores(num, num_queries, top, share, block, seed):
    rng = np.random.default_rng(seed)
    # Few distinct vectors, so that there are ties across blocks and at the last place.
    vectors = units(8, dim=5, seed=seed)[rng.integers(0, 8, num)]
    queries = units(num_queries, dim=5, seed=seed + 1)
    rows = None if share is None else np.flatnonzero(rng.random(num) < share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reidkit.galleries._nearest.BLOCK_ROWS", block)
        patch.setattr("reidkit.galleries._nearest.BLOCK_QUERIES", 2)
        patch.setattr("reidkit.galleries._nearest.COPY_ROWS", 3)
        found = nearest(vectors, rows, queries, top=top)
    for query, (found_rows, scores) in zip(queries, found, strict=True):
        searched = range(num) if rows is None else rows.tolist()
        scored = {row: (vectors[row].astype(np.float64) * query).sum() for row in searched}
        expected = sorted(scored, key=lambda row: (-scored[row], row))[:top]
        assert found_rows.tolist() == expected
        np.testing.assert_allclose(scores, [scored[row] for row in expected], atol=1e-15)


@pytest.mark.parametrize("block", [64, 10_000])
def test_scores_that_differ_below_float32_are_told_apart(monkeypatch, block):
    """Near-duplicates whose float32 scores are a matter of the order of the sum."""
    monkeypatch.setattr("reidkit.galleries._nearest.BLOCK_ROWS", block)
    rng = np.random.default_rng(0)
    query = units(1, dim=512)[0]
    vectors = query + rng.normal(size=(3000, 512)).astype(np.float32) * np.float32(1e-5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    [(rows, _)] = nearest(vectors, None, query[None], top=20)
    assert rows.tolist() == np.lexsort([np.arange(3000), -exact])[:20].tolist()


def test_scores_do_not_depend_on_what_else_is_searched(tmp_path):
    vectors, queries = units(500), units(40, seed=1)
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(vectors, cameras=np.arange(500) % 2)
        together = gallery.search(queries, where={"camera": 1})
        alone = [gallery.search(query, where={"camera": {"not": 0}})[0] for query in queries]
        assert together == alone


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.integers(0, 12), unique=True, max_size=5)),
            st.tuples(st.just("skip"), st.lists(st.integers(0, 12), unique=True, max_size=5)),
            st.tuples(st.just("remove"), st.integers(0, 3)),
            st.tuples(st.just("compact"), st.none()),
            st.tuples(st.just("reopen"), st.none()),
        ),
        max_size=14,
    )
)
def test_any_order_of_verbs_leaves_what_a_dict_would(steps, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "g"
    expected = {}  # source -> (camera, vector)
    gallery = open_gallery(path)
    for number, (verb, argument) in enumerate(steps):
        if verb in ("add", "skip"):
            vectors = units(len(argument), seed=number)
            cameras = [(source + number) % 4 for source in argument]
            gallery.add(
                vectors,
                sources=argument,
                cameras=cameras,
                on_duplicate="skip" if verb == "skip" else "replace",
            )
            for source, camera, vector in zip(argument, cameras, vectors, strict=True):
                if verb == "add" or str(source) not in expected:
                    expected[str(source)] = camera, vector
        elif verb == "remove":
            gallery.remove(where={"camera": argument})
            expected = {source: item for source, item in expected.items() if item[0] != argument}
        elif verb == "compact":
            gallery.compact()
            assert gallery.info()["num_dead_rows"] == 0
        else:
            gallery.close()
            gallery = open_gallery(path, create=False)
        items = gallery.items()
        found = zip(items, gallery.embeddings(ids=[item.id for item in items]), strict=True)
        assert {item.source: (item.camera, row.tolist()) for item, row in found} == {
            source: (camera, vector.tolist()) for source, (camera, vector) in expected.items()
        }
        query = units(1, seed=99)[0]
        ranked = sorted(expected, key=lambda source: -float(expected[source][1] @ query))
        assert [hit.source for hit in gallery.search(query, top=20)[0]] == ranked
    gallery.close()


def test_more_vectors_than_are_copied_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("reidkit.galleries._nearest.COPY_ROWS", 7)
    with open_gallery(tmp_path / "g") as gallery:
        ids = gallery.add(units(50))
        np.testing.assert_array_equal(gallery.embeddings(), units(50))
        gallery.remove(ids=ids[3:9])
        assert gallery.compact() == 6
        np.testing.assert_array_equal(gallery.embeddings(), [*units(50)[:3], *units(50)[9:]])


# --- crashes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["gallery.add(np.ones((50, 32)))", "gallery.compact()"])
def test_killed_between_the_vectors_and_the_commit(tmp_path, verb):
    path = tmp_path / "g"
    with open_gallery(path) as gallery:
        ids = gallery.add(units(20))
        gallery.remove(ids=ids[::2])
        before = gallery.items()
    script = f"""
gallery, fsync = open_gallery(sys.argv[1]), os.fsync
def fsync_and_die(file):
    fsync(file)
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync_and_die
{verb}
"""
    with child(script, path) as process:
        assert process.wait() == -signal.SIGKILL
    torn = sum(file.stat().st_size for file in path.glob("vectors*"))
    assert torn > 20 * ROW
    with open_gallery(path, create=False) as gallery:
        assert gallery.items() == before
        np.testing.assert_array_equal(gallery.embeddings(), units(20)[1::2])
        gallery.add(units(5, seed=1))
        np.testing.assert_array_equal(gallery.embeddings(), [*units(20)[1::2], *units(5, seed=1)])
        assert [file.stat().st_size for file in path.glob("vectors*")] == [25 * ROW], "no orphan is left"
        assert gallery.compact() == 10
        np.testing.assert_array_equal(gallery.embeddings(), [*units(20)[1::2], *units(5, seed=1)])
        assert [file.stat().st_size for file in path.glob("vectors*")] == [15 * ROW]


# --- full disks -------------------------------------------------------------------------------------------

FILL = """
gallery = open_gallery(sys.argv[1])
try:
    for number in range(1000):
        sources = [f"{number}-{i}{sys.argv[2]}" for i in range(20)]
        embeddings = np.random.default_rng(number).normal(size=(20, 32))
        gallery.add(embeddings, sources=sources, cameras=[number] * 20)
except DataError as error:
    print(error)
print(number, len(gallery))
gallery.remove(where={"camera": 0})  # there is room for this
gallery.compact()
expected = [np.random.default_rng(n).normal(size=(20, 32)) for n in range(1, number)]
expected = np.concatenate([rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in expected])
np.testing.assert_allclose(gallery.embeddings(), expected, atol=1e-7)
gallery.close()
gallery = open_gallery(sys.argv[1], create=False)
np.testing.assert_allclose(gallery.embeddings(), expected, atol=1e-7)
gallery.add(np.ones((1, 32)))
print(len(gallery))
"""


# What comes to the limit first: the vectors, or the table with names this long.
LIMITS = pytest.mark.parametrize("suffix", ["", "x" * 200], ids=["vectors", "table"])


def check_filled(process, *messages):
    lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    error, counts, left = lines
    number, length = map(int, counts.split())
    assert any(message in error for message in messages), error
    assert 3 < number < 1000
    assert length == 20 * number
    assert int(left) == 20 * (number - 1) + 1


@LIMITS
def test_a_file_that_may_not_grow(tmp_path, suffix):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    process = child(f"{limit}\n{FILL}", tmp_path / "g", suffix)
    check_filled(process, "reading or writing failed" if suffix else r"f32: File too large")


@LIMITS
def test_a_full_disk(tmp_path, suffix):
    unshare = shutil.which("unshare")
    mount = ["-m", "sh", "-c", f'mount -t tmpfs -o size=2m none "{tmp_path}" && exec "$@"', "sh"]
    if not unshare or subprocess.run([unshare, *mount, "true"], capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root and unshare)")
    # A file that fills all but 300 kB, then goes, so that there is room to put things in order.
    ballast = 'open(sys.argv[1] + ".ballast", "wb").write(bytes(1_700_000))'
    script = f"{ballast}\n{FILL}".replace(
        "print(number, len(gallery))", 'print(number, len(gallery)); os.remove(sys.argv[1] + ".ballast")'
    )
    process = child(script, tmp_path / "g", suffix, prefix=[unshare, *mount])
    check_filled(process, "f32: No space left", "the disk is full", "reading or writing failed")
    assert list(tmp_path.iterdir()) == []


# --- several at once --------------------------------------------------------------------------------------


@pytest.fixture
def busy_writer(tmp_path, monkeypatch):
    """A gallery of 20, while a thread is held in the middle of adding 3 more; the event lets it go on."""
    monkeypatch.setattr(_table_file, "LOCK_SECONDS", 0.05)
    path = tmp_path / "g"
    open_gallery(path).add(units(20))
    writing, go_on, fsync = threading.Event(), threading.Event(), os.fsync

    def slow_fsync(file):
        writing.set()
        assert go_on.wait(20)
        fsync(file)

    def write():
        with open_gallery(path) as gallery:
            gallery.add(units(3, seed=1))

    monkeypatch.setattr(os, "fsync", slow_fsync)
    thread = threading.Thread(target=write)
    thread.start()
    assert writing.wait(20)
    yield path, go_on, thread
    go_on.set()
    thread.join()


def test_reading_goes_on_while_another_writes(busy_writer):
    path, go_on, thread = busy_writer
    with open_gallery(path) as gallery:
        assert len(gallery) == 20
        assert len(gallery.search(units(1), top=50)[0]) == 20
        go_on.set()
        thread.join()
        assert len(gallery.search(units(1), top=50)[0]) == 23


def test_a_second_writer_is_told(busy_writer):
    path, go_on, thread = busy_writer
    with open_gallery(path) as gallery:
        for write in (lambda: gallery.add(units(1)), lambda: gallery.remove(where={}), gallery.compact):
            with pytest.raises(DataError, match="another process is writing to it"):
                write()
        go_on.set()
        thread.join()
        gallery.add(units(1))
        assert len(gallery) == 24


def test_an_open_reader_sees_a_compaction(tmp_path):
    with open_gallery(tmp_path / "g") as reader, open_gallery(tmp_path / "g") as writer:
        ids = writer.add(units(10))
        assert reader.search(units(10)[7], top=1)[0][0].id == ids[7]
        writer.remove(ids=ids[:5])
        writer.compact()
        writer.add(units(5, seed=1))
        assert reader.search(units(10)[7], top=1)[0][0].id == ids[7]
        assert reader.search(units(5, seed=1)[2], top=1)[0][0].id == ids[9] + 3


def test_a_search_after_an_add_does_not_list_all_items_anew(tmp_path, monkeypatch):
    with open_gallery(tmp_path / "g") as gallery, open_gallery(tmp_path / "g") as other:
        ids = gallery.add(units(10))
        gallery.remove(ids=ids[2:4])
        assert len(gallery.search(units(1), top=20)[0]) == 8
        with monkeypatch.context() as patch:
            patch.delattr(_items_table.ItemsTable, "checksums")
            other.add(units(5, seed=1))
            gallery.add(units(3, seed=2))
            assert len(gallery.search(units(1), top=20)[0]) == 16
        gallery.remove(ids=ids[4:5])
        other.add(units(1, seed=3))
        assert {hit.id for hit in gallery.search(units(1), top=20)[0]} == {1, 2, *range(6, 20)}


def test_sources_and_contents_are_found_by_their_index(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(10), sources=range(10), contents=[str(number) for number in range(10)])
        asked = []
        gallery._table.db.set_trace_callback(asked.append)
        for key in ("source", "content"):
            for values in (["3"], ["3", None]):
                assert len(gallery.items(where={key: values})) == 1
        plans = [
            detail
            for sql in asked
            if "WHERE source IN" in sql or "WHERE content IN" in sql
            for *_, detail in gallery._table.db.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]
        assert any("USING INDEX" in detail for detail in plans)
        assert not any("SCAN items" in detail for detail in plans)


def test_a_search_during_which_its_items_move_is_made_again(tmp_path, monkeypatch):
    with open_gallery(tmp_path / "g") as reader, open_gallery(tmp_path / "g") as writer:
        ids = writer.add(units(10))
        changes = [
            lambda: writer.remove(ids=ids[7:8]),
            lambda: (writer.remove(ids=ids[:3]), writer.compact(), writer.add(units(4, seed=1))),
        ]

        def nearest_and_change(*arguments, **options):
            found = nearest(*arguments, **options)
            if changes:
                changes.pop(0)()
            return found

        monkeypatch.setattr(_searching, "nearest", nearest_and_change)
        [hits] = reader.search(units(10)[7], top=20)
        assert sorted(hit.id for hit in hits) == [4, 5, 6, 7, 9, 10, 11, 12, 13, 14]
        vectors = np.concatenate([units(10), units(4, seed=1)])
        assert [hit.score for hit in hits] == pytest.approx(
            [float(vectors[hit.id - 1] @ units(10)[7]) for hit in hits], abs=1e-6
        )


def test_a_writer_that_replaces_a_hit_all_the_time_does_not_hold_up_a_search(tmp_path, monkeypatch):
    monkeypatch.setattr(_table_file, "LOCK_SECONDS", 0.1)
    with open_gallery(tmp_path / "g") as reader, open_gallery(tmp_path / "g") as writer:
        writer.add(units(10), sources=range(10))
        overtaken = []

        def nearest_and_replace(*arguments, **options):
            assert len(overtaken) < 20, "it searches for ever"
            found = nearest(*arguments, **options)
            try:
                writer.add(units(10)[7:8], sources=[7])
                overtaken.append("")
            except DataError as error:
                overtaken.append(str(error).split(": ")[-1])
            return found

        monkeypatch.setattr(_searching, "nearest", nearest_and_replace)
        assert reader.search(units(10)[7], top=1)[0][0].source == "7"
        assert overtaken == [""] * _searching.NUM_TRIES + [_table_file.REASONS["SQLITE_BUSY"]]


def test_opening_a_gallery_leaves_the_locks_of_those_who_have_it_open(tmp_path):
    """On systems of POSIX, closing a file takes away all locks that the process has on it."""
    script = """
with open_gallery(sys.argv[1]) as gallery:
    print("opened", flush=True)
    gallery.remove(ids=[1])
"""
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(3))
        with gallery._table.reading():
            open_gallery(tmp_path / "g").close()
            with child(script, tmp_path / "g") as process:
                assert process.stdout.readline() == "opened\n"
                with pytest.raises(subprocess.TimeoutExpired):  # it waits for who reads
                    process.wait(0.7)
                gallery._table.db.execute("COMMIT")
                assert process.wait(30) == 0
                gallery._table.db.execute("BEGIN")
        assert len(gallery) == 2


def test_threads_share_a_gallery(tmp_path):
    vectors, faults = units(300), []
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(vectors[:100], sources=range(100))

        def search(seed):
            for index in np.random.default_rng(seed).integers(0, 100, 60):
                hit = gallery.search(vectors[index], top=1)[0][0]
                if hit.source != str(index):
                    faults.append((hit, index))

        threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for start in range(100, 300, 10):
            gallery.add(vectors[start : start + 10], sources=range(start, start + 10))
        for thread in threads:
            thread.join()
        assert faults == []
        assert len(gallery) == 300


def test_processes_make_a_gallery_at_once(tmp_path):
    script = "for i in range(5): open_gallery(sys.argv[1]).add(np.eye(1, 32, int(sys.argv[2])))"
    processes = [child(script, tmp_path / "g", place) for place in range(3)]
    assert [process.wait() for process in processes] == [0] * 3
    with open_gallery(tmp_path / "g") as gallery:
        np.testing.assert_array_equal(gallery.embeddings().sum(axis=0)[:4], [5, 5, 5, 0])


# --- places and damage ------------------------------------------------------------------------------------


def test_another_process_makes_the_gallery_at_the_very_moment(tmp_path, monkeypatch):
    iterdir = Path.iterdir

    def made_just_now(path):
        (path / "items.sqlite").touch()
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", made_just_now)
    with open_gallery(tmp_path) as gallery:
        assert len(gallery) == 0


def test_a_missing_gallery_is_not_made_unasked(tmp_path):
    with pytest.raises(DataError, match=r"no gallery at .*people.gallery"):
        open_gallery(tmp_path / "people.gallery", create=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_becomes_a_gallery(tmp_path):
    with open_gallery(f"embedded://{tmp_path}") as gallery:
        gallery.add(units(2))
    table, vectors = sorted(file.name for file in tmp_path.iterdir())
    assert table == "items.sqlite"
    assert _vector_file.NAME.fullmatch(vectors)


def test_files_and_other_folders_are_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"photo.jpg is a file; a gallery is a folder"):
        open_gallery(tmp_path / "photo.jpg")
    with pytest.raises(DataError, match=r"is not a gallery: it holds photo.jpg but no items.sqlite"):
        open_gallery(tmp_path)
    with pytest.raises(DataError, match=r"cannot make the folder .*: Not a directory"):
        open_gallery(tmp_path / "photo.jpg" / "g")
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def other_database(file):
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(b"not a database" * 100), "is damaged or not made by reidkit"),
        (other_database, "empty or not made by reidkit"),
    ],
)
def test_another_items_sqlite_is_refused_and_left_alone(tmp_path, spoil, message):
    file = tmp_path / "items.sqlite"
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(DataError, match=message):
        open_gallery(tmp_path)
    assert file.read_bytes() == before


def test_a_gallery_that_was_being_made_is_made(tmp_path):
    (tmp_path / "items.sqlite").touch()
    with pytest.raises(NoGallery, match="there is no gallery at"):
        open_gallery(tmp_path, create=False)
    with open_gallery(tmp_path) as gallery:
        assert len(gallery) == 0


def test_a_gallery_whose_maker_was_killed_as_it_wrote_the_table_is_made(tmp_path):
    """The table is not empty then, but its journal takes all of it back."""
    (tmp_path / "g").mkdir()
    with sqlite3.connect(tmp_path / "items.sqlite", isolation_level=None) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE gallery (x)")
        writer.executemany("INSERT INTO gallery VALUES (?)", [("x" * 5000,)] * 50)
        for file in tmp_path.glob("items.sqlite*"):
            shutil.copy(file, tmp_path / "g")
        writer.execute("ROLLBACK")
    assert (tmp_path / "g" / "items.sqlite").stat().st_size > 0
    with pytest.raises(NoGallery, match="there is no gallery at"):
        open_gallery(tmp_path / "g", create=False)
    with open_gallery(tmp_path / "g") as gallery:
        assert len(gallery) == 0


def test_a_table_that_was_emptied_is_not_begun_anew(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(5))
    (tmp_path / "g" / "items.sqlite").write_bytes(b"")
    for create in (True, False):
        with pytest.raises(DataError, match="empty or not made by reidkit"):
            open_gallery(tmp_path / "g", create=create)
    assert len(list((tmp_path / "g").glob("vectors*"))) == 1


# --- files that others move about -------------------------------------------------------------------------


def test_a_gallery_that_was_replaced_is_neither_read_nor_written_by_who_had_it_open(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(5))
        (tmp_path / "g").rename(tmp_path / "old")
        with open_gallery(tmp_path / "g") as other:
            other.add(units(7, seed=1))
        files = {file: file.read_bytes() for file in tmp_path.glob("*/*")}
        for verb in (lambda: gallery.add(units(1)), lambda: gallery.remove(ids=[1]), gallery.items):
            with pytest.raises(DataError, match="was moved, deleted or replaced since it was opened"):
                verb()
        assert {file: file.read_bytes() for file in tmp_path.glob("*/*")} == files
        shutil.rmtree(tmp_path / "g")
        with pytest.raises(DataError, match="was moved, deleted or replaced since it was opened"):
            gallery.add(units(1))


def test_vectors_that_are_replaced_under_a_reader_are_checked_again(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(20))
        assert gallery.search(units(20)[3], top=1)[0][0].id == 4
        [file] = (tmp_path / "g").glob("vectors*")
        other = bytearray(file.read_bytes())
        other[3 * ROW] ^= 1
        (tmp_path / "other").write_bytes(other)
        (tmp_path / "other").replace(file)
        with pytest.raises(DamagedGallery, match="embeddings of 1 of 20 items") as error:
            gallery.search(units(20)[3], top=1)
        assert error.value.ids == (4,)
        os.truncate(file, 10)  # to read the pages that are gone would end the process
        with pytest.raises(DataError, match="has 10 bytes"):
            gallery.search(units(20)[3], top=1)


def test_a_table_beside_the_vectors_of_another_gallery_does_not_cost_those(tmp_path):
    for name in ("one", "two"):
        with open_gallery(tmp_path / name) as gallery:
            gallery.add(units(5))
    before = {file.name: file.read_bytes() for file in (tmp_path / "two").glob("vectors*")}
    shutil.copy(tmp_path / "one" / "items.sqlite", tmp_path / "two" / "items.sqlite")
    with open_gallery(tmp_path / "two") as gallery:
        gallery.remove(ids=[1])
    assert {file.name: file.read_bytes() for file in (tmp_path / "two").glob("vectors*")} == before


def test_a_write_ahead_log_is_refused(tmp_path):
    """A flipped bit in it takes back, unseen, what was written since."""
    path = tmp_path / "g"
    with open_gallery(path) as gallery:
        gallery.add(units(5))
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with pytest.raises(DataError, match=r"a write-ahead log by another program.*journal_mode = DELETE"):
        open_gallery(path)
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    with open_gallery(path) as gallery:
        assert len(gallery) == 5
    (path / "items.sqlite-wal").write_bytes(b"of another file")
    with pytest.raises(DataError, match="a write-ahead log by another program"):
        open_gallery(path)


def test_a_later_format_is_refused(tmp_path):
    open_gallery(tmp_path / "g").close()
    with sqlite3.connect(tmp_path / "g" / "items.sqlite") as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(DataError, match="has format 3; this version of reidkit reads format 2"):
        open_gallery(tmp_path / "g")


@pytest.mark.parametrize("size", [0, 1, 20 * ROW - 1, None])
def test_a_file_of_vectors_that_is_too_short(tmp_path, size):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(20))
        before = gallery.items()
        [file] = (tmp_path / "g").glob("vectors*")
        with file.open("r+b") as stream:
            stream.truncate(size or 0)
        if size is None:
            file.unlink()
        with pytest.raises(DataError, match=f"has {size or 0} bytes, but .* 20 embeddings of 32 numbers"):
            gallery.add(units(1))
        assert gallery.items() == before
    with open_gallery(tmp_path / "g") as gallery:
        for verb in (lambda: gallery.search(units(1)), gallery.embeddings, gallery.verify, gallery.compact):
            with pytest.raises(DataError, match=r"\(2720 bytes\); it was cut or replaced"):
                verb()
        left = (size or 0) // ROW
        assert gallery.repair(drop=True) == tuple(range(left + 1, 21))
        np.testing.assert_array_equal(gallery.embeddings(), units(20)[:left])
        gallery.add(units(3, seed=1))
        np.testing.assert_array_equal(gallery.embeddings(), [*units(20)[:left], *units(3, seed=1)])


def test_a_damaged_table_is_a_data_error(tmp_path):
    file = tmp_path / "g" / "items.sqlite"
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(2000), sources=range(2000))
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (file.stat().st_size - 4096))
    with pytest.raises(DataError, match=r"items.sqlite is damaged"):
        open_gallery(tmp_path / "g")


def test_a_gallery_on_a_read_only_disk_can_be_searched(tmp_path):
    unshare = shutil.which("unshare")
    path = tmp_path / "g"
    with open_gallery(path, encoder={"fingerprint": "abc"}) as gallery:
        gallery.add(units(5))
    mount = ["-m", "sh", "-c", f'mount --bind -o ro "{path}" "{path}" && exec "$@"', "sh"]
    if not unshare or subprocess.run([unshare, *mount, "true"], capture_output=True).returncode:
        pytest.skip("a read-only folder cannot be mounted here (needs root and unshare)")
    script = """
gallery = open_gallery(sys.argv[1], encoder={"fingerprint": "abc"})
print(len(gallery.search(np.ones(32))[0]))
try:
    gallery.add(np.ones((1, 32)))
except DataError as error:
    print(error)
"""
    with child(script, path, prefix=[unshare, *mount]) as process:
        found, error = process.stdout.read().splitlines()
    assert found == "5"
    assert "f32: Read-only file system" in error


def test_vectors_that_changed_places_are_damaged(tmp_path):
    """Whole rows, each with its checksum: 2 in the place of 7, and 7 in that of 2."""
    with open_gallery(tmp_path / "g") as gallery:
        ids = gallery.add(units(10)).tolist()
    [path] = (tmp_path / "g").glob("*.f32")
    content = path.read_bytes()
    rows = [content[start : start + ROW] for start in range(0, len(content), ROW)]
    rows[2], rows[7] = rows[7], rows[2]
    path.write_bytes(b"".join(rows))
    with open_gallery(tmp_path / "g") as gallery:
        assert gallery.verify().vectors == (ids[2], ids[7])
        with pytest.raises(DamagedGallery):
            gallery.search(units(1))


def test_repair_drops_what_is_damaged_and_nothing_else(tmp_path):
    path = tmp_path / "g"
    with open_gallery(path) as gallery:
        gallery.add(units(20), sources=range(20))
        gallery.remove(ids=[1])
        [file] = path.glob("vectors*")
    with file.open("r+b") as stream:
        for row in (0, 4):  # the first is of no account any more
            stream.seek(row * ROW)
            stream.write(b"\xff")
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute("UPDATE items SET identity = 'ann' WHERE id = 9")
    with open_gallery(path) as gallery:
        assert gallery.verify().damaged == (9,)
        with pytest.raises(DamagedGallery, match=r"2 items, ids 5, 9; repair\(drop=True\) drops them"):
            gallery.repair()
        with pytest.raises(DamagedGallery, match=r"labels of 1 of 19 items \(#9 8\)"):
            gallery.items()
        assert len(gallery) == 19
        assert gallery.repair(drop=True) == (5, 9)
        assert gallery.verify().damaged == ()
        assert [item.id for item in gallery.items()] == [i for i in range(2, 21) if i not in (5, 9)]
        assert len(gallery.search(units(1), top=30)[0]) == 17


# --- galleries of version 0.1 ------------------------------------------------------------------------------


@pytest.fixture
def former(tmp_path):
    """A gallery as version 0.1 wrote it, with a removed item."""
    path = tmp_path / "former"
    path.mkdir()
    units(6).tofile(path / "vectors-3.f32")
    with sqlite3.connect(path / "items.sqlite", isolation_level=None) as connection:
        for statement in _records.TABLES[1]:
            connection.execute(statement)
        connection.execute("PRAGMA application_id = 0x52454944")
        connection.execute("PRAGMA user_version = 1")
        state = (7, "vectors-3.f32", 6, 9, DIM, '{"fingerprint": "abc", "path": "runs/x"}')
        connection.execute("INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?)", state)
        rows = [(n + 2, n, f"{n}.jpg", str(n), n % 2, None if n else 5.0) for n in range(5)]
        connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", rows)
    return path


def check_former(gallery):
    assert [item.id for item in gallery.items()] == [2, 3, 4, 5, 6]
    assert [item.camera for item in gallery.items()] == [0, 1, 0, 1, 0]
    assert gallery.items()[0].time == 5.0
    assert gallery.encoder["fingerprint"] == "abc"
    np.testing.assert_array_equal(gallery.embeddings(), units(6)[:5])
    assert [hit.source for hit in gallery.search(units(6)[3], top=1)[0]] == ["3.jpg"]


def test_a_former_gallery_is_converted_in_its_place(former):
    with open_gallery(former) as gallery:
        assert gallery.info()["converted"]
        check_former(gallery)
        assert gallery.add(units(1, seed=1)).tolist() == [9]
    assert len(list(former.iterdir())) == 2
    with open_gallery(former) as gallery:
        assert not gallery.info()["converted"]
        assert gallery.verify().damaged == ()
        assert len(gallery) == 6


def test_a_former_gallery_is_whole_when_its_conversion_is_killed(former):
    script = """
def die(file):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = die
open_gallery(sys.argv[1])
"""
    before = (former / "items.sqlite").read_bytes()
    with child(script, former) as process:
        assert process.wait() == -signal.SIGKILL
    assert (former / "items.sqlite").read_bytes() == before
    assert len(list(former.glob("vectors*"))) == 2
    with open_gallery(former) as gallery:
        check_former(gallery)
    assert len(list(former.glob("vectors*"))) == 1


def test_a_former_gallery_that_cannot_be_written_to_is_read(former, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    before = {file.name: file.read_bytes() for file in former.iterdir()}
    with open_gallery(former) as gallery:
        check_former(gallery)
        with pytest.raises(DataError, match="cannot be written to"):
            gallery.add(units(1))
    assert {file.name: file.read_bytes() for file in former.iterdir()} == before


def test_damage_in_a_former_gallery_stays_damage(former):
    with (former / "vectors-3.f32").open("r+b") as stream:
        stream.write(np.float32([np.nan]).tobytes())
    with open_gallery(former) as gallery:
        with pytest.raises(DamagedGallery, match=r"embeddings of 1 of 5 items \(#2 0.jpg\)"):
            gallery.search(units(1))
        assert gallery.repair(drop=True) == (2,)
