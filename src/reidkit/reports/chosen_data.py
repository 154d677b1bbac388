"""Which data a network is tested on: what a person asks for, or what the run itself was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidkit import config, registry, trust
from reidkit.datasets import load_dataset
from reidkit.encoders.own import goes_by_name
from reidkit.errors import ConfigError
from reidkit.images.survey import images_left_out
from reidkit.types import Dataset

ALL_SPLITS = "all"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A data set as a person asks for it; what is left out is the run's own.

    Attributes:
        name: its layout.
        root: its folder.
        options: of its layout.
        split: the number of a train/test split, or "all".
    """

    name: str | None = None
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ChosenData:
    """Data to test on.

    Attributes:
        splits: the split asked for, or all, each as a separate data set.
        trained_split: of these, the number of the one that the run was trained on; ``None`` where it was
            trained on another set.
        left_out: a sentence on images that are in no part; empty where there are none.
    """

    splits: tuple[Dataset, ...]
    trained_split: int | None
    left_out: str

    @property
    def seen(self) -> str:
        """A sentence on test identities that the run was trained on; empty if there are none."""
        first = self.splits[0]
        if self.trained_split is None or first.num_splits == 1:
            return ""
        return (
            f"was trained on split {self.trained_split} of {first.name}; it has seen the test persons of all "
            "other splits"
        )


def choose_data(run: Path, wanted: Wanted) -> ChosenData:
    """Load what is asked for, or the run's own data.

    Raises:
        ConfigError: the run does not say what it was trained on, and nothing else is asked for; options that
            the layout does not know; a split that there is not.
        DataError: the data set is not there, or not laid out as its name says.
    """
    if wanted.name is not None:
        trust.allow_typed(wanted.name)
    own = own_data(run)
    name, root, options = _with_own(run, wanted, own)
    with trust.from_file():  # a run's own set is named in a file; one that was typed is allowed already
        splits = _load(name, root, options, wanted.split)
    trained_split = None if own is None or own.name != name else own.options.get("split", 0)
    return ChosenData(splits, trained_split, images_left_out(splits[0]))


def own_data(run: Path) -> config.DataConfig | None:
    """What a run folder was trained on, where it says that."""
    configuration = run / "config.toml"
    if goes_by_name(run):
        return None
    return config.load(configuration).data if configuration.is_file() else None


def is_own_data(run: Path, data: Dataset) -> bool:
    """Whether a run folder says that it was trained on this very set."""
    own = own_data(run)
    if own is None or (own.name != data.name and not registry.is_code("dataset", own.name)):
        return False
    root = Path(own.root).resolve()
    # A layout may lie somewhat deeper than where it was looked for.
    return root in (data.place.resolve(), data.root.resolve(), *data.root.resolve().parents)


def _with_own(
    run: Path, wanted: Wanted, own: config.DataConfig | None
) -> tuple[str, Path | str, dict[str, Any]]:
    """Name, root and options of the data set, taken from the run where nothing else is given."""
    if own is None:
        if wanted.name is None:
            raise ConfigError(f"{run} does not say which data it was trained on; name data and root")
        if wanted.root is None:
            raise ConfigError("root is missing, the folder that holds the data set")
        return wanted.name, wanted.root, dict(wanted.options)
    if wanted.name not in (None, own.name):
        return str(wanted.name), wanted.root or own.root, dict(wanted.options)
    return own.name, wanted.root or own.root, {**own.options, **wanted.options}


def _load(name: str, root: Path | str, options: Mapping[str, Any], split: str | None) -> tuple[Dataset, ...]:
    if split is not None and split != ALL_SPLITS:
        if not split.isdecimal():
            raise ConfigError(f"split is {split!r}; give a number from 0 on, or {ALL_SPLITS!r}")
        options = {**options, "split": int(split)}
    data = load_dataset(name, root, **options)
    if split != ALL_SPLITS:
        return (data,)
    if data.num_splits == 1:
        raise ConfigError(f"split = {ALL_SPLITS!r}: data set {name!r} has one split here; leave split out")
    numbers = range(data.num_splits)
    return tuple(load_dataset(name, root, **{**options, "split": number}) for number in numbers)


def check_same_training_data(runs: Sequence[Path]) -> None:
    """Raise :class:`ConfigError` where runs were trained on different data, so that none of it is meant."""
    own = {run: config.load(run / "config.toml").data for run in runs}
    if len({(data.name, str(data.root), str(data.options)) for data in own.values()}) > 1:
        raise ConfigError(
            f"{' and '.join(map(str, own))} were trained on different data; say on which to compare "
            "them: name data and root"
        )
