"""What people say of items: accept, reject, merge, split, undo; whom it tells apart; a table to train on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import reidkit as rk
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import (
    accept,
    accept_all_proposals,
    accept_proposal,
    in_force,
    item_ids,
    merge,
    open_gallery,
    proposals,
    reject,
    split,
    undo,
    write_training_table,
)
from reidkit.galleries._apart import apart

NAMES = ("ann", "ann", "ben", "cat", None, None, None, "-1")  # of the items 1 to 8


@pytest.fixture
def gallery(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            np.eye(8, dtype=np.float32),
            identities=NAMES,
            labels={"proposal": [None, None, None, None, "new-1", "new-1", "new-2", None]},
        )
        yield gallery


def names(gallery):
    return tuple(item.identity for item in gallery.items())


def persons(gallery):
    return {tuple(sorted(map(str, pair))) for pair in apart(gallery).pairs()}


def test_proposals_are_of_items_without_identity_and_can_be_accepted(gallery):
    assert {name: [item.id for item in items] for name, items in proposals(gallery).items()} == {
        "new-1": [5, 6],
        "new-2": [7],
    }
    [made] = accept_proposal(gallery, "new-1", identity="eve", who="zoe")
    assert (made.kind, made.items, made.who) == ("accept", (5, 6), "zoe")
    assert names(gallery)[4:7] == ("eve", "eve", None)
    assert list(proposals(gallery)) == ["new-2"]
    undo(gallery, made.id, who="zoe")
    assert sorted(proposals(gallery)) == ["new-1", "new-2"]
    assert accept_all_proposals(gallery, who="zoe") == ["new-1"]
    assert names(gallery)[4:7] == ("new-1", "new-1", None)
    with pytest.raises(DataError, match=r"there is no proposal 'new-3'; did you mean 'new-2'\?"):
        accept_proposal(gallery, "new-3", who="zoe")


def test_whoever_is_logged_in_decides(gallery, monkeypatch):
    monkeypatch.setenv("LOGNAME", "zoe")
    assert accept(gallery, [5], "eve")[0].who == "zoe"
    monkeypatch.setattr("getpass.getuser", lambda: {}["nobody"])
    with pytest.raises(ConfigError, match="say who decides"):
        accept(gallery, [6], "eve")


def test_a_rejection_tells_persons_apart_with_all_their_pictures(gallery):
    reject(gallery, 1, [3, 5], who="zoe")
    assert persons(gallery) == {("ann", "ben"), ("5", "ann")}
    gallery.add(np.ones((1, 8), np.float32), identities=["ben"])
    assert set(apart(gallery).of("ben")) == {"ann"}
    merge(gallery, "cat", ["ben"], who="zoe")
    assert persons(gallery) == {("ann", "cat"), ("5", "ann")}
    for kept_apart in (
        lambda: merge(gallery, "cat", ["ann"], who="zoe"),
        lambda: accept(gallery, [5], "ann", who="zoe"),
        lambda: accept(gallery, [5, 1, 2], "new", who="zoe"),
    ):
        with pytest.raises(DataError, match=r"were told apart by zoe \(decision 1\)"):
            kept_apart()
    undo(gallery, 1, who="zoe")
    assert not apart(gallery)
    merge(gallery, "cat", ["ann"], who="zoe")


def test_who_has_no_name_and_who_is_junk_are_nobody_but_themselves(gallery):
    reject(gallery, 8, [5], who="zoe")
    assert persons(gallery) == {("5", "8")}
    with pytest.raises(DataError, match=r"items 1 and 2 have the same identity, 'ann'; .* split"):
        reject(gallery, 1, [3, 2], who="zoe")


def test_a_split_tells_apart_from_who_it_was_even_under_a_later_name(gallery):
    [made] = split(gallery, [2], who="zoe")
    assert names(gallery)[:2] == ("ann", None)
    assert persons(gallery) == {("2", "ann")}
    merge(gallery, "ben", ["ann"], who="zoe")
    assert persons(gallery) == {("2", "ben")}
    with pytest.raises(DataError, match=r"item 2 and 'ben'|'ben' and item 2"):
        accept(gallery, [2], "ben", who="zoe")
    undo(gallery, made.id, who="zoe")
    assert names(gallery)[:3] == ("ben", "ann", "ben")
    with pytest.raises(DataError, match="has no identity that it could be split from"):
        split(gallery, [5], who="zoe")
    with pytest.raises(DataError, match="these are all items of 'cat'"):
        split(gallery, [4], who="zoe")
    with pytest.raises(ConfigError, match="cannot get that name again"):
        split(gallery, [1], identity="ben", who="zoe")


def test_what_was_changed_since_cannot_be_undone(gallery):
    [first] = accept(gallery, [5, 6], "eve", who="zoe")
    [second] = merge(gallery, "ann", ["eve"], who="zoe")
    with pytest.raises(DataError, match="decision 1 cannot be undone: item 5 has the identity 'ann'"):
        undo(gallery, first.id, who="zoe")
    [back] = undo(gallery, second.id, who="zoe")
    undo(gallery, first.id, who="zoe")
    assert names(gallery) == NAMES
    assert in_force(gallery.decisions()) == []
    with pytest.raises(DataError, match="there is no decision 99"):
        undo(gallery, 99, who="zoe")
    assert back.kind == "undo"


def test_many_items_are_decided_of_at_once(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        ids = gallery.add(np.ones((10_001, 1), np.float32))
        made = accept(gallery, ids, "crowd", who="zoe")
        assert [len(decision.items) for decision in made] == [10_000, 1]
        assert set(names(gallery)) == {"crowd"}


@pytest.mark.parametrize("decide", [accept, lambda *args, **more: split(*args[:2], **more)])
def test_of_nothing_nothing_is_decided(gallery, decide):
    with pytest.raises(ConfigError, match="there are no items to"):
        decide(gallery, [], "ann", who="zoe")


def test_people_are_merged_by_name(gallery):
    with pytest.raises(DataError, match=r"holds no identity 'benn'; did you mean 'ben'\?"):
        merge(gallery, "ann", ["benn"], who="zoe")
    with pytest.raises(ConfigError, match="the names of two people or more, each once"):
        merge(gallery, "ann", ["ann"], who="zoe")


def test_items_are_named_by_number_or_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_gallery("g") as gallery:
        gallery.add(np.eye(2, dtype=np.float32), sources=[str(tmp_path / "a.jpg"), "b.jpg"])
        assert item_ids(gallery, ["2", "#1", "a.jpg", "b.jpg"]) == [2, 1, 1, 2]
        with pytest.raises(DataError, match=r"'c.jpg' is neither the number of an item nor the path"):
            item_ids(gallery, ["c.jpg"])


def test_a_table_to_train_on(tmp_path):
    places = [tmp_path / f"{number}, here.png" for number in range(4)]
    for place in places[:3]:
        Image.new("RGB", (8, 16)).save(place)
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            np.eye(7, dtype=np.float32),
            sources=[*places, f"{places[0]}#1,2,3,4", "odd\udcff", None],
            identities=["0001", "0001", "ann", *["ann"] * 4],
            cameras=["door", None, "hall", *[None] * 4],
            times=[1.5, None, 2, *[None] * 4],
            tracklets=["t1", None, "t0", *[None] * 4],
        )
        num, left_out = write_training_table(gallery, tmp_path / "people.csv")
    assert num == 3
    assert [" ".join(sentence.split()[:5]) for sentence in left_out] == [
        "1 item whose picture is",
        "1 item cut out of",
        "1 item whose path is",
        "1 item without a picture's",
    ]
    data = rk.load_dataset("table", tmp_path / "people.csv")
    assert [sample.path for sample in data.train] == places[:3]
    assert [sample.identity_name for sample in data.train] == ["0001", "0001", "ann"]
    assert [sample.camera_name for sample in data.train][::2] == ["door", "hall"]
    assert [sample.time for sample in data.train] == [1.5, None, 2.0]
    assert data.train[1].camera is None
    assert data.train[0].tracklet != data.train[2].tracklet


def test_a_gallery_without_names_is_no_table(gallery, tmp_path):
    with pytest.raises(DataError, match="no item can be trained on: 5 items without a picture's path"):
        write_training_table(gallery, tmp_path / "people.csv")
    assert not (tmp_path / "people.csv").exists()


@pytest.mark.parametrize("junk", ["-1", "-1.0", " -1 "])
def test_nobody_is_called_as_pictures_of_nobody_are(gallery, junk):
    said = "marks pictures that show nobody"
    with pytest.raises(ConfigError, match=said):
        accept(gallery, [5], junk, who="zoe")
    with pytest.raises(ConfigError, match=said):
        accept_proposal(gallery, "new-1", identity=junk, who="zoe")
    with pytest.raises(ConfigError, match=said):
        split(gallery, [1], identity=junk, who="zoe")
    with pytest.raises(ConfigError, match=said):
        merge(gallery, junk, ["ann"], who="zoe")
    gallery.relabel([5, 6], labels={"proposal": [junk, junk]})
    with pytest.raises(ConfigError, match=said):
        accept_all_proposals(gallery, who="zoe")
    assert names(gallery) == NAMES
    assert gallery.decisions() == []
