"""What ``reid evaluate`` does: embed, score, write results and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reidkit.cli.data import middle_frames, refuse
from reidkit.cli.output import say

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.features import EmbeddedImages
    from reidkit.types import Dataset, Evaluation, Features, Split


class Scoring(NamedTuple):
    """How to score: options of :func:`reidkit.evaluation.evaluate`, and those of re-ranking if wanted."""

    options: Mapping[str, Any] = {}
    rerank: Any = None


class ReportParts(NamedTuple):
    """Whether to write the report's page, and beside it its numbers and charts as files."""

    page: bool = True
    tables: bool = False

    def check_places(self, out: Path) -> None:
        """Refuse a folder for the tables that is a link: in a run folder that was passed on it leads away."""
        from reidkit.files import check_own_folder

        if self.tables:
            check_own_folder(out / "tables")


def evaluate_data(
    encoder: Encoder,
    dataset: Dataset,
    scoring: Scoring,
    *,
    out: Path,
    run: Path | None,
    parts: ReportParts,
    frames: int | None = None,
    title: str | None = None,
    calibrate: Path | None = None,
) -> list[Evaluation]:
    """The evaluation and, where wanted, the re-ranked one; with ``calibrate`` its encoder file is renewed."""
    from reidkit import evaluation as scoring_of
    from reidkit.features import with_frames
    from reidkit.tracking import read_metrics

    parts.check_places(out)
    scoring_of.check_evaluation(dataset, **scoring.options, rerank=scoring.rerank)
    dataset = with_frames(dataset, frames)
    source = embed(encoder, [dataset], scoring)
    evaluations = [
        scoring_of.evaluate(source, dataset, **scoring.options, **rerank) for rerank in _with_rerank(scoring)
    ]
    _write_json(out, {"data": dataset.name, **values_of(evaluations)})
    test = test_part(source, dataset)
    camera_filter = scoring.options.get("camera_filter", scoring_of.own_camera_filter(dataset))
    if calibrate is not None:
        _store_calibration(encoder, dataset, test, camera_filter, calibrate)
    configuration = run / "config.toml" if run else None
    _write_report(
        out,
        parts,
        evaluations,
        title=title or f"{(run or out).name} on {dataset.name}",
        **test._asdict(),
        galleries=dataset.galleries,
        camera_filter=camera_filter,
        records=read_metrics(run / "metrics.jsonl") if run else (),
        configuration=configuration.read_text("utf-8") if configuration and configuration.is_file() else "",
        provenance=_provenance(encoder, dataset),
        encoder=encoder,
        calibration=encoder.calibration,
    )
    return evaluations


def evaluate_all(
    encoder: Encoder, splits: Sequence[Dataset], scoring: Scoring, *, out: Path, frames: int | None
) -> tuple[str, dict[str, Any]]:
    """Score every split and their mean, as text and as values; write ``evaluation.json`` into ``out``."""
    from reidkit.evaluation import check_evaluation
    from reidkit.features import with_frames
    from reidkit.split_average import evaluate_splits

    for data in splits:
        check_evaluation(data, **scoring.options, rerank=scoring.rerank)
    splits = [with_frames(data, frames) for data in splits]
    source = embed(encoder, splits, scoring)
    averages = [
        evaluate_splits(source, splits, **scoring.options, **rerank) for rerank in _with_rerank(scoring)
    ]
    values = {"data": splits[0].name, **values_of(averages)}
    _write_json(out, values)
    return "\n\n".join(map(str, averages)), values


def evaluate_file(
    path: Path, protocol: str, scoring: Scoring, *, out: Path, parts: ReportParts
) -> list[Evaluation]:
    """The same for features that are there already; their report shows no pictures."""
    from reidkit.evaluation import evaluate_features
    from reidkit.feature_files import load_features
    from reidkit.features import pool_tracklets
    from reidkit.protocols import PROTOCOLS

    parts.check_places(out)
    query, gallery = load_features(path)
    evaluations = [
        evaluate_features(query, gallery, protocol=protocol, **scoring.options, **rerank)
        for rerank in _with_rerank(scoring)
    ]
    _write_json(out, {"data": str(path), **values_of(evaluations)})
    if protocol == "tracklets":
        query, gallery = pool_tracklets(query), None if gallery is None else pool_tracklets(gallery)
    _write_report(
        out,
        parts,
        evaluations,
        title=path.name,
        query=query,
        gallery=gallery,
        query_split=None,
        gallery_split=None,
        camera_filter=scoring.options.get("camera_filter", PROTOCOLS[protocol]),
        provenance={"features": str(path), **_when()},
    )
    return evaluations


