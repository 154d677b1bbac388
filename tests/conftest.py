"""What several tests need: real data where it is to be had, and a small world drawn on the spot."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.milvus_server import running_milvus
from tests.postgres_server import PostgresServer, running_server

REPOSITORY = Path(__file__).parent.parent

TINY_RECIPE = """
[transform]
height = 48
width = 24
shift = 2
[model]
name = "timm:test_resnet"
[loss.identity]
[loss.trihard]
[sampler]
identities_per_batch = 4
images_per_identity = 3
[optim]
lr = 1e-3
schedule = "onecycle"
[train]
epochs = 3
num_workers = 0
"""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets; skips where there is none."""
    folder = Path(os.environ.get("REIDKIT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set REIDKIT_DATA to the folder that holds market1501-500")
    return folder


@pytest.fixture(scope="session")
def tiny_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in Market-1501's tree that a network can learn in seconds: each identity is a pair of colours."""
    root = tmp_path_factory.mktemp("tiny_market")
    rng = np.random.default_rng(0)
    for identity in range(1, 13):
        colours = rng.integers(30, 226, (2, 3))
        train = identity <= 8
        for camera in (1, 2, 3):
            for frame in range(4):
                folder = "bounding_box_train" if train else "query" if frame == 0 else "bounding_box_test"
                pixels = np.repeat(colours, [20, 28], axis=0)[:, None].repeat(24, axis=1).astype(float)
                pixels = pixels * (0.85 + 0.1 * camera) + rng.normal(0, 12, pixels.shape)
                path = root / folder / f"{identity:04}_c{camera}s1_{frame:06}_01.jpg"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return root


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file that trains on ``tiny_market`` in seconds; commands give data.root and what they vary."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real server, started when a test first asks for it."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Locations of empty galleries in one file of Milvus Lite, which stays open meanwhile."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    from reidkit.galleries import open_gallery

    file, numbers = tmp_path_factory.mktemp("milvus") / "galleries.db", itertools.count()
    with open_gallery(f"milvus-lite://{file}"):
        yield lambda: f"milvus-lite://{file}?gallery=test_{next(numbers)}"


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[Callable[[], str]]:
    """Locations of empty galleries on a real Milvus server."""
    with running_milvus() as new_location:
        yield new_location


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the library tells meanwhile, as the command line would show it."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    library = logging.getLogger("reidkit")
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    yield texts
    library.setLevel(logging.NOTSET)
    library.removeHandler(handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch adds in the same order every time, as each of several processes does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
