"""Thumbnails in a gallery's file: told as they were written, or not at all."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from reidkit.galleries import DamagedGallery, open_gallery


def jpeg(number):
    return b"\xff\xd8\xff" + bytes([number]) * 50 + b"\xff\xd9"


@pytest.fixture
def path(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(np.eye(3, 8, dtype=np.float32), thumbnails=[jpeg(1), jpeg(2), None])
    return tmp_path / "g"


@pytest.mark.parametrize(
    "change",
    [
        "data = X'FFD8FF00FFD9' WHERE id = 2",
        "data = (SELECT data FROM thumbnails WHERE id = 1) WHERE id = 2",
        "checksum = checksum + 1 WHERE id = 2",
        "data = 'text' WHERE id = 2",
        "data = zeroblob(200000) WHERE id = 2",
    ],
)
def test_a_damaged_thumbnail_is_not_shown(path, change):
    db = sqlite3.connect(path / "items.sqlite")
    db.execute(f"UPDATE thumbnails SET {change}")
    db.commit()
    db.close()
    with open_gallery(path) as gallery:
        assert gallery.thumbnails(ids=[1, 3]) == {1: jpeg(1)}
        with pytest.raises(DamagedGallery, match="the thumbnails of 1 of 3 items") as told:
            gallery.thumbnails(ids=[1, 2])
        assert told.value.ids == (2,)
        assert gallery.verify().damaged == gallery.verify().thumbnails == (2,)
        assert gallery.repair(drop=True) == (2,)
        assert (len(gallery), gallery.verify().damaged) == (2, ())
        assert gallery.thumbnails(ids=[1, 2]) == {1: jpeg(1)}


def test_other_tables_of_that_name_are_refused(path):
    db = sqlite3.connect(path / "items.sqlite")
    db.executescript("DROP TABLE thumbnails; CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, data)")
    db.close()
    with pytest.raises(Exception, match="holds other tables than reidkit makes"):
        open_gallery(path)
