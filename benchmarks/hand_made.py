"""LOMO and learned distances on VIPeR's ten splits, beside published scores; write them into docs/results.md.

python benchmarks/hand_made.py $REIDKIT_DATA [--write]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

import reidkit as rk
from reidkit.evaluation.metric_learning import METRICS
from reidkit.types import Features, Split
from results import processor, write_section

NUM_SPLITS = 10
RANKS = (1, 5, 10, 20)
PUBLISHED = {
    "xqda": "| LOMO + XQDA, as published | 40.0 | 68.1 | 80.5 | 91.1 |",
    "scs": "| its own features + SCS, as published | 53.5 | 82.6 | 91.5 | 96.7 |",
}
STRIPES = ("scs",)  # metrics of embeddings made of stripes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with viper/")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    splits = [rk.load_dataset("viper", options.data / "viper", split=split) for split in range(NUM_SPLITS)]
    whole, stripes = (
        Remembering(rk.load_encoder("lomo", feature=feature)) for feature in ("whole", "stripes")
    )
    lines = [f"| | {' | '.join(f'rank-{rank}' for rank in RANKS)} |", "|---" * (len(RANKS) + 1) + "|"]
    for metric in (None, *METRICS):
        encoder = stripes if metric in STRIPES else whole
        results = [rk.evaluate(encoder, data, metric=metric) for data in splits]
        columns = [[100 * result.rank(rank) for result in results] for rank in RANKS]
        cells = [f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" for values in columns]
        name = f"LOMO{' of stripes' * (metric in STRIPES)}{f' + {metric.upper()}' if metric else ''}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += [PUBLISHED[metric]] if metric in PUBLISHED else []
        print("\n".join(lines[-2:]), flush=True)
    lines += [
        "",
        f"Both directions; mean ± standard deviation of {NUM_SPLITS} splits, in percent; {processor()}.",
    ]
    if options.write:
        write_section("hand-made", "\n".join(lines))


class Remembering:
    """An encoder that embeds each image once."""

    def __init__(self, encoder: rk.Encoder) -> None:
        self.encoder = encoder
        self.rows: dict[object, np.ndarray] = {}

    def features(self, split: Split, **options: object) -> Features:
        new = [sample for sample in split if sample.path not in self.rows]
        if new:
            self.rows.update(zip((sample.path for sample in new), self.encoder.encode(new), strict=True))
        return Features(
            np.stack([self.rows[sample.path] for sample in split]),
            np.array([sample.identity for sample in split]),
            np.array([sample.camera for sample in split]),
        )


if __name__ == "__main__":
    main()
