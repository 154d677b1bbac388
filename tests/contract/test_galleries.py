"""What every registered gallery engine must do.

A PostgreSQL server is started for its engine (tests/postgres_server.py). Another that needs one is
tested where REIDKIT_TEST_GALLERY_<NAME> gives an empty location.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from reidkit import registry
from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.galleries import (
    Decision,
    Gallery,
    Hit,
    accept_all_proposals,
    check_where,
    in_force,
    open_gallery,
    parse_labels,
    parse_where,
)
from reidkit.galleries._labels import as_listed

# Milvus takes its time; tests/galleries/test_milvus.py asks for its answers among the fast tests.
ENGINES = [
    pytest.param(name, marks=pytest.mark.slow) if name.startswith("milvus") else name
    for name in registry.names("gallery")
]


@pytest.fixture(params=ENGINES)
def location(request, tmp_path):
    if request.param == "embedded":
        return str(tmp_path / "people.gallery")
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_server").gallery()
    if request.param in ("milvus", "milvus-lite"):
        return request.getfixturevalue({"milvus": "milvus_server"}.get(request.param, "milvus_lite"))()
    variable = f"REIDKIT_TEST_GALLERY_{request.param.upper()}"
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: no place to test the engine {request.param!r} in")
    return os.environ[variable]


@pytest.fixture
def gallery(location):
    with open_gallery(location) as gallery:
        yield gallery
        gallery.remove(where={})


def units(num, dim=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def reference(vectors, query, top, keep=None):
    """(index, score) of the nearest, one dot product at a time."""
    scored = [
        (i, float(np.dot(v.astype(np.float64), query.astype(np.float64)))) for i, v in enumerate(vectors)
    ]
    scored = [(i, score) for i, score in scored if keep is None or keep[i]]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:top]


def filled(gallery):
    """Six items with every label, and one with none."""
    vectors = units(7)
    ids = gallery.add(
        vectors,
        sources=["a.jpg", "b.jpg", Path("c.jpg"), "d.jpg", "e.jpg", "f.jpg", None],
        identities=["ann", 12, np.int64(12), "bob", None, "ann", None],
        cameras=[1, 1, 2, np.int32(3), 3, None, None],
        times=[
            1714557600,
            "2024-05-01T10:00:01",
            "2024-05-01T12:00:02+02:00",
            datetime(2024, 5, 1, 10, 0, 3),
            datetime(2024, 5, 1, 12, 0, 4, tzinfo=timezone(timedelta(hours=2))),
            np.datetime64("2024-05-01T10:00:05"),
            None,
        ],
    )
    return vectors, ids


def test_search_equals_the_reference(gallery):
    vectors, queries = units(200), units(9, seed=1)
    ids = gallery.add(vectors)
    for query, hits in zip(queries, gallery.search(queries, top=7), strict=True):
        expected = reference(vectors, query, 7)
        assert [hit.id for hit in hits] == [ids[i] for i, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_one_query_may_be_a_vector(gallery):
    ids = gallery.add(units(5))
    [hits] = gallery.search(units(5)[3], top=1)
    assert [hit.id for hit in hits] == [ids[3]]
    assert hits[0].score == pytest.approx(1)


def test_equal_scores_stand_in_the_order_they_were_added(gallery):
    same = np.tile(units(1, seed=3), (40, 1))
    ids = gallery.add(np.concatenate([units(300), same]))
    [hits] = gallery.search(same[0], top=25)
    assert [hit.id for hit in hits] == ids[300:325].tolist()


def test_an_empty_gallery_has_no_hits(gallery):
    assert gallery.dimension is None
    assert gallery.search(units(3)) == [[], [], []]
    assert gallery.items() == []
    assert len(gallery) == 0


def test_top_may_exceed_the_gallery_but_is_at_least_one(gallery):
    gallery.add(units(4))
    assert len(gallery.search(units(1), top=100)[0]) == 4
    with pytest.raises(ConfigError, match="top is 0"):
        gallery.search(units(1), top=0)


def test_labels_come_back(gallery):
    vectors, ids = filled(gallery)
    items = gallery.items(ids=ids)
    assert [item.source for item in items] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", None]
    assert [item.identity for item in items] == ["ann", "12", "12", "bob", None, "ann", None]
    assert [item.camera for item in items] == [1, 1, 2, 3, 3, None, None]
    assert [item.time for item in items] == [*(1714557600.0 + second for second in range(6)), None]
    assert gallery.items() == items
    np.testing.assert_array_equal(gallery.embeddings(ids=ids[::-1]), vectors[::-1])
    hit = gallery.search(vectors[1], top=1)[0][0]
    assert (hit.id, hit.source, hit.identity, hit.camera) == (ids[1], "b.jpg", "12", 1)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "0123456"),
        ({"camera": 3}, "34"),
        ({"camera": [1, np.int64(2)]}, "012"),
        ({"camera": []}, ""),
        ({"camera": {"not": 3}}, "01256"),
        ({"camera": {"not": [1, 3]}}, "256"),
        ({"camera": None}, "56"),
        ({"camera": {"not": [None, 3]}}, "012"),
        ({"identity": 12}, "12"),
        ({"identity": ["ann", "bob"]}, "035"),
        ({"identity": {"not": None}}, "01235"),
        ({"source": Path("c.jpg")}, "2"),
        ({"source": {"not": ["a.jpg", "c.jpg"]}}, "13456"),
        ({"time": {"from": "2024-05-01T10:00:02"}}, "2345"),
        ({"time": {"to": datetime(2024, 5, 1, 10, 0, 2)}}, "01"),
        ({"time": {"from": 1714557601, "to": "2024-05-01T10:00:04Z"}}, "123"),
        ({"camera": {"not": 3}, "identity": ["12", "bob"], "time": {"from": "2024-05-01"}}, "12"),
    ],
)
def test_where(gallery, where, expected):
    vectors, ids = filled(gallery)
    wanted = {ids[int(place)] for place in expected}
    assert {item.id for item in gallery.items(where=where)} == wanted
    assert {hit.id for hit in gallery.search(vectors[0], where=where)[0]} == wanted
    assert len(gallery.embeddings(where=where)) == len(wanted)
    assert gallery.remove(where=where) == len(wanted)
    assert {item.id for item in gallery.items()} == set(ids) - wanted


def test_identities_are_text_as_it_was_written(gallery):
    ids = gallery.add(units(5), identities=["0001", "1", 1, "caf\u00e9", "cafe\u0301"])
    assert [item.identity for item in gallery.items()] == ["0001", "1", "1", "caf\u00e9", "caf\u00e9"]
    for wanted, places in [("0001", [0]), ("1", [1, 2]), (1, [1, 2]), ("cafe\u0301", [3, 4])]:
        assert [item.id for item in gallery.items(where={"identity": wanted})] == ids[places].tolist()
        assert [item.id for item in gallery.items(where=parse_where([f"identity={wanted}"]))] == (
            ids[places].tolist()
        )


def test_cameras_are_names_or_numbers(gallery):
    ids = gallery.add(units(6), cameras=["door", 3, "3", 3.0, "03", None])
    assert [item.camera for item in gallery.items()] == ["door", 3, 3, 3, "03", None]
    for wanted, places in [
        ({"camera": "door"}, [0]),
        (parse_where(["camera=door"]), [0]),
        (parse_where(["camera=3"]), [1, 2, 3]),
        (parse_where(["camera!=3"]), [0, 4, 5]),
        (parse_where(["camera=door,03"]), [0, 4]),
        ({"camera": {"not": ["door", None]}}, [1, 2, 3, 4]),
    ]:
        assert {item.id for item in gallery.items(where=wanted)} == set(ids[places])
        assert {hit.id for hit in gallery.search(units(1), where=wanted)[0]} == set(ids[places])


@pytest.mark.parametrize("missing", [None, "", " ", np.nan, np.datetime64("NaT")])
def test_a_missing_label_is_missing_and_not_a_number(gallery, missing):
    gallery.add(units(1), cameras=[missing], identities=[missing])
    [item] = gallery.items()
    assert (item.camera, item.identity) == (None, None)


def jpeg(number, size=60):
    """What begins and ends as a JPEG file does."""
    return b"\xff\xd8\xff" + bytes([number]) * (size - 5) + b"\xff\xd9"


def test_frame_and_box_come_back(gallery):
    ids = gallery.add(
        units(4),
        frames=[0, np.int64(17), 3.0, None],
        boxes=[(1, 2, 30, 40), np.array([-0.126, 5.5, 6, 7]), "1.0,2,3.50,4", None],
        tracklets=["t", None, None, None],
        labels={"zone": ["hall", None, None, None]},
    )
    items = gallery.items(ids=ids)
    assert [item.frame for item in items] == [0, 17, 3, None]
    assert [item.box for item in items] == [(1, 2, 30, 40), (-0.13, 5.5, 6, 7), (1, 2, 3.5, 4), None]
    assert (items[0].tracklet, items[0].labels, items[1].labels) == ("t", {"zone": "hall"}, {})
    [hit] = gallery.search(units(4)[1], top=1)[0]
    assert (hit.frame, hit.box) == (17, (-0.13, 5.5, 6, 7))
    assert str(items[0]).endswith("tracklet t  frame 0  box 1,2,30,40  zone hall")
    gallery.relabel(ids[:2], frames=[5, None], boxes=[None, (0, 0, 1, 1)])
    items = gallery.items(ids=ids[:2])
    assert [(item.frame, item.box, item.tracklet) for item in items] == [
        (5, None, "t"),
        (None, (0, 0, 1, 1), None),
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"frame": 3}, "1"),
        ({"frame": [0, 17]}, "02"),
        ({"frame": {"from": 3, "to": 17}}, "1"),
        ({"frame": {"not": 3}}, "023"),
        ({"frame": None}, "3"),
        (["frame>=3"], "12"),
    ],
)
def test_frames_can_be_asked_for(gallery, where, expected):
    where = parse_where(where) if isinstance(where, list) else where
    assert gallery.items(where=where) == []  # there is no frame yet, and it is a label of every gallery
    ids = gallery.add(units(4), frames=[0, 3, 17, None])
    wanted = {ids[int(place)] for place in expected}
    assert {item.id for item in gallery.items(where=where)} == wanted
    assert {hit.id for hit in gallery.search(units(1), where=where)[0]} == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": [-1]}, r"frames\[0\]: -1 is no number of a frame"),
        ({"frames": [1.5]}, "1.5 is no number of a frame"),
        ({"frames": ["7"]}, "'7' is no number of a frame"),
        ({"frames": [True]}, "True is no number of a frame"),
        ({"frames": [1, 2]}, "frames has 2 values for 1 embeddings"),
        ({"boxes": [(1, 2, 3)]}, r"boxes\[0\]: \(1, 2, 3\) is no box; expected left, top, right, bottom"),
        ({"boxes": [(1, 2, 1, 4)]}, "is an empty box"),
        ({"boxes": [(1, 2, np.nan, 4)]}, "is no box"),
        ({"boxes": [(1, 2, 1e9, 4)]}, "is no box"),
        ({"boxes": ["a,b,c,d"]}, "is no box"),
        ({"boxes": [7]}, "7 is no box"),
        ({"labels": {"frame": [3]}}, "'frame' has an argument of its own"),
        ({"labels": {"box": ["1,2,3,4"]}}, "'box' has an argument of its own"),
        ({"thumbnails": ["a.jpg"]}, r"thumbnails\[0\]: 'a.jpg' is of type str; expected the bytes of a JPEG"),
        ({"thumbnails": [b"\x89PNG"]}, "is not the content of a whole JPEG file"),
        ({"thumbnails": [jpeg(1)[:-1]]}, "is not the content of a whole JPEG file"),
        ({"thumbnails": [jpeg(1, 65_537)]}, "a thumbnail has 65,537 bytes; at most 65,536 are kept"),
        ({"thumbnails": jpeg(1)}, "expected a list with one value an embedding"),
    ],
)
def test_places_and_thumbnails_are_checked(gallery, given, message):
    [known] = gallery.add(units(1))
    for verb in (lambda: gallery.add(units(1), **given), lambda: gallery.relabel([known], **given)):
        with pytest.raises(DataError, match=message):
            verb()
    assert len(gallery) == 1


def test_no_condition_is_on_a_box(gallery):
    gallery.add(units(1), boxes=[(1, 2, 3, 4)])
    with pytest.raises(ConfigError, match="where 'box': no such label"):
        gallery.items(where={"box": "1,2,3,4"})


def test_thumbnails_come_back_and_go_with_their_items(gallery, location):
    large = jpeg(9, 65_536)
    ids = gallery.add(
        units(5), sources=list("abcde"), thumbnails=[jpeg(1), None, large, bytearray(jpeg(3)), jpeg(4)]
    ).tolist()
    assert gallery.thumbnails(ids=ids) == {
        ids[0]: jpeg(1), ids[2]: large, ids[3]: jpeg(3), ids[4]: jpeg(4)
    }  # fmt: skip
    assert gallery.thumbnails(ids=[ids[1], 999]) == gallery.thumbnails(ids=[]) == {}
    assert gallery.info()["num_thumbnails"] == 4
    gallery.relabel(ids[:2], thumbnails=[None, jpeg(7)])
    assert gallery.thumbnails(ids=ids[:2]) == {ids[1]: jpeg(7)}
    gallery.relabel(ids[:2], cameras=[1, 2])  # what is left out stays
    gallery.add(units(3, seed=2), sources=["b", "c", "d"], thumbnails=[jpeg(8), None, jpeg(5)])
    assert gallery.thumbnails(ids=ids) == {ids[1]: jpeg(8), ids[3]: jpeg(5), ids[4]: jpeg(4)}
    gallery.add(units(2), sources=["d", "e"], thumbnails=[jpeg(6), None], on_duplicate="skip")
    gallery.remove(ids=ids[1:2])
    assert gallery.verify().damaged == ()
    with open_gallery(location) as again:
        assert again.thumbnails(ids=ids) == {ids[3]: jpeg(5), ids[4]: jpeg(4)}
    [new] = gallery.add(units(1, seed=5), sources=["b"]).tolist()
    assert gallery.thumbnails(ids=[new]) == {}


def test_an_index_is_built_measured_and_dropped(gallery, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if gallery.info()["engine"] == "embedded":
        pytest.importorskip("faiss", reason="faiss is not installed")
    if type(gallery).build_index is Gallery.build_index:
        for verb in (gallery.build_index, gallery.drop_index):
            with pytest.raises(ConfigError, match="is of an engine without an approximate index"):
                verb()
        return
    with pytest.raises(DataError, match="is empty; add embeddings first"):
        gallery.build_index()
    gallery.add(units(300))
    assert gallery.info()["index"] == "exact"
    for given in ({"min_recall": 2}, {"min_recall": "all"}, {"sample": 0}):
        with pytest.raises(ConfigError, match=r"min_recall is|sample is"):
            gallery.build_index(**given)
    assert 0.8 <= gallery.build_index(min_recall=0.8, sample=20) <= 1
    info = gallery.info()
    assert info["index"] == "hnsw"
    assert 0.8 <= info["recall"]["all"] <= 1
    assert (info["recall"]["num_items"], info["recall"]["queries"], info["recall"]["top"]) == (300, 20, 10)
    gallery.drop_index()
    assert gallery.info()["index"] == "exact"
    assert "recall" not in gallery.info()


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def labelled(gallery):
    """Six items with labels of one's own, of every kind."""
    return gallery.add(
        units(6),
        sources=list("abcdef"),
        tracklets=["t1", "t1", 2, None, "2", "t3"],
        labels={
            "zone": ["hall", "door", "hall", None, "3", ""],
            "height": [1.5, 2, np.float32(1.75), np.nan, None, 3],
            "hat": [True, False, np.True_, None, None, False],
            "day": [NOON, datetime(2024, 5, 2), np.datetime64("2024-05-03T00:00"), None, None, NOON],
            "mixed": ["1", 1, True, 1.0, NOON, None],
        },
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"zone": "hall"}, "02"),
        ({"zone": ["hall", "door"]}, "012"),
        ({"zone": {"not": "hall"}}, "1345"),
        ({"zone": {"not": ["hall", None]}}, "14"),
        ({"zone": None}, "35"),
        ({"zone": 3}, ""),
        ({"zone": "nowhere"}, ""),
        ({"zone": {"from": "3", "to": "hall"}}, "14"),
        ({"zone": {"from": "door", "not": "hall"}}, "1"),
        ({"height": {"from": 1.75, "to": 3}}, "12"),
        ({"height": {"to": 1.75}}, "0"),
        ({"height": 2.0}, "1"),
        ({"hat": True}, "02"),
        ({"hat": {"not": False}}, "0234"),
        ({"hat": 1}, ""),
        ({"day": NOON}, "05"),
        ({"day": {"from": NOON, "to": datetime(2024, 5, 3)}}, "015"),
        ({"mixed": 1}, "13"),
        ({"mixed": "1"}, "0"),
        ({"mixed": True}, "2"),
        ({"mixed": {"from": 0, "to": 9}}, "13"),
        ({"tracklet": "t1"}, "01"),
        ({"tracklet": [2, "t3"]}, "245"),
        ({"tracklet": None, "zone": None}, "3"),
        (["zone=hall,3"], "024"),
        (["zone!=hall", "zone>=door"], "1"),
        (["height>=1.5", "height<2"], "02"),
        (["hat=true"], "02"),
        (["day<2024-05-02"], "05"),
        (["mixed=1"], "013"),
        (["tracklet!=2", "hat=false"], "15"),
    ],
)
def test_labels_of_ones_own(gallery, where, expected):
    ids = labelled(gallery)
    wanted = {ids[int(place)] for place in expected}
    where = parse_where(where) if isinstance(where, list) else where
    assert {item.id for item in gallery.items(where=where)} == wanted
    assert {hit.id for hit in gallery.search(units(1), where=where)[0]} == wanted
    assert gallery.remove(where=where) == len(wanted)


