"""What clustering proposes for a gallery: names that stay, fixed points, constraints, walks, kills."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.clustering import ClusterOptions
from reidkit.clustering.known import known_constraints
from reidkit.clustering.proposals import propose
from reidkit.galleries import accept_proposal, open_gallery, proposals, reject, split

OPTIONS = ClusterOptions(k1=6, k2=2, farthest=0.8)


def people(num, each, *, noise=0.2, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(num), each)
    vectors = rng.normal(size=(num, dim))[truth] + noise * rng.normal(size=(num * each, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def gallery(tmp_path):
    """Five people, six items each: ids 1 to 6 the first, and so on; nobody is named."""
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(people(5, 6), cameras=[n % 2 for n in range(30)], times=list(range(30)))
        yield gallery


def proposed(gallery):
    return {name: tuple(item.id for item in items) for name, items in proposals(gallery).items()}


def test_people_are_proposed_and_nobody_is_named(gallery):
    found = propose(gallery, OPTIONS)
    assert (found.num_items, found.num_alone, len(found.people)) == (30, 0, 5)
    assert proposed(gallery) == {f"new-{n + 1}": tuple(range(6 * n + 1, 6 * n + 7)) for n in range(5)}
    assert {item.identity for item in gallery.items()} == {None}
    assert all(not person.is_known and person.num_proposed == 6 for person in found.people)


def test_a_dry_run_keeps_nothing(gallery):
    before = gallery.items()
    assert len(propose(gallery, OPTIONS, dry_run=True).people) == 5
    assert gallery.items() == before


def test_names_stay_and_who_is_accepted_is_a_fixed_point(gallery):
    propose(gallery, OPTIONS)
    accept_proposal(gallery, "new-2", identity="ann", who="zoe")
    first = proposed(gallery)
    gallery.add(people(7, 6)[12:18] + 0.01)
    gallery.add(people(5, 6)[6:9] + 0.01)
    found = propose(gallery, OPTIONS)
    second = proposed(gallery)
    assert {name: ids for name, ids in second.items() if name in first and name != "new-3"} == {
        name: ids for name, ids in first.items() if name != "new-3"
    }
    assert {13, 14, 31, 32} <= {*second["new-3"]} <= {*first["new-3"], *range(31, 37)}
    assert second["ann"] == (37, 38, 39)
    [ann] = [person for person in found.people if person.is_known]
    assert (ann.name, ann.num_proposed, len(ann.items)) == ("ann", 3, 9)
    accept_proposal(gallery, "ann", who="zoe")
    assert sum(item.identity == "ann" for item in gallery.items()) == 9
    runs = [(propose(gallery, OPTIONS).num_alone, proposed(gallery)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_items_that_are_not_looked_at_keep_their_proposals(gallery):
    propose(gallery, OPTIONS)
    before = proposed(gallery)
    propose(gallery, OPTIONS, where={"time": {"from": 12}})
    assert proposed(gallery) == before
    propose(gallery, ClusterOptions(k1=6, k2=2, lowest=1.0), where={"time": {"from": 12}})
    assert proposed(gallery) == {name: before[name] for name in ("new-1", "new-2")}


def test_who_was_told_apart_is_proposed_as_two(gallery):
    reject(gallery, 1, [2], who="zoe")
    propose(gallery, OPTIONS)
    ones = [ids for ids in proposed(gallery).values() if {1, 2} & {*ids}]
    assert not any({1, 2} <= {*ids} for ids in ones)
    accept_proposal(gallery, next(name for name, ids in proposed(gallery).items() if 7 in ids), who="zoe")
    split(gallery, [7], who="zoe")
    found = propose(gallery, OPTIONS)
    [person] = [person for person in found.people if person.is_known]
    assert 7 not in {item.id for item in person.items}


def test_tracklets_hold_together_and_overlapping_ones_apart(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            np.concatenate([people(1, 6), people(2, 3, seed=9)]),
            cameras=[0] * 6 + [1] * 6,
            times=[0, 1, 2, 1, 2, 3, *range(10, 16)],
            tracklets=["a", "a", "a", "b", "b", "b", *["c"] * 6],
        )
        found = propose(gallery, OPTIONS)
    ids = {frozenset(item.id for item in person.items) for person in found.people}
    assert ids == {frozenset({1, 2, 3}), frozenset({4, 5, 6}), frozenset(range(7, 13))}


@pytest.mark.parametrize(
    ("identities", "rejected", "note"),
    [
        (["ann", "ben", None, None, None, None], None, "1 tracklet with two people each"),
        ([None] * 6, (1, 2), "1 tracklet with two people each"),
        (["ann", None, None, "ann", None, None], (2, 6), "1 chain of tracklets between people"),
        (["ann", None, None, None, "ann", None], None, "1 pair of tracklets at one camera and time"),
    ],
)
def test_what_contradicts_itself_is_told_and_people_are_believed(tmp_path, identities, rejected, note):
    with open_gallery(tmp_path / "g") as gallery:
        tracklets = ["a", "a", "b", "c", "c", "c"]
        gallery.add(people(1, 6), identities=identities, tracklets=tracklets, cameras=[0] * 6, times=[1] * 6)
        if rejected:
            reject(gallery, rejected[0], rejected[1:], who="zoe")
        found = propose(gallery, OPTIONS)
        assert note in " ".join(found.notes)
        names = {item.id: person.name for person in found.people for item in person.items}
        assert not rejected or names.get(rejected[0], 0) != names.get(rejected[1], 1)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_is_known_makes_constraints_that_can_be_held(tmp_path_factory, data):
    num = data.draw(st.integers(0, 10))

    def column(values):
        return data.draw(st.lists(st.sampled_from(values), min_size=num, max_size=num))

    with open_gallery(tmp_path_factory.mktemp("g") / "g") as gallery:
        gallery.add(
            people(2, 5)[:num],
            identities=column([None, "ann", "ben", "-1"]),
            tracklets=column([None, "a", "b", "c"]),
            cameras=column([None, 0, "door"]),
            times=column([None, 0, 1, 2]),
        )
        items = gallery.items()
        for one, other in data.draw(st.lists(st.tuples(*[st.integers(1, 10)] * 2), max_size=4)):
            names = [item.identity for item in items if item.id in (one, other)]
            if one != other and max(one, other) <= num and (len(set(names)) > 1 or names[0] in (None, "-1")):
                reject(gallery, one, [other], who="zoe")
        constraints, _ = known_constraints(gallery, items)
        constraints.units(num)
        propose(gallery, OPTIONS, walks=True)


def test_too_fast_a_walk_keeps_people_apart_and_can_be_ignored(tmp_path):
    """Everybody takes about a minute from door to yard; two alike are seen at both within a second."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(12, 16))
    alike = people(1, 2, noise=0.01, seed=3)
    rows = np.concatenate([np.repeat(known, 2, axis=0), alike])
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            rows,
            identities=[f"p{n // 2}" for n in range(24)] + [None] * 2,
            cameras=["door", "yard"] * 13,
            times=[1000 * (n // 2) + (n % 2) * (55 + n / 2) for n in range(24)] + [90_000, 90_001],
        )
        found = propose(gallery, ClusterOptions(k1=2, k2=1, farthest=0.9), walks=True, dry_run=True)
        assert "1 way that people are known to walk" in " ".join(found.notes)
        assert found.num_alone == 2
        without = propose(gallery, ClusterOptions(k1=2, k2=1, farthest=0.9), dry_run=True)
        assert without.num_alone == 0


@pytest.mark.parametrize("num", [0, 1])
def test_few_items(tmp_path, num):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(people(1, num))
        found = propose(gallery)
        assert (found.people, found.num_items, found.num_alone) == ((), num, num)


def test_one_person_of_most_pictures_is_doubted(tmp_path):
    one_heap = people(1, 15)
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(np.concatenate([one_heap, people(2, 4, seed=1)]))
        found = propose(gallery, OPTIONS)
        assert found.too_large is found.people[0]
        [note] = found.notes
        assert "new-1 has 15 of 23 pictures (65 %)" in note
        assert all(way in note for way in ("a distance below 0.8", "neighbours below 6", "better encoder"))
        accept_proposal(gallery, "new-1", identity="ann", who="zoe")
        assert propose(gallery, OPTIONS).notes == (), "somebody said that they are one person"


def test_an_encoder_that_has_seen_nobody_real_is_doubted(tmp_path):
    with open_gallery(tmp_path / "own", encoder={"fingerprint": "a", "path": "reidkit-small"}) as gallery:
        gallery.add(people(5, 6))
        [note] = propose(gallery, OPTIONS).notes
        assert note.startswith("reidkit-small, which filled this gallery, learned from drawn people only")
        for name in proposals(gallery):
            accept_proposal(gallery, name)
        assert propose(gallery, OPTIONS).notes == (), "there is nothing left to look at"


def test_a_few_pictures_may_be_of_one_person(tmp_path, gallery):
    assert propose(gallery, OPTIONS).notes == ()
    with open_gallery(tmp_path / "few") as few:
        few.add(people(1, 9))
        found = propose(few, OPTIONS)
        assert (len(found.people), found.notes) == (1, ())
