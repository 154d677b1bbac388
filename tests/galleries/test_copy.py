"""From one gallery to another: complete, resumed, compared."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner
from tests.postgres_server import PASSWORD

from reidkit.cli import cli
from reidkit.errors import DataError
from reidkit.galleries import Decision, _copy, copy_gallery, open_gallery


def units(num, dim=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def original(tmp_path):
    """Items of all kinds, two the same but for their ids, two that differ in their identity alone."""
    with open_gallery(tmp_path / "original", encoder={"fingerprint": "abc", "path": "runs/x"}) as gallery:
        vectors = units(50)
        vectors[10:13] = vectors[10]
        ids = gallery.add(
            vectors,
            sources=[None if 8 < n < 20 else f"p/{n}.jpg" for n in range(50)],
            identities=[["ann", None, "0001"][n % 3] if n != 12 else "bob" for n in range(50)],
            cameras=[["door", 3, None][n % 3] if not 9 < n < 13 else 7 for n in range(50)],
            times=[1714557600.25 + n if n % 4 and n > 12 else None for n in range(50)],
            contents=[f"{n:032x}" if n % 2 and n > 12 else None for n in range(50)],
            tracklets=[n // 5 if n > 12 else None for n in range(50)],
            labels={"zone": ["hall", 3, 0.5, True, datetime(2024, 5, 1, tzinfo=UTC)] * 10},
        )
        gallery.remove(ids=ids[3:5])
        yield gallery


def decide(gallery):
    """An acceptance that is taken back and made again, a rejection, a split; a name that went on changing."""
    ids = [item.id for item in gallery.items()]

    def of(kind, items, after, **more):
        before = tuple(item.identity for item in gallery.items(ids=items))
        after = before if kind == "reject" else (after,) * len(items)
        [made] = gallery.decide([Decision(kind, tuple(items), before, after, "eve", 1714557600.0, **more)])
        return made

    accepted = of("accept", ids[20:23], "carl")
    gallery.decide(
        [Decision("undo", accepted.items, accepted.after, accepted.before, "eve", 1.0, undoes=accepted.id)]
    )
    of("accept", ids[21:24], "carla")
    of("reject", ids[20:25], None)
    gallery.relabel(ids[21:22], identities=["someone"])
    of("split", ids[21:22], None)
    gallery.relabel(ids[21:23], identities=["last", "name"])


def told(gallery):
    """All that a gallery says, in its order, but for ids."""
    order = {item.id: number for number, item in enumerate(gallery.items())}
    items = [(item.source, str(item).partition("  ")[2]) for item in gallery.items()]
    decisions = [
        (d.kind, [order[id] for id in d.items], d.before, d.after, d.who, d.time, d.undoes is None)
        for d in gallery.decisions()
    ]
    return items, decisions, gallery.embeddings().tolist(), gallery.encoder


def test_a_copy_says_what_the_original_says(original, postgres_server, tmp_path):
    decide(original)
    steps = []
    with open_gallery(postgres_server.gallery(), encoder=original.encoder) as server:
        copied = copy_gallery(original, server, progress=lambda done, total: steps.append((done, total)))
        assert (copied.num_items, copied.num_there, copied.num_decisions) == (48, 0, 5)
        assert told(server) == told(original)
        assert steps[-1][0] == steps[-1][1]
        with open_gallery(tmp_path / "back", encoder=server.encoder) as back:
            copy_gallery(server, back)
            assert told(back) == told(original)
        assert str(copy_gallery(original, server)).startswith(
            "copied 48 items, 48 of them earlier and 5 decis"
        )
        assert told(server) == told(original)


def test_a_copy_goes_round_all_engines(original, postgres_server, milvus_lite, tmp_path):
    decide(original)
    with (
        open_gallery(milvus_lite(), encoder=original.encoder) as milvus,
        open_gallery(postgres_server.gallery(), encoder=original.encoder) as postgres,
        open_gallery(tmp_path / "back", encoder=original.encoder) as back,
    ):
        copy_gallery(original, milvus)
        assert told(milvus) == told(original)
        copy_gallery(milvus, postgres)
        copy_gallery(postgres, back)
        assert told(back) == told(original)


def test_an_interrupted_copy_to_milvus_goes_on(original, milvus_lite, monkeypatch):
    monkeypatch.setattr(_copy, "AT_ONCE", 20)
    decide(original)
    with open_gallery(milvus_lite()) as target:
        real, calls = target._server._put, iter(range(9))

        def failing(collection, rows):
            next(calls)  # which is in the middle of a change
            return real(collection, rows)

        monkeypatch.setattr(target._server, "_put", failing)
        with pytest.raises(StopIteration):
            copy_gallery(original, target)
        monkeypatch.setattr(target._server, "_put", real)
        assert copy_gallery(original, target).num_there == 20
        assert told(target)[:3] == told(original)[:3]


@pytest.mark.parametrize(
    ("verb", "fails_at"),
    [("_add", 0), ("_add", 3), ("_decide", 0), ("_decide", 3), ("_relabel", 0), ("_relabel", 1)],
)
def test_an_interrupted_copy_goes_on(original, tmp_path, monkeypatch, verb, fails_at):
    decide(original)
    monkeypatch.setattr(_copy, "AT_ONCE", 7)
    with open_gallery(tmp_path / "copy") as target:
        real, calls = getattr(target, verb), iter(range(fails_at))

        def failing(*arguments):
            next(calls)
            return real(*arguments)

        monkeypatch.setattr(target, verb, failing)
        with pytest.raises(StopIteration):
            copy_gallery(original, target)
        monkeypatch.setattr(target, verb, real)
        copied = copy_gallery(original, target)
        assert copied.num_there == (7 * fails_at if verb == "_add" else 48)
        assert told(target)[:3] == told(original)[:3]


def test_a_copy_stands_beside_what_is_there(original, tmp_path):
    with open_gallery(tmp_path / "copy") as target:
        target.add(units(3, seed=9), sources=["x", "y", None])
        copy_gallery(original, target)
        assert len(target) == 51
        assert {item.source for item in target.items()} >= {"x", "y", "p/1.jpg"}


def test_another_item_of_the_same_source_is_not_replaced(original, tmp_path):
    with open_gallery(tmp_path / "copy") as target:
        target.add(units(1, seed=9), sources=["p/30.jpg"])
        with pytest.raises(DataError, match=r"holds 1 of the sources of .*, such as 'p/30.jpg'; copy into"):
            copy_gallery(original, target)
        assert target.embeddings(where={"source": "p/30.jpg"}).tolist() == units(1, seed=9).tolist()


def test_decisions_of_another_gallery_are_not_mixed(original, tmp_path):
    decide(original)
    with open_gallery(tmp_path / "copy") as target:
        [id] = target.add(units(1, seed=9))
        target.decide([Decision("accept", (int(id),), (None,), ("zoe",), "eve")])
        with pytest.raises(DataError, match="holds decisions of its own"):
            copy_gallery(original, target)


@pytest.mark.parametrize(
    "change",
    [
        lambda gallery, ids: gallery.relabel(ids[:1], cameras=["changed"]),
        lambda gallery, ids: gallery.add(units(1, seed=5), sources=["p/0.jpg"]),
        lambda gallery, ids: gallery.add(units(1, seed=5)),
    ],
)
def test_a_gallery_that_changes_meanwhile_is_noticed(original, tmp_path, monkeypatch, change):
    with open_gallery(tmp_path / "copy") as target:
        settle = _copy._Copy.settle_identities

        def changing(copy):
            settle(copy)
            change(original, [item.id for item in original.items()])

        monkeypatch.setattr(_copy._Copy, "settle_identities", changing)
        with pytest.raises(DataError, match=r"changed meanwhile: copy again"):
            copy_gallery(original, target)


def test_an_empty_gallery_is_copied(tmp_path):
    with open_gallery(tmp_path / "empty") as empty, open_gallery(tmp_path / "copy") as target:
        assert copy_gallery(empty, target).num_items == 0


def test_the_command_copies_and_shows_no_password(original, postgres_server, tmp_path):
    server = postgres_server.gallery()
    result = CliRunner().invoke(cli, ["gallery", "copy", original.location, server])
    assert result.exit_code == 0, result.output
    assert "copied 48 items; labels and embeddings were compared" in result.output
    result = CliRunner().invoke(cli, ["gallery", "copy", server, str(tmp_path / "back")])
    assert result.exit_code == 0, result.output
    for words in (["info", server], ["verify", server], ["list", server], ["compact", server]):
        result = CliRunner().invoke(cli, ["gallery", *words])
        assert result.exit_code == 0, result.output
        assert PASSWORD not in result.output
    missing = CliRunner().invoke(
        cli, ["gallery", "copy", str(tmp_path / "nothing"), server], standalone_mode=False
    )
    assert "there is no gallery at" in str(missing.exception)
