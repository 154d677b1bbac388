"""A service that tests may change as they like: its galleries are filled once, and copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from reidkit.web import users
from reidkit.web.settings import Settings
from tests.web.serving import make_world, running, settings_of

REAL_HASHER = users._hasher


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder and two galleries, never to be changed."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost little to check; those of :func:`real_passwords` take most of a test's time."""
    monkeypatch.setattr(users, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=1024))


@pytest.fixture
def real_passwords(quick_passwords: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords as a service keeps them."""
    monkeypatch.setattr(users, "_hasher", REAL_HASHER)


@pytest.fixture
def settings(world: Path, tmp_path: Path) -> Settings:
    """Those of a service on a copy of the world, without users."""
    shutil.copytree(world, tmp_path / "world", ignore=shutil.ignore_patterns("photos", "*.safetensors"))
    return settings_of(tmp_path / "world")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """Of that service, running in this process."""
    with running(settings) as client:
        yield client
