"""Decisions in the SQLite file of an embedded gallery: damage is seen, and what is removed leaves no byte."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import DamagedGallery, Decision, forget, open_gallery

NAME = "somebody in particular"


@pytest.fixture
def path(tmp_path):
    """A gallery with two decisions that name somebody, and one that does not."""
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(np.eye(4, dtype=np.float32))
        gallery.decide(
            [
                Decision("accept", (1, 2), (None, None), (NAME, NAME), "ann"),
                Decision("split", (2,), (NAME,), ("eve",), "ann"),
                Decision("reject", (3, 4), (None, None), (None, None), "ann"),
            ]
        )
    return tmp_path / "g"


def content(path):
    return b"".join(file.read_bytes() for file in sorted(path.iterdir()))


def change(path, sql):
    with sqlite3.connect(path / "items.sqlite") as database:
        database.execute(sql)
    database.close()


def test_a_person_who_is_forgotten_is_in_no_decision_and_no_proposal(path):
    assert NAME.encode() in content(path)
    with open_gallery(path) as gallery:
        gallery.relabel([3, 4], labels={"proposal": [NAME, "eve"]})
        forget(gallery, NAME)
        split, reject = gallery.decisions()
        assert (split.items, split.before, split.after) == ((2,), (None,), ("eve",))
        assert reject.items == (3, 4)
        assert [item.labels for item in gallery.items(ids=[3, 4])] == [{}, {"proposal": "eve"}]
    assert NAME.encode() not in content(path)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE decisions SET items = replace(items, 'eve', 'eva')",
        "UPDATE decisions SET who = 7 WHERE id = 2",
        "UPDATE decisions SET kind = x'00' WHERE id = 2",
        "UPDATE decisions SET items = 'x' WHERE id = 2",
        "UPDATE decisions SET id = 9 WHERE id = 2",
    ],
)
def test_a_decision_that_is_not_what_was_written_is_told_and_dropped(path, sql):
    change(path, sql)
    with open_gallery(path) as gallery:
        for verb in (gallery.decisions, gallery.verify, gallery.repair, lambda: gallery.remove(ids=[1])):
            with pytest.raises(DamagedGallery, match="decisions are not what was written"):
                verb()
        assert len(gallery) == 4
        gallery.repair(drop=True)
        assert [decision.kind for decision in gallery.decisions()] == ["accept", "reject"]
        assert gallery.verify().damaged == ()


def test_a_table_of_decisions_of_another_kind_is_refused(path):
    change(path, "ALTER TABLE decisions ADD COLUMN why TEXT")
    with pytest.raises(DataError, match="other tables than reidkit makes"):
        open_gallery(path)


def test_a_decision_that_is_too_long_is_refused_and_nothing_is_changed(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        ids = tuple(gallery.add(np.eye(120, dtype=np.float32)).tolist())
        long = Decision("accept", ids, (None,) * 120, ("x" * 9_999,) * 120, "ann")
        with pytest.raises(ConfigError, match="decide of fewer items at once"):
            gallery.decide([long])
        assert gallery.decisions() == []
        assert {item.identity for item in gallery.items()} == {None}
