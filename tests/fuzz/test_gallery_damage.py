"""Flipped bits in a gallery's files: each changes nothing in the answers, or is reported."""

from __future__ import annotations

import shutil
import sqlite3

import numpy as np
import pytest

from reidkit.errors import ReidError
from reidkit.galleries import DamagedGallery, open_gallery

DIM = 24
NUM = 80


def units(num, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A gallery with removed and replaced items, so that rows of its files are dead."""
    path = tmp_path_factory.mktemp("whole") / "g"
    with open_gallery(path, encoder={"fingerprint": "abc", "path": "runs/x"}) as gallery:
        for start in range(0, NUM, 20):
            numbers = range(start, start + 20)
            gallery.add(
                units(20, seed=start),
                sources=[f"photos/{number:04}.jpg" for number in numbers],
                identities=[f"{number % 9:04}" for number in numbers],
                cameras=[("door", 1, 2, None)[number % 4] for number in numbers],
                times=[1e9 + number for number in numbers],
                contents=[f"{number:032x}" for number in numbers],
            )
        gallery.remove(where={"identity": "0003"})
        gallery.add(units(2, seed=99), sources=["photos/0001.jpg", "new"], cameras=["door", 7])
    return path


@pytest.fixture(scope="module")
def unfinished(whole, tmp_path_factory):
    """The same gallery, whose last writer was killed: its journal has to be rolled back first."""
    path = tmp_path_factory.mktemp("unfinished") / "g"
    busy = tmp_path_factory.mktemp("busy") / "g"
    shutil.copytree(whole, busy)
    with sqlite3.connect(busy / "items.sqlite", isolation_level=None) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE items SET camera = camera || ' too', identity = identity || '-', checksum = 1")
        writer.execute("UPDATE gallery SET revision = 99, num_rows = 1")
        writer.execute("SELECT COUNT(*) FROM items").fetchall()
        shutil.copytree(busy, path)
        writer.execute("ROLLBACK")
    assert (path / "items.sqlite-journal").stat().st_size > 4096
    assert (path / "items.sqlite").read_bytes() != (whole / "items.sqlite").read_bytes()
    return path


NUM_READS = 8


def questions(gallery):
    """All that is asked, the first ``NUM_READS`` without writing."""
    queries = units(6, seed=7)
    yield lambda: len(gallery)
    yield lambda: gallery.encoder
    yield lambda: gallery.search(queries, top=5)
    yield lambda: gallery.search(queries, top=5, where={"camera": {"not": "door"}})
    yield lambda: gallery.items()
    yield lambda: gallery.items(where={"source": "photos/0017.jpg"})
    yield lambda: gallery.items(where={"content": f"{22:032x}", "time": {"from": 1e9}})
    yield lambda: gallery.embeddings().tolist()
    yield lambda: gallery.add(units(2, seed=5), sources=["photos/0033.jpg", "another"]).tolist()
    yield lambda: gallery.remove(where={"camera": 2})
    yield lambda: gallery.search(units(2, seed=5), top=5)
    yield lambda: gallery.compact()
    yield lambda: gallery.search(queries, top=70)


def answers(path):
    """Each answer, or the error in its place; what follows an error is asked nevertheless."""
    given = []
    try:
        with open_gallery(path, create=False) as gallery:
            for ask in questions(gallery):
                try:
                    given.append(ask())
                except ReidError as error:
                    given.append(error)
    except ReidError as error:
        given.append(error)
    return given


def flip(path, bit):
    """Flip one bit of all those in a folder's files; the name of its file."""
    for file in sorted(path.iterdir()):
        size = 8 * file.stat().st_size
        if bit < size:
            with file.open("r+b") as stream:
                stream.seek(bit // 8)
                byte = stream.read(1)[0] ^ (1 << bit % 8)
                stream.seek(bit // 8)
                stream.write(bytes([byte]))
            return file.name
        bit -= size
    raise AssertionError("there are not so many bits")


def compare(gallery, bits, tmp_path):
    """How many of these flips changed nothing, and how many were reported."""
    shutil.copytree(gallery, tmp_path / "expected")
    expected = answers(tmp_path / "expected")
    assert not any(isinstance(answer, Exception) for answer in expected)
    unchanged = reported = 0
    for bit in bits:
        path = tmp_path / "flipped"
        shutil.copytree(gallery, path)
        name = flip(path, int(bit))
        given = answers(path)
        told = [answer for answer in given if isinstance(answer, ReidError)]
        for error in told:
            assert "\n" not in str(error)
            assert len(str(error)) < 1500
        if told:
            reported += 1
            # A write that is refused leaves later answers other than expected; no answer before may be wrong.
            refused = [i for i, answer in enumerate(given) if i >= NUM_READS and answer in told]
            trusted = given[: refused[0] if refused else None]
            for answer, right in zip(trusted, expected, strict=False):
                assert answer in told or answer == right, f"bit {bit} in {name}"
            if not isinstance(told[0], DamagedGallery):
                assert len(given) == 1 or "damaged" in str(told[0]) or "other tables" in str(told[0]), told[0]
        else:
            unchanged += 1
            assert given == expected, f"bit {bit} in {name}"
        shutil.rmtree(path)
    return unchanged, reported


def all_bits(path):
    return sum(8 * file.stat().st_size for file in path.iterdir())


@pytest.mark.parametrize("num", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_changes_no_answer_or_is_reported(whole, tmp_path, num):
    bits = np.random.default_rng(num).integers(0, all_bits(whole), num)
    unchanged, reported = compare(whole, bits, tmp_path)
    print(f"{num} flips: {unchanged} changed nothing, {reported} were reported")
    assert unchanged > 0
    assert reported > 0


@pytest.mark.parametrize("num", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_bit_beside_a_journal(unfinished, whole, tmp_path, num):
    bits = np.random.default_rng(num).integers(0, all_bits(unfinished), num)
    unchanged, reported = compare(unfinished, bits, tmp_path)
    print(f"{num} flips beside a journal: {unchanged} changed nothing, {reported} were reported")
    assert reported > 0


@pytest.mark.slow
def test_every_bit_of_the_header_and_of_the_first_tables(whole, tmp_path):
    """The first 100 bytes are SQLite's header, the next the root of its schema."""
    bits = np.concatenate([np.arange(0, 8 * 116), np.arange(8 * 116, 8 * 4096, 61)])
    unchanged, reported = compare(whole, bits, tmp_path)
    print(f"{len(bits)} flips: {unchanged} changed nothing, {reported} were reported")
