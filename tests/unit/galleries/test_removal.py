"""What is removed for good is found in no file of a gallery."""

from __future__ import annotations

import sqlite3
import time

import numpy as np
import pytest
from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import _column_data, erase, expire, forget, open_gallery

NAME, PICTURE, ZONE = "somebody in particular", "photos/of-somebody-17.jpg", "a certain room"
THUMBNAIL = b"\xff\xd8\xff" + b"what somebody looks like" * 2000 + b"\xff\xd9"  # pages of the file


def units(num, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A gallery with a person who is also in the columns, and items of the last minutes."""
    monkeypatch.setattr(_column_data, "CHUNK", 64)
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            units(200),
            sources=[PICTURE if n == 17 else f"{n}.jpg" for n in range(200)],
            identities=[NAME if n in (17, 90) else f"{n % 20:04}" for n in range(200)],
            labels={"zone": [ZONE if n == 17 else "hall" for n in range(200)]},
            thumbnails=[THUMBNAIL if n == 17 else None for n in range(200)],
            times=[None if n == 3 else time.time() - 60 * n - 30 for n in range(200)],
        )
        assert len(gallery.items(where={"zone": ZONE})) == 1
    return tmp_path / "g"


def content(path):
    return b"".join(file.read_bytes() for file in sorted(path.iterdir()))


def traces():
    return [
        NAME.encode(),
        PICTURE.encode(),
        ZONE.encode(),
        THUMBNAIL[3:2000],
        THUMBNAIL[-2000:],
        units(200)[17].tobytes(),
        units(200)[90].tobytes(),
    ]


def test_a_person_who_is_forgotten_is_in_no_file(path):
    assert all(trace in content(path) for trace in traces())
    with open_gallery(path) as gallery:
        assert forget(gallery, NAME, dry_run=True) == 2
        assert len(gallery) == 200
        assert forget(gallery, NAME) == 2
        assert not [trace for trace in traces() if trace in content(path)]
        assert len(gallery) == 198
        assert gallery.verify().damaged == ()
        assert gallery.search(units(200)[18], top=1)[0][0].source == "18.jpg"
        with pytest.raises(DataError, match="no identity '1'; did you mean '0001'"):
            forget(gallery, "1")


def test_what_an_earlier_version_deleted_is_erased_too(path):
    with open_gallery(path) as gallery:
        gallery.remove(ids=[1])
        gallery._table.db.execute("PRAGMA secure_delete = OFF")
        gallery.remove(where={"identity": NAME})
    assert NAME.encode() in content(path)
    with open_gallery(path) as gallery:
        gallery.compact(erase=True)
    assert not [trace for trace in traces() if trace in content(path)]


def test_removing_alone_overwrites_the_labels(path):
    with open_gallery(path) as gallery:
        gallery.remove(where={"identity": NAME})
    assert not [trace for trace in traces()[:3] if trace in content(path)]


def test_items_expire(path):
    with open_gallery(path) as gallery:
        assert expire(gallery, "100m", dry_run=True) == 100
        assert expire(gallery, "100m") == 100
        assert len(gallery) == 100
        assert 4 in {item.id for item in gallery.items(where={"source": "3.jpg"})}
        assert expire(gallery, "9999999w") == 0
        for text in ("", "30", "d", "-3d", "30 years", "9" * 400 + "d"):
            with pytest.raises(ConfigError, match="is no age; expected a number and one of"):
                expire(gallery, text)
        assert erase(gallery, {"zone": "hall"}) == 99


def run(*arguments):
    return CliRunner().invoke(cli, ["gallery", *map(str, arguments)])


def test_the_commands(path):
    assert "would remove 2 items of 200" in run("forget", path, NAME, "--dry-run").output
    assert "removed 2 items, 198 left" in run("forget", path, NAME).output
    assert "removed 10 items, 188 left" in run("remove", path, "--where", "identity=0001").output
    assert run("remove", path).exit_code != 0
    assert "would remove" in run("expire", path, "--older-than", "1h", "--dry-run").output
    listed = run("list", path, "--where", "zone=hall", "--limit", "3")
    assert "left out: 185 items of 188" in listed.output
    assert len(listed.stdout.splitlines()) == 3
    assert '"zone": "hall"' in run("list", path, "--limit", "1", "--json").stdout
    with sqlite3.connect(path / "items.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM items").fetchone() == (188,)
    assert "dropped 0 embeddings" in run("compact", path).output


def test_nothing_is_erased_by_mistake(path):
    with open_gallery(path) as gallery:
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match=r"where=\{\} erases everything"):
                erase(gallery, None, dry_run=dry_run)
            with pytest.raises(ConfigError, match="30 is no age"):
                expire(gallery, 30, dry_run=dry_run)
        assert len(gallery) == 200
