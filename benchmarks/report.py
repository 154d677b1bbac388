"""Time of a report and of a comparison at Market-1501's size; writes them into docs/results.md.

    python benchmarks/report.py [--write] [--dim 512]

Labels are Market-1501's (see reranking.py), embeddings are made up, and every image is one and the same small
JPEG, so that ranked lists are read, scaled and written as they would be. An encoder's activation maps are not
in it: their time is that of the network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from reidkit.analysis.calibration import fit_calibration
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.reports.comparison import ComparedRun, write_comparison
from reidkit.reports.inputs import Results, RunDetails
from reidkit.reports.page import write_report
from reidkit.reports.sections import analyse
from reidkit.types import Features, Sample, Split
from reranking import market_features
from results import processor, write_section

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=512, help="values an embedding")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    query, gallery = market_features(options.dim)
    noise = np.random.default_rng(1).normal(size=query.embeddings.shape).astype(np.float32)
    other = replace(query, embeddings=query.embeddings + 0.02 * noise)
    lines = ["| | time | processor time | size of the page |", "|---|---|---|---|"]

    def row(name: str, function: Callable[[], T]) -> T:
        started, started_cpu = time.perf_counter(), time.process_time()
        result = function()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
        size = f"{result.stat().st_size / 1e6:.1f} MB" if isinstance(result, Path) else ""
        lines.append(f"| {name} | {seconds:.1f} s | {cpu_seconds:.1f} s | {size} |")
        print(lines[-1], flush=True)
        return result

    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        pixels = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photo)
        query_split, gallery_split = samples(query, photo), samples(gallery, photo)
        evaluation = row("evaluation", lambda: evaluate_features(query, gallery))
        row(
            "the pass of the report",
            lambda: analyse(compare(query, gallery)),
        )
        calibration = fit_calibration(compare(query, gallery), num_resamples=1)
        row(
            "report with tables, the pass included",
            lambda: write_report(
                Path(folder) / "report.html",
                Results(
                    evaluation=evaluation,
                    query=query,
                    gallery=gallery,
                    query_split=query_split,
                    gallery_split=gallery_split,
                ),
                RunDetails(title="made up"),
                calibration=calibration,
                tables=Path(folder) / "tables",
            ),
        )
        runs = [
            ComparedRun(name, evaluate_features(side, gallery), side, gallery, query_split, gallery_split)
            for name, side in (("first", other), ("second", query))
        ]
        row("comparison of two runs", lambda: write_comparison(Path(folder) / "comparison.html", *runs))
    lines += ["", f"{len(query):,} x {len(gallery):,} x {options.dim}; {processor()}."]
    print("\n".join(lines[-2:]))
    if options.write:
        write_section("report", "\n".join(lines))


def samples(features: Features, photo: Path) -> Split:
    """A sample for each row, all of one image."""
    return tuple(
        Sample(photo, int(identity), int(camera), index)
        for index, (identity, camera) in enumerate(zip(features.identities, features.cameras, strict=True))
    )


if __name__ == "__main__":
    main()
