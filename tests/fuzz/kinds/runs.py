"""Run folders: their configuration, journal and checkpoints, each damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Answer, Case, Maker, kind
from tests.fuzz.hostile import changed, texts, values
from tests.fuzz.mutation import damaged, damaged_text

_EVALUATION = {"data": "folder", "mAP": 0.5, "rank-1": 0.25}


def _run(maker: Maker) -> Path:
    shutil.copytree(
        maker.world.run(), maker.folder / "run", ignore=shutil.ignore_patterns("tensorboard", "*.ckpt")
    )
    (maker.folder / "run/evaluation.json").write_text(json.dumps(_EVALUATION))
    return maker.folder / "run"


@kind("run.json and its like", weight=60)
def journal(maker: Maker) -> Case:
    run = _run(maker)
    name = maker.random.choice(
        ("run.json", "metrics.jsonl", "evaluation.json", "config.toml", "run.json", "metrics.jsonl")
    )
    (run / name).write_bytes(damaged_text((run / name).read_text(), maker.random))
    commands: list[tuple[str, ...]] = [
        ("runs", "."), ("runs", ".", "--json"), ("runs", ".", "--sort", "mAP"), ("runs", ".", "--sort",
        "changed"),
    ]  # fmt: skip
    if name == "config.toml":
        commands = [("evaluate", "run", "--no-report"), ("config", "run/config.toml")]
    return Case(maker.random.choice(commands), writes=("run/evaluation.json",), codes=(0, 2))


_JSON = st.one_of(
    values(),
    changed(
        {
            "settings": {
                "data": {"name": "folder"},
                "model": {"name": "x"},
                "losses": [{"loss": "TripletLoss(margin=0.3)", "weight": 1.0}],
                "epochs": 3,
            },
            "versions": {"torch": "2"},
            "data_root": "x",
            "validate_every": 5,
        }
    ),
)


_TEXTS = texts()


@kind("run.json of another shape", weight=40)
def shapes(maker: Maker) -> Case:
    run = _run(maker)
    name = maker.random.choice(("run.json", "evaluation.json", "metrics.jsonl"))
    value, text = maker.draw(_JSON), maker.draw(_TEXTS)
    try:
        content = json.dumps(value) + "\n"
    except RecursionError:
        content = "[" * 100_000
    (run / name).write_bytes(
        (content if maker.random.random() < 0.8 else text).encode("utf-8", "surrogatepass")
    )
    sort = maker.random.choice(("name", "mAP", "val_mAP", "epochs", "data", "losses"))
    return Case(maker.random.choice((("runs", "."), ("runs", ".", "--json"), ("runs", ".", "--sort", sort))))


def _train(maker: Maker, *options: str, right: Answer | None = None) -> Case:
    root = f"data.root={json.dumps(str(maker.world.photos()))}"
    command = ("train", str(maker.world.recipe()), root, *options, "--out", "run")
    return Case(command, keeps=("run",), right=right)


def _same_weights(maker: Maker) -> Answer:
    """That a run which goes on ends with the weights of one that was left alone."""

    def right(stdout: str) -> str | None:
        from safetensors.torch import load_file

        expected, found = (load_file(run / "last.safetensors") for run in (maker.world.run(), Path("run")))
        same = expected.keys() == found.keys() and all(
            bool((expected[n] == found[n]).all()) for n in expected
        )
        return None if same else "other weights at the end"

    return right


@kind("checkpoint bytes", weight=10)
def checkpoint(maker: Maker) -> Case:
    """A finished run that is started again, from its last checkpoint or the one before it."""
    run = _run(maker)
    for name in ("last.ckpt", "previous.ckpt"):
        if (maker.world.run() / name).exists():
            shutil.copy(maker.world.run() / name, run / name)
    file = run / "last.ckpt"
    file.write_bytes(damaged(file.read_bytes(), maker.random))
    return _train(maker, right=_same_weights(maker))


@kind("checkpoint of another shape", weight=8)
def resealed(maker: Maker) -> Case:
    """A checkpoint with its seal whole, and another state in it."""
    import torch

    from reidkit.training.checkpoint import load_checkpoint, save_checkpoint

    run = _run(maker)
    state, _ = load_checkpoint(maker.world.run() / "last.ckpt")
    table: dict[Any, Any] = state
    key = maker.random.choice(list(table))
    while isinstance(table[key], dict) and table[key] and maker.random.random() < 0.7:
        table = table[key]
        key = maker.random.choice(list(table))
    if maker.random.random() < 0.4:
        del table[key]
    else:
        table[key] = maker.random.choice((None, -1, 10**9, "x", [], {}, [1], {"x": 1}, torch.zeros(2), True))
    save_checkpoint(run / "last.ckpt", state)
    return _train(maker)


@kind("train.init", weight=6)
def initial(maker: Maker) -> Case:
    """The weights to start from are damaged."""
    maker.write("e.safetensors", damaged(maker.world.encoder().read_bytes(), maker.random))
    return _train(maker, "--init", "e.safetensors")
