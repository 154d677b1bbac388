"""Galleries as plain files and back: everything that was there, or one sentence on why not."""

from __future__ import annotations

import json
import shutil
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError
from reidkit.files import WriteError
from reidkit.galleries import (
    Decision,
    ExportedGallery,
    Item,
    _export,
    copy_gallery,
    export_gallery,
    open_gallery,
)


def units(num, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path):
    with open_gallery(tmp_path / "g", encoder={"fingerprint": "abc"}) as gallery:
        ids = gallery.add(
            units(6),
            sources=["a", "b\udcff", None, "d", "e", None],
            identities=["0001", "1", None, "x", "x", None],
            cameras=[1, "door", None, "01", 2, 3],
            times=[None, 1.5, "2024-05-01", None, None, 0],
            contents=["ab", None, None, None, None, None],
            tracklets=[7, None, None, None, "7", None],
            frames=[None, 3, None, 4, 0, None],
            boxes=[None, (1, 2.5, 30, 40), None, None, (-3, 0, 5, 9), None],
            thumbnails=[jpeg(1), None, None, jpeg(2), jpeg(3), None],
            labels={"day": [datetime(2024, 5, 1, tzinfo=UTC)] * 6, "n": [1, True, "1", 1.0, None, -2]},
        )
        gallery.remove(ids=ids[3:4])
        gallery.decide([Decision("accept", (3,), (None,), ("1",), "ann")])
        yield gallery


def jpeg(number):
    return b"\xff\xd8\xff" + bytes([number]) * 50 + b"\xff\xd9"


def pictures(gallery):
    items = gallery.items()
    found = gallery.thumbnails(ids=[item.id for item in items])
    return [found.get(item.id) for item in items]


def same(one, other):
    assert [repr(item).partition(", ")[2] for item in one.items()] == [
        repr(item).partition(", ")[2] for item in other.items()
    ]
    np.testing.assert_array_equal(one.embeddings(), other.embeddings())
    assert len(one.decisions()) == len(other.decisions())
    assert pictures(one) == pictures(other) == [jpeg(1), None, None, jpeg(3), None]


def test_what_is_exported_is_imported(gallery, tmp_path):
    assert export_gallery(gallery, tmp_path / "out") == 5
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "decisions.jsonl",
        "embeddings.npy",
        "gallery.json",
        "items.jsonl",
        "thumbnails.zip",
    ]
    with zipfile.ZipFile(tmp_path / "out" / "thumbnails.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "1.jpg": jpeg(1),
            "5.jpg": jpeg(3),
        }
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "embeddings.npy"), gallery.embeddings())
    exported = ExportedGallery(tmp_path / "out")
    with open_gallery(tmp_path / "back", encoder=exported.encoder) as back:
        assert copy_gallery(exported, back).num_items == 5
        same(gallery, back)
        assert copy_gallery(exported, back).num_there == 5
        same(gallery, back)


def test_an_import_that_was_interrupted_goes_on(gallery, tmp_path):
    export_gallery(gallery, tmp_path / "out")
    exported = ExportedGallery(tmp_path / "out")
    with open_gallery(tmp_path / "back") as back:
        first = exported.items()[:2]
        rows = exported.embeddings(ids=[item.id for item in first])
        back.add(rows, **_copy_labels(first), thumbnails=[jpeg(1), None])
        assert copy_gallery(exported, back).num_there == 2
        same(gallery, back)


def _copy_labels(items):
    from reidkit.galleries._copy import _labels

    return _labels(items)


