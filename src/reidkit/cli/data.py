"""Which data a command tests on: what was asked for, or a run's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reidkit import config, trust
from reidkit.cli.output import say
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.types import Dataset, Split

ALL_SPLITS = "all"
RUNS = Path("runs")


class Chosen(NamedTuple):
    """Data to test on; ``trained_split`` where the run was trained on the same data set."""

    name: str
    root: Path | str
    options: dict[str, Any]
    trained_split: int | None


def choose(run: Path, name: str | None, root: Path | None, given: dict[str, Any]) -> Chosen:
    """The data set asked for, or the run's own."""
    if name is not None:
        trust.allow_typed(name)
    configuration = run / "config.toml"
    own = config.load(configuration).data if configuration.is_file() else None
    if own is None:
        if name is None:
            raise ConfigError(
                f"{run} does not say which data it was trained on; give --data NAME --root FOLDER"
            )
        if root is None:
            raise ConfigError("give --root, the folder that holds the data set")
        return Chosen(name, root, given, None)
    if name not in (None, own.name):
        return Chosen(str(name), root or own.root, given, None)
    return Chosen(own.name, root or own.root, {**own.options, **given}, own.options.get("split", 0))


def load(chosen: Chosen, split: str | None) -> list[Dataset]:
    """The split asked for, or all."""
    with trust.from_file():  # a run's own set is named in a file; one that was typed is allowed already
        return _load(chosen, split)


def _load(chosen: Chosen, split: str | None) -> list[Dataset]:
    from reidkit.datasets import load_dataset
    from reidkit.survey import images_left_out

    options = chosen.options
    if split is not None and split != ALL_SPLITS:
        if not split.isdecimal():
            raise ConfigError(f"--split is {split!r}; give a number from 0 on, or {ALL_SPLITS!r}")
        options = {**options, "split": int(split)}
    data = load_dataset(chosen.name, chosen.root, **options)
    if left_out := images_left_out(data):
        say(left_out)
    if split != ALL_SPLITS:
        return [data]
    if data.num_splits == 1:
        raise ConfigError(f"--split all: data set {chosen.name!r} has one split here; leave --split out")
    return [
        load_dataset(chosen.name, chosen.root, **{**options, "split": number})
        for number in range(data.num_splits)
    ]


def results_folder(run: Path, data: str) -> Path:
    """The run folder where one may write; never the folder of a network's file, which is not ours."""
    return run if run.is_dir() and os.access(run, os.W_OK) else RUNS / f"{run.stem}-{data}"


def refuse(options: dict[str, Any], reason: str) -> None:
    """Raise :class:`ConfigError` where any of these options, by their names, was given."""
    given = [name for name, value in options.items() if not any(value is left for left in (None, False, ()))]
    if given:
        raise ConfigError(f"{', '.join(given)}: {reason}")


def middle_frames(split: Split) -> Split:
    """A picture of each tracklet, in the order in which they are pooled."""
    from reidkit.features import frames_by_tracklet

    return tuple(frames[len(frames) // 2] for frames in frames_by_tracklet(split).values())
