"""Encoders: the header that says how to build the network, and the bytes of the whole file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.hostile import NAMES_OF_CODE, changed, deep, values
from tests.fuzz.mutation import damaged, flipped

_DESCRIPTION: dict[str, Any] = {
    "model": {"name": "timm:test_resnet", "pretrained": False},
    "transform": {"height": 48, "width": 24},
    "card": {
        "made": "for tests",
        "data": {"name": "folder", "train_images": 6, "train_identities": 3, "hash": "ab"},
        "epoch": 1,
        "calibration": {"fingerprint": "0123456789abcdef"},
        "external": {"name": "onnx"},
    },
    "feature": None,
}
_OPTIONS = st.dictionaries(
    st.sampled_from(
        (
            "pretrained",
            "cmd",
            "args",
            "path",
            "dim",
            "pooling",
            "neck",
            "last_stride",
            "stripes",
            "features",
            "weights",
            "checkpoint_path",
            "pretrained_cfg",
            "num_classes",
            "block_size",
            "device",
            "branches",
            "embedding_dim",
        )
    ),
    values(),
    max_size=3,
)
_OTHER_NETWORKS = (
    "resnet50",
    "osnet_x1_0",
    "jlml",
    "bninception",
    "resnet50_ibn_a",
    "resnet50x",
    "osnet_ain_x1_0",
)
_MODELS = st.builds(
    lambda name, options: {"name": name, **options},
    st.sampled_from(NAMES_OF_CODE + _OTHER_NETWORKS[1:2]),
    _OPTIONS,
)
_HEADERS = st.one_of(
    changed(_DESCRIPTION),
    changed(_DESCRIPTION),
    _MODELS.map(lambda model: {**_DESCRIPTION, "model": model}),
    _OPTIONS.map(lambda options: {**_DESCRIPTION, "model": {**_DESCRIPTION["model"], **options}}),
    _OPTIONS.map(lambda options: {**_DESCRIPTION, "transform": {**_DESCRIPTION["transform"], **options}}),
    values(),
    st.integers(100, 5000).map(lambda levels: {**_DESCRIPTION, "card": deep(levels)}),
)


def with_header(encoder: bytes, description: Any) -> bytes:
    """An encoder's file with another description; texts that are no JSON go in as they are."""
    length = int.from_bytes(encoder[:8], "little")
    header = json.loads(encoder[8 : 8 + length])
    if isinstance(description, str):
        text = description
    else:
        try:
            text = json.dumps(description)
        except RecursionError:
            text = "[" * 100_000
    header["__metadata__"] = dict.fromkeys(header["__metadata__"], text)
    packed = json.dumps(header).encode("utf-8", "surrogatepass")
    packed += b" " * (-len(packed) % 8)
    return len(packed).to_bytes(8, "little") + packed + encoder[8 + length :]


def _use(maker: Maker, file: Path) -> Case:
    """One of the commands that read an encoder."""
    photo = str(shutil.copy(maker.world.photo(".jpg"), maker.folder / "p.jpg"))
    way = maker.random.randrange(4)
    if way == 0:
        shutil.copytree(maker.world.photos(), maker.folder / "photos")
        return Case(("index", file.name, "photos", "--gallery", "g"), writes=("g",))
    if way == 1:
        shutil.copytree(maker.world.gallery(), maker.folder / "g")
        # The gallery notes where its encoder lies now.
        command = ("search", photo, "--gallery", "g", "--encoder", file.name, "--threshold", "0.1")
        return Case(command, keeps=("g",))
    return Case(("encode", file.name, photo, "--out", "out.npz"), writes=("out.npz",))


@kind("encoder header", weight=80)
def header(maker: Maker) -> Case:
    content = with_header(maker.world.encoder().read_bytes(), maker.draw(_HEADERS))
    return _use(maker, maker.write("e.safetensors", content))


@kind("encoder bytes", weight=40)
def content(maker: Maker) -> Case:
    original = maker.world.encoder().read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    if (
        maker.random.random() < 0.6
    ):  # weights are most of the file, and their damage is known by a fingerprint only
        hurt = damaged(original[:header_end], maker.random) + original[header_end:]
    else:
        hurt = damaged(original, maker.random)
    return _use(maker, maker.write("e.safetensors", hurt))


@kind("encoder of a gallery", weight=20)
def fingerprint(maker: Maker) -> Case:
    """A gallery searched with its encoder after one bit of it flipped: refused, or the same answer."""
    from tests.fuzz.kinds.galleries import same_hits

    maker.write("e.safetensors", flipped(maker.world.encoder().read_bytes(), maker.random))
    shutil.copytree(maker.world.gallery(), maker.folder / "g")
    shutil.copy(maker.world.photo(".jpg"), maker.folder / "p.jpg")
    command = ("search", "p.jpg", "--gallery", "g", "--encoder", "e.safetensors", "--json")
    return Case(command, keeps=("g",), right=same_hits(maker.world))


@kind("run folder that travels", weight=30)
def travelling(maker: Maker) -> Case:
    """A run folder from somebody else, whose configuration names what it likes."""
    from tests.fuzz.hostile import toml_document

    run = maker.folder / "run"
    shutil.copytree(maker.world.run(), run, ignore=shutil.ignore_patterns("*.ckpt", "tensorboard"))
    name = maker.random.choice(NAMES_OF_CODE)
    key = maker.random.choice(("data", "model", "loss", "trackers", "root", "init", "option"))
    tree: dict[str, Any] = {
        "data": {"name": "folder", "root": "photos"},
        "model": {"name": "timm:test_resnet"},
    }
    if key in ("data", "model"):
        tree[key]["name"] = name
    elif key == "root":
        tree["data"]["root"] = maker.random.choice(
            ("/dev/zero", "/dev/stdin", "..", "\0", "a" * 5000, "/proc")
        )
    elif key == "option":
        tree["data"]["pattern"] = maker.random.choice(("{identity}" + "*" * 25, "", "{", name))
    else:
        tree["train"] = {"trackers": [name]} if key == "trackers" else {"init": name}
    text = toml_document(tree) + (f'[loss.x]\nkind = "{name}"\n' if key == "loss" else "")
    (run / "config.toml").write_text(text)
    shutil.copytree(maker.world.photos(), maker.folder / "photos")
    commands: list[tuple[str, ...]] = [
        ("evaluate", "run", "--no-report"),
        ("encode", "run", "--out", "out.npz"),
        ("config", "run/config.toml"),
        ("runs", "."),
        ("compare", "run", "run"),
    ]
    return Case(maker.random.choice(commands), writes=("run", "out.npz", "runs"), codes=(0, 2))