def test_an_empty_gallery(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        assert export_gallery(gallery, tmp_path / "out") == 0
    with open_gallery(tmp_path / "back") as back:
        assert copy_gallery(ExportedGallery(tmp_path / "out"), back).num_items == 0


def test_an_export_is_whole_or_not_there(gallery, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        export_gallery(gallery, tmp_path / "there")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_export.os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device; nothing is there"):
        export_gallery(gallery, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["g", "there"]


def rewritten(folder, name, content):
    """A folder in which one file is another, with a hash that fits."""
    (folder / name).write_bytes(content)
    about = json.loads((folder / "gallery.json").read_text())
    about["sha256"][name] = _export._hash(folder / name)
    (folder / "gallery.json").write_text(json.dumps(about))


TEXTS = ("source", "identity", "camera", "time", "content", "tracklet", "frame", "box")
LINE = json.dumps({"id": 1, **dict.fromkeys(TEXTS), "labels": {}}, separators=(",", ":"))


def test_what_is_changed_in_the_tests_below_is_an_item():
    assert _export._to_item(LINE) == Item(1, None, None, None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"[1]",
        b"{}",
        LINE.encode() * 2,
        LINE.replace('"id":1', '"id":"1"').encode(),
        LINE.replace('"source":null', '"source":3').encode(),
        LINE.replace('"camera":null', '"camera":[1]').encode(),
        LINE.replace('"time":null', '"time":1e300').encode(),
        LINE.replace('"labels":{}', '"labels":{"a":{"time":1e300}}').encode(),
        LINE.replace('"labels":{}', '"labels":[]').encode(),
        *(LINE.replace('"time":null', f'"time":{time}').encode() for time in ('"5"', "true", "NaN")),
        *(LINE.replace('"identity":null', f'"identity":{name}').encode() for name in ('" x "', '""', "5")),
        *(
            LINE.replace('"camera":null', f'"camera":{name}').encode()
            for name in ('"7"', "1.5", "true", "-1")
        ),
        *(LINE.replace('"frame":null', f'"frame":{number}').encode() for number in ("-1", "1.5", '"1"')),
        *(
            LINE.replace('"labels":{}', f'"labels":{{"a":{value}}}').encode()
            for value in ("NaN", '" x"', "[1]")
        ),
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_nonsense_in_the_table_is_refused(gallery, tmp_path, content):
    export_gallery(gallery, tmp_path / "out")
    rewritten(tmp_path / "out", "items.jsonl", content)
    with pytest.raises(DataError) as error:
        ExportedGallery(tmp_path / "out")
    assert "\n" not in str(error.value)
    assert content == b"" or "do not go together" not in str(error.value)


@pytest.mark.parametrize("name", ["embeddings.npy", "items.jsonl", "decisions.jsonl", "gallery.json"])
def test_damage_is_refused(gallery, tmp_path, name):
    export_gallery(gallery, tmp_path / "out")
    file = tmp_path / "out" / name
    file.write_bytes(b"!" + file.read_bytes()[1:])
    with pytest.raises(DataError):
        ExportedGallery(tmp_path / "out")
    file.unlink()
    with pytest.raises(DataError):
        ExportedGallery(tmp_path / "out")


@pytest.mark.parametrize("array", [np.zeros((5, 16)), np.zeros((4, 16), np.float32), np.array([{}] * 5)])
def test_other_arrays_are_refused(gallery, tmp_path, array):
    export_gallery(gallery, tmp_path / "out")
    np.save(tmp_path / "array.npy", array, allow_pickle=True)
    rewritten(tmp_path / "out", "embeddings.npy", (tmp_path / "array.npy").read_bytes())
    with pytest.raises(DataError, match=r"do not go together|no export"):
        ExportedGallery(tmp_path / "out")


def run(*words):
    return CliRunner().invoke(cli, ["gallery", *map(str, words)])


def test_the_commands(gallery, tmp_path):
    out, back = tmp_path / "out", tmp_path / "back"
    assert "wrote 5 items" in run("export", tmp_path / "g", out).stdout
    assert "copied 5 items and 1 decisions" in run("import", back, out).stdout
    shutil.rmtree(back)
    assert isinstance(run("import", back, tmp_path).exception, DataError)
    assert not back.exists()
    assert isinstance(run("export", tmp_path / "g", out).exception, ConfigError)
