"""Ready-made person re-identification networks: where to get them, and how to make them encoders.

The table is ``ready_made.toml``, beside this file. Nothing is downloaded here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from reidkit.errors import UnknownName


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A network that can be had.

    Attributes:
        name: what it is called here.
        network: architecture, in words.
        trained_on: data that it learned from.
        scores: by data set, (rank-1, mAP) as published, in per cent.
        source: who published the scores.
        licence: of the project that offers it, empty where none was found; the data's own terms come on top.
        page: of that project, where the file is found.
        command: that makes an encoder of it, or uses it as one; FILE stands for the downloaded file.
        file: its address, where it has one that stays.
        sha256: by file name, where the project says it.
        note: what else to know.
    """

    name: str
    network: str
    trained_on: str
    scores: Mapping[str, tuple[float, float]]
    source: str
    licence: str
    page: str
    command: str
    file: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@cache
def ready_made() -> tuple[ReadyMade, ...]:
    """All of them, in the order of the table."""
    table = tomllib.loads(resources.files("reidkit.encoders").joinpath("ready_made.toml").read_text("utf-8"))
    return tuple(ReadyMade(**entry) for entry in table["encoder"])


def find_ready_made(name: str) -> ReadyMade:
    """The one of that name.

    Raises:
        UnknownName: there is none.
    """
    known = {encoder.name: encoder for encoder in ready_made()}
    if name not in known:
        raise UnknownName("ready-made encoder", name, known)
    return known[name]
