"""What several views of each image gain, and what they cost; --write puts the table into docs/results.md.

    python benchmarks/views.py $REIDKIT_DATA/market1501-500 retail-0288.xml reidkit-small --write

Each ENCODER is a run folder, an encoder's file, or the name of one of ours. Every view is embedded once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import reidkit as rk
from reidkit.encoders.own import place_of
from reidkit.encoders.views import VIEWS
from reidkit.evaluation import evaluate_features
from reidkit.images.reading import load_image
from reidkit.images.transforms import resized
from reidkit.types import Sample
from results import processor, write_section


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="in Market-1501's layout")
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    given = parser.parse_args()
    data = rk.load_dataset("market1501", given.data)
    lines = ["| network | views | mAP | rank-1 | work |", "|---|---|---|---|---|"]
    for path in given.encoders:
        lines += rows_of(path, data)
    num = len(data.query) + len(data.gallery)
    lines += ["", f"{num:,} images of 100 people; work is processor time of embedding, {processor()}."]
    print("\n".join(lines))
    if given.write:
        write_section("views", "\n".join(lines))


def rows_of(name: str, data: rk.Dataset) -> list[str]:
    """The table's rows of one network. The views of "crops" begin with those of "whole" and "flip"."""
    encoder = rk.load_encoder(place_of(name))
    samples = [*data.query, *data.gallery]
    size = {"height": encoder.height, "width": encoder.width}
    images = np.stack([resized(load_image(sample.path), **size) for sample in samples])
    encoder.encode(images[0])
    encoder.expect(10 * len(images))
    views_of = {sum(1 for _ in views(images[:1])): name for name, views in VIEWS.items()}
    total = np.zeros(1)
    rows, seconds = [], []
    for number, view in enumerate(VIEWS["crops"](images), start=1):
        began = time.process_time()
        total = total + encoder.encode(list(view))
        seconds.append(time.process_time() - began)
        if number in views_of:
            scored = evaluate_features(
                features(total[: len(data.query)], data.query),
                features(total[len(data.query) :], data.gallery),
            )
            scores = f"{100 * scored.mean_average_precision:.1f} | {100 * scored.cmc[0]:.1f}"
            work = f"{sum(seconds) / seconds[0]:.1f} x"
            rows.append(f"| {Path(name).stem} | {views_of[number]} | {scores} | {work} |")
    return rows


def features(summed: NDArray[np.float64], samples: Sequence[Sample]) -> rk.Features:
    return rk.Features(
        summed / np.linalg.norm(summed, axis=1, keepdims=True),
        np.array([sample.identity for sample in samples]),
        np.array([sample.camera for sample in samples]),
    )


if __name__ == "__main__":
    main()
