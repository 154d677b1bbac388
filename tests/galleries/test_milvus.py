"""The gallery on Milvus: changes that happen as a whole without transactions, and what goes wrong.

What it shares with other engines is in tests/contract/test_galleries.py. Most of it is tried on Milvus Lite.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pymilvus = pytest.importorskip("pymilvus", reason="pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")

from reidkit.errors import ConfigError, DataError, MissingExtra  # noqa: E402
from reidkit.galleries import DamagedGallery, NoGallery, accept, copy_gallery, open_gallery  # noqa: E402
from reidkit.galleries._milvus import changes, nearest, server  # noqa: E402
from reidkit.galleries._milvus.address import read_address  # noqa: E402


@pytest.fixture
def location(milvus_lite):
    return milvus_lite()


def units(num, dim=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def jpeg(number):
    return b"\xff\xd8\xff" + bytes([number]) * 50 + b"\xff\xd9"


def items_of(gallery):
    """The collection of its items."""
    return gallery._book.state()[1].items


def refused(location, error=DataError, **options):
    with pytest.raises(error) as caught:
        open_gallery(location, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("milvus://host", "milvus://host:19530?gallery=people"),
        (
            "milvus://ann:p%40ss@host:1/db?gallery=a&index=hnsw",
            "milvus://ann@host:1/db?gallery=a&index=hnsw",
        ),
        (
            "milvus://[::1]:7?consistency=bounded&secure=yes",
            "milvus://[::1]:7?gallery=people&consistency=bounded&secure=yes",
        ),
        ("milvus-lite:///a%20b/c.db", "milvus-lite:///a%20b/c.db?gallery=people"),
    ],
)
def test_addresses_are_shown_without_passwords(address, shown):
    read = read_address(address)
    assert str(read) == shown
    assert "p@ss" not in repr(read)
    assert str(read_address(str(read))) == shown


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("milvus://", "the address of the gallery cannot be read; expected milvus://user@host"),
        ("milvus://ann:secret@ho st:x/db", "cannot be read"),
        ("milvus://host:99999", "the port from 1 to 65535"),
        ("milvus://host/a/b", "cannot be read"),
        ("milvus://host?galery=x", "unknown parameter 'galery'; did you mean 'gallery'"),
        ("milvus://host?gallery=", "gallery='' in the address is no name of one"),
        ("milvus://host?gallery=a-b", "is no name of one; expected A to Z, digits and _"),
        ("milvus://host?index=hsnw", "index='hsnw' in the address of the gallery; did you mean 'hnsw'"),
        ("milvus://host?consistency=weak", "Allowed: strong, bounded, session, eventually"),
        ("milvus-lite:///a/b", "names the file '/a/b'; Milvus Lite takes those that end in .db"),
        ("milvus-lite:///a.db?secure=yes", "unknown parameter 'secure'"),
    ],
)
def test_addresses_that_cannot_be_read(address, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_address(address)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pymilvus_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("reidkit.galleries._milvus.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtra, match=r'needs pymilvus: pip install "reidkit\[milvus\]"'):
        open_gallery("milvus://host")


# --- a server or file that does not do as it is told ------------------------------------------------------


def test_a_server_that_is_not_there_is_named():
    message = refused("milvus://ann:secret@127.0.0.1:1?gallery=x")
    assert "no Milvus server answers at 127.0.0.1:1" in message
    assert "check host, port and that it runs, and the user and password" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "auth check failure, please check secret is valid",
            "refuses the user ann or the password; give",
        ),
        ("PrivilegeLoad: permission deny", "the user ann may not do this"),
        ("database not found[database=db]", "the server has no database db; make it there"),
        ("quota exceeded[reason=disk quota exhausted]", "the server takes no more .*; nothing was changed"),
        ("rate limit exceeded[rate=1]", "the server takes no more for now .*; nothing was changed"),
        ("mmap: no space left on device", "the server's disk is full; nothing was changed"),
        ("something\nelse", "the server says: something"),
    ],
)
def test_errors_of_the_server_are_told_in_one_line(text, message):
    error, address = pymilvus.MilvusException(message=text), read_address("milvus://ann:secret@h/db")
    told = str(server._our_error(error, address))
    assert re.search(message, told)
    assert "\n" not in told
    assert "secret" not in told


def test_a_gallery_that_is_not_there_is_not_made_unasked(location):
    message = refused(location, NoGallery, create=False)
    assert re.search(r"the server has [\w, ]*\bpeople\b[\w, .]*; check the name", message)
    assert "_book" not in message
    refused(location, NoGallery, create=False)


def test_a_file_that_is_not_there_is_not_made_unasked(tmp_path):
    refused(f"milvus-lite://{tmp_path}/a.db", NoGallery, create=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert "there is no folder" in refused(f"milvus-lite://{tmp_path}/nowhere/a.db")


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "a.db").write_text("SQLite format 3")
    assert "Milvus Lite does not open the file" in refused(f"milvus-lite://{tmp_path}/a.db")


def test_a_gallery_of_a_later_version_is_not_touched(location):
    with open_gallery(location) as gallery:
        gallery.add(units(1))
        mark, state = gallery._book.state()
        gallery._book.put_state(changes.replace(mark, step=99), changes.replace(state, format=99))
    assert "has format 99; this version of reidkit reads up to format 1: update it" in refused(location)


def test_what_milvus_does_not_keep_is_refused(location):
    with open_gallery(location) as gallery:
        with pytest.raises(DataError, match="takes 2 to 32,768, as Milvus does: keep them in a folder"):
            gallery.add(np.ones((1, 1), np.float32))
        many = {f"label_{number}": ["x"] for number in range(3000)}
        with pytest.raises(DataError, match="keeps 65,535 characters and 2,048 names: write them shorter"):
            gallery.add(units(1), labels=many)
        with pytest.raises(DataError, match="what is told of the encoder takes more than the 65,535 bytes"):
            open_gallery(location, encoder={"fingerprint": "f", "more": "x" * 70_000})
        assert len(gallery) == 0
        gallery.add(units(2))
        assert len(gallery) == 2


def test_what_another_program_changed_is_found(location):
    with open_gallery(location) as gallery:
        ids = gallery.add(units(3), identities=["a", "b", "c"]).tolist()
        [row] = gallery._server.query(items_of(gallery), f"id == {ids[1]}", ("*",))
        gallery._server.put(items_of(gallery), [{**row, "record": row["record"].replace('"b"', '"a"')}])
        with pytest.raises(DamagedGallery, match=rf"1 items are not what was written \(#{ids[1]}\)"):
            gallery.items()
        assert gallery.verify().labels == (ids[1],)
        assert gallery.repair(drop=True) == (ids[1],)
        assert [item.identity for item in gallery.items()] == ["a", "c"]


# --- answers ----------------------------------------------------------------------------------------------


def described(gallery, num=60, **given):
    rng = np.random.default_rng(3)
    return gallery.add(
        units(num, seed=3),
        sources=[f"{number}.jpg" for number in range(num)],
        identities=rng.choice(["ann", "bob", "cy", None], num).tolist(),
        cameras=rng.choice([1, 2, 3], num).tolist(),
        times=(1.7e9 + rng.integers(0, 10_000, num)).tolist(),
        tracklets=rng.choice(["t1", "t2", "t3", None], num).tolist(),
        labels={
            "zone": rng.choice(["hall", "door", "d\u00f6\u00f6r", None], num).tolist(),
            "height": [None if height < 1.6 else height for height in rng.normal(1.7, 0.1, num).tolist()],
        },
        **given,
    )


def test_it_answers_as_the_embedded_engine_does(location, tmp_path, monkeypatch):
    queries = units(5, seed=4)
    with open_gallery(location) as gallery, open_gallery(tmp_path / "g") as embedded:
        described(gallery)
        described(embedded)
        for where in (
            None,
            {"camera": {"not": 1}},
            {"identity": ["ann", None]},
            {"zone": {"not": "hall"}, "height": {"from": 1.65, "to": 1.8}},
            {"zone": {"from": "door", "to": "hall"}},
            {"time": {"from": 1.7e9 + 3000}, "camera": [1, 3]},
            {"source": "7.jpg"},
        ):
            assert gallery.search(queries, where=where) == embedded.search(queries, where=where)
            assert gallery.items(where=where) == embedded.items(where=where)
        for group, where, most in (
            ("identity", None, 4096),
            ("tracklet", {"camera": 2}, 4096),
            ("identity", {"camera": 2}, 3),
            ("tracklet", None, 3),
        ):
            monkeypatch.setattr(nearest, "MOST_OF_GROUPS", most)
            found = gallery.search(queries[:2], top=3, where=where, group=group, items=2)
            assert found == embedded.search(queries[:2], top=3, where=where, group=group, items=2)
        np.testing.assert_array_equal(gallery.embeddings(), embedded.embeddings())


@pytest.mark.parametrize(
    "text",
    [
        '"] or version > 0 or source in ["',
        "'; drop collection",
        '") or 1 == 1 or array_contains(tags, "',
        "\\",
        "a\0b",
        "{x}",
        "\u202e\n%",
    ],
)
def test_values_are_never_part_of_the_expression(location, text):
    with open_gallery(location) as gallery:
        gallery.add(
            units(2),
            sources=["a", text],
            identities=["x", text],
            cameras=["x", text],
            tracklets=["x", text],
            labels={"zone": ["x", text]},
        )
        for where in ({"source": text}, {"identity": text}, {"camera": text}, {"tracklet": text}):
            assert [item.source for item in gallery.items(where=where)] == [text]
        assert [item.source for item in gallery.items(where={"zone": {"from": text, "to": text + "z"}})] == [
            text
        ]
        assert [item.source for item in gallery.items(where={"zone": {"not": text}})] == ["a"]


def test_more_queries_and_ties_than_one_request_tells(location, tmp_path, monkeypatch):
    monkeypatch.setattr(nearest, "MOST_FOUND", 40)
    monkeypatch.setattr(nearest, "_FOUND_AT_ONCE", 60)
    same = np.tile(units(1, seed=9), (60, 1))
    with open_gallery(location) as gallery, open_gallery(tmp_path / "g") as embedded:
        for one in (gallery, embedded):
            one.add(np.concatenate([units(30), same]))
        for top in (5, 30, 80):
            queries = np.concatenate([units(3, seed=1), same[:1]])
            assert gallery.search(queries, top=top) == embedded.search(queries, top=top)


def test_hnsw_is_asked_where_half_pass_and_exact_where_fewer_do(location):
    with open_gallery(f"{location}&index=hnsw") as gallery:
        gallery.add(units(300), cameras=[1] * 290 + [2] * 10)
        hits = gallery.search(units(20, seed=5))
        truth = np.argsort(-units(20, seed=5) @ units(300).T, axis=1)[:, :10]
        right = sum(
            len({hit.id - 1 for hit in a} & set(b)) for a, b in zip(hits, truth.tolist(), strict=True)
        )
        assert right >= 180
        [few] = gallery.search(units(1, seed=5), top=20, where={"camera": 2})
        assert len(few) == 10
        assert gallery.info()["index"] == "hnsw"
        recall = gallery.measure_recall(sample=20)
        assert gallery.info()["recall"]["all"] == recall["all"] > 0.9
    with open_gallery(location) as gallery:
        assert gallery.info()["index"] == "hnsw"
    assert "the gallery was made with index=hnsw" in refused(f"{location}&index=exact")


@pytest.mark.parametrize("consistency", ["session", "bounded", "eventually"])
def test_changes_look_at_what_there_is_whatever_readers_ask_for(location, consistency):
    with open_gallery(f"{location}&consistency={consistency}") as gallery:
        [first] = gallery.add(units(1), sources=["a"])
        [again] = gallery.add(units(1, seed=1), sources=["a"], cameras=[3])
        assert first == again
        gallery.relabel([first], identities=["ann"])
        with open_gallery(location) as other:
            assert [(item.camera, item.identity) for item in other.items()] == [(3, "ann")]
        assert gallery.info()["consistency"] == consistency


def test_a_gallery_is_copied_to_it_and_back(location, tmp_path):
    with open_gallery(tmp_path / "a") as first, open_gallery(location) as gallery:
        ids = described(first, 40)
        accept(first, ids[:2].tolist(), "zoe", who="ann")
        copy_gallery(first, gallery)
        assert copy_gallery(first, gallery).num_there == 40
        with open_gallery(tmp_path / "b") as second:
            copy_gallery(gallery, second)
            assert [changes.replace(item, id=0) for item in second.items()] == [
                changes.replace(item, id=0) for item in first.items()
            ]
            assert len(second.decisions()) == 1


# --- clients that end, or come back -----------------------------------------------------------------------


class Ended(BaseException):
    """The process is gone: nothing that follows happens."""


def end_at_write(gallery, number, monkeypatch):
    """Have the client end before its so-and-so-many-th write; what it writes until then arrives."""
    left = iter(range(number))

    def before(method):
        def or_end(*arguments, **options):
            if next(left, None) is None:
                raise Ended
            return method(*arguments, **options)

        return or_end

    for name in ("_put", "delete"):
        monkeypatch.setattr(gallery._server, name, before(getattr(gallery._server, name)))


def seen(gallery):
    hits = gallery.search(units(1, seed=8), top=100)[0]
    items = gallery.items()
    assert {hit.id for hit in hits} == {item.id for item in items}
    assert len(gallery) == len(items)
    told = [(item.id, item.source, item.identity, item.camera) for item in items]
    return told, gallery.decisions(), gallery.thumbnails(ids=[item.id for item in items])


def fill_and_decide(gallery):
    ids = gallery.add(
        units(6), sources=list("abcdef"), contents=list("abcdef"), identities=[*"xxyy", None, None]
    )
    gallery.relabel(ids[2:5], thumbnails=[jpeg(2), jpeg(3), jpeg(4)])
    accept(gallery, ids[4:].tolist(), "zoe", who="ann")


def replace_some(gallery):
    """Replaced items, new ones, their thumbnails, and a decision from which items are removed."""
    small = [jpeg(5), None, jpeg(7), jpeg(8)]
    gallery.add(
        units(4, seed=2), sources=list("defg"), contents=list("DEFG"), cameras=[1, 2, 3, 4], thumbnails=small
    )


def interrupted(location, monkeypatch, number):
    """A change that ends before a write; whether there was one more, and what the next client sees."""
    monkeypatch.setattr(changes, "CLAIM_LASTS", 0.3)
    with open_gallery(location) as gallery, open_gallery(location) as other:
        fill_and_decide(gallery)
        before = seen(other)
        ended = False
        with monkeypatch.context() as patched:
            end_at_write(gallery, number, patched)
            try:
                replace_some(gallery)
            except Ended:
                ended = True
        after_end = seen(other)
        other.relabel([1], cameras=[9])  # whoever writes next finishes what is unfinished
        after = seen(other)
        assert [row[:3] for row in after[0]] == [row[:3] for row in after_end[0]], "half a change was seen"
        done = after_end != before
        assert len(after[0]) == (7 if done else 6)
        assert len(after[1]) == (0 if done else 1)
        after_ids = {source: id for id, source, _, _ in after[0]}
        pictures = {"c": 2, "d": 5, "f": 7, "g": 8} if done else {"c": 2, "d": 3, "e": 4}
        assert after[2] == {after_ids[source]: jpeg(number) for source, number in pictures.items()}
        assert not other._server.query(gallery._book.name, 'kind == "removal"', ("key",))
        written = other._server.query(gallery._book.name, 'kind == "thumbnail"', ("key", "item"))
        assert len(written) == len(after[2]), "thumbnails were left"
        stored = other._server.query(items_of(other), "", ("id", "version"))
        assert sorted(row["id"] for row in stored) == sorted(row[0] for row in after[0]), "rows were left"
        assert other.verify().damaged == ()
        return ended, done


@pytest.mark.parametrize("number", [4, 7])
def test_a_client_that_ends_leaves_all_of_a_change_or_nothing(location, monkeypatch, number):
    ended, _ = interrupted(location, monkeypatch, number)
    assert ended


@pytest.mark.slow
def test_a_client_that_ends_before_any_of_its_writes(milvus_lite, monkeypatch):
    ended, outcomes = True, []
    while ended:
        ended, done = interrupted(milvus_lite(), monkeypatch, len(outcomes))
        outcomes.append(done)
    assert outcomes == sorted(outcomes), "there is one write before which nothing is done, and after it all"
    assert not outcomes[3]
    assert outcomes[-3], "what is left after it is no part of the change"


@pytest.mark.parametrize("late", [2, 4, 5])
def test_a_client_that_was_taken_for_dead_does_no_harm(location, monkeypatch, late):
    """It stops in the middle of a change for longer than its claim lasts; another writes; it goes on."""
    monkeypatch.setattr(changes, "CLAIM_LASTS", 0.2)
    with open_gallery(location) as gallery, open_gallery(location) as other:
        gallery.add(units(3), sources=list("abc"))
        writes = []

        def or_wait(collection, rows):
            writes.append(rows)
            if len(writes) == late + 1:
                time.sleep(0.3)
                other.add(units(2, seed=1), sources=["b", "x"], cameras=[7, 7])
            return put(collection, rows)

        put = gallery._server._put
        monkeypatch.setattr(gallery._server, "_put", or_wait)
        gallery.add(units(2, seed=2), sources=["c", "y"], cameras=[8, 8])
        for one in (gallery, other):
            found = {item.source: item.camera for item in one.items()}
            assert found == {"a": None, "b": 7, "x": 7, "c": 8, "y": 8}
            assert one.verify().damaged == ()


def test_a_reader_that_is_overtaken_reads_once_more(location, monkeypatch):
    with open_gallery(location) as gallery, open_gallery(location) as other:
        gallery.add(units(6), sources=list("abcdef"))
        monkeypatch.setattr(nearest, "_TOLD_AT_ONCE", 0)
        real, times = gallery._items.with_numbers, iter(range(2))

        def after_a_change(*arguments, **options):
            if next(times, None) is not None:
                other.add(units(2, seed=3), sources=["a", "b"], cameras=[5, 5])
            return real(*arguments, **options)

        monkeypatch.setattr(gallery._items, "with_numbers", after_a_change)
        [hits] = gallery.search(units(1, seed=3))
        assert len(hits) == 6
        assert hits[0].score == pytest.approx(1)
        monkeypatch.setattr(gallery._items, "with_numbers", lambda *arguments, **options: [])
        with pytest.raises(DamagedGallery, match="6 items found are not there"):
            gallery.search(units(1))
        with pytest.raises(DataError, match="has no item 1 "):
            gallery.items(ids=[1])


def test_writers_and_readers_at_the_same_time_agree(location, monkeypatch):
    errors, num = [], 3

    def write(number):
        try:
            with open_gallery(location) as gallery:
                for turn in range(num):
                    gallery.add(
                        units(2, seed=number),
                        sources=["shared", f"{number}-{turn}"],
                        cameras=[number, number],
                    )
        except BaseException as error:
            errors.append(error)

    with open_gallery(location) as gallery:
        gallery.add(units(1), sources=["shared"])
        threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            shared = [item for item in gallery.items() if item.source == "shared"]
            assert len(shared) == 1
            assert len({hit.source for hit in gallery.search(units(1), top=20)[0]}) >= 1
        assert errors == []
        assert len(gallery) == 1 + 2 * num
        assert len({item.id for item in gallery.items()}) == 1 + 2 * num


KILLED = """
import sys
import numpy as np
from reidkit.galleries import open_gallery
with open_gallery(sys.argv[1]) as gallery:
    number = 0
    while True:
        rows = np.random.default_rng(number).normal(size=(40, 16)).astype(np.float32)
        sources = [f"{number % 3}-{k}" for k in range(40)]
        gallery.add(rows, sources=sources, cameras=[number] * 40)
        print(number, flush=True)
        number += 1
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing_that_it_was_told(tmp_path):
    location = f"milvus-lite://{tmp_path}/killed.db"
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, location], stdout=subprocess.PIPE, text=True
        )
        for line in process.stdout:
            if int(line) >= 4:
                break
        time.sleep(np.random.default_rng().random() * 0.5)
        process.send_signal(signal.SIGKILL)
        started = time.monotonic()
        told = [int(line), *(int(line) for line in process.stdout if line.strip())][-1]
        with open_gallery(location) as gallery:
            items = gallery.items()
            assert len({item.source for item in items}) == len(items) == 120
            assert max(item.camera for item in items) >= told
            for part in range(3):
                cameras = {item.camera for item in items if item.source.startswith(f"{part}-")}
                assert len(cameras) == 1, "half a change"
            assert gallery.verify().damaged == ()
            gallery.remove(where={})
        assert time.monotonic() - started < changes.CLAIM_LASTS, "a process that is gone was waited for"
