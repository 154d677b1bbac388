"""The folder in which the documents' code runs: drawn photos, data sets, runs and files of a small network.

Whatever a page names and does not make itself is there before its first block.
"""

from __future__ import annotations

import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

import reidkit as rk
from reidkit import registry, signatures
from reidkit.config import TrainConfig, TransformConfig
from reidkit.encoders import export, export_files
from reidkit.errors import ConfigError
from reidkit.losses import IdentityLoss
from reidkit.models import SingleBranch
from reidkit.training import trainer as training
from tests import dataset_writers
from tests.videos import write_video

STAND_INS = re.compile(r"resnet|timm:(?!test_)|mobilenet(?!_colour)|bninception")
"""Networks too large to build for a page: a small one of the same features takes their place."""


def with_small_networks_and_one_step(patch: pytest.MonkeyPatch) -> None:
    """Large networks become small ones, once their options are checked, and a training is one batch long.

    That batch is read in this process, since workers take longer to start. PyTorch makes the graph of
    each network for ONNX once, and its table of operators once for all.
    """
    build, train_epoch, batches = registry.build, training.Trainer._train_epoch, training.batches
    build_loader, operators = training.build_loader, ONNXRegistry.from_torchlib
    make_program, programs = export_files.onnx_program, dict[str, Any]()

    def build_small(kind: str, name: str, options: Any = None, /, *args: Any) -> Any:
        if kind != "model" or not STAND_INS.match(name):
            return build(kind, name, options, *args)
        options = dict(options or {})
        factory = registry.get("model", name)
        if problems := registry.option_problems(factory, options, where=f"model {name!r}"):
            raise ConfigError(problems)
        bound = {p.name: p.default for p in signatures.parameters_of(factory)} | options
        neck = bound["neck"] if isinstance(bound.get("neck"), str) else "bnneck"
        stages = {"layer1": nn.Conv2d(3, 8, 8, stride=8), "layer2": nn.Conv2d(8, 8, 1)}  # by ResNet's names
        return SingleBranch(nn.Sequential(OrderedDict(stages)), 8, smallest_side=8, neck=neck)

    def train_last_epoch(self: training.Trainer, wrapped: nn.Module) -> None:
        self.epoch = self.epochs - 1
        train_epoch(self, wrapped)

    patch.setattr(registry, "build", build_small)
    patch.setattr(training.Trainer, "_train_epoch", train_last_epoch)

    def load_here(data: Any, sampler: Any, transform: Any, train: TrainConfig, **options: Any) -> Any:
        return build_loader(data, sampler, transform, replace(train, num_workers=0), **options)

    def program_once(encoder: Any) -> Any:
        network = encoder.fingerprint
        programs[network] = programs.get(network) or make_program(encoder)
        return deepcopy(programs[network])  # whoever gets it writes into it

    patch.setattr(training, "batches", lambda loader: islice(batches(loader), 1))
    patch.setattr(training, "build_loader", load_here)
    patch.setattr(export, "onnx_program", program_once)
    patch.setattr(export_files, "onnx_program", program_once)
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(operators)))


@cache
def colours(identity: int) -> np.ndarray:
    return np.random.default_rng(identity).integers(30, 226, (2, 3))


def draw(path: Path, identity: int, number: int = 0) -> Path:
    """A picture of a made-up person: two colours, which each camera and frame shifts a little."""
    noise = np.random.default_rng([identity, number]).normal(0, 12, (32, 16, 3))
    pixels = np.repeat(colours(identity), 16, axis=0)[:, None] + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def photos(root: Path, *, identities: int = 54) -> None:
    for identity in range(1, identities + 1):
        for number in range(4):
            draw(root / f"{identity:04}_c{1 + number % 2}_{number:06}.jpg", identity, number)
    for letter in "abc":
        draw(root / f"{letter}.jpg", ord(letter))


def places(root: Path) -> None:
    """Photos in a tree of places and days, as somebody's own may be."""
    for identity in range(1, 41):
        for number, place in enumerate(["north door", "car park"]):
            for frame in (1, 2):
                name = f"p{identity:03}_{frame}.bmp"
                draw(root / place / "2024-05-01" / name, identity, 2 * number + frame)