def test_labels_of_ones_own_come_back(gallery):
    ids = labelled(gallery)
    [first, *_, fifth, _] = gallery.items()
    assert first.labels == {"zone": "hall", "height": 1.5, "hat": True, "day": NOON, "mixed": "1"}
    assert (first.tracklet, fifth.tracklet, fifth.labels) == ("t1", "2", {"zone": "3", "mixed": NOON})
    [hits] = gallery.search(units(6)[4], top=1)
    assert (hits[0].labels, hits[0].tracklet) == (fifth.labels, "2")
    assert "tracklet t1" in str(first)
    assert "zone hall" in str(first)
    gallery.relabel(ids[:1], labels={"zone": ["roof"], "hat": [None], "new": [7]}, cameras=[4])
    gallery.relabel(ids[:1], tracklets=["t9"])
    [item] = gallery.items(where={"new": 7, "zone": "roof"})
    assert (item.tracklet, item.camera) == ("t9", 4)
    assert item.labels == {"zone": "roof", "height": 1.5, "day": NOON, "mixed": "1", "new": 7}


def test_odd_numbers_and_times_come_back(gallery):
    edges = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    long_ago, far_off = edges
    gallery.add(
        units(4),
        times=[-0.0, np.float16(2), long_ago, far_off],
        labels={
            "number": [-0.0, 0, np.float16(2), float("nan")],
            "day": [*edges, np.datetime64("NaT"), None],
        },
    )
    items = gallery.items()
    assert [repr(item.time) for item in items[:2]] == ["0.0", "2.0"]
    assert [item.time for item in items[2:]] == [long_ago.timestamp(), far_off.timestamp()]
    assert [repr(item.labels.get("number")) for item in items] == ["0.0", "0", "2.0", "None"]
    assert [item.labels.get("day") for item in items] == [*edges, None, None]
    assert [item.id for item in gallery.items(where={"number": -0.0})] == [1, 2]
    assert gallery.verify().damaged == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"labels": {"zone": ["a"]}}, r"labels\['zone'\] has 1 values for 2"),
        ({"labels": ["zone"]}, "labels is of type list; expected a mapping"),
        ({"labels": {"camera": [1, 2]}}, "'camera' has an argument of its own"),
        ({"labels": {"a b": [1, 2]}}, "'a b' is no name of a label"),
        ({"labels": {3: [1, 2]}}, "3 is no name of a label"),
        ({"labels": {"zone": [1, [2]]}}, r"labels\['zone'\]\[1\]: \[2\] is of type list"),
        ({"labels": {"zone": [1, 2**60]}}, "too large a number; write it as text"),
        ({"labels": {"zone": [1, np.inf]}}, "too large a number"),
        ({"labels": {"zone": [1, np.timedelta64(3, "ns")]}}, r"\[1\]: .* is of type timedelta64"),
        ({"labels": {"zone": [1, datetime.max]}}, r"\[1\]: .* is not within the years 1 to 9999 in UTC"),
        (
            {"labels": {"zone": [1, datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))]}},
            r"\[1\]: .* is not within the years 1 to 9999 in UTC",
        ),
        ({"labels": {"zone": ["a", "x" * 20_000]}}, "has 20,000 characters; at most"),
        ({"labels": {f"l{n}": ["x" * 9000] * 2 for n in range(30)}}, "labels, item 0: .* at most 200,000"),
        ({"tracklets": [1, 2.5]}, r"tracklets\[1\]: 2.5 is not a whole number"),
    ],
)
def test_wrong_labels_of_ones_own(gallery, labels, message):
    with pytest.raises(DataError, match=message):
        gallery.add(units(2), **labels)
    assert len(gallery) == 0
    ids = gallery.add(units(2))
    with pytest.raises(DataError, match=message):
        gallery.relabel(ids, **labels)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"zon": "hall"}, "no such label; did you mean 'zone'"),
        ({"zone": {"from": 3, "to": "4"}}, "are of different kinds"),
        ({"zone": {"from": 3, "to": 3}}, "from 3 is not before to 3"),
        ({"zone": {"from": None}}, "from is None; expected a text, a number or a time"),
        ({"zone": {"form": 3}}, "unknown 'form'; did you mean 'from'"),
        ({"zone": {}}, "{} says nothing"),
        ({"zone": object()}, "expected a text, number, truth value or time"),
        ({"zone": {"not": {"not": 3}}}, "{'not': 3} is of type dict"),
        ({"camera": {"not": {"from": 3}}}, "{'from': 3} is of type dict"),
    ],
)
def test_wrong_filters_of_ones_own_labels(gallery, where, message):
    labelled(gallery)
    with pytest.raises(ConfigError) as error:
        gallery.items(where=where)
    assert message in str(error.value)


