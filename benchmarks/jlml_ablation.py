"""Train `small-jlml` and its ablations with several seeds on real images; write docs/results.md.

    python benchmarks/jlml_ablation.py $REIDKIT_DATA/market1501-500 [--seeds 3] [--jobs 2]

Each run is one change of the recipe, named in the table. A run that is complete is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from reidkit.encoders.encoder_file import load_weights
from reidkit.losses.sparsity import Norm, share_of_small_groups
from results import processor, spread, write_section

ABLATIONS = {
    "joint": [],
    "global only": ["model.branches=global"],
    "local only": ["model.branches=local"],
    "without sparsity": ["loss.sparsity_*.weight=0"],
}
SCORES = ("mAP", "rank-1", "rank-5")
LAYERS: dict[str, Norm] = {"global_feature.weight": "l21", "local_feature.weight": "l12"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in Market-1501's layout")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, a core each")
    options = parser.parse_args()
    cells = [(name, seed) for seed in range(options.seeds) for name in ABLATIONS]
    with ThreadPoolExecutor(options.jobs) as pool:
        scores = dict(
            zip(
                cells,
                pool.map(lambda cell: train_and_score(*cell, options.data, options.out), cells),
                strict=True,
            )
        )
    rows = []
    for name, changes in ABLATIONS.items():
        runs = [scores[name, seed] for seed in range(options.seeds)]
        columns = [
            spread([100 * run[column] for run in runs if column in run]) for column in (*SCORES, *LAYERS)
        ]
        rows.append(f"| {name} | `{' '.join(changes) or 'as it is'}` | {' | '.join(columns)} |")
    table = [
        "| small-jlml | change | " + " | ".join(SCORES) + " | small columns, global | small stripes, local |",
        "|---|---|" + "---|" * (len(SCORES) + len(LAYERS)),
        *rows,
        "",
        f"Mean and standard deviation over {options.seeds} seeds; {options.jobs} runs at a time with one "
        f"core each ({processor()}), torch {torch.__version__}. In percent. Small: root mean square weight "
        "below 1e-3, of the feature layer's inputs (global) or of each output's four stripes (local).",
    ]
    write_section("jlml-ablation", "\n".join(table))
    print("\n".join(table))


def train_and_score(name: str, seed: int, data: Path, out: Path) -> dict[str, float]:
    run = out / f"small-jlml-{name.replace(' ', '-')}-{seed}"
    reid("train", "small-jlml", f"data.root={data}", f"seed={seed}", *ABLATIONS[name], "--out", run)
    scores: dict[str, float] = json.loads(reid("evaluate", run, "--json"))
    print(f"{name}, seed {seed}: mAP {scores['mAP']:.3f}, rank-1 {scores['rank-1']:.3f}", flush=True)
    weights, _ = load_weights(run / "last.safetensors")
    for layer, norm in LAYERS.items():
        if layer in weights:
            scores[layer] = share_of_small_groups(weights[layer], norm=norm)
    return scores


def reid(*words: object) -> str:
    command = [sys.executable, "-m", "reidkit", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


if __name__ == "__main__":
    main()