def market1501(root: Path) -> None:
    for identity in range(1, 109):
        for number in range(4):
            train = identity <= 96
            part = "bounding_box_train" if train else "query" if number == 0 else "bounding_box_test"
            draw(root / part / f"{identity:04}_c{1 + number}s1_{number:06}_00.jpg", identity, number)


def viper(root: Path) -> None:
    for person in range(72):
        for number, (camera, angle) in enumerate([("cam_a", 0), ("cam_b", 90)]):
            draw(root / camera / f"{person:03}_{angle}.bmp", person, number)


def people(root: Path) -> None:
    for identity in range(1, 5):
        for number in range(3):
            draw(root / f"person {identity}" / f"{number}.jpg", identity, number)


def data_sets(root: Path) -> None:
    """Two published layouts, under the names that the pages give them."""
    market1501(root / "market1501")
    viper(root / "viper")


def video(path: Path) -> None:
    """Two people who walk through the picture, and their boxes in MOT's format beside it."""
    frames, boxes = [], []
    for number in range(40):
        frame = np.full((96, 160, 3), 120, np.uint8)
        for person, left in enumerate([8 + 2 * number, 140 - 2 * number]):
            top = 8 + 40 * person
            frame[top : top + 40, left : left + 16] = np.repeat(colours(person), 20, axis=0)[:, None]
            boxes.append(f"{number + 1},-1,{left},{top},16,40,0.9,-1,-1,-1\n")
        frames.append(frame)
    write_video(path, frames)
    path.with_suffix(".txt").write_text("".join(boxes))