def reference_groups(vectors, names, query, keep):
    """Label and items of each group, nearest first, by the nearest of its items."""
    groups = {}
    for place, _ in reference(vectors, query, len(vectors), keep):
        groups.setdefault(place if names[place] is None else names[place], []).append(place)
    return [(name if isinstance(name, str) else None, places) for name, places in groups.items()]


@pytest.mark.parametrize("kind", ["identity", "tracklet"])
@pytest.mark.parametrize("top", [1, 3, 100])
def test_groups_equal_the_reference(gallery, kind, top):
    """One group fills the first places of most queries; some items have none."""
    rng = np.random.default_rng(top)
    vectors, queries = units(150), units(5, seed=1)
    vectors[:60] = queries[0] + 0.1 * rng.normal(size=(60, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = ["crowd"] * 60 + [None if n % 4 == 0 else f"n{n % 11}" for n in range(90)]
    cameras = rng.integers(0, 3, 150)
    kinds = {"identity": "identities", "tracklet": "tracklets"}
    ids = gallery.add(vectors, cameras=cameras, **{kinds[kind]: names}).tolist()
    for where, keep in [
        ({}, np.ones(150)),
        ({"camera": {"not": 1}}, cameras != 1),
        ({"camera": 9}, cameras > 9),
    ]:
        found = gallery.search(queries, top=top, where=where, group=kind, items=4)
        for query, groups in zip(queries, found, strict=True):
            expected = reference_groups(vectors, names, query, keep)[:top]
            assert [group.label for group in groups] == [name for name, _ in expected]
            assert [group.num_items for group in groups] == [len(places) for _, places in expected]
            assert [[hit.id for hit in group.hits] for group in groups] == [
                [ids[place] for place in places[:4]] for _, places in expected
            ]
            assert all(group.score == group.hits[0].score for group in groups)


def test_groups_can_be_read(gallery):
    gallery.add(units(3), identities=["ann", "ann", None], sources=["a", "b", "c"])
    [[first, second]] = gallery.search(units(3)[0], group="identity")
    assert str(first) == " 1.000  identity ann, 2 items, nearest #1  a  identity ann"
    assert "unknown identity, 1 items" in str(second)


def test_wrong_groups(gallery):
    with pytest.raises(ConfigError, match="group is 'identty'; did you mean 'identity'"):
        gallery.search(units(1), group="identty")
    with pytest.raises(ConfigError, match="items is 0; ask for 1"):
        gallery.search(units(1), group="identity", items=0)
    assert gallery.search(units(2), group="tracklet") == [[], []]


def seen(gallery):
    """Six items, each seen by a camera at some minute after ten, from a side."""
    return gallery.add(
        units(6),
        sources=list("abcdef"),
        cameras=[1, 1, 2, "door", None, 2],
        times=[
            1714557600 + 60 * minute if minute is not None else None for minute in (0, 5, 10, 20, 0, None)
        ],
        labels={
            "flank": ["left", "right", "left", None, "left", "right"],
            "height": [1.5, 1.6, 1.75, None, 2, 1.5],
            "day": [NOON, NOON + timedelta(hours=1), None, NOON, None, NOON - timedelta(days=1)],
        },
    )


OF_QUERIES = [
    ({"camera": {"query": "other"}}, {"camera": 1}, "2345"),
    ({"camera": {"query": "other"}}, {"camera": "door"}, "01245"),
    ({"camera": {"query": "other"}}, {"camera": None}, "012345"),
    ({"camera": {"query": "same"}}, {"camera": "2"}, "25"),
    ({"camera": {"query": "same"}}, {"camera": None}, ""),
    ({"camera": {"query": "same"}}, {"camera": -1}, ""),
    ({"flank": {"query": "same"}}, {"flank": "left"}, "024"),
    ({"flank": {"query": "other"}}, {"flank": "left"}, "135"),
    ({"flank": {"query": "same"}}, {"flank": [3, "left"]}, "024"),
    ({"source": {"query": "other"}}, {"source": "c"}, "01345"),
    ({"time": {"within": 300}}, {"time": 1714557600}, "014"),
    ({"time": {"within": "5m"}}, {"time": "2024-05-01T10:10"}, "12"),
    ({"time": {"within": 0}}, {"time": datetime(2024, 5, 1, 10, 20)}, "3"),
    ({"time": {"within": "5m"}}, {"time": None}, ""),
    ({"time": {"within": "90m", "from": 1714557900}}, {"time": 1714557600}, "123"),
    ({"height": {"within": 0.125}}, {"height": 1.625}, "0125"),
    ({"height": {"within": 1}}, {"height": np.nan}, ""),
    ({"day": {"within": "1h"}}, {"day": NOON}, "013"),
    ({"camera": {"not": 2, "query": "other"}}, {"camera": 1}, "34"),
    ({"camera": {"query": "other"}, "flank": {"query": "same"}}, {"camera": 1, "flank": "left"}, "24"),
]


@pytest.mark.parametrize(("where", "query", "expected"), OF_QUERIES)
def test_conditions_that_refer_to_the_query(gallery, where, query, expected):
    ids = seen(gallery)
    [hits] = gallery.search(units(1), where=where, queries=[query])
    assert {hit.id for hit in hits} == {ids[int(place)] for place in expected}


def test_each_query_has_conditions_of_its_own(gallery):
    ids = seen(gallery)
    where = {"camera": {"query": "other"}, "flank": ["left", "right"]}
    found = gallery.search(units(6), where=where, queries=gallery.items())
    assert [{hit.id for hit in hits} for hits in found] == [
        {ids[int(place)] for place in places} for places in ("245", "245", "014", "01245", "01245", "014")
    ]
    groups = gallery.search(units(6), where=where, queries=gallery.items(), group="identity")
    assert [{group.hits[0].id for group in of_one} for of_one in groups] == [
        {hit.id for hit in hits} for hits in found
    ]


@pytest.mark.parametrize(
    ("where", "queries", "message"),
    [
        ({"camera": {"query": "other"}}, None, "refers to the labels of 1 queries, but nothing is given"),
        ({"camera": {"query": "other"}}, [{}, {}], "1 queries, but the labels of 2 are given"),
        ({"camera": {"query": "other"}}, [{"time": 3}], "queries[0] does not say it; it says time"),
        ({"camera": {"query": "other"}}, {"camera": 3}, "queries is of type dict; expected a list"),
        ({"camera": {"query": "other"}}, ["door"], "queries[0] is 'door'; expected a mapping"),
        ({"camera": {"query": "other"}}, [{"camera": [[]]}], "queries[0], camera:"),
        ({"flank": {"within": 1}}, [{"flank": "left"}], "'left' is neither a number nor a time"),
        ({"camera": {"query": "others"}}, [{}], "query is 'others'; did you mean 'other'?"),
        ({"camera": {"query": []}}, [{}], "query is []"),
        ({"camera": {"within": 3}}, [{}], "unknown 'within'"),
        ({"time": {"query": "same"}}, [{}], "unknown 'query'"),
        ({"time": {"within": -1}}, [{}], "within is -1; expected a number from 0 on"),
        ({"time": {"within": "soon"}}, [{}], "'soon' is no age"),
        ({"time": {"within": np.nan}}, [{}], "within is nan"),
    ],
)
def test_wrong_conditions_that_refer_to_the_query(gallery, where, queries, message):
    seen(gallery)
    with pytest.raises(ConfigError) as error:
        gallery.search(units(1), where=where, queries=queries)
    assert message in str(error.value)


def test_only_a_search_has_a_query(gallery):
    seen(gallery)
    for verb in (gallery.items, gallery.embeddings, gallery.remove):
        with pytest.raises(ConfigError, match="only a search has one"):
            verb(where={"camera": {"query": "other"}})
    assert len(gallery) == 6


def test_file_names_that_are_not_unicode_are_kept(gallery):
    name = b"p/caf\xe9.jpg"
    text = name.decode("utf-8", "surrogateescape")
    [one, two] = gallery.add(units(2), sources=[Path(text), "p/caf\u00e9.jpg"])
    assert gallery.items(ids=[one])[0].source == text
    assert [item.id for item in gallery.items(where={"source": text})] == [one]
    assert {item.id for item in gallery.items(where={"source": {"not": text}})} == {two}
    assert gallery.add(units(1, seed=5), sources=[text]).tolist() == [one]
    assert gallery.search(units(1, seed=5), top=1)[0][0].source == text


def test_labels_are_changed_without_embedding_again(gallery):
    ids = gallery.add(units(3), sources=["a", "b", "c"], cameras=[1, 2, 3], contents=["x", "y", "z"])
    gallery.relabel(ids[:2], sources=["b", "a"], cameras=["door", None])
    assert [(i.source, i.camera, i.content) for i in gallery.items(ids=ids)] == [
        ("b", "door", "x"),
        ("a", None, "y"),
        ("c", 3, "z"),
    ]
    np.testing.assert_array_equal(gallery.embeddings(ids=ids), units(3))
    for sources, message in [(["c"], "would have the source 'c'"), (["d", "d"], "ids has|has 2 values")]:
        with pytest.raises(DataError, match=message):
            gallery.relabel(ids[:1], sources=sources)
    with pytest.raises(DataError, match="would have the source 'd'"):
        gallery.relabel(ids[:2], sources=["d", "d"])
    with pytest.raises(DataError, match="no item 999"):
        gallery.relabel([999], cameras=[1])
    with pytest.raises(DataError, match="holds one twice"):
        gallery.relabel([ids[0], ids[0]], cameras=[1, 2])
    assert [item.source for item in gallery.items(ids=ids)] == ["b", "a", "c"]


def test_a_whole_gallery_is_found_whole(gallery):
    filled(gallery)
    assert gallery.verify().damaged == ()
    assert gallery.verify().num_items == 7
    assert gallery.repair(drop=True) == ()
    assert len(gallery) == 7


def test_the_filter_comes_before_the_ranking(gallery):
    vectors = units(400)
    cameras = np.arange(400) % 40
    ids = gallery.add(vectors, cameras=cameras)
    for where, keep in [({"camera": 7}, cameras == 7), ({"camera": {"not": 7}}, cameras != 7)]:
        [hits] = gallery.search(vectors[7], top=10, where=where)
        assert [hit.id for hit in hits] == [ids[i] for i, _ in reference(vectors, vectors[7], 10, keep)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_embeddings_are_brought_to_unit_length(gallery, dtype):
    vectors = (units(6) * np.array([[1], [2], [0.5], [30], [1], [1e-2]])).astype(dtype)
    ids = gallery.add(vectors)
    stored = gallery.embeddings(ids=ids)
    exact = vectors.astype(np.float64)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=1e-7)
    assert gallery.search(vectors[3] * 2, top=1)[0][0].id == ids[3]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (np.full((1, 16), np.nan), r"embedding 2 has length nan \(1 such of 3\)"),
        (np.full((1, 16), np.inf), "embedding 2 has length inf"),
        (np.zeros((1, 16)), "embedding 2 has length 0.0"),
    ],
)
def test_rows_without_a_direction_are_refused(gallery, broken, message):
    with pytest.raises(DataError, match=message):
        gallery.add(np.concatenate([units(2), broken]))
    assert len(gallery) == 0
    gallery.add(units(2))
    with pytest.raises(DataError, match="has length"):
        gallery.search(broken)


