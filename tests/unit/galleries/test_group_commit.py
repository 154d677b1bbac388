"""Adds of several threads go to disk together; each has its own answer, and is durable when it has it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.galleries import _vector_file, open_gallery
from reidkit.galleries._group_commit import GroupCommit

DIM = 16


def units(num, seed=0, dim=DIM):
    vectors = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A gallery, and what waits until it is let go: the first thread's way to the disk."""
    entered, let_go = threading.Event(), threading.Event()
    write = _vector_file.write_rows

    def wait_and_write(*arguments, **options):
        if not entered.is_set():
            entered.set()
            assert let_go.wait(20)
        return write(*arguments, **options)

    monkeypatch.setattr(_vector_file, "write_rows", wait_and_write)
    with open_gallery(tmp_path / "g") as gallery:
        yield gallery, entered, let_go


def together(held, works):
    """What each of the works answers, of which the first is held up until all others wait."""
    gallery, entered, let_go = held
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(works[0])]
        assert entered.wait(20)
        for number, work in enumerate(works[1:], 1):
            futures.append(pool.submit(work))
            while len(gallery._additions._waiting) < number:
                pass
        let_go.set()
        return [future.exception(30) or future.result() for future in futures]


def test_what_waits_is_written_together(held, monkeypatch):
    gallery, *_ = held
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), fsync(file)))
    works = [lambda n=n: gallery.add(units(1, n), sources=[n], cameras=[n]) for n in range(20)]
    answers = together(held, works)
    assert len(synced) == 2
    assert sorted(int(ids[0]) for ids in answers) == list(range(1, 21))
    for number, ids in enumerate(answers):
        [item] = gallery.items(ids=ids)
        assert (item.source, item.camera) == (str(number), number)
        np.testing.assert_array_equal(gallery.embeddings(ids=ids), units(1, number))


def test_one_that_cannot_be_added_does_not_keep_the_others_out(held):
    gallery, *_ = held
    answers = together(
        held,
        [
            lambda: gallery.add(units(1), sources=["a"]),
            lambda: gallery.add(units(2, 1), sources=["b", "c"]),
            lambda: gallery.add(units(1, 2, dim=7)),
            lambda: gallery.add(units(1, 3), sources=["a"], on_duplicate="error"),
            lambda: gallery.add(units(2, 4), sources=["c", "d"]),
            lambda: gallery.add(units(1, 5), sources=["b"], on_duplicate="skip"),
            lambda: gallery.add(units(1, 6)),
        ],
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [np.ndarray, np.ndarray, DataError, DataError, np.ndarray, np.ndarray, np.ndarray]
    assert answers[4].tolist() == [3, 4]
    assert answers[5].tolist() == [2]
    assert [item.source for item in gallery.items()] == ["a", "b", "c", "d", None]
    expected = np.concatenate([units(1), units(2, 1)[:1], units(2, 4), units(1, 6)])
    np.testing.assert_array_equal(gallery.embeddings(), expected)
    assert gallery.verify().damaged == ()
    assert gallery.compact() == 1


def test_where_the_disk_fails_each_is_tried_by_itself(held, monkeypatch):
    gallery, *_ = held
    write = _vector_file._write

    def fail(file, words):
        if len(words) == 3:
            raise OSError(28, "No space left on device")
        write(file, words)

    monkeypatch.setattr(_vector_file, "_write", fail)
    answers = together(held, [lambda n=n: gallery.add(units(n, n)) for n in (1, 2, 3, 4)])
    assert [type(answer) for answer in answers] == [np.ndarray, np.ndarray, DataError, np.ndarray]
    assert "No space left" in str(answers[2])
    assert len(gallery) == 7
    assert gallery.verify().damaged == ()


def test_a_thread_that_is_interrupted_leaves_its_turn_to_the_next():
    """As by Ctrl+C, at its work and while it waits."""
    started, let_go = threading.Event(), threading.Event()

    def commit(tasks):
        if "first" in tasks:
            started.set()
            assert let_go.wait(20)
            raise KeyboardInterrupt
        return tasks

    group = GroupCommit(commit)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(group.do, "first")
        assert started.wait(20)
        others = [pool.submit(group.do, name) for name in ("second", "third")]
        while len(group._waiting) < 2:
            pass
        let_go.set()
        assert isinstance(first.exception(20), KeyboardInterrupt)
        assert [other.result(20) for other in others] == ["second", "third"]
    assert group.do("last") == "last"
    assert not group._waiting
