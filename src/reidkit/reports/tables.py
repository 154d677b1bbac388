"""A report's numbers as CSV and JSON and its charts as PNG, for those who go on working with them."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidkit.analysis.breakdown import RECALL_LEVELS
from reidkit.evaluation.row_labels import label_name
from reidkit.files import write_atomically
from reidkit.reports.charts import Chart, ranked_list_picture
from reidkit.reports.parts import RankedList, Shown
from reidkit.reports.sections import Analysis, Metric, Overlay, rates_seen
from reidkit.types import Evaluation


def write_tables(
    folder: str | Path,
    evaluation: Evaluation,
    analysis: Analysis,
    metrics: Sequence[Metric],
    query: Shown,
    charts: Iterable[Chart],
) -> None:
    """Write the tables of a report into ``folder``; shares are fractions, what is not known is empty.

    Always the same eight files, with no rows where there is nothing to say, and a PNG for each chart.
    Raises :class:`WriteError` where a file cannot be written.
    """
    folder = Path(folder)
    found = analysis.distances
    write_csv(folder / "cmc.csv", ("rank", "share"), enumerate(evaluation.cmc.tolist(), start=1))
    write_csv(
        folder / "precision_recall.csv",
        ("recall", "precision"),
        zip(RECALL_LEVELS.round(2).tolist(), analysis.precisions.tolist(), strict=True),
    )
    write_csv(
        folder / "roc.csv",
        ("threshold", "false_positive_rate", "true_positive_rate"),
        zip(
            analysis.roc.thresholds.round(4).tolist(),
            analysis.roc.false_positive_rates.tolist(),
            analysis.roc.true_positive_rates.tolist(),
            strict=True,
        ),
    )
    write_csv(
        folder / "distances.csv",
        ("from", "to", "positive_pairs", "negative_pairs"),
        zip(
            found.edges[:-1].round(6).tolist(),
            found.edges[1:].round(6).tolist(),
            found.positive.tolist(),
            found.negative.tolist(),
            strict=True,
        ),
    )
    write_csv(
        folder / "camera_pairs.csv",
        ("query_camera", "gallery_camera", "num_queries", "mAP", "rank-1"),
        _camera_rows(analysis),
    )
    write_csv(
        folder / "confused.csv",
        ("identity", "taken_for", "num_queries"),
        (
            (label_name(item.identity), label_name(item.taken_for), item.num_queries)
            for item in analysis.confusions
        ),
    )
    write_csv(
        folder / "queries.csv",
        ("row", "identity", "camera", "average_precision", "first_match_rank", "path"),
        _query_rows(evaluation, query),
    )
    values = {
        **evaluation.as_dict(),
        "intervals_95": {metric.name: list(metric.interval) for metric in metrics if metric.interval},
        "equal_error_rate": analysis.roc.equal_error_rate,
        "true_positive_rate_at": {
            f"{rate:g}": analysis.roc.true_positive_rate_at(rate) for rate in rates_seen(analysis.roc)
        },
        "num_positive_pairs": found.num_positive,
        "num_negative_pairs": found.num_negative,
        "distance_overlap": found.overlap,
        "hardest_positive_distance": found.hardest_positive,
        "hardest_negative_distance": found.hardest_negative,
        "distance_gap": found.gap,
    }
    write_atomically(folder / "scores.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
    for chart in charts:
        write_atomically(folder / f"{chart.name}.png", chart.png())


def write_lists(
    folder: str | Path, groups: Mapping[str, Sequence[RankedList]], overlays: Sequence[Overlay]
) -> None:
    """Write the ranked lists of each group, as a table and a picture, and the activation maps as pictures.

    An image that could not be read is in the table alone.
    """
    folder = Path(folder)
    write_csv(
        folder / "ranked_lists.csv",
        ("group", "query_row", "rank", "gallery_row", "score", "is_match", "image"),
        (
            (name, shown.row, rank, row, hit.score, int(bool(hit.is_match)), hit.name)
            for name, lists in groups.items()
            for shown in lists
            for rank, (row, hit) in enumerate(zip(shown.rows, shown.hits, strict=True), start=1)
        ),
    )
    for name, lists in groups.items():
        strips = [
            (_image(shown.query.data_uri), [(_image(h.data_uri), h.score or 0.0, h.is_match) for h in hits])
            for shown in lists
            if shown.query.data_uri and (hits := [hit for hit in shown.hits if hit.data_uri])
        ]
        if strips:
            write_atomically(folder / f"ranked_{name}.png", _png(ranked_list_picture(strips)))
    for number, overlay in enumerate(overlays, start=1):
        for side, data_uri in (("query", overlay.query_map), ("hit", overlay.hit_map)):
            if data_uri:
                write_atomically(folder / f"activation_{number}_{side}.png", _png(_image(data_uri)))


def _image(data_uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))).convert("RGB")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A header and rows; NaN is written as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["" if value != value else value for value in row] for row in rows)
    return write_atomically(path, text.getvalue())


def _camera_rows(analysis: Analysis) -> Iterable[Sequence[Any]]:
    found = analysis.cameras
    if found is None:
        return
    for row, column in np.ndindex(found.num_queries.shape):
        yield (
            label_name(found.query_cameras[row]),
            label_name(found.gallery_cameras[column]),
            int(found.num_queries[row, column]),
            float(found.mean_average_precision[row, column]),
            float(found.rank1[row, column]),
        )


def _query_rows(evaluation: Evaluation, query: Shown) -> Iterable[Sequence[Any]]:
    for row, average_precision in enumerate(evaluation.average_precisions.tolist()):
        rank = int(evaluation.first_match_ranks[row])
        yield (
            row,
            query.identity(row),
            query.camera(row),
            average_precision,
            rank or "",
            "" if query.split is None else str(query.split[row].path),
        )
