"""Small whole files of every sort the program reads; each is made when it is first asked for, then kept."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 24
NETWORK = "timm:test_resnet"
NUM_PEOPLE, NUM_CAMERAS = 3, 2
PREPROCESSING = {"color": "rgb", "scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}

RECIPE = f"""
[data]
name = "folder"
root = "photos"
[transform]
height = {HEIGHT}
width = {WIDTH}
shift = 2
[model]
name = "{NETWORK}"
[loss.identity]
[loss.trihard]
[sampler]
identities_per_batch = 2
images_per_identity = 2
[optim]
lr = 1e-3
schedule = "constant"
[train]
epochs = 1
num_workers = 0
precision = "float32"
"""


class World:
    """Files below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def photos(self) -> Path:
        """Six photos in three folders, ``0/c1_0.jpg`` and so on."""
        return self._made("photos", _photos)

    def photo(self, suffix: str) -> Path:
        """One photo in the format of a suffix."""
        return self._made(f"photo{suffix}", lambda path: _photo(path, suffix))

    def recipe(self) -> Path:
        return self._made("tiny.toml", lambda path: path.write_text(RECIPE))

    def encoder(self) -> Path:
        return self._made("encoder.safetensors", _encoder)

    def run(self) -> Path:
        """A run folder, trained for one epoch on the photos."""
        return self._made("run", lambda path: _run(self, path))

    def gallery(self) -> Path:
        """Ninety-six items by the encoder; the first six are the photos."""
        return self._made("people.gallery", lambda path: _gallery(self, path))

    def features(self, suffix: str) -> Path:
        """Query and gallery features: .npz, .parquet, or a folder of .npy for an empty suffix."""
        return self._made(f"features{suffix}", lambda path: _features(path, suffix))

    def table(self, suffix: str) -> Path:
        """The photos as a table, .csv or .parquet."""
        return self._made(f"table{suffix}", lambda path: _table(path, suffix))

    def pth(self) -> Path:
        return self._made("weights.pth", lambda path: _pth(self, path))

    def onnx(self) -> Path:
        return self._made("net.onnx", _onnx)

    def openvino(self) -> Path:
        """A folder with net.xml and net.bin."""
        return self._made("openvino", lambda path: _openvino(self, path))

    def dataset(self, name: str) -> Path:
        """A small tree in a published layout."""
        return self._made(f"dataset_{name}", lambda path: _dataset(path, name))

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.folder / name
        if not path.exists():
            # A worker that dies in between must not leave a part.
            unfinished = self.folder / "unfinished" / name
            shutil.rmtree(unfinished.parent, ignore_errors=True)
            unfinished.parent.mkdir(parents=True)
            make(unfinished)
            unfinished.rename(path)
        return path


def pixels(number: int) -> np.ndarray:
    """(48, 24, 3) uint8: two colours and some noise."""
    rng = np.random.default_rng(number)
    colours = rng.integers(30, 226, (2, 3))
    image = np.repeat(colours, [20, 28], axis=0)[:, None].repeat(WIDTH, axis=1) + rng.normal(
        0, 12, (HEIGHT, WIDTH, 3)
    )
    return image.clip(0, 255).astype(np.uint8)


def _photos(path: Path) -> None:
    for person in range(NUM_PEOPLE):
        for camera in range(NUM_CAMERAS):
            file = path / str(person) / f"c{camera}_{person}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(person * NUM_CAMERAS + camera)).save(file, quality=90)


def _photo(path: Path, suffix: str) -> None:
    Image.fromarray(pixels(7)).save(
        path, **({"format": "TIFF", "compression": "tiff_lzw"} if suffix == ".tif" else {})
    )


def _encoder(path: Path) -> None:
    import torch

    import reidkit as rk
    from reidkit.encoders.encoder import Encoder

    torch.manual_seed(0)
    Encoder(rk.build_model(NETWORK), height=HEIGHT, width=WIDTH, card={"made": "for tests"}).save(path)


