"""A service of two small galleries for tests, with a user of every role."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from PIL import Image

import reidkit as rk
from reidkit.galleries import export_gallery
from reidkit.search.searcher import Searcher
from reidkit.types import Sample
from reidkit.web.app import build_app
from reidkit.web.roles import Role
from reidkit.web.settings import Settings
from reidkit.web.users import Users

PASSWORD = "correct horse battery"
ROLES = ("viewer", "reviewer", "operator", "administrator")
MOMENT = 1_714_557_600.0


def picture(seed: int, kind: str = "PNG") -> bytes:
    """A coarse pattern: no two are alike to any network."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 2, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((12, 12, 1), np.uint8))).save(file, kind)
    return file.getvalue()


def make_encoder(folder: Path) -> Path:
    """A small network with random weights."""
    torch.manual_seed(0)
    encoder = rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)
    return encoder.save(folder / "encoder.safetensors")


def fill(location: Path, encoder: Path, photos: Path, *, num: int = 12) -> None:
    """A gallery of four named people, two proposed ones and two unknown, under three cameras."""
    photos.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(num):
        path = photos / f"{number}.png"
        path.write_bytes(picture(number))
        name = f"person {number % 4}" if number < 8 else ""
        samples.append(Sample(path, 0, number % 3, number, time=MOMENT + 600 * number, identity_name=name))
    with Searcher(location, encoder=encoder) as searcher:
        searcher.add(samples)
        gallery = searcher.made()
        unknown = [item.id for item in gallery.items(where={"identity": None})][:2]
        gallery.relabel(unknown, labels={"proposal": ["new-1"] * 2})


def make_world(folder: Path) -> Path:
    """A folder with an encoder, two galleries, "own" and "foreign", their pictures, and an export of one."""
    encoder = make_encoder(folder)
    for name in ("own", "foreign"):
        fill(folder / f"{name}.gallery", encoder, folder / "photos" / name)
    with rk.open_gallery(folder / "own.gallery") as gallery:
        export_gallery(gallery, folder / "exported")
    return folder


def settings_of(folder: Path, **more: Any) -> Settings:
    """Settings of a service on such a folder, or on a copy of it."""
    galleries = {name: str(folder / f"{name}.gallery") for name in ("own", "foreign")}
    given = {
        "folder": folder / "state",
        "folders": {"exported": folder / "exported", "photos": folder / "incoming"},
        "hosts": ("testserver",),
        "limits": {"requests_per_minute": 0},
    }
    return Settings.model_validate({"galleries": galleries, **given, **more})


def add_users(settings: Settings) -> dict[str, str]:
    """Users of each role in the gallery "own", of none, and of all galleries; their tokens by name."""
    users = Users(settings.users_file)
    for role in ROLES:
        users.add(role, password=None, role=Role.named(role), galleries=("own",))
    users.add("nobody", password=None, role=Role.viewer, galleries=("elsewhere",))
    users.add("root", password=PASSWORD, role=Role.administrator)
    return {name: users.make_token(name) for name in (*ROLES, "nobody", "root")}


@contextmanager
def running(settings: Settings) -> Iterator[TestClient]:
    """A client of a service in this process, whose galleries are open."""
    with TestClient(build_app(settings), raise_server_exceptions=False) as client:
        client.app.state.service.served.wait()
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