def test_lists_and_tensors_are_embeddings_too(gallery):
    torch = pytest.importorskip("torch")
    rows = torch.tensor(units(3), requires_grad=True)
    for number, embeddings in enumerate([rows, rows.bfloat16(), rows.half(), units(3).tolist()]):
        ids = gallery.add(embeddings, cameras=torch.tensor([number] * 3))
        assert [hits[0].id for hits in gallery.search(embeddings, top=1, where={"camera": number})] == (
            ids.tolist()
        )
        np.testing.assert_allclose(gallery.embeddings(ids=torch.tensor(ids)), units(3), atol=0.01)


@pytest.mark.parametrize(
    "broken",
    [None, "x", [[object()]], np.ones((2, 16), complex), {}, np.ones((2, 0)), 3.5],
)
def test_what_is_no_array_of_embeddings_is_refused(gallery, broken):
    for verb in (gallery.add, gallery.search):
        with pytest.raises(DataError, match=r"expected floating-point \(N, D\)"):
            verb(broken)


def test_rows_of_several_lengths_and_masked_ones_are_refused(gallery):
    hidden = np.ma.masked_array(units(2), mask=np.eye(2, 16))
    for verb in (gallery.add, gallery.search):
        with pytest.raises(DataError, match=r"embeddings are no array \(.*nested lists"):
            verb([[1.0], [1.0, 2.0]])
        with pytest.raises(DataError, match="masked values; leave these rows out"):
            verb(hidden)


