"""Processes that are killed while they change a gallery: nothing acknowledged is lost or half-done."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from reidkit.galleries import _column_data, accept, open_gallery

DIM = 32
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that can be killed is forked")


def units(num, seed):
    vectors = np.random.default_rng(seed).normal(size=(num, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def thumbnail_of(number, place):
    """What is kept of every second item of a step; larger than a page of the file."""
    return None if place % 2 else b"\xff\xd8\xff" + number.to_bytes(8, "little") * 700 + b"\xff\xd9"


def step(number, held):
    """What is done as number so-and-so, given the sources that are held: a verb and what it is about."""
    rng = np.random.default_rng([number, 1])
    verb = rng.choice(["add", "replace", "remove", "compact"], p=[0.35, 0.25, 0.2, 0.2])
    if verb == "add":
        return "put", [f"{number}-{index}" for index in range(int(rng.integers(1, 9)))]
    if verb == "replace" and held:
        return "put", sorted(rng.choice(sorted(held), min(len(held), 4), replace=False).tolist())
    if verb == "remove" and len(held) > 40:
        return "remove", sorted(rng.choice(sorted(held), 12, replace=False).tolist())
    return "compact", []


def oracle(held, number):
    """What a dictionary, source -> (number, place), holds after a step."""
    verb, sources = step(number, held)
    if verb == "put":
        return held | {source: (number, place) for place, source in enumerate(sources)}
    return {source: value for source, value in held.items() if source not in sources}


def work(path, number, held, pipe):
    """Do steps for ever, and write each one's number when it is done."""
    with open_gallery(path) as gallery:
        while True:
            verb, sources = step(number, held)
            if verb == "put":
                small = [thumbnail_of(number, place) for place in range(len(sources))]
                cameras = [number] * len(sources)
                gallery.add(units(len(sources), number), sources=sources, cameras=cameras, thumbnails=small)
            elif verb == "remove":
                gallery.remove(where={"source": sources})
            else:
                gallery.compact()
            held = oracle(held, number)
            os.write(pipe, number.to_bytes(8, "little"))
            number += 1


def killed_at_work(path, number, held, seconds):
    """The last step that was acknowledged by a process that is killed so long after it set to work."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(path, number, held, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as acknowledged:
        first = acknowledged.read(8)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        told = first + acknowledged.read()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, "it ended by itself"
    return int.from_bytes(told[len(told) // 8 * 8 - 8 :][:8], "little")


def holds(gallery, held):
    items = gallery.items()
    if {item.source: item.camera for item in items} != {source: n for source, (n, _) in held.items()}:
        return False
    assert len(gallery) == len(items)
    small = gallery.thumbnails(ids=[item.id for item in items])
    assert small == {
        item.id: thumbnail_of(*held[item.source]) for item in items if thumbnail_of(*held[item.source])
    }
    expected = np.array([units(place + 1, n)[place] for n, place in (held[item.source] for item in items)])
    if len(items):
        if gallery.info()["storage"] == "float32":
            np.testing.assert_array_equal(gallery.embeddings(), expected)
        expected = gallery.embeddings()
        query = units(1, 999)[0]
        [hits] = gallery.search(query, top=5)
        nearest = np.argsort(-(expected.astype(np.float64) @ query.astype(np.float64)), kind="stable")[:5]
        assert [hit.source for hit in hits] == [items[place].source for place in nearest]
    return True


@pytest.mark.parametrize(
    ("num", "storage"),
    [
        (12, "float32"),
        pytest.param(500, "float32", marks=pytest.mark.slow),
        pytest.param(100, "int8", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_time(tmp_path, monkeypatch, num, storage):
    monkeypatch.setattr(_column_data, "CHUNK", 64)  # columns are changed as well
    path, rng = tmp_path / "g", np.random.default_rng(num)
    open_gallery(path, storage=storage).close()
    held, number, in_hand = {}, 0, 0
    for _ in range(num):
        last = killed_at_work(path, number, held, rng.uniform(0, 0.03))
        for done in range(number, last + 1):
            held = oracle(held, done)
        number = last + 1
        with open_gallery(path, create=False) as gallery:
            if not holds(gallery, held):
                # The step in hand may have been committed without a word of it; nothing else may differ.
                held, number, in_hand = oracle(held, number), number + 1, in_hand + 1
                assert holds(gallery, held)
            assert gallery.verify().damaged == ()
            gallery.remove(where={"source": "nobody"})  # the next to write removes what the killed left
            assert len(list(path.glob("vectors*"))) <= (2 if storage == "int8" else 1)
    print(f"{num} kills in {number} steps, {in_hand} of them after the commit of the step in hand")


def decide_for_ever(path, number, pipe):
    """Name a few items anew for ever, by decisions or proposals; write the number of each step done."""
    with open_gallery(path) as gallery:
        while True:
            items = gallery.items()[number % 5 :: 5]
            if number % 2:
                accept(gallery, [item.id for item in items], f"p{number}", who="zoe")
            else:
                gallery.relabel([item.id for item in items], labels={"proposal": [f"p{number}"] * len(items)})
            os.write(pipe, number.to_bytes(8, "little"))
            number += 1


def killed_deciding(path, number, seconds):
    """The last step that was acknowledged by a process that is killed so long after its first."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            decide_for_ever(path, number, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as acknowledged:
        told = acknowledged.read(8)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        told += acknowledged.read()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, "it ended by itself"
    return int.from_bytes(told[len(told) // 8 * 8 - 8 :][:8], "little")


@pytest.mark.parametrize("num_kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_decision_and_what_it_renames_are_kept_together_or_not_at_all(tmp_path, num_kills):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(50, 0))
    done = 0
    for kill in range(num_kills):
        done = killed_deciding(tmp_path / "g", done + 1, np.random.default_rng(kill).uniform(0, 0.1))
        with open_gallery(tmp_path / "g") as gallery:
            decisions, items = gallery.decisions(), gallery.items()
            made = [int(decision.after[0][1:]) for decision in decisions]
            assert made == sorted(made)
            assert made[-1:] >= [done - 1 + done % 2]  # acknowledged is kept; one more may be
            assert max(made[-1], done) <= done + 1
            named = {}
            for decision in decisions:
                assert decision.before == tuple(named.get(id) for id in decision.items)
                named |= dict(zip(decision.items, decision.after, strict=True))
            assert {item.id: item.identity for item in items} == {
                item.id: named.get(item.id) for item in items
            }
            for start in range(5):
                assert len({item.labels.get("proposal") for item in items[start::5]}) == 1
            done = max(done, made[-1])
            assert gallery.verify().damaged == ()
