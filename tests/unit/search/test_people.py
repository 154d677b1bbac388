"""Search for people: what pools say, against loops; whom it leaves out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reidkit.arrays import Embeddings
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import open_gallery, reject, split
from reidkit.reranking import rerank
from reidkit.search.own_picture import Query
from reidkit.search.people import PeopleSearch, search_people
from reidkit.search.rejected import LeftOut, Rejected


def units(num, dim=12, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """90 items: one person has half of them, others a few; every fifth is nobody's."""
    vectors = units(90)
    vectors[:45] += 1.5 * units(1, seed=5)[0]
    with open_gallery(tmp_path_factory.mktemp("gallery") / "g") as gallery:
        gallery.add(
            vectors,
            identities=[None if n % 5 == 0 else "crowd" if n < 45 else f"p{n % 7}" for n in range(90)],
            tracklets=[None if n % 4 == 0 else f"t{n // 6}" for n in range(90)],
            cameras=[n % 3 for n in range(90)],
        )
        yield gallery


def reference(gallery, query, group, pool, where, is_hidden):
    """(score, ids, nearest first) of each person, best first."""
    items = [item for item in gallery.items(where=where) if not is_hidden(item)]
    vectors = gallery.embeddings(ids=[item.id for item in items]).astype(np.float64)
    scores = dict(
        zip((item.id for item in items), (vectors @ query.astype(np.float64)).tolist(), strict=True)
    )
    persons = {}
    for item in sorted(items, key=lambda item: -scores[item.id]):
        label = item.identity if group == "identity" else item.tracklet
        persons.setdefault(item.id if label is None else label, []).append(item.id)
    pooled = {"best": lambda ids: max(scores[id] for id in ids)}
    pooled["mean"] = lambda ids: float(np.mean([scores[id] for id in ids]))
    if pool == "reciprocal":
        near = sorted(scores, key=lambda id: -scores[id])
        nearness = dict(
            zip(near, 1 - rerank(query[None], gallery.embeddings(ids=near))[0].astype(float), strict=True)
        )
        pooled["reciprocal"] = lambda ids: max(nearness[id] for id in ids)
    ranked = [(pooled[pool](ids), ids) for ids in persons.values()]
    return sorted(ranked, key=lambda pair: -pair[0])


@pytest.mark.parametrize(
    ("group", "pool", "top"),
    list(itertools.product(["identity", "tracklet"], ["best", "mean", "reciprocal"], [1, 4, 100])),
)
@pytest.mark.parametrize("hides", [False, True])
def test_people_equal_the_reference(gallery, group, pool, top, hides):
    """Where pictures are hidden, whole people are, and half of the largest."""

    def is_hidden(item):
        return hides and (item.identity == "p3" or (item.identity == "crowd" and item.id % 2 == 0))

    for query, where in itertools.product(units(3, seed=5), (None, {"camera": [0, 1]})):
        options = PeopleSearch(group, pool, top, 3, where)
        [found] = search_people(gallery, query, options, hidden=[is_hidden] if hides else None)
        expected = reference(gallery, query, group, pool, where, is_hidden)
        assert [person.score for person in found] == pytest.approx([s for s, _ in expected[:top]], abs=1e-6)
        by_ids = {tuple(ids[:3]): len(ids) for _, ids in expected}
        for person in found:
            assert person.num_items == by_ids[tuple(hit.id for hit in person.hits)]


@pytest.mark.parametrize("pool", ["best", "mean", "reciprocal"])
@pytest.mark.parametrize("where", [None, {"camera": {"not": "query"}}])
def test_several_queries_find_what_each_finds_alone(gallery, pool, where):
    queries, options = units(4, seed=6), PeopleSearch(pool=pool, top=3, where=where)
    known = None if where is None else [{"camera": camera} for camera in (0, 1, 2, 0)]
    hidden = [lambda hit, number=number: hit.id % 4 == number for number in range(4)]
    together = search_people(gallery, queries, options, hidden=hidden, queries=known)
    for row, found in enumerate(together):
        of_row = known and known[row : row + 1]
        assert [found] == search_people(gallery, queries[row], options, hidden=[hidden[row]], queries=of_row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "men"}, r"pool is 'men'; did you mean 'mean'\? Allowed: best, mean"),
        ({"group": "person"}, "group is 'person'"),
        ({"group": None}, "group is None"),
        ({"top": 0}, "top is 0"),
        ({"items": 0}, "items is 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        PeopleSearch(**options)


def test_embeddings_of_another_encoder_are_refused(tmp_path):
    with open_gallery(tmp_path / "g", encoder={"fingerprint": "one"}) as gallery:
        gallery.add(units(3))
        with pytest.raises(DataError, match="was filled by another encoder"):
            search_people(gallery, Embeddings(units(1), ("other",)))


@pytest.mark.parametrize("pool", ["best", "mean", "reciprocal"])
@pytest.mark.parametrize("num", [0, 1])
def test_in_a_small_gallery(tmp_path, pool, num):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(units(num), identities=["ann"] * num)
        found = search_people(gallery, units(2, seed=1), PeopleSearch(pool=pool))
        assert [[person.label for person in people] for people in found] == [["ann"] * num] * 2
        hidden = [lambda hit: True] * 2
        assert search_people(gallery, units(2, seed=1), PeopleSearch(pool=pool), hidden=hidden) == [[], []]


def test_who_was_told_apart_is_hidden_from_all_pictures_of_a_person(tmp_path):
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(
            units(6),
            sources=list("abcdef"),
            contents=["aa", "bb", "cc", "dd", "ee", "aa"],
            identities=["ann", "ann", "ben", "ben", None, "cat"],
        )

        def left_out(source, content=None):
            is_rejected = Rejected(gallery).by(Query(((source, content),)))
            return "".join(item.source for item in gallery.items() if is_rejected(item))

        assert left_out("a") == ""
        reject(gallery, 1, [3, 5], who="zoe")
        assert (left_out("a"), left_out("b"), left_out("c")) == ("cde", "cde", "ab")
        assert (left_out("e"), left_out("f"), left_out(None)) == ("ab", "", "")
        assert left_out("f", "aa") == left_out(None, "aa") == "cde"
        split(gallery, [2], who="zoe")
        assert (left_out("b"), left_out("a")) == ("a", "bcde")


def test_what_is_left_out_is_counted_once():
    is_left_out = LeftOut(lambda hit: hit.id == 1, lambda hit: hit.id == 2)

    class Item:
        def __init__(self, id):
            self.id = id

    assert [is_left_out(Item(id)) for id in (1, 2, 3, 1, 2)] == [True, True, False, True, True]
    assert (is_left_out.own, is_left_out.rejected) == ({1}, {2})