@pytest.mark.parametrize("top", [0, -1, 1.5, "3", True, None])
def test_top_is_a_whole_number(gallery, top):
    gallery.add(units(2))
    with pytest.raises(ConfigError, match=r"top is .*; ask for 1 hit or more"):
        gallery.search(units(1), top=top)
    assert len(gallery.search(units(1), top=10**30)[0]) == 2


@pytest.mark.parametrize("ids", ["12", 3, [1.5], [True], [None], ["1"], [2**70], {1: 2}])
def test_ids_are_whole_numbers(gallery, ids):
    gallery.add(units(2))
    for verb in (gallery.items, gallery.embeddings, gallery.remove):
        with pytest.raises(DataError, match=r"whole numbers"):
            verb(ids=ids)
    assert len(gallery) == 2


@pytest.mark.parametrize("shape", [(16,), (2, 2, 4), ()])
def test_only_matrices_are_added(gallery, shape):
    with pytest.raises(DataError, match=r"expected floating-point \(N, D\)"):
        gallery.add(np.ones(shape))


def test_integers_are_not_embeddings(gallery):
    with pytest.raises(DataError, match="type int64"):
        gallery.add(np.ones((2, 16), np.int64))


def test_another_dimension_is_refused_with_both_numbers(gallery):
    gallery.add(units(2))
    assert gallery.dimension == 16
    for verb in (gallery.add, gallery.search):
        with pytest.raises(DataError, match=r"have 8 numbers each, but those in .* have 16"):
            verb(units(2, dim=8))
    assert len(gallery) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"cameras": [1, 2]}, "cameras has 2 values for 3 embeddings"),
        ({"sources": "abc"}, "sources is the text 'abc'"),
        ({"cameras": [1, 2, 2.5]}, r"cameras\[2\]: 2.5 is not a whole number"),
        ({"cameras": [1, True, 2]}, r"cameras\[1\]: True is of type bool; a label is a text or a whole"),
        ({"cameras": ["a", "b", "x" * 20_000]}, r"cameras\[2\]: 'xx.* has 20,000 characters; at most"),
        ({"cameras": {1, 2, 3}}, "cameras is of type set; expected a list"),
        ({"cameras": 3}, "cameras is of type int; expected a list"),
        ({"cameras": np.array(3)}, "cameras: iteration over a 0-d array"),
        ({"identities": ["a", 1.5, "b"]}, r"identities\[1\]: 1.5 is not a whole number"),
        ({"identities": [[1], 2, 3]}, r"identities\[0\]: \[1\] is of type list"),
        ({"sources": ["a", "b", "\ud800"]}, r"sources\[2\]: .* is not valid Unicode"),
        ({"sources": ["a", "b", 1.0]}, r"sources\[2\]: 1.0 is neither a text nor an integer"),
        ({"contents": ["a", "b", 1]}, r"contents\[2\]: 1 is not the hash of a content"),
        ({"times": [10**400, 1, 2]}, r"times\[0\]: inf is not a time"),
        ({"sources": ["a", "b", "a"]}, r"sources\[0\] and sources\[2\] are both 'a'"),
        ({"times": [1, 2, "noon"]}, r"times\[2\]: 'noon' is not an ISO time"),
        ({"times": [1, np.nan, 2]}, r"times\[1\]: nan is not a time; None means unknown"),
        ({"times": [1714557600000, 1, 2]}, r"times\[0\]: 1714557600000 is not within .* milliseconds"),
        ({"times": [[1], 1, 2]}, r"times\[0\]: \[1\] is not a time"),
        ({"times": [1, np.datetime64("NaT"), 2]}, r"times\[1\]: .*NaT.* is not a time; None means unknown"),
        ({"times": [1, np.timedelta64(3, "s"), 2]}, r"times\[1\]: .*timedelta64.* is not a time; expected"),
        ({"identities": [np.timedelta64(3), 1, 2]}, r"identities\[0\]: .* is of type timedelta64"),
        ({"sources": [np.timedelta64(3), 1, 2]}, r"sources\[0\]: .* is neither a text nor an integer"),
    ],
)
def test_nothing_is_added_with_wrong_labels(gallery, labels, message):
    with pytest.raises(DataError, match=message):
        gallery.add(units(3), **labels)
    assert len(gallery) == 0
    assert gallery.dimension is None


