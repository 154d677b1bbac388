"""``reid evaluate``: scores of a run under the data set's own protocol, and its report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from reidkit import config
from reidkit.cli.output import json_option, print_json, say
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.features import EmbeddedImages
    from reidkit.types import Dataset, Evaluation, Split

ALL_SPLITS = "all"
RUNS = Path("runs")


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", help="Layout of the data set; the one the run was trained on if left out.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies.")
@click.option("--split", help="Of a set with several train/test splits: the number of one, or `all`.")
@click.option("--frames", type=int, help="Of a set of tracklets: frames of each to look at; all if left out.")
@click.option(
    "--average-precision", type=click.Choice(["step", "trapezoid"]), default="step", show_default=True
)
@click.option("--distance", type=click.Choice(["cosine", "l1"]), default="cosine", show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results. If left out, the run folder; for a file, runs/FILE-DATA.",
)
@click.option("--report/--no-report", default=True, help="Write report.html.")
@json_option
def evaluate_command(
    run: Path,
    options: tuple[str, ...],
    data: str | None,
    root: Path | None,
    split: str | None,
    frames: int | None,
    average_precision: str,
    distance: str,
    out: Path | None,
    report: bool,
    as_json: bool,
) -> None:
    """Score RUN (a run folder or a network's file) on the query and gallery images of a data set.

    \b
    reid evaluate runs/mine
    reid evaluate model.onnx --data viper --root data/ --split all direction=a_to_b

    The protocol is the data set's own. KEY=VALUE are options of its layout (`reid list datasets`).
    """
    from reidkit.encoder import load_encoder

    encoder = load_encoder(run)
    chosen = _choose(run, data, root, config.parse_options(options))
    splits = _load(chosen, split)
    out = out or _results_folder(run, splits[0])
    if len(splits) > 1:
        results = evaluate_all(
            encoder, splits, out=out, average_precision=average_precision, distance=distance, frames=frames
        )
    else:
        evaluation = evaluate(
            encoder,
            splits[0],
            out=out,
            run=run if run.is_dir() else None,
            average_precision=average_precision,
            distance=distance,
            report=report,
            frames=frames,
        )
        results = str(evaluation), {"data": splits[0].name, **evaluation.as_dict()}
    if as_json:
        print_json(results[1])
    else:
        click.echo(results[0])
    if chosen.trained_split is not None and splits[0].num_splits > 1:
        own_split = f"split {chosen.trained_split} of {chosen.name}"
        say(f"{run} was trained on {own_split}; it has seen the test persons of all other splits")


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    *,
    out: Path,
    run: Path | None,
    average_precision: str = "step",
    distance: str = "cosine",
    report: bool = True,
    frames: int | None = None,
    title: str | None = None,
) -> Evaluation:
    """Embed, score, write ``evaluation.json`` and ``report.html`` into ``out``."""
    from reidkit import evaluation as scoring
    from reidkit.features import pool_tracklets, with_frames
    from reidkit.report import write_report
    from reidkit.tracking import read_metrics

    scoring.check_test_part(dataset)
    dataset = with_frames(dataset, frames)
    source = _embed(encoder, [dataset])
    evaluation = scoring.evaluate(source, dataset, average_precision=average_precision, distance=distance)
    _write_json(out, {"data": dataset.name, **evaluation.as_dict()})
    if not report:
        return evaluation
    query, query_split = source.features(dataset.query), dataset.query
    gallery_split = dataset.gallery or dataset.query
    gallery = source.features(dataset.gallery) if dataset.gallery else None
    if dataset.protocol == "tracklets":
        query, query_split = pool_tracklets(query), _middle_frames(query_split)
        gallery = None if gallery is None else pool_tracklets(gallery)
        gallery_split = _middle_frames(gallery_split)
    configuration = run / "config.toml" if run else None
    page = write_report(
        out / "report.html",
        title=title or f"{(run or out).name} on {dataset.name}",
        evaluation=evaluation,
        query=query,
        gallery=gallery,
        query_split=query_split,
        gallery_split=gallery_split,
        galleries=dataset.galleries,
        camera_filter=scoring.own_camera_filter(dataset),
        records=read_metrics(run / "metrics.jsonl") if run else (),
        configuration=configuration.read_text("utf-8") if configuration and configuration.is_file() else "",
        provenance=_provenance(encoder, dataset),
    )
    say(f"wrote {page}")
    return evaluation


def evaluate_all(
    encoder: Encoder,
    splits: Sequence[Dataset],
    *,
    out: Path,
    average_precision: str,
    distance: str,
    frames: int | None,
) -> tuple[str, dict[str, Any]]:
    """Score every split and their mean, as text and as values; write ``evaluation.json`` into ``out``."""
    from reidkit.features import with_frames
    from reidkit.split_average import evaluate_splits

    splits = [with_frames(data, frames) for data in splits]
    average = evaluate_splits(
        _embed(encoder, splits), splits, average_precision=average_precision, distance=distance
    )
    values = {"data": splits[0].name, **average.as_dict()}
    _write_json(out, values)
    return str(average), values


class _Chosen(NamedTuple):
    """Data to test on; ``trained_split`` where the run was trained on the same data set."""

    name: str
    root: Path | str
    options: dict[str, Any]
    trained_split: int | None


def _choose(run: Path, name: str | None, root: Path | None, given: dict[str, Any]) -> _Chosen:
    """The data set asked for, or the run's own."""
    configuration = run / "config.toml"
    own = config.load(configuration).data if configuration.is_file() else None
    if own is None:
        if name is None:
            raise ConfigError(
                f"{run} does not say which data it was trained on; give --data NAME --root FOLDER"
            )
        if root is None:
            raise ConfigError("give --root, the folder that holds the data set")
        return _Chosen(name, root, given, None)
    if name not in (None, own.name):
        return _Chosen(str(name), root or own.root, given, None)
    return _Chosen(own.name, root or own.root, {**own.options, **given}, own.options.get("split", 0))


def _load(chosen: _Chosen, split: str | None) -> list[Dataset]:
    """The split asked for, or all."""
    from reidkit.datasets import load_dataset

    options = chosen.options
    if split is not None and split != ALL_SPLITS:
        if not split.isdecimal():
            raise ConfigError(f"--split is {split!r}; give a number from 0 on, or {ALL_SPLITS!r}")
        options = {**options, "split": int(split)}
    data = load_dataset(chosen.name, chosen.root, **options)
    if split != ALL_SPLITS:
        return [data]
    if data.num_splits == 1:
        raise ConfigError(f"--split all: data set {chosen.name!r} has one split here; leave --split out")
    return [
        load_dataset(chosen.name, chosen.root, **{**options, "split": number})
        for number in range(data.num_splits)
    ]


def _results_folder(run: Path, data: Dataset) -> Path:
    """The run folder where one may write; never the folder of a network's file, which is not ours."""
    return run if run.is_dir() and os.access(run, os.W_OK) else RUNS / f"{run.stem}-{data.name}"


def _embed(encoder: Encoder, datasets: Sequence[Dataset]) -> EmbeddedImages:
    from reidkit.features import EmbeddedImages, distinct_images
    from reidkit.tracking import progress

    images = distinct_images(part for data in datasets for part in (data.query, data.gallery))
    with progress("images embedded") as shown:
        return EmbeddedImages(images, encoder.features(images, progress=shown).embeddings)


def _middle_frames(split: Split) -> Split:
    """A picture of each tracklet, in the order in which they are pooled."""
    from reidkit.features import frames_by_tracklet

    return tuple(frames[len(frames) // 2] for frames in frames_by_tracklet(split).values())


def _write_json(out: Path, values: dict[str, Any]) -> None:
    from reidkit.files import write_atomically

    say(f"wrote {write_atomically(out / 'evaluation.json', json.dumps(values, indent=2))}")


def _provenance(encoder: Encoder, dataset: Dataset) -> dict[str, str]:
    from datetime import UTC, datetime

    from reidkit.provenance import versions

    trained_on = encoder.card.get("data", {})
    return {
        "trained on": f"{trained_on.get('name', 'unknown')}: {trained_on.get('train_images', '?')} images of "
        f"{trained_on.get('train_identities', '?')} identities (fingerprint {trained_on.get('hash', '?')})",
        "tested on": f"{dataset.name}: {len(dataset.query)} query, {len(dataset.gallery)} gallery images",
        "encoder": f"{encoder.model.description} at {encoder.height} x {encoder.width}, "
        f"{encoder.dim} values, fingerprint {encoder.fingerprint}",
        "epochs trained": str(encoder.card.get("epoch", "unknown")),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
