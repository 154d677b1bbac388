"""Two runs, or files of features, measured on the same images and set side by side.

What ``reid compare`` does, as a function that returns a value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reidkit.analysis.bootstrap import PairedDifference
from reidkit.analysis.roc import DistanceDistributions
from reidkit.evaluation.evaluation import check_evaluation, evaluate, evaluate_features, own_camera_filter
from reidkit.evaluation.feature_files import holds_features, load_features
from reidkit.evaluation.protocols import PROTOCOLS
from reidkit.files import write_atomically
from reidkit.progress import ProgressCallback
from reidkit.reports.chosen_data import ChosenData, Wanted, check_same_training_data, choose_data
from reidkit.reports.comparison import ComparedRun, Differences, differences, write_comparison
from reidkit.reports.inputs import pooled_features, pooled_sides
from reidkit.reports.results_folder import MADE_FROM, folder_in_runs, made_from
from reidkit.reports.run_report import Scoring, embed
from reidkit.training.trackers import read_metrics
from reidkit.types import Dataset

SURE = 0.05
"""A difference is called one where its p-value is below."""


@dataclass(frozen=True, slots=True, eq=False)
class RunComparison:
    """Two runs, what sets them apart, and what was written of it.

    Attributes:
        first, second: as measured; differences are ``second`` less ``first``.
        found: their differences.
        origin: what was compared on what.
        results: ``comparison.json``.
        page: the page.
        left_out: a sentence on images of the data set that are in no part; empty where there are none.
    """

    first: ComparedRun
    second: ComparedRun
    found: Differences
    origin: dict[str, str]
    results: Path
    page: Path
    left_out: str = ""

    @property
    def verdict(self) -> str:
        """Which is better, and how sure that is, in one sentence."""
        metric, found = self.found.rows[0].name, self.found.rows[0].paired
        if found is None:
            return (
                f"no difference shown: one identity asks alone, and how {metric} varies cannot be told from "
                "it"
            )
        points, (low, high) = 100 * found.difference, (100 * end for end in found.interval)
        numbers = (
            f"{metric} {points:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, "
            f"p = {found.p_value:.3g}, over {found.num_identities:,} identities"
        )
        if found.p_value >= SURE:
            return f"no difference shown: {numbers}"
        return f"{self.second.name} is {'better' if points > 0 else 'worse'}: {numbers}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: metrics of both with their differences, and their distance distributions."""
        return {
            "first": _values_of(self.first, self.found.distances[0]),
            "second": _values_of(self.second, self.found.distances[1]),
            "paired": {row.name: _difference(row.paired) if row.paired else None for row in self.found.rows},
            "verdict": self.verdict,
            MADE_FROM: self.origin,
        }


def compare_runs(
    first: Path,
    second: Path,
    wanted: Wanted,
    *,
    protocol: str = "market1501",
    camera_filter: str | None = None,
    out: Path | None = None,
    progress: ProgressCallback | None = None,
) -> RunComparison:
    """Measure two run folders, networks' files or files of features on the same images; write a page.

    Args:
        first, second: what is compared with, and what is compared.
        wanted: what to test networks on; the data that they were trained on, where left out.
        protocol: for two files of features; with a network, the protocol of its data is used.
        camera_filter: instead of the protocol's.
        out: folder for the results; ``runs/FIRST-vs-SECOND`` where left out.
        progress: called with (done, total) as images are embedded.

    Raises:
        ConfigError: the data is not named anywhere, or an option does not apply to what is compared.
        CheckpointError: there is no such run or file.
        DataError: other queries or another gallery, or as :func:`reidkit.evaluate` does.
        WriteError: a file cannot be written.
    """
    chosen = _common_data(networks_among([first, second]), wanted)
    data = None if chosen is None else chosen.splits[0]
    origin = made_from(first=first, second=second, **({} if data is None else {"data": data.place}))
    names = [path.name if path.is_dir() else path.stem for path in (first, second)]
    folder = out or folder_in_runs("-vs-".join(names), origin)
    if names[0] == names[1]:
        names = [str(first), str(second)]
    one, other = (
        replace(_measured(path, data, protocol, camera_filter, progress), name=name)
        for name, path in zip(names, (first, second), strict=True)
    )
    found = differences(one, other)
    page = write_comparison(folder / "comparison.html", one, other, found)
    left_out = "" if chosen is None else chosen.left_out
    comparison = RunComparison(one, other, found, origin, folder / "comparison.json", page, left_out)
    write_atomically(comparison.results, json.dumps(comparison.as_dict(), indent=2))
    return comparison


def networks_among(paths: Sequence[Path]) -> list[Path]:
    """Those that embed images; the others are files of features.

    Raises :class:`CheckpointError` for what is neither.
    """
    networks = [path for path in paths if not holds_features(path)]
    if networks:
        from reidkit.encoders.loading import weights_file

        for path in networks:
            weights_file(path)  # says what is wrong with it before anything is embedded
    return networks


def _common_data(networks: Sequence[Path], wanted: Wanted) -> ChosenData | None:
    """What networks are tested on; None for files of features alone."""
    if not networks:
        return None
    trained = [path for path in networks if (path / "config.toml").is_file()]
    if wanted.name is None:
        check_same_training_data(trained)
    return choose_data((trained or networks)[0], wanted)


def _measured(
    path: Path,
    data: Dataset | None,
    protocol: str,
    camera_filter: str | None,
    progress: ProgressCallback | None,
) -> ComparedRun:
    if holds_features(path):
        return _measured_features(path, data, protocol, camera_filter)
    assert data is not None
    return _measured_network(path, data, camera_filter, progress)


def _measured_network(
    path: Path, data: Dataset, camera_filter: str | None, progress: ProgressCallback | None
) -> ComparedRun:
    from reidkit.encoders.loading import load_encoder

    check_evaluation(data, camera_filter=camera_filter)
    source = embed(load_encoder(path), [data], Scoring(), progress)
    return ComparedRun(
        str(path),
        evaluate(source, data, camera_filter=camera_filter),
        **pooled_sides(source, data)._asdict(),
        camera_filter=camera_filter or own_camera_filter(data),
        galleries=data.galleries,
        records=read_metrics(path / "metrics.jsonl") if path.is_dir() else (),
    )


def _measured_features(
    path: Path, data: Dataset | None, protocol: str, camera_filter: str | None
) -> ComparedRun:
    """A file of features; beside a network, under the protocol of the network's data."""
    query, gallery = load_features(path)
    galleries = None
    if data is not None:
        protocol, galleries = data.protocol, data.galleries
        camera_filter = camera_filter or own_camera_filter(data)
    camera_filter = camera_filter or PROTOCOLS.get(protocol)
    evaluation = evaluate_features(
        query, gallery, protocol=protocol, camera_filter=camera_filter, galleries=galleries
    )
    return ComparedRun(
        str(path),
        evaluation,
        **pooled_features(query, gallery, protocol)._asdict(),
        camera_filter=camera_filter or "same_identity",
        galleries=galleries,
    )


def _values_of(run: ComparedRun, distances: DistanceDistributions) -> dict[str, Any]:
    return {
        "name": run.name,
        **run.evaluation.as_dict(),
        "distances": {
            "overlap": distances.overlap,
            "gap": distances.gap,
            "mean_positive": distances.mean_positive,
            "mean_negative": distances.mean_negative,
        },
    }


def _difference(found: PairedDifference) -> dict[str, Any]:
    return {"difference": found.difference, "interval": list(found.interval), "p_value": found.p_value}