def test_adding_nothing(gallery):
    assert gallery.add(np.empty((0, 16)), sources=[]).tolist() == []
    assert gallery.dimension is None


def test_a_source_added_again_replaces_its_item(gallery):
    first = gallery.add(units(3), sources=["a", "b", "c"], cameras=[1, 2, 3])
    again = gallery.add(units(3, seed=1), sources=["b", "c", "d"], cameras=[5, 6, 7])
    assert again[:2].tolist() == first[1:].tolist()
    assert again[2] not in first
    assert [(item.source, item.camera) for item in gallery.items(ids=[first[0], *again])] == [
        ("a", 1),
        ("b", 5),
        ("c", 6),
        ("d", 7),
    ]
    np.testing.assert_array_equal(gallery.embeddings(ids=again), units(3, seed=1))
    assert gallery.search(units(3, seed=1)[0], top=1)[0][0].id == first[1]
    assert len(gallery) == 4


def test_a_source_added_again_may_be_skipped(gallery):
    first = gallery.add(units(2), sources=["a", "b"])
    again = gallery.add(units(3, seed=1), sources=["c", "b", None], on_duplicate="skip")
    assert again[1] == first[1]
    assert len(gallery) == 4
    np.testing.assert_array_equal(gallery.embeddings(ids=[first[1]]), units(2)[1:])
    np.testing.assert_array_equal(gallery.embeddings(ids=again[[0, 2]]), units(3, seed=1)[[0, 2]])


def test_a_source_added_again_may_be_an_error(gallery):
    gallery.add(units(2), sources=["a", "b"])
    with pytest.raises(DataError, match="holds 1 of these 2 sources already, such as 'b'"):
        gallery.add(units(2, seed=1), sources=["c", "b"], on_duplicate="error")
    assert [item.source for item in gallery.items()] == ["a", "b"]
    with pytest.raises(ConfigError, match="did you mean 'replace'"):
        gallery.add(units(1), on_duplicate="replce")
    with pytest.raises(ConfigError, match="on_duplicate is None"):
        gallery.add(units(1), on_duplicate=None)


def test_to_decide_nothing_changes_nothing(gallery):
    gallery.add(units(2))
    assert gallery.decide([]) == []
    assert gallery.decisions() == []
    assert accept_all_proposals(gallery) == []


def test_removed_items_are_not_found_and_their_ids_not_given_again(gallery):
    ids = gallery.add(units(5))
    assert gallery.remove(ids=[ids[4], ids[1], ids[1]]) == 2
    assert len(gallery) == 3
    found = {hit.id for hit in gallery.search(units(5)[4])[0]}
    assert found == {ids[0], ids[2], ids[3]}
    assert not set(gallery.add(units(2, seed=1))) & set(ids)


@pytest.mark.parametrize("verb", ["items", "embeddings", "remove"])
def test_unknown_ids_are_named(gallery, verb):
    ids = gallery.add(units(2))
    with pytest.raises(DataError, match=r"no item 999 \(1 such of 2 ids\)"):
        getattr(gallery, verb)(ids=[ids[0], 999])
    with pytest.raises(ConfigError, match="cannot be combined"):
        getattr(gallery, verb)(ids=[ids[0]], where={})
    assert len(gallery) == 2


def test_remove_wants_to_know_what(gallery):
    gallery.add(units(2))
    with pytest.raises(ConfigError, match=r"where=\{\} removes everything"):
        gallery.remove()
    assert len(gallery) == 2


def test_everything_is_there_after_reopening(location):
    with open_gallery(location, encoder={"path": Path("runs/msml"), "fingerprint": "abc"}) as gallery:
        _, ids = filled(gallery)
        gallery.remove(ids=ids[:1])
        items, embeddings, info = gallery.items(), gallery.embeddings(), gallery.info()
        hits = gallery.search(units(3))
    with open_gallery(location, create=False) as gallery:
        assert gallery.items() == items
        np.testing.assert_array_equal(gallery.embeddings(), embeddings)
        assert gallery.search(units(3)) == hits
        assert gallery.info() == info
        assert gallery.encoder == {"path": "runs/msml", "fingerprint": "abc"}
        assert (info["num_items"], info["dimension"]) == (6, 16)
        assert info["encoder"] == gallery.encoder
        gallery.remove(where={})


def test_two_handles_see_the_same(location):
    with open_gallery(location) as one, open_gallery(location) as other:
        for seed in range(5):
            ids = one.add(units(3, seed=seed))
            assert len(other) == len(one)
            assert other.search(units(3, seed=seed)[1], top=1)[0][0].id == ids[1]
            other.remove(ids=ids[1:2])
            assert one.search(units(3, seed=seed)[1], top=1)[0][0].id != ids[1]
        one.remove(where={})