class World:
    """What pages are given, made once; ``give`` copies into a page's folder what that page names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[str, Path] = {}

    @property
    def published_data(self) -> Path:
        """What $REIDKIT_DATA names in the commands of the results."""
        folder = self.root / "published"
        if not folder.exists():
            folder.mkdir()
            (folder / "market1501-500").symlink_to(self.data / "market1501")
            (folder / "viper").symlink_to(self.data / "viper")
        return folder

    def give(
        self, folder: Path, text: str, made_there: Iterable[str], own: Mapping[str, Given] | None = None
    ) -> None:
        """Put everything that the text names into the folder, but for what the page makes itself.

        ``own`` takes the place of :data:`GIVEN` for the patterns that both have.
        """
        for pattern, (template, make) in {**GIVEN, **(own or {})}.items():
            for name in sorted(set(re.findall(pattern, text)) - set(made_there)):
                target = folder / name
                if target.exists():
                    continue
                source = self._thing(template, make)
                if template.endswith("/"):  # a folder of files, of which this is one
                    source /= name
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target)
                else:
                    shutil.copyfile(source, target)
                for beside in (".bin", ".txt"):  # a network's weights, a video's boxes
                    if source.with_suffix(beside).exists():
                        shutil.copyfile(source.with_suffix(beside), target.with_suffix(beside))

    def _thing(self, template: str, make: Callable[[World, Path], object]) -> Path:
        if template not in self._made:
            self._made[template] = self.root / template
            make(self, self.root / template)
        return self._made[template]

    def give_data(self, folder: Path, layout: str = "") -> None:
        """``data/`` as a page on one layout has it, or with two sets; read only, so that a link does."""
        if layout:
            dataset_writers.WRITERS[layout](folder / "data")
        else:
            (folder / "data").symlink_to(self.data)

    @property
    def data(self) -> Path:
        return self._thing("data", lambda _, root: data_sets(root))

    def run(self, out: Path, *, layout: str = "market1501", model: str = "resnet18", **options: Any) -> None:
        data = rk.load_dataset(layout, self.data / layout, **options)
        chosen = "".join(f"{key} = {value}\n" for key, value in options.items())
        rk.Trainer(
            rk.build_model(model),
            data,
            [IdentityLoss()],
            out=out,
            identities_per_batch=16,
            transform=TransformConfig(height=64, width=32),
            num_workers=0,
            log_every=1,
            configuration=f'[data]\nname = "{layout}"\nroot = "{data.root}"\n{chosen}'
            f'[model]\nname = "{model}"\n',
        ).fit()

    @property
    def encoder(self) -> Any:
        return rk.load_encoder(self._thing("run", World.run))

    def gallery(self, path: Path) -> None:
        where = self._thing("photos", lambda _, root: photos(root))
        pictures = sorted(where.glob("0*.jpg"))
        names = [re.split("[_.]", picture.name) for picture in pictures]
        with rk.open_gallery(path) as gallery:
            gallery.add(
                self.encoder.encode(pictures),
                sources=[f"photos/{picture.name}" for picture in pictures],
                identities=[name[0] for name in names],
                cameras=[int(name[1][1:]) for name in names],
                times=[1.7e9 + 60 * number for number in range(len(names))],
            )

    def features(self, path: Path) -> None:
        query, gallery = self.sides()
        rk.save_features(path, query, gallery)

    def sides(self) -> tuple[rk.Features, rk.Features]:
        draws = np.random.default_rng(0)
        people = draws.normal(size=(20, 16))
        rows = people.repeat(4, axis=0) + draws.normal(scale=0.8, size=(80, 16))
        identities, cameras = np.arange(20).repeat(4), np.tile([1, 2, 3, 4], 20)
        first = cameras == 1
        return (
            rk.Features(rows[first].astype(np.float32), identities[first], cameras[first]),
            rk.Features(rows[~first].astype(np.float32), identities[~first], cameras[~first]),
        )

    def arrays(self, folder: Path) -> None:
        folder.mkdir()
        query, gallery = self.sides()
        for letter, side in (("q", query), ("g", gallery)):
            np.save(folder / f"{letter}.npy", side.embeddings)
            np.save(folder / f"{letter}_pids.npy", side.identities)
            np.save(folder / f"{letter}_cams.npy", side.cameras)

    def network(self, path: Path) -> None:
        rk.export(self.encoder, path, to="openvino" if path.suffix == ".xml" else "onnx")

    def osnet(self, path: Path) -> None:
        torch.save(rk.build_model("osnet_x0_25", neck="osnet").state_dict(), path)


def people_table(path: Path) -> None:
    """A table as `reid split` writes it, of the photos beside it: half of them train, half test."""
    rows = []
    for identity in range(1, 55):
        for number in range(4):
            part = "train" if identity <= 27 else "query" if number == 0 else "gallery"
            rows.append(
                f"photos/{identity:04}_c{1 + number % 2}_{number:06}.jpg,{identity},{1 + number % 2},{part}\n"
            )
    path.write_text("path,identity,camera,split\n" + "".join(rows))


def listed_photos(path: Path) -> None:
    rows = [
        f"photos/{i:04}_c{1 + n % 2}_{n:06}.jpg,{i},c{1 + n % 2}\n" for i in range(1, 55) for n in range(4)
    ]
    path.write_text("file,identity,cam_name\n" + "".join(rows))


Given = tuple[str, Callable[[World, Path], object]]
PHOTOS = r"\b(photos)\b"
GIVEN: dict[str, Given] = {
    PHOTOS: ("photos", lambda _, root: photos(root)),
    r"\bpeople(?=/)": ("people", lambda _, root: people(root)),
    r"\b(?:query|[abc])\.(?:jpg|bmp)\b": ("query.jpg", lambda _, path: draw(path, 3, 9)),
    r"\bruns/jlml\b": ("jlml", lambda world, out: world.run(out, model="jlml")),
    r"\bruns/viper-split-3\b": ("viper", lambda world, out: world.run(out, layout="viper", split=3)),
    r"\bruns/[\w.-]+(?:/run)?\b": ("run", World.run),
    r"\b[\w-]+\.gallery\b": ("people.gallery", World.gallery),
    r"\b[a-z]+\.npz\b": ("features.npz", World.features),
    r"\b[qg](?:_pids|_cams)?\.npy\b": ("arrays/", World.arrays),
    r"\b(?:[\w-]+/)?[\w-]+\.xml\b": ("network.xml", World.network),
    r"\b[\w-]+\.onnx\b": ("network.onnx", World.network),
    r"\b[\w-]+\.mp4\b": ("door.mp4", lambda _, path: video(path)),
    r"\bosnet_x0_25_market\.pth\b": ("osnet.pth", World.osnet),
    r"\bpeople\.csv\b": ("people.csv", lambda _, path: people_table(path)),
    r"\blist\.csv\b": ("list.csv", lambda _, path: listed_photos(path)),
}
"""Pattern of names in a page, the template's name, and what makes it."""
