"""What several views of each image gain, and what they cost.

    python benchmarks/views.py $REIDKIT_DATA/market1501-500 ENCODER...

Each ENCODER is a run folder or an encoder's file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import reidkit as rk
from reidkit.encoders.views import VIEWS
from results import processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="in Market-1501's layout")
    parser.add_argument("encoders", nargs="+", type=Path)
    given = parser.parse_args()
    data = rk.load_dataset("market1501", given.data)
    num = len(data.query) + len(data.gallery)
    lines = ["| network | views | mAP | rank-1 | time |", "|---|---|---|---|---|"]
    for path in given.encoders:
        rows = {views: measured(path, views, data) for views in VIEWS}
        usual = rows["whole"][2]
        lines += [
            f"| {path.stem} | {views} | {100 * mean_ap:.1f} | {100 * first:.1f} | {seconds / usual:.1f} x |"
            for views, (mean_ap, first, seconds) in rows.items()
        ]
    lines += ["", f"{num:,} images, processor time of embedding and ranking, {processor()}."]
    print("\n".join(lines))


def measured(path: Path, views: str, data: rk.Dataset) -> tuple[float, float, float]:
    """Mean AP, rank-1 rate, and processor seconds."""
    encoder = rk.load_encoder(path, views=views, **({} if path.suffix == ".xml" else {"backend": "torch"}))
    encoder.encode(np.zeros((1, encoder.height, encoder.width, 3), np.uint8)[0])
    began = time.process_time()
    scored = rk.evaluate(encoder, data)
    return scored.mean_average_precision, float(scored.cmc[0]), time.process_time() - began


if __name__ == "__main__":
    main()