def compare_features(
    encoder: Encoder, dataset: Dataset, scoring: Scoring, *, out: Path, frames: int | None
) -> list[dict[str, Any]]:
    """Score each feature of the network; write the ranks of every query's first match to ``branches.csv``."""
    from reidkit import evaluation as scoring_of
    from reidkit.branches import compare_branches
    from reidkit.features import EmbeddedImages, with_frames
    from reidkit.files import write_atomically
    from reidkit.tracking import progress

    refuse(
        {"--rerank": scoring.rerank, "--feature": encoder.feature},
        "--branches compares them all; leave it out",
    )
    scoring_of.check_evaluation(dataset, **scoring.options)
    dataset = with_frames(dataset, frames)
    images = images_of([dataset], scoring)
    with progress("images embedded") as shown:
        features = encoder.features_by_name(images, progress=shown)
    found = compare_branches(
        {
            name: scoring_of.evaluate(EmbeddedImages(images, part.embeddings), dataset, **scoring.options)
            for name, part in features.items()
        }
    )
    query = middle_frames(dataset.query) if dataset.protocol == "tracklets" else dataset.query
    say(f"wrote {write_atomically(out / 'branches.csv', found.table(query))}")
    return found.rows()


class TestPart(NamedTuple):
    """What a report shows, tracklets pooled."""

    query: Features
    gallery: Features | None
    query_split: Split
    gallery_split: Split


def test_part(source: EmbeddedImages, dataset: Dataset) -> TestPart:
    from reidkit.features import pool_tracklets

    query = source.features(dataset.query)
    gallery = source.features(dataset.gallery) if dataset.gallery else None
    if not dataset.has_cameras:  # a set may have labels that are no cameras
        query = replace(query, cameras=None)
        gallery = None if gallery is None else replace(gallery, cameras=None)
    query_split, gallery_split = dataset.query, dataset.gallery or dataset.query
    if dataset.protocol == "tracklets":
        query, query_split = pool_tracklets(query), middle_frames(query_split)
        gallery = None if gallery is None else pool_tracklets(gallery)
        gallery_split = middle_frames(gallery_split)
    return TestPart(query, gallery, query_split, gallery_split)


def _store_calibration(
    encoder: Encoder, dataset: Dataset, test: TestPart, camera_filter: str, path: Path
) -> None:
    from reidkit.comparison import compare
    from reidkit.encoder import weights_file
    from reidkit.same_person import fit_calibration

    comparison = compare(
        test.query, test.gallery, camera_filter=camera_filter, gallery_rows=dataset.galleries
    )
    calibration = fit_calibration(comparison, source=f"the test images of {dataset.name}")
    encoder.calibrate(calibration)
    file = encoder.save(weights_file(path))
    say(f"wrote {file} with its calibration")
    say(f"{calibration}\nnote: fitted on test images: on them its rates hold by construction")


def embed(encoder: Encoder, datasets: Sequence[Dataset], scoring: Scoring) -> EmbeddedImages:
    from reidkit.features import EmbeddedImages
    from reidkit.tracking import progress

    images = images_of(datasets, scoring)
    with progress("images embedded") as shown:
        return EmbeddedImages(images, encoder.features(images, progress=shown).embeddings)


def images_of(datasets: Sequence[Dataset], scoring: Scoring) -> Split:
    """All that has to be embedded, each image once."""
    from reidkit.evaluation import images_to_encode
    from reidkit.features import distinct_images

    asked = {name: scoring.options.get(name) for name in ("metric", "multi_query")}
    return distinct_images(part for data in datasets for part in images_to_encode(data, **asked))


def _with_rerank(scoring: Scoring) -> list[dict[str, Any]]:
    """Further options of each evaluation that is wanted."""
    return [{}] if scoring.rerank is None else [{}, {"rerank": scoring.rerank}]


def values_of(evaluations: Sequence[Any]) -> dict[str, Any]:
    first, *others = (evaluation.as_dict() for evaluation in evaluations)
    return {**first, **({"reranked": others[0]} if others else {})}


def _write_report(out: Path, parts: ReportParts, evaluations: Sequence[Evaluation], **contents: Any) -> None:
    if not parts.page:
        return
    from reidkit.errors import DataError
    from reidkit.report import write_report

    evaluation, *reranked = evaluations
    try:
        page = write_report(
            out / "report.html",
            evaluation=evaluation,
            reranked=reranked[0] if reranked else None,
            tables=out / "tables" if parts.tables else None,
            **contents,
        )
    except DataError as error:  # scores there are even where there is no pair of two persons to draw
        say(f"no report: {error}")
    else:
        say(f"wrote {page}")


def _write_json(out: Path, values: dict[str, Any]) -> None:
    from reidkit.files import write_atomically

    say(f"wrote {write_atomically(out / 'evaluation.json', json.dumps(values, indent=2))}")


def _provenance(encoder: Encoder, dataset: Dataset) -> dict[str, str]:
    trained_on = encoder.card.get("data", {})
    return {
        "trained on": f"{trained_on.get('name', 'unknown')}: {trained_on.get('train_images', '?')} images of "
        f"{trained_on.get('train_identities', '?')} identities (fingerprint {trained_on.get('hash', '?')})",
        "tested on": f"{dataset.name}: {len(dataset.query)} query, {len(dataset.gallery)} gallery images",
        "encoder": f"{encoder.model.description} at {encoder.height} x {encoder.width}, "
        f"{encoder.dim} values, fingerprint {encoder.fingerprint}",
        "epochs trained": str(encoder.card.get("epoch", "unknown")),
        **_when(),
    }


def _when() -> dict[str, str]:
    from datetime import UTC, datetime

    from reidkit.provenance import versions

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
