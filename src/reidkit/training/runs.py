"""Runs: a trainer made of a configuration, and what the run folders below a folder hold."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from reidkit import config, logs, registry, trust
from reidkit.config.faults import explain
from reidkit.config.tables import OWN_DATA
from reidkit.errors import CheckpointError, ConfigError
from reidkit.texts.files import read_json
from reidkit.training.trackers import Tracker, read_metrics

if TYPE_CHECKING:
    from reidkit.training.trainer import Trainer
    from reidkit.types import Dataset

logger = logs.get_logger(__name__)

RUN_FILE = "run.json"
EVALUATION_FILE = "evaluation.json"


def load_data(resolved: config.Config) -> Dataset:
    """The data set that a configuration names, with its validation part."""
    from reidkit.datasets import load_dataset

    data = resolved.data
    with trust.from_file():
        return load_dataset(
            data.name,
            data.root,
            val_identities=data.val_identities,
            train_identities=data.train_identities,
            corrupt_labels=data.corrupt_labels,
            seed=resolved.seed,
            **data.options,
        )


def build_trainer(
    resolved: config.Config,
    out: str | Path,
    *,
    trackers: Sequence[Tracker] = (),
) -> Trainer:
    """Everything that a configuration names, put together; ``fit()`` trains it into the folder ``out``.

    Raises:
        ConfigError: unknown components or options, code that :mod:`reidkit.trust` does not let through, or
            settings that do not go together.
        DataError: the data set is not there, or not laid out as its name says.
    """
    logs.show_by_default()
    config.check_components(resolved)
    import torch

    from reidkit.images.survey import images_left_out
    from reidkit.models import build_model
    from reidkit.training.batches import class_labels
    from reidkit.training.foreign_losses import build_loss
    from reidkit.training.objective import Objective
    from reidkit.training.trainer import Trainer

    data = load_data(resolved)
    if left_out := images_left_out(data):
        logger.warning(left_out)
    torch.manual_seed(resolved.seed)
    with trust.from_file():
        model = build_model(resolved.model.name, **resolved.model.options)
    num_identities = len(set(class_labels(data.train).tolist()))
    objectives = [
        Objective(
            build_loss(
                loss.kind, loss.options, model=model, feature=loss.feature, num_identities=num_identities
            ),
            weight=loss.weight,
            feature=loss.feature,
            from_epoch=loss.from_epoch,
            until_epoch=loss.until_epoch,
            name=name,
            schedule=loss.schedule,
            memory=loss.memory,
            memory_from_epoch=loss.memory_from_epoch or 0,
        )
        for name, loss in resolved.loss.items()
    ]
    return Trainer(
        model,
        data,
        objectives,
        out=out,
        seed=resolved.seed,
        sampler=resolved.sampler,
        transform=resolved.transform,
        optim=resolved.optim,
        train=resolved.train,
        trackers=trackers,
        configuration=config.dump(resolved),
    )


def way_to_a_test_part(resolved: config.Config, data: Dataset) -> str:
    """What to do where a run's data has no test part; empty where it has one."""
    if data.query and (data.gallery or data.protocol == "recall"):
        return ""
    if data.name not in OWN_DATA:
        return "next: reid evaluate RUN --data NAME --root FOLDER, with a data set that has one"
    pattern = resolved.data.options.get("pattern")
    words = ["reid", "split", str(resolved.data.root), "--out", "people.csv"]
    command = shlex.join(words + (["--pattern", pattern] if isinstance(pattern, str) else []))
    return f"next: {command}, and train again with data.name=table data.root=people.csv"


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation of a run; scores are shares, ``None`` where there is none.

    Attributes:
        data: what was tested on, by the name of its layout; empty where the file does not say.
        folder: where the evaluation is.
        place: where that data was; empty where the file does not say.
    """

    data: str
    mAP: float | None
    rank_1: float | None
    folder: str
    place: str = ""

    @property
    def tested_on(self) -> str:
        """The data by name; of one's own, whose layout says nothing, with the name of its folder or file."""
        return f"{self.data} {Path(self.place).name}".strip() if self.data in OWN_DATA else self.data


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run folder at a glance; scores are shares, ``None`` where there is none.

    Attributes:
        name: the folder, seen from the one that was listed.
        losses: their classes, with the weight where it is not 1.
        epochs_done, epochs: of how many.
        val_mAP: the best so far, of the held-out identities.
        mAP, rank_1: those of the evaluation in the run folder itself, which is on its own test part unless
            ``evaluations`` says otherwise.
        changed: when the run was last written to.
        evaluations: all that were made of the run, that in its own folder first, then those beside it.
    """

    name: str
    data: str
    model: str
    losses: tuple[str, ...]
    epochs_done: int
    epochs: int
    val_mAP: float | None
    mAP: float | None
    rank_1: float | None
    changed: datetime
    evaluations: tuple[Measured, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, the time in ISO format."""
        return {**dataclasses.asdict(self), "changed": self.changed.isoformat(timespec="seconds")}


SORT_KEYS = tuple(field.name for field in dataclasses.fields(RunSummary) if field.name != "evaluations")


