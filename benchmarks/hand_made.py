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
    "scs": "| other features + SCS, as published | 53.5 | | | |",
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
    described = Described(rk.load_encoder("lomo"))
    lines = [f"| | {' | '.join(f'rank-{rank}' for rank in RANKS)} |", "|---" * (len(RANKS) + 1) + "|"]
    for metric in (None, *METRICS):
        described.name = "stripes" if metric in STRIPES else "whole"
        results = [rk.evaluate(described, data, metric=metric) for data in splits]
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


class Described:
    """LOMO's features of the images, each described once; ``name`` says which feature is given."""

    def __init__(self, encoder: rk.Encoder) -> None:
        self.encoder = encoder
        self.name = "whole"
        self.rows: dict[object, dict[str, np.ndarray]] = {}

    def features(self, split: Split, **options: object) -> Features:
        new = [sample for sample in split if sample.path not in self.rows]
        if new:
            found = self.encoder.features_by_name(new)
            for place, sample in enumerate(new):
                self.rows[sample.path] = {name: part.embeddings[place] for name, part in found.items()}
        return Features(
            np.stack([self.rows[sample.path][self.name] for sample in split]),
            np.array([sample.identity for sample in split]),
            np.array([sample.camera for sample in split]),
        )


if __name__ == "__main__":
    main()
