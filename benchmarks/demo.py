"""Run `reid demo` and a colour-histogram ranking on the same people; write both into docs/results.md.

python benchmarks/demo.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import reidkit as rk
from reidkit.images.reading import load_image
from reidkit.types import Features, Split
from results import processor, write_section

STRIPES, BINS = 6, 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo-benchmark"))
    out = parser.parse_args().out
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "reidkit", "demo", "--out", str(out)], check=True)
    seconds = time.perf_counter() - started
    scores = json.loads((out / "evaluation.json").read_text())
    data = rk.load_dataset("synthetic", out / "people")
    rows = [f"| the demo's training | {100 * scores['mAP']:.1f} | {100 * scores['rank-1']:.1f} |"]
    for mode in ("RGB", "HSV"):
        for stripes in (1, STRIPES):
            found = rk.evaluate_features(
                histograms(data.query, mode, stripes), histograms(data.gallery, mode, stripes)
            )
            name = f"{mode} histogram, {BINS} x {BINS} x {BINS}" + (
                f", {stripes} stripes" if stripes > 1 else ""
            )
            rows.append(f"| {name} | {100 * found.mean_average_precision:.1f} | {100 * found.rank(1):.1f} |")
    table = ["| ranking by | mAP | rank-1 |", "|---|---|---|", *rows, ""]
    table.append(f"The whole demo took {seconds:.0f} s on {os.cpu_count()} CPU cores ({processor()}).")
    write_section("demo", "\n".join(table))
    print("\n".join(table))


def histograms(split: Split, mode: str, stripes: int) -> Features:
    """Unit features whose cosine is the Bhattacharyya coefficient of two colour histograms."""
    rows = np.stack([histogram(load_image(sample.path), mode, stripes) for sample in split])
    identities = np.array([sample.identity for sample in split])
    return Features(rows, identities, np.array([sample.camera for sample in split]))


def histogram(image: Image.Image, mode: str, stripes: int) -> NDArray[np.float32]:
    """Square roots of the shares of colours in each horizontal stripe, (stripes * BINS ** 3,)."""
    pixels = np.asarray(image.convert(mode)) // (256 // BINS)
    codes = (pixels * np.array([BINS * BINS, BINS, 1])).sum(axis=2)
    counts = [
        np.bincount(part.ravel(), minlength=BINS**3) / part.size for part in np.array_split(codes, stripes)
    ]
    return np.sqrt(np.concatenate(counts) / stripes).astype(np.float32)


if __name__ == "__main__":
    main()
