"""Many readers and writers of one gallery at once: no error, and every answer is that of an oracle."""

from __future__ import annotations

import json
import os
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reidkit.galleries import open_gallery

DIM, PAIRS, FIRST = 32, 40, 8
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def unit(*seed):
    vector = np.random.default_rng(seed).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def pair(writer, number, version):
    """What a writer stores of one of its pairs: arguments of ``add``. Pair 0 is never removed."""
    return {
        "embeddings": np.stack([unit(writer, number, version, side) for side in (0, 1)]),
        "sources": [f"{writer}-{number}-{side}" for side in (0, 1)],
        "cameras": [version, version],
        "tracklets": [f"{writer}-{number}"] * 2,
    }


def write(path, writer, until):
    """Replace, remove and compact pairs; the version of each at the end."""
    rng, versions = np.random.default_rng([writer, 7]), dict.fromkeys(range(FIRST), 0)
    with open_gallery(path) as gallery:
        while time.monotonic() < until:
            number, version = int(rng.integers(PAIRS)), int(rng.integers(1, 1000))
            if rng.random() < 0.03:
                gallery.compact()
            elif rng.random() < 0.25 and number and number in versions:
                gallery.remove(where={"tracklet": f"{writer}-{number}"})
                del versions[number]
            else:
                gallery.add(**pair(writer, number, version))
                versions[number] = version
    return versions


def read(path, reader, num_writers, until):
    """Search, and check each answer against what was stored; how many answers."""
    rng, num = np.random.default_rng([reader, 8]), 0
    with open_gallery(path) as gallery:
        while not num or time.monotonic() < until:
            writer, number = int(rng.integers(num_writers)), int(rng.integers(PAIRS))
            query = unit(writer, number, int(rng.integers(1000)), 0)
            where = {"tracklet": f"{writer}-{number}"} if rng.random() < 0.5 else {}
            [hits] = gallery.search(query, top=12, where=where)
            for hit in hits:
                w, n, side = map(int, hit.source.split("-"))
                exact = unit(w, n, hit.camera, side).astype(np.float64) @ query.astype(np.float64)
                assert abs(hit.score - min(1, exact)) < 1e-9, (hit, exact)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            if where:  # a pair is there or not, and of one version
                assert len(hits) in ((2,) if number == 0 else (0, 2)), hits
                assert len({hit.camera for hit in hits}) <= 1, hits
            else:
                assert len(hits) == 12
            num += 1
    return num


def forked(work):
    """The exit code of a process that does the work is 0 if nothing went wrong."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.mark.parametrize(
    ("processes", "threads", "writers", "seconds"),
    [(1, 3, 2, 2), (2, 6, 2, 4), pytest.param(4, 8, 4, 60, marks=pytest.mark.slow)],
)
def test_answers_while_others_write(tmp_path, monkeypatch, processes, threads, writers, seconds):
    monkeypatch.setattr("reidkit.galleries._table_file.LOCK_SECONDS", 60.0)  # a busy machine is no error
    path = tmp_path / "g"
    with open_gallery(path) as gallery:
        for writer in range(writers):
            for number in range(FIRST):
                gallery.add(**pair(writer, number, 0))
    until = time.monotonic() + seconds

    def write_and_tell(writer):
        (tmp_path / f"{writer}.json").write_text(json.dumps(list(write(path, writer, until).items())))

    def read_all(process):
        with ThreadPoolExecutor(threads) as pool:
            seeds = [process * threads + thread for thread in range(threads)]
            answers = list(pool.map(lambda seed: read(path, seed, writers, until), seeds))
            assert min(answers) > 0

    children = [forked(lambda w=w: write_and_tell(w)) for w in range(writers)]
    children += [forked(lambda p=p: read_all(p)) for p in range(processes)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)
    with open_gallery(path) as gallery:
        assert gallery.verify().damaged == ()
        for writer in range(writers):
            versions = dict(json.loads((tmp_path / f"{writer}.json").read_text()))
            for number in range(PAIRS):
                items = gallery.items(where={"tracklet": f"{writer}-{number}"})
                expected = [versions[number]] * 2 if number in versions else []
                assert [item.camera for item in items] == expected
