"""``reid evaluate``: scores of a run under the data set's own protocol, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit import config
from reidkit.cli.output import json_option, print_json, say
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.types import Dataset, Evaluation


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="Layout of the data set; the one the run was trained on if left out.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies.")
@click.option(
    "--average-precision", type=click.Choice(["step", "trapezoid"]), default="step", show_default=True
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results; the run folder if left out."
)
@click.option("--report/--no-report", default=True, help="Write report.html.")
@json_option
def evaluate_command(
    run: Path,
    data: str | None,
    root: Path | None,
    average_precision: str,
    out: Path | None,
    report: bool,
    as_json: bool,
) -> None:
    """Score RUN (a run folder or a .safetensors file) on the query and gallery images of a data set."""
    from reidkit.encoder import load_encoder

    encoder = load_encoder(run)
    dataset = _dataset(run, data, root)
    evaluation = evaluate(
        encoder,
        dataset,
        out=out or (run if run.is_dir() else run.parent),
        run=run if run.is_dir() else None,
        average_precision=average_precision,
        report=report,
    )
    if as_json:
        print_json(evaluation.as_dict())
    else:
        click.echo(str(evaluation))


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    *,
    out: Path,
    run: Path | None,
    average_precision: str = "step",
    report: bool = True,
    title: str | None = None,
) -> Evaluation:
    """Embed, score, write ``evaluation.json`` and ``report.html`` into ``out``."""
    from reidkit.evaluation import check_test_part, evaluate_features
    from reidkit.files import write_atomically
    from reidkit.report import write_report
    from reidkit.tracking import progress, read_metrics

    check_test_part(dataset)
    with progress("query images embedded") as shown:
        query = encoder.features(dataset.query, progress=shown)
    with progress("gallery images embedded") as shown:
        gallery = encoder.features(dataset.gallery, progress=shown)
    camera_filter = "same_identity" if dataset.has_cameras else "none"
    evaluation = evaluate_features(
        query,
        gallery,
        protocol=dataset.protocol,
        camera_filter=camera_filter,
        average_precision=average_precision,
    )
    written = [write_atomically(out / "evaluation.json", json.dumps(evaluation.as_dict(), indent=2))]
    if report:
        configuration = run / "config.toml" if run else None
        page = write_report(
            out / "report.html",
            title=title or f"{(run or out).name} on {dataset.name}",
            evaluation=evaluation,
            query=query,
            gallery=gallery,
            camera_filter=camera_filter,
            query_split=dataset.query,
            gallery_split=dataset.gallery,
            records=read_metrics(run / "metrics.jsonl") if run else (),
            configuration=configuration.read_text("utf-8")
            if configuration and configuration.is_file()
            else "",
            provenance=_provenance(encoder, dataset),
        )
        written.append(page)
    for path in written:
        say(f"wrote {path}")
    return evaluation


def _dataset(run: Path, name: str | None, root: Path | None) -> Dataset:
    """The data set asked for, or the run's own."""
    from reidkit.datasets import load_dataset

    configuration = run / "config.toml"
    own = config.load(configuration).data if configuration.is_file() else None
    if name is None and own is None:
        raise ConfigError(f"{run} does not say which data it was trained on; give --data NAME --root FOLDER")
    options: dict[str, Any] = own.options if own and name in (None, own.name) else {}
    where = root or (own.root if own else None)
    if where is None:
        raise ConfigError("give --root, the folder that holds the data set")
    return load_dataset(name or own.name, where, **options)  # type: ignore[union-attr]  # one of the two is there


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