def test_items_of_another_encoder_are_refused(location):
    with open_gallery(location, encoder={"fingerprint": "abc", "path": "here"}) as gallery:
        gallery.add(units(2))
    with pytest.raises(DataError, match=r"filled by another encoder: here \(fingerprint abc\), not .*xyz"):
        open_gallery(location, encoder={"fingerprint": "xyz"})
    with open_gallery(location, encoder={"fingerprint": "abc", "path": "moved"}) as gallery:
        assert len(gallery) == 2
        assert gallery.encoder == {"fingerprint": "abc", "path": "moved"}, "it is found there from now on"
    with open_gallery(location, encoder={"fingerprint": "abc"}) as gallery:
        assert gallery.encoder == {"fingerprint": "abc", "path": "moved"}
        gallery.remove(where={})


def test_an_encoder_is_recorded_while_there_are_no_items(location):
    with open_gallery(location) as gallery:
        assert gallery.encoder is None
        gallery.add(units(2))
        with pytest.raises(DataError, match="holds 2 items, but not which encoder made them"):
            open_gallery(location, encoder={"fingerprint": "abc"})
        gallery.remove(where={})
        with open_gallery(location, encoder={"fingerprint": "abc"}):
            assert gallery.encoder == {"fingerprint": "abc"}


@pytest.mark.parametrize("place", [3, None, "", "a\0b", ["x"], "x" * 5000])
def test_a_location_is_a_folder_or_an_address(place):
    with pytest.raises((ConfigError, DataError), match=r"location is|cannot be opened: File name too long"):
        open_gallery(place)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("abc", "encoder is of type str; expected a mapping"),
        ({"path": "x"}, "no text under 'fingerprint'"),
        ({"fingerprint": 3}, "no text under 'fingerprint'"),
        ({"fingerprint": "a", "x": object()}, "cannot be kept as JSON"),
        ({"fingerprint": "a", "path": "x" * 2**21}, "takes 2,097,184 characters as JSON; at most 100,000"),
    ],
)
def test_encoders_need_a_fingerprint(tmp_path, encoder, message):
    with pytest.raises(ConfigError, match=message):
        open_gallery(tmp_path / "new", encoder=encoder)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_gallery_says_so(gallery, location):
    other = open_gallery(location)
    other.close()
    other.close()
    with pytest.raises(DataError, match="is closed"):
        other.search(units(1))


def test_unknown_engines_are_named():
    with pytest.raises(UnknownName, match="unknown gallery 'embeded'; did you mean 'embedded'"):
        open_gallery("embeded://somewhere")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"camra": 3}, "where 'camra': no such label; did you mean 'camera'"),
        ({"camera": 2.5}, "where 'camera': 2.5 is not a whole number"),
        ({"camera": [[1]]}, "where 'camera': [1] is of type list"),
        ({"camera": np.array(3)}, "where 'camera': iteration over a 0-d array"),
        ({3: 3}, "where 3: no such label"),
        ({"x" * 100_000: 3}, "xxx... (100,002 characters): no such label"),
        ({"camera": {"nott": 3}}, "where 'camera': unknown 'nott'; did you mean 'not'"),
        ({"camera": {"from": 3}}, "where 'camera': unknown 'from'; Known: not"),
        ({"camera": {}}, "where 'camera': {} says nothing"),
        ({"time": 5}, "where 'time': 5 is not a window"),
        ({"time": {}}, "where 'time': {} is not a window"),
        ({"time": {"form": 5}}, "where 'time': unknown 'form'; did you mean 'from'"),
        ({"time": {"from": "soon"}}, "where 'time': 'soon' is not an ISO time"),
        ({"time": {"from": 5, "to": 5}}, "where 'time': from 5 is not before to 5"),
        ("camera=3", "where is 'camera=3'; expected a mapping"),
    ],
)
def test_wrong_filters(gallery, where, message):
    for verb in (gallery.items, gallery.embeddings, gallery.remove):
        with pytest.raises(ConfigError) as error:
            verb(where=where)
        assert message in str(error.value)
    with pytest.raises(ConfigError):
        gallery.search(units(1), where=where)


def test_all_faults_of_a_filter_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        check_where({"camra": 3, "time": 5, "identity": "ann"})
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        ([], {}),
        (["camera!=3"], {"camera": {"not": ["3"]}}),
        (["camera = 1, front door"], {"camera": ["1", "front door"]}),
        (["identity=ann,12"], {"identity": ["ann", "12"]}),
        (["source=a,b=c.jpg"], {"source": ["a,b=c.jpg"]}),
        (['camera="hall, north", 3'], {"camera": ["hall, north", "3"]}),
        (['camera!="the ""new"" hall"'], {"camera": {"not": ['the "new" hall']}}),
        (['camera=the "new" hall'], {"camera": ['the "new" hall']}),
        (
            ["time>=2024-05-01T10:00", "time<2024-05-02", "camera=1"],
            {"time": {"from": "2024-05-01T10:00", "to": "2024-05-02"}, "camera": ["1"]},
        ),
        (["camera!=query", "camera!=3"], {"camera": {"query": "other", "not": ["3"]}}),
        (["flank = query"], {"flank": {"query": "same"}}),
        (
            ["time=query+-10m", "height=query\u00b1 0.1"],
            {"time": {"within": "10m"}, "height": {"within": 0.1}},
        ),
        (['camera="query"', "source=query"], {"camera": ["query"], "source": ["query"]}),
    ],
)
def test_filters_as_text(texts, where):
    assert parse_where(texts) == where


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["camera"], "where 'camera': expected a key, = or !=, and a value"),
        (["camera>3"], "where 'camera>3': expected a key, = or !=, and a value"),
        (["time=2024-05-01"], "expected a key, >= or <, and a value"),
        (["time>2024-05-01"], "expected a key, >= or <, and a value"),
        (["camera=" + " " * 100_000], "expected a key, = or !=, and a value"),
        (["time>=20 o'clock"], "is not an ISO time"),
        (["camera=1,,2"], "where camera: '1,,2' has a value that is empty"),
        (["camera!=1,"], "has a value that is empty"),
        (['camera="hall'], "where camera: '\"hall' cannot be read as a list: unexpected end of data"),
        (["camera=a\nb"], "cannot be read as a list"),
        (["camera!=1", "camera!=2"], "where 'camera!=2': camera has a condition already"),
        (["time<2024-05-01", "time<2024-05-02"], "time has a condition already"),
        (["camera!=query", "camera!=query"], "camera has a condition already"),
        (["time=query"], "look like camera!=query, flank=query, time=query+-10m"),
        (["time>=query"], "look like camera!=query"),
        (["time!=query+-3s"], "look like camera!=query"),
        (["time=query+-soon"], "within: 'soon' is no age"),
        (["camera=query+-3"], "unknown 'within'"),
    ],
)
def test_wrong_filters_as_text(texts, message):
    with pytest.raises(ConfigError) as error:
        parse_where(texts)
    assert message in str(error.value)


def test_a_hit_can_be_read():
    assert str(Hit(3, "a.jpg", "ann", 2, 0.5, -0.25)) == (
        "-0.250  #3  a.jpg  identity ann  camera 2  1970-01-01 00:00:00 UTC"
    )
    assert str(Hit(3, None, None, None, None, 1.0)) == " 1.000  #3"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("camera==yard", 'write camera=yard, or camera="=yard" for a camera of that name'),
        ("camera = = yard", "write camera=yard"),
        ("camera=!3", "write camera!=3"),
        ("camera!==3", "write camera!=3"),
        ("camera<>3", "write camera!=3"),
        ("identity=!0001", "write identity!=0001"),
        ("source==a.jpg", "write source=a.jpg, or source=./=a.jpg for a file of that name"),
        ("time=>2024-05-01", "write time>=2024-05-01"),
        ("time<=2024-05-01", "write time<2024-05-01"),
        ("camera=3,!4", "'!4' in a list begins with a sign"),
    ],
)
def test_a_condition_as_programs_write_it_is_answered_with_the_right_spelling(text, right):
    with pytest.raises(ConfigError) as caught:
        parse_where([text])
    assert right in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_begin_with_a_sign_stand_in_quotes():
    for name in ("=yard", "!3", "<a", 'x"', '"', "query", "query+-3"):
        assert parse_where([f"camera={as_listed(name)},door"]) == {"camera": [name, "door"]}


