"""Runs measured and reported: embed, score, write ``evaluation.json`` and the page.

What ``reid evaluate`` does, as functions that return values and print nothing. Pass ``progress`` to follow
the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reidkit.analysis.calibration import Calibration, fit_calibration
from reidkit.analysis.feature_comparison import Branches, compare_branches
from reidkit.encoders.own import OWN, is_own
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import (
    check_evaluation,
    evaluate,
    evaluate_features,
    images_to_encode,
    own_camera_filter,
)
from reidkit.evaluation.feature_files import load_features
from reidkit.evaluation.features import (
    EmbeddedImages,
    distinct_images,
    with_frames,
)
from reidkit.evaluation.protocols import PROTOCOLS
from reidkit.evaluation.split_average import SplitAverage, evaluate_splits
from reidkit.files import check_own_folder, write_atomically
from reidkit.progress import ProgressCallback
from reidkit.provenance import versions
from reidkit.reports.chosen_data import Wanted, choose_data
from reidkit.reports.inputs import (
    PooledSides,
    Results,
    RunDetails,
    middle_frames,
    pooled_features,
    pooled_sides,
)
from reidkit.reports.results_folder import MADE_FROM, folder_of_run, made_from
from reidkit.training.trackers import read_metrics
from reidkit.types import Dataset, Evaluation, Split

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder


class Scoring(NamedTuple):
    """How to score.

    ``options`` are those of :func:`reidkit.evaluate` except ``rerank`` and ``num_frames``. With ``rerank``
    (True, or its options) a second evaluation is re-ranked; at most ``frames`` frames of a tracklet are
    embedded.
    """

    options: Mapping[str, Any] = {}
    rerank: Any = None
    frames: int | None = None


class Output(NamedTuple):
    """Where results go, and which: the page, and beside it its numbers and charts as files in ``tables/``."""

    folder: Path
    page: bool = True
    tables: bool = False
    title: str | None = None

    def check(self) -> None:
        """Refuse a folder for the tables that is a link: in a run folder that was passed on it leads away."""
        if self.tables:
            check_own_folder(self.folder / "tables")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What was measured, and what was written. Printing it shows the metrics.

    Attributes:
        evaluations: as asked for; then re-ranked, if that was wanted. Of several splits each is their mean.
        about: what was tested on what, as it stands in ``results``.
        results: ``evaluation.json``.
        page: the report; ``None`` where none was wanted, or where ``no_page`` says why there is none.
        calibration: where one was kept in ``encoder_file``.
    """

    evaluations: tuple[Evaluation, ...] | tuple[SplitAverage, ...]
    about: Mapping[str, Any]
    results: Path
    page: Path | None = None
    no_page: str = ""
    calibration: Calibration | None = None
    encoder_file: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the second evaluation is under ``reranked``."""
        first, *others = (evaluation.as_dict() for evaluation in self.evaluations)
        reranked = {"reranked": others[0]} if others else {}
        return {"data": self.about["data"], **first, **reranked, MADE_FROM: self.about[MADE_FROM]}

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.evaluations))


def report(
    encoder: Encoder | str | Path,
    data: Dataset | None = None,
    *,
    out: str | Path | None = None,
    title: str | None = None,
    tables: bool = False,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Path:
    """Measure an encoder and write its report, one HTML page, with ``evaluation.json`` beside it.

    Args:
        encoder: a run folder, a network's file, or an encoder in memory.
        data: what to test on; of a run folder its own data, where left out.
        out: folder for the results. Where left out, a run folder that is tested on its own data keeps them;
            others go to ``runs/NAME-DATA``.
        title: heading of the page.
        tables: also write the page's numbers and charts as files into ``tables/``.
        progress: called with (done, total) as images are embedded.
        options: those of :func:`reidkit.evaluate`; ``rerank`` adds a second, re-ranked evaluation.

    Returns:
        The page.

    Raises:
        ConfigError: no data where the encoder names none; no ``out`` for an encoder in memory; options that
            do not go together.
        CheckpointError: there is no such run or file.
        DataError: the set cannot be tested on, or has no pair of two identities to draw.
        WriteError: a file cannot be written.

    Example:
        >>> rk.report("runs/msml", rerank=True)                               # doctest: +SKIP
    """
    from reidkit.encoders.loading import load_encoder

    run: Path | None = None
    if isinstance(encoder, str | Path):
        run = Path(encoder)
        encoder = load_encoder(run)
        data = data or choose_data(run, Wanted()).splits[0]
        out = out or folder_of_run(run, data)
    elif data is None or out is None:
        raise ConfigError(
            "an encoder in memory names no data and has no folder of its own; give both data and out"
        )
    plain = {name: value for name, value in options.items() if name not in ("rerank", "num_frames")}
    scoring = Scoring(plain, options.get("rerank") or None, options.get("num_frames"))
    output = Output(Path(out), tables=tables, title=title)
    scored = evaluate_run(encoder, data, scoring, output, run=run, progress=progress)
    if scored.page is None:
        raise DataError(f"no report: {scored.no_page}")
    return scored.page


def evaluate_run(
    encoder: Encoder,
    data: Dataset,
    scoring: Scoring,
    output: Output,
    *,
    run: Path | None = None,
    store_calibration: bool = False,
    progress: ProgressCallback | None = None,
) -> Scored:
    """Score an encoder on a data set; write ``evaluation.json`` and the page.

    Args:
        encoder: what embeds.
        data: of its splits, where it has several, the one it was loaded with.
        scoring, output: how, and where to.
        run: where the encoder was loaded from. For a run folder, the page also shows the training.
        store_calibration: fit a calibration of scores on the test images, and keep it in the encoder's file.
        progress: called with (done, total) as images are embedded.

    Raises as :func:`reidkit.evaluate` does, and :class:`WriteError`; without a pair of two identities
    there are metrics but no page.
    """
    if store_calibration and is_own(run):
        raise ConfigError(
            f"{OWN} comes with reidkit, and a calibration stored in it would be everybody's; save it as a "
            f'file of your own first: rk.load_encoder("{OWN}").save("mine.safetensors")'
        )
    output.check()
    check_evaluation(data, **scoring.options, rerank=scoring.rerank)
    data = with_frames(data, scoring.frames)
    source = embed(encoder, [data], scoring, progress)
    evaluations = tuple(evaluate(source, data, **options) for options in _ways(scoring))
    about = _about(data, encoder if run is None else run)
    scored = _write_results(output.folder, evaluations, about)
    sides = pooled_sides(source, data)
    camera_filter = scoring.options.get("camera_filter", own_camera_filter(data))
    if store_calibration and run is not None:
        scored = _store_calibration(scored, encoder, data, sides, camera_filter, run)
    folder = run if run is not None and run.is_dir() else None
    configuration = folder / "config.toml" if folder else None
    details = RunDetails(
        title=output.title or f"{_name(run, output)} on {data.name}",
        records=read_metrics(folder / "metrics.jsonl") if folder else (),
        configuration=configuration.read_text("utf-8") if configuration and configuration.is_file() else "",
        provenance=_provenance(encoder, data),
    )
    results = _results(evaluations, sides, camera_filter, data.galleries)
    return _write_page(scored, output, results, details, encoder)


def evaluate_all_splits(
    encoder: Encoder,
    splits: Sequence[Dataset],
    scoring: Scoring,
    folder: Path,
    *,
    run: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Scored:
    """Score every split of a data set and their mean; write ``evaluation.json`` into ``folder``."""
    for data in splits:
        check_evaluation(data, **scoring.options, rerank=scoring.rerank)
    splits = [with_frames(data, scoring.frames) for data in splits]
    source = embed(encoder, splits, scoring, progress)
    averages = tuple(evaluate_splits(source, splits, **options) for options in _ways(scoring))
    return _write_results(folder, averages, _about(splits[0], encoder if run is None else run))


def evaluate_file(path: Path, protocol: str, scoring: Scoring, output: Output) -> Scored:
    """The same for features that any program wrote into a file; their page shows no pictures.

    Raises as :func:`reidkit.evaluate_features` and :func:`reidkit.load_features` do.
    """
    output.check()
    query, gallery = load_features(path)
    evaluations = tuple(
        evaluate_features(query, gallery, protocol=protocol, **options) for options in _ways(scoring)
    )
    about = {"data": str(path), MADE_FROM: made_from(features=path)}
    scored = _write_results(output.folder, evaluations, about)
    sides = pooled_features(query, gallery, protocol)
    results = _results(evaluations, sides, scoring.options.get("camera_filter", PROTOCOLS[protocol]))
    details = RunDetails(title=output.title or path.name, provenance={"features": str(path), **_when()})
    return _write_page(scored, output, results, details)


def evaluate_branches(
    encoder: Encoder,
    data: Dataset,
    scoring: Scoring,
    folder: Path,
    *,
    run: Path,
    progress: ProgressCallback | None = None,
) -> tuple[Branches, Path]:
    """Score each feature of a network; write the ranks of every query's first match.

    Returns:
        The metrics, and ``branches.csv``.

    Raises as :func:`reidkit.evaluate` does.
    """
    check_evaluation(data, **scoring.options)
    data = with_frames(data, scoring.frames)
    images = _images([data], scoring)
    found = compare_branches(
        {
            name: evaluate(EmbeddedImages(images, part.embeddings), data, **scoring.options)
            for name, part in encoder.features_by_name(images, progress=progress).items()
        }
    )
    values = {**_about(data, run), "rows": found.rows()}
    write_atomically(folder / "branches.json", json.dumps(values, indent=2))
    query = middle_frames(data.query) if data.protocol == "tracklets" else data.query
    return found, write_atomically(folder / "branches.csv", found.table(query))


def embed(
    encoder: Encoder, datasets: Sequence[Dataset], scoring: Scoring, progress: ProgressCallback | None = None
) -> EmbeddedImages:
    """All that scoring these sets asks for, each image embedded once."""
    images = _images(datasets, scoring)
    return EmbeddedImages(images, encoder.features(images, progress=progress).embeddings)


def _images(datasets: Sequence[Dataset], scoring: Scoring) -> Split:
    asked = {name: scoring.options.get(name) for name in ("metric", "multi_query")}
    return distinct_images(part for data in datasets for part in images_to_encode(data, **asked))


def _ways(scoring: Scoring) -> list[dict[str, Any]]:
    """Options of each evaluation that is wanted."""
    plain = dict(scoring.options)
    return [plain] if scoring.rerank is None else [plain, {**plain, "rerank": scoring.rerank}]


def _about(data: Dataset, network: Path | Encoder) -> dict[str, Any]:
    place = network if isinstance(network, Path) else network.fingerprint
    return {"data": data.name, MADE_FROM: made_from(network=place, data=data.place)}


def _write_results(
    folder: Path, evaluations: tuple[Evaluation, ...] | tuple[SplitAverage, ...], about: Mapping[str, Any]
) -> Scored:
    scored = Scored(evaluations, about, folder / "evaluation.json")
    write_atomically(scored.results, json.dumps(scored.as_dict(), indent=2))
    return scored


def _store_calibration(
    scored: Scored, encoder: Encoder, data: Dataset, sides: PooledSides, camera_filter: str, run: Path
) -> Scored:
    from reidkit.encoders.loading import weights_file

    comparison = compare(sides.query, sides.gallery, camera_filter=camera_filter, gallery_rows=data.galleries)
    calibration = fit_calibration(comparison, source=f"the test images of {data.name}")
    encoder.calibrate(calibration)
    return replace(scored, calibration=calibration, encoder_file=encoder.save(weights_file(run)))


def _results(
    evaluations: Sequence[Evaluation],
    sides: PooledSides,
    camera_filter: str,
    galleries: Sequence[Sequence[int]] | None = None,
) -> Results:
    first, *reranked = evaluations
    return Results(
        evaluation=first,
        reranked=reranked[0] if reranked else None,
        galleries=galleries,
        camera_filter=camera_filter,
        **sides._asdict(),
    )


def _write_page(
    scored: Scored, output: Output, results: Results, details: RunDetails, encoder: Encoder | None = None
) -> Scored:
    if not output.page:
        return scored
    from reidkit.reports.page import write_report  # imports matplotlib

    try:
        page = write_report(
            output.folder / "report.html",
            results,
            details,
            encoder=encoder,
            calibration=None if encoder is None else encoder.calibration,
            tables=output.folder / "tables" if output.tables else None,
        )
    except DataError as error:  # there are metrics even where there is no negative pair to draw
        return replace(scored, no_page=str(error))
    return replace(scored, page=page)


def _provenance(encoder: Encoder, data: Dataset) -> dict[str, str]:
    network = dict(encoder.model.description)
    name = network.pop("name", type(encoder.model).__name__)
    options = ", ".join(f"{key} {value}" for key, value in network.items())
    return {
        "trained on": _training_data(encoder.card.get("data")),
        "tested on": f"{data.name}: {len(data.query):,} query, {len(data.gallery):,} gallery images",
        "network": f"{name} ({options})" if options else name,
        "input": f"{encoder.height} x {encoder.width} pixels",
        "embedding": f"{encoder.dim} values, fingerprint {encoder.fingerprint}",
        "epochs trained": str(encoder.card.get("epoch", "unknown")),
        **_when(),
    }


def _name(run: Path | None, output: Output) -> str:
    """What a page calls the network: its folder or file, or the results' folder where it has neither."""
    if run is None:
        return output.folder.name
    return run.name if run.is_dir() else run.stem


def _training_data(data: Any) -> str:
    """What an encoder's card says; cards travel, and one made elsewhere says what it likes."""
    if not isinstance(data, Mapping) or "name" not in data:
        return "unknown: the encoder does not say"
    images, identities, digest = (data.get(key, "?") for key in ("train_images", "train_identities", "hash"))
    return f"{data['name']}: {images} images of {identities} identities (fingerprint {digest})"


def _when() -> dict[str, str]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