def list_runs(folder: str | Path, *, sort: str = "name") -> tuple[list[RunSummary], list[str]]:
    """The runs below a folder, at any depth, and a sentence for each that cannot be read.

    Args:
        folder: where to look.
        sort: a field of :class:`RunSummary`. Scores, epochs and times come highest first, and runs without
            the score last.

    Raises:
        ConfigError: no such folder, or no such field.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the one that holds your runs")
    if sort not in SORT_KEYS:
        raise ConfigError(f"cannot sort by {sort!r}; choose one of {', '.join(SORT_KEYS)}")
    summaries: list[RunSummary] = []
    problems: list[str] = []
    elsewhere = _evaluations_elsewhere(folder)
    for run_file in sorted(folder.rglob(RUN_FILE)):
        run = run_file.parent
        try:
            summaries.append(_summary(run, folder, elsewhere.get(run.resolve(), [])))
        except CheckpointError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{run_file.parent} cannot be read: {error.strerror or error}")
    numbers = sort not in ("name", "data", "model", "losses")
    summaries.sort(key=lambda run: _sort_key(getattr(run, sort)), reverse=numbers)
    return summaries, problems


def _sort_key(value: Any) -> Any:
    if value is None:
        return -math.inf
    return value


def _evaluations_elsewhere(folder: Path) -> dict[Path, list[tuple[Path, Any]]]:
    """Evaluations in folders that are no run, by the run that they say they are of."""
    found: dict[Path, list[tuple[Path, Any]]] = defaultdict(list)
    for file in sorted(folder.rglob(EVALUATION_FILE)):
        if (file.parent / RUN_FILE).exists():
            continue
        try:
            values = read_json(file, error=CheckpointError)
        except (CheckpointError, OSError):
            continue  # of which run it was, nobody can tell
        origin = values.get("made_from") if isinstance(values, dict) else None
        network = origin.get("network") if isinstance(origin, dict) else None
        if isinstance(network, str) and network and "\0" not in network:
            place = Path(network)
            for run in {place, place.parent} if place.suffix else {place}:
                found[run].append((file.parent, values))
    return found


def _measured(values: Any, place: Path, folder: Path) -> Measured:
    data = values.get("data") if isinstance(values, dict) else None
    origin = values.get("made_from") if isinstance(values, dict) else None
    root = origin.get("data") if isinstance(origin, dict) else None
    return Measured(
        data=data if isinstance(data, str) else "",
        mAP=_score(values, "mAP", "mAP@R"),
        rank_1=_score(values, "rank-1", "Recall@1"),
        folder=str(place.relative_to(folder)),
        place=root if isinstance(root, str) else "",
    )


def _summary(run: Path, folder: Path, elsewhere: Sequence[tuple[Path, Any]]) -> RunSummary:
    settings = _settings(run / RUN_FILE)
    records = read_metrics(run / "metrics.jsonl")
    validations = [_score(record, "mAP") for record in records if record["kind"] == "validation"]
    own: Any = {}
    evaluations = [_measured(values, place, folder) for place, values in elsewhere]
    if (run / EVALUATION_FILE).is_file():
        own = read_json(run / EVALUATION_FILE, error=CheckpointError)
        evaluations.insert(0, _measured(own, run, folder))
    return RunSummary(
        name=str(run.relative_to(folder)),
        data=settings.data.name,
        model=settings.model.name,
        losses=tuple(map(_loss_text, settings.losses)),
        epochs_done=sum(record["kind"] == "epoch" for record in records),
        epochs=settings.epochs,
        val_mAP=max((score for score in validations if score is not None), default=None),
        mAP=_score(own, "mAP", "mAP@R"),
        rank_1=_score(own, "rank-1", "Recall@1"),
        evaluations=tuple(evaluations),
        changed=datetime.fromtimestamp(max(map(_changed, run.iterdir())), UTC),
    )


@pydantic_dataclass(frozen=True)
class _Named:
    name: str


@pydantic_dataclass(frozen=True)
class _Loss:
    loss: str
    weight: float


@pydantic_dataclass(frozen=True)
class _Settings:
    """What is listed of a run's settings, which hold more."""

    data: _Named
    model: _Named
    losses: list[_Loss]
    epochs: int


def _settings(path: Path) -> _Settings:
    run = read_json(path, error=CheckpointError)
    try:
        return TypeAdapter(_Settings).validate_python(run.get("settings") if isinstance(run, dict) else run)
    except ValidationError as error:
        faults = [explain(fault, lambda _: []) for fault in error.errors()]
        raise CheckpointError(
            f"{path} is not what a training writes: settings.{'; settings.'.join(faults[:3])}"
        ) from None


def _score(values: Any, *names: str) -> float | None:
    """The first of these figures that is there."""
    figures = [values.get(name) for name in names] if isinstance(values, dict) else []
    numbers = (figure for figure in figures if isinstance(figure, int | float))
    return next((float(number) for number in numbers if abs(number) < registry.LARGEST), None)


def _changed(path: Path) -> float:
    """When a file was last written; long ago where it is gone: a run that goes on renames its files."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _loss_text(loss: _Loss) -> str:
    kind = loss.loss.partition("(")[0]
    return kind if loss.weight == 1 else f"{loss.weight:g} {kind}"