def decided(gallery, kind, items, after, **more):
    """A decision on items as they are now."""
    before = tuple(item.identity for item in gallery.items(ids=items))
    after = before if kind == "reject" else (after,) * len(items)
    return Decision(kind, tuple(map(int, items)), before, after, "ann", **more)


def test_a_decision_names_items_anew_and_is_kept(gallery):
    _, ids = filled(gallery)
    before = time.time()
    [accepted] = gallery.decide([decided(gallery, "accept", ids[[4, 6]], "eve")])
    [rejected] = gallery.decide([decided(gallery, "reject", ids[[4, 0, 5]], None, time="2024-05-01T10:00")])
    assert [item.identity for item in gallery.items(ids=ids)] == [
        "ann",
        "12",
        "12",
        "bob",
        "eve",
        "ann",
        "eve",
    ]
    assert gallery.decisions() == [accepted, rejected]
    assert (accepted.items, accepted.before, accepted.after) == (
        (ids[4], ids[6]),
        (None, None),
        ("eve", "eve"),
    )
    assert rejected.after == rejected.before == ("eve", "ann", "ann")
    assert (accepted.who, accepted.kind, rejected.time) == ("ann", "accept", 1714557600.0)
    assert before <= accepted.time <= time.time()
    assert accepted.id < rejected.id
    assert {hit.id for group in gallery.search(units(1), group="identity")[0] for hit in group.hits} == set(
        ids
    )
    assert sum(group.label == "eve" for group in gallery.search(units(1), group="identity")[0]) == 1


def test_decisions_in_one_call_follow_each_other_and_are_stored_all_or_none(gallery):
    _, ids = filled(gallery)
    first = decided(gallery, "accept", ids[6:], "eve")
    second = Decision("merge", (int(ids[6]),), ("eve",), ("ann",), "bob")
    wrong = Decision("split", (int(ids[6]),), ("eve",), (None,), "bob")
    with pytest.raises(DataError, match=r"has the identity 'ann', and not 'eve' any more"):
        gallery.decide([first, second, wrong])
    assert gallery.decisions() == []
    assert gallery.items(ids=ids[6:])[0].identity is None
    kept = gallery.decide([first, second])
    assert gallery.decisions() == kept
    assert gallery.items(ids=ids[6:])[0].identity == "ann"


def test_what_is_undone_is_not_in_force(gallery):
    _, ids = filled(gallery)
    [one] = gallery.decide([decided(gallery, "accept", ids[6:], "eve")])
    [two] = gallery.decide([decided(gallery, "reject", ids[:2], None)])
    [undo] = gallery.decide([decided(gallery, "undo", ids[6:], None, undoes=one.id)])
    assert in_force(gallery.decisions()) == [two]
    [redo] = gallery.decide([decided(gallery, "undo", ids[6:], "eve", undoes=undo.id)])
    assert in_force(gallery.decisions()) == [one, two]
    assert gallery.decisions() == [one, two, undo, redo]


def test_what_is_removed_is_removed_from_decisions(gallery):
    _, ids = filled(gallery)
    gallery.decide(
        [
            decided(gallery, "reject", ids[[0, 3, 6]], None),
            decided(gallery, "reject", ids[[3, 0]], None),
            decided(gallery, "split", ids[5:6], "eve"),
        ]
    )
    gallery.remove(ids=ids[3:4])
    assert [decision.items for decision in gallery.decisions()] == [(ids[0], ids[6]), (ids[5],)]
    gallery.remove(where={"identity": "ann"})
    [left] = gallery.decisions()
    assert (left.items, left.before, left.after) == ((ids[5],), (None,), ("eve",))


@pytest.mark.parametrize(("content", "left"), [("aa", 1), ("bb", 0)])
def test_decisions_are_on_pictures(gallery, content, left):
    ids = gallery.add(units(1), sources=["a.jpg"], contents=["aa"])
    gallery.decide([decided(gallery, "accept", ids, "eve")])
    gallery.add(units(1, seed=1), sources=["a.jpg"], contents=[content])
    assert len(gallery.decisions()) == left


def test_decisions_are_there_after_reopening(location):
    with open_gallery(location) as gallery:
        ids = gallery.add(units(3))
        kept = gallery.decide([decided(gallery, "accept", ids, "zo\u00eb")])
    with open_gallery(location) as gallery, open_gallery(location) as other:
        assert gallery.decisions() == kept
        more = other.decide([decided(other, "split", ids[:1], None)])
        assert gallery.decisions() == kept + more
        gallery.remove(where={})
        assert other.decisions() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "acept"}, "the kind of a decision is 'acept'; did you mean 'accept'"),
        ({"items": ()}, "names 0 items"),
        ({"items": (1, 1)}, "names 2 items, one of them twice"),
        ({"items": ("1",)}, "'1' in a decision is no id"),
        ({"items": (2**70,)}, "is no id"),
        ({"before": ()}, "one identity before and one after"),
        ({"after": (None,)}, "needs the name of a person"),
        ({"after": (3.5,)}, "3.5"),
        ({"kind": "reject"}, "names 1 item,"),
        (
            {"kind": "reject", "items": (1, 2), "before": (None, None), "after": ("a", "a")},
            "changes no identities",
        ),
        ({"kind": "undo"}, "says which one it undoes"),
        ({"undoes": 1}, "says which one it undoes"),
        ({"who": ""}, "who decided is ''"),
        ({"who": "x" * 1000}, "characters"),
        ({"time": "yesterday"}, "is not an ISO time"),
    ],
)
def test_decisions_that_make_no_sense(gallery, changes, message):
    gallery.add(units(1))
    decision = replace(Decision("accept", (1,), (None,), ("eve",), "ann"), **changes)
    with pytest.raises((ConfigError, DataError)) as error:
        gallery.decide([decision])
    assert message in str(error.value)
    assert gallery.decisions() == []


@pytest.mark.parametrize(
    "decisions", ["accept", 3, None, [3], Decision("accept", (1,), (None,), ("a",), "b")]
)
def test_what_is_no_list_of_decisions(gallery, decisions):
    with pytest.raises(ConfigError, match="of type"):
        gallery.decide(decisions)


def test_a_decision_on_an_unknown_item(gallery):
    gallery.add(units(1))
    with pytest.raises(DataError, match="has no item 99"):
        gallery.decide([Decision("accept", (99,), (None,), ("eve",), "ann")])


def test_labels_of_a_query_as_text():
    assert parse_labels(["camera=3", "flank=left", "age = 30", 'zone="a, b"', "time=2024-05-01"]) == {
        "camera": "3",
        "flank": ["left"],
        "age": [30, "30"],
        "zone": ["a, b"],
        "time": "2024-05-01",
    }
    for text, message in [
        ("camera", "labels look like camera=3"),
        ("camera=", "labels look like camera=3"),
        ("camera==3", "labels look like camera=3"),
        ("camera=1,2", "has 2 values"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse_labels([text])
    with pytest.raises(ConfigError, match="given before"):
        parse_labels(["camera=1", "camera=2"])
