"""What a case is, and the kinds there are."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from tests.fuzz.hostile import drawn
from tests.fuzz.world import World

Answer = Callable[[str], str | None]
"""Of standard output at exit code 0: what is wrong with it, or None."""


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        run: arguments of ``reid``, or a call whose errors are judged as the command's would be.
        writes: files and folders that may be made or changed; relative to the case's folder.
        keeps: the same, even where the case is refused in the end, because what lies in them is whole: images
            unpacked once, a run folder that was begun.
        codes: exit codes allowed; 1 stands for errors that ``reid check`` found.
        right: looks at the answer.
        starts_python: whether a Python process of ours may be started, to read a file at arm's length.
    """

    run: tuple[str, ...] | Callable[[], object]
    writes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0, 2)
    right: Answer | None = None
    starts_python: bool = False


@dataclass(frozen=True)
class Maker:
    """What a kind makes a case of.

    Attributes:
        folder: empty, and the current folder while the case runs.
        world: small whole files of every sort, to be damaged as copies.
        random: draws of this case.
    """

    kind: str
    number: int
    folder: Path
    world: World
    random: random.Random = field(default_factory=random.Random)

    @classmethod
    def of(cls, kind: str, number: int, folder: Path, world: World) -> Maker:
        return cls(kind, number, folder, world, random.Random(f"{kind} {number}"))

    def draw(self, strategy: SearchStrategy[Any]) -> Any:
        """The value that a Hypothesis strategy gives for this case; once a case."""
        return drawn(strategy, seed=zlib.crc32(self.kind.encode()), number=self.number)

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        )
        return path


@dataclass(frozen=True)
class Kind:
    """A way of making cases; ``weight`` is its share of all of them."""

    name: str
    make: Callable[[Maker], Case]
    weight: int


KINDS: dict[str, Kind] = {}


def kind(name: str, *, weight: int) -> Callable[[Callable[[Maker], Case]], Callable[[Maker], Case]]:
    """Add a kind; cases are shared out by weight."""

    def add(make: Callable[[Maker], Case]) -> Callable[[Maker], Case]:
        KINDS[name] = Kind(name, make, weight)
        return make

    return add


def shares(num_cases: int) -> dict[str, int]:
    """How many cases of each kind make so many in all."""
    total = sum(kind.weight for kind in KINDS.values())
    counts = {name: num_cases * kind.weight // total for name, kind in KINDS.items() if kind.weight}
    for name in sorted(counts, key=lambda name: -KINDS[name].weight)[: num_cases - sum(counts.values())]:
        counts[name] += 1
    return counts
