"""Adding a loss, a network, a data set layout and a gallery engine takes one file each, and nothing else.

Each is written into a folder that counts as part of the package's folder of its kind, as if it lay there.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import reidkit as rk
from reidkit import registry
from reidkit.cli import cli

LOSS = '''
"""Spread of each identity."""

from torch import nn

from reidkit.ops import pairwise_distances, positive_mask, prepare_batch
from reidkit.registry import register


@register("loss", "spread")
class Spread(nn.Module):
    """Mean distance of images of one identity."""

    reads = "metric"

    def __init__(self, power: float = 1.0, *, normalize: bool = True):
        super().__init__()
        self.power, self.normalize = power, normalize

    @prepare_batch
    def forward(self, embeddings, labels):
        return pairwise_distances(embeddings)[positive_mask(labels)].pow(self.power).mean()

    def extra_repr(self):
        return f"power={self.power}, normalize={self.normalize}"
'''

MODEL = '''
"""Colours of the upper and the lower half."""

import torch.nn.functional as F
from torch import nn

from reidkit.models._embedder import Embedder
from reidkit.registry import register


@register("model", "colours")
class Colours(Embedder):
    """Mean colours of the two halves, through one layer."""

    def __init__(self, *, width: int = 16):
        super().__init__(
            {"colours": width},
            metric_feature="colours",
            classification_feature="colours",
            embedding_feature="colours",
        )
        self.layer = nn.Linear(6, width)

    def named_features(self, images):
        return {"colours": self.layer(F.adaptive_avg_pool2d(images, (2, 1)).flatten(1))}
'''

DATASET = '''
"""Files called IDENTITY-CAMERA-PART-NUMBER.png."""

from reidkit.registry import register
from reidkit.types import Dataset, Sample


@register("dataset", "dashes")
def dashes(root, *, suffix: str = ".png"):
    """All in one folder, by the parts of a name."""
    parts = {"train": [], "query": [], "gallery": []}
    for path in sorted(root.glob(f"*{suffix}")):
        identity, camera, part, _ = path.stem.split("-")
        parts[part].append(Sample(path, int(identity), int(camera), len(parts[part]), dataset="dashes"))
    return Dataset("dashes", root, **{part: tuple(samples) for part, samples in parts.items()})
'''

ENGINE = '''
"""Galleries that live as long as the process."""

import numpy as np

from reidkit.galleries import Hit, unit_embeddings
from reidkit.registry import register

_galleries = {}


@register("gallery", "passing")
class PassingGallery:
    """A gallery in memory, by its name."""

    def __init__(self, address: str, *, create: bool = True, encoder=None):
        self.encoder, self.rows = encoder, _galleries.setdefault(address, [])

    def add(self, embeddings, *, sources, identities, **others):
        first = len(self.rows)
        for vector, *labels in zip(unit_embeddings(embeddings, location="here"), sources, identities):
            self.rows.append((vector, labels))
        return np.arange(first, len(self.rows))

    def search(self, embeddings, *, top=10, where=None):
        return [self.nearest(query)[:top] for query in unit_embeddings(embeddings, location="here")]

    def nearest(self, query):
        hits = [
            Hit(id, *labels, None, None, float(vector @ query))
            for id, (vector, labels) in enumerate(self.rows)
        ]
        return sorted(hits, key=lambda hit: -hit.score)

    def __len__(self):
        return len(self.rows)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
'''

FILES = {"loss": ("spread", LOSS), "model": ("colours", MODEL), "dataset": ("dashes", DATASET)}
FILES["gallery"] = ("passing", ENGINE)

RECIPE = """
[data]
name = "dashes"
suffix = ".png"
[transform]
height = 32
width = 16
[model]
name = "colours"
width = 8
[loss.identity]
[loss.spread]
weight = 0.1
power = 2.0
[sampler]
identities_per_batch = 3
images_per_identity = 2
[train]
epochs = 2
num_workers = 0
precision = "float32"
"""


@pytest.fixture
def one_file_each(tmp_path, monkeypatch):
    """The four files, each in a folder of its kind; afterwards nobody knows of them."""
    monkeypatch.setattr(registry, "_scanned", registry._scanned - FILES.keys())
    for kind, (name, text) in FILES.items():
        package = importlib.import_module(registry.FOLDERS[kind])
        folder = tmp_path / kind
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.setitem(registry._components, kind, dict(registry._components[kind]))
    yield
    for kind, (name, _) in FILES.items():
        sys.modules.pop(f"{registry.FOLDERS[kind]}.{name}", None)


@pytest.fixture
def dashes(tiny_market, tmp_path) -> Path:
    """The pictures of the tiny set under other names."""
    from PIL import Image

    root = tmp_path / "dashes"
    root.mkdir()
    for number, path in enumerate(sorted(tiny_market.rglob("*.jpg"))):
        part = {"bounding_box_train": "train", "bounding_box_test": "gallery"}.get(path.parent.name, "query")
        Image.open(path).save(root / f"{int(path.name[:4])}-{path.name[6]}-{part}-{number}.png")
    return root


def reid(*words: object) -> str:
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("one_file_each")
def test_a_loss_a_network_a_data_set_and_an_engine_are_one_file_each(dashes, tmp_path):
    for kind, listed in (
        ("loss", "losses"),
        ("model", "models"),
        ("dataset", "datasets"),
        ("gallery", "galleries"),
    ):
        name = FILES[kind][0]
        assert json.loads(reid("list", listed, "--json"))[name]["what"].endswith("."), name
    (tmp_path / "recipe.toml").write_text(RECIPE)
    run = tmp_path / "run"
    reid("train", tmp_path / "recipe.toml", f"data.root={dashes}", "--out", run)
    described = json.loads((run / "run.json").read_text())["settings"]["losses"]
    assert described[1]["loss"] == "Spread(power=2.0, normalize=True)"
    data, encoder = rk.load_dataset("dashes", dashes), rk.load_encoder(run)
    assert encoder.dim == 8
    assert rk.evaluate(encoder, data).num_valid_queries == len(data.query) == 12
    with rk.open_gallery("passing://here") as gallery:
        gallery.add(
            encoder.encode([sample.path for sample in data.gallery]),
            sources=[str(sample.path) for sample in data.gallery],
            identities=[str(sample.identity) for sample in data.gallery],
        )
        [hits] = gallery.search(encoder.encode([data.gallery[5].path]), top=3)
        assert hits[0].source == str(data.gallery[5].path)
        assert hits[0].score == pytest.approx(1)


def test_afterwards_nobody_knows_of_them():
    assert not any(name in registry.names(kind) for kind, (name, _) in FILES.items())