def _run(world: World, path: Path) -> None:
    from reidkit import config
    from reidkit.training.runs import build_trainer

    photos = json.dumps(str(world.photos()))
    with _quiet():
        build_trainer(config.load(world.recipe(), [f"data.root={photos}"]), path).fit()


def _gallery(world: World, path: Path) -> None:
    import reidkit as rk

    encoder = rk.load_encoder(world.encoder())
    files = sorted(world.photos().rglob("*.jpg"))
    rng = np.random.default_rng(0)
    embeddings = np.concatenate(
        [encoder.encode(files), rng.normal(size=(90, encoder.dim)).astype(np.float32)]
    )
    description = {"path": str(world.encoder()), "fingerprint": encoder.fingerprint}
    with rk.open_gallery(path, encoder=description) as gallery:
        for part in (slice(0, 6), slice(6, 50), slice(50, 96)):
            numbers = range(96)[part]
            gallery.add(
                embeddings[part],
                sources=[str(files[n]) if n < 6 else f"photo{n}.jpg" for n in numbers],
                identities=[f"person {n % 7}" if n % 5 else None for n in numbers],
                cameras=[n % 4 if n % 3 else None for n in numbers],
                times=[1.7e9 + n if n % 2 else None for n in numbers],
            )
        gallery.remove(ids=[20, 60])


def _features(path: Path, suffix: str) -> None:
    from reidkit.evaluation.feature_files import save_features
    from reidkit.types import Features

    rng = np.random.default_rng(0)
    identities = np.arange(40) % 10
    centres = rng.normal(size=(10, 8))
    embeddings = (centres[identities] + rng.normal(size=(40, 8))).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    features = Features(embeddings, identities, np.arange(40) // 10)
    if suffix:
        rows = np.arange(40)
        save_features(path, _rows(features, rows[:10]), _rows(features, rows[10:]))
        return
    path.mkdir()
    for part, rows in (("query", slice(0, 10)), ("gallery", slice(10, 40))):
        for name in ("embeddings", "identities", "cameras"):
            np.save(path / f"{part}_{name}.npy", getattr(features, name)[rows])


def _rows(features, rows):  # type: ignore[no-untyped-def]
    from reidkit.types import Features

    return Features(features.embeddings[rows], features.identities[rows], features.cameras[rows])


def table_rows() -> list[dict[str, object]]:
    """Of the photos, as they lie in a folder ``photos`` beside the table."""
    rows = []
    for person in range(NUM_PEOPLE):
        for camera in range(NUM_CAMERAS):
            split = "train" if person == 0 else ("query", "gallery")[camera]
            path = f"photos/{person}/c{camera}_{person}.jpg"
            rows.append({"path": path, "identity": person, "camera": camera, "split": split, "time": 12.5})
    return rows


def _table(path: Path, suffix: str) -> None:
    rows = table_rows()
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def _pth(world: World, path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(world.encoder()), "epoch": 3}, path)


def _onnx(path: Path) -> None:
    """The mean colour of an image, times a matrix."""
    import onnx

    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
            node("MatMul", ["colour", "weights"], ["out"]),
        ],
        "made-up",
        [value("images", onnx.TensorProto.FLOAT, ["batch", 3, 8, 4])],
        [value("out", onnx.TensorProto.FLOAT, ["batch", 5])],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in (("axes", np.array([2, 3])), ("weights", weights))
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, {"reidkit": json.dumps(PREPROCESSING)})
    onnx.save(model, path)


def _openvino(world: World, path: Path) -> None:
    import openvino

    model = openvino.Core().read_model(world.onnx())
    model.set_rt_info(json.dumps(PREPROCESSING), "reidkit")
    path.mkdir()
    openvino.save_model(model, path / "net.xml", compress_to_fp16=False)


def _dataset(path: Path, name: str) -> None:
    from tests.dataset_writers import WRITERS

    path.mkdir()
    WRITERS[name](path)


class _quiet:
    """Nothing of what is printed in here is seen."""

    def __enter__(self) -> None:
        self._kept = os.dup(1), os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *error: object) -> None:
        for number, kept in zip((1, 2), self._kept, strict=True):
            os.dup2(kept, number)
            os.close(kept)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
