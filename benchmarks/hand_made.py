"""LOMO and learned distances on VIPeR's ten splits, beside published scores; write them into docs/results.md.

python benchmarks/hand_made.py $REIDKIT_DATA [--variants] [--write]

With --variants, what LOMO + XQDA owes to choices, in place of the other metrics.
"""

from __future__ import annotations

import argparse
import statistics
import unittest.mock
from pathlib import Path

import numpy as np

import reidkit as rk
from reidkit.encoders import lomo
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.metric_learning import METRICS, XQDA
from reidkit.types import Dataset, Features, Split
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
    parser.add_argument("--variants", action="store_true", help="LOMO + XQDA with other choices")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    splits = [rk.load_dataset("viper", options.data / "viper", split=split) for split in range(NUM_SPLITS)]
    described = Described(rk.load_encoder("lomo"))
    if options.variants:
        write("hand-made-variants", variants(splits, described), options.write)
        return
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
    write("hand-made", lines, options.write)


def write(section: str, lines: list[str], wanted: bool) -> None:
    print("\n".join(lines))
    if wanted:
        write_section(section, "\n".join(lines), script="hand_made")


def variants(splits: list[Dataset], described: Described) -> list[str]:
    """Rank-1 of LOMO + XQDA for probes of either camera, one thing changed in each row."""
    samples = [*splits[0].train, *splits[0].query]  # both images of all 632 people
    published = [{sample.identity for sample in data.train} for data in splits]
    everyone = np.unique([sample.identity for sample in samples])
    generator = np.random.default_rng(0)
    random = [set(generator.permutation(everyone)[:316].tolist()) for _ in range(NUM_SPLITS)]
    lines = ["| LOMO + XQDA | probes of camera a | of camera b |", "|---|---|---|"]

    def add(name: str, trained: list[set[int]], regularization: float = XQDA().regularization) -> None:
        features = described.features(samples)
        found = [rank_1(features, some, XQDA(regularization)) for some in trained]
        cells = [f"{statistics.mean(values):.1f}" for values in zip(*found, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)

    add("as it is", published)
    add("regularization 0.001 of unit vectors", published, 0.001)
    add("ten random splits, as in the paper", random)
    with unittest.mock.patch.object(lomo, "retinex", lambda image: image / 255):
        described.rows.clear()
        add("without Retinex", published)
    return [*lines, "", f"Mean rank-1 of {NUM_SPLITS} splits, in percent; published: 40.0."]


def rank_1(features: Features, trained: set[int], metric: XQDA) -> list[float]:
    """In percent, for probes of the first and of the second camera; people who were not trained on."""
    cameras, is_trained = np.unique(features.cameras), np.isin(features.identities, list(trained))
    learned = metric.fit(rows_of(features, is_trained))
    sides = [rows_of(features, ~is_trained & (features.cameras == camera)) for camera in cameras]
    return [
        100 * evaluate_features(query, gallery, metric=learned, camera_filter="none").rank(1)
        for query, gallery in (sides, sides[::-1])
    ]


def rows_of(features: Features, rows: np.ndarray) -> Features:
    return Features(features.embeddings[rows], features.identities[rows], features.cameras[rows])


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
