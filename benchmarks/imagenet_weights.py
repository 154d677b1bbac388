"""Networks from ImageNet weights on real images: train, score, write the table into docs/results.md.

    python benchmarks/imagenet_weights.py $REIDKIT_DATA/market1501-500 [--out runs] [--only NAME ...]
    python benchmarks/imagenet_weights.py $REIDKIT_DATA/market1501-500 --write

A run that is complete is not trained again. `--write` writes the rows that are there and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

import reidkit as rk
from reidkit.analysis.bootstrap import paired_difference
from results import device, in_points, spread, write_section

LARGE = ("transform.height=256", "transform.width=128", "transform.shift=12")
TRIHARD = ("loss.metric.kind=trihard", "loss.metric.margin=0.3")
MSML = ("loss.metric.kind=msml", "loss.metric.margin=0.3", "loss.metric.temperature=0")
WITHOUT_METRIC_LOSS = ("loss.metric.weight=0",)
IN_MEMORY = ("train.num_workers=0", "train.cache=ram")
SEEDS = (0, 1, 2)
# Name of the row: recipe, what is changed in it, name of the row that it is compared with.
ROWS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "small-strong": ("small-strong", (), "small-strong with TriHard"),
    "small-strong with TriHard": ("small-strong", TRIHARD, ""),
    "small-strong with smooth MSML of margin 0.3": (
        "small-strong",
        ("loss.metric.margin=0.3",),
        "small-strong with TriHard",
    ),
    "small-strong with MSML": ("small-strong", MSML, "small-strong with TriHard"),
    "small-strong with the identity loss alone": (
        "small-strong",
        WITHOUT_METRIC_LOSS,
        "small-strong with TriHard",
    ),
    "small-strong with TriHard at 256 x 128": ("small-strong", (*TRIHARD, *LARGE), ""),
    "small-strong at 256 x 128": ("small-strong", LARGE, "small-strong with TriHard at 256 x 128"),
    "small-efficientnet-lite0": ("small-efficientnet-lite0", (), ""),
    "small-efficientnet-lite0 at 256 x 128": ("small-efficientnet-lite0", LARGE, ""),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in Market-1501's layout")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--only", nargs="*", help="some of the rows")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="some of the seeds")
    parser.add_argument("--write", action="store_true", help="write what is there, train nothing")
    options = parser.parse_args()
    runs = {name: folders(name, options.out) for name in ROWS}
    if not options.write:
        for name in options.only or ROWS:
            for seed in options.seeds:
                train(name, seed, runs[name][seed], options.data)
    table = "\n".join(
        [
            "| recipe | seeds | steps | mAP | rank-1 | rank-5 | mINP | vs TriHard | CPU minutes |",
            "|---|---|---|---|---|---|---|---|---|",
            *[row(name, runs, options.data) for name in ROWS if any(map(done, runs[name].values()))],
            "",
            "Mean ± sample standard deviation over seeds. Difference in mAP points to the same training with "
            "TriHard, on the same queries and seeds, with the 95 % interval over identities, and over seeds "
            "where there are several. CPU minutes of the runs where they were recorded; one thread a run, "
            f"shared with other work, {device()}.",
        ]
    )
    print(table)
    if options.write:
        write_section("imagenet-weights", table)


def folders(name: str, out: Path) -> dict[int, Path]:
    return {seed: out / f"{name.replace(' ', '-')}-{seed}" for seed in SEEDS}


def done(run: Path) -> bool:
    return (run / "scores.json").exists()


def train(name: str, seed: int, run: Path, data: Path) -> None:
    if done(run):
        return
    recipe, changes, _ = ROWS[name]
    is_new, before = not run.exists(), cpu_minutes()
    reid("train", recipe, f"data.root={data}", f"seed={seed}", *IN_MEMORY, *changes, "--out", run)
    if is_new:  # what goes on with an earlier run takes only a part of its time
        (run / "cpu_minutes.txt").write_text(f"{cpu_minutes() - before:.1f}")
    (run / "scores.json").write_text(reid("evaluate", run, "--json"))


def cpu_minutes() -> float:
    """Of the commands run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def row(name: str, runs: dict[str, dict[int, Path]], data: Path) -> str:
    finished = {seed: run for seed, run in runs[name].items() if done(run)}
    scores = [json.loads((run / "scores.json").read_text()) for run in finished.values()]
    figures = [spread([100 * s[key] for s in scores]) for key in ("mAP", "rank-1", "rank-5", "mINP")]
    first = next(iter(finished.values()))
    steps = json.loads((first / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    files = [run / "cpu_minutes.txt" for run in finished.values()]
    minutes = spread([float(file.read_text()) for file in files if file.exists()])
    versus = difference(runs[ROWS[name][2]], finished, data) if ROWS[name][2] else ""
    return f"| {name} | {len(finished)} | {steps} | {' | '.join(figures)} | {versus} | {minutes} |"


def difference(others: dict[int, Path], own: dict[int, Path], data: Path) -> str:
    """To the other row, over the seeds that both have."""
    seeds = [seed for seed in own if done(others[seed])]
    if not seeds:
        return ""
    first, second = (
        np.stack([average_precisions(runs[seed], data) for seed in seeds]) for runs in (others, own)
    )
    identities = [sample.identity for sample in rk.load_dataset("market1501", root=data).query]
    found = paired_difference(first, second, identities=identities)
    return in_points(found)


def average_precisions(run: Path, data: Path) -> np.ndarray:
    """Of each query; measured once."""
    file = run / "average_precisions.npy"
    if not file.exists():
        found = rk.evaluate(rk.load_encoder(run), rk.load_dataset("market1501", root=data))
        np.save(file, found.average_precisions)
    return np.load(file)


def reid(*words: object) -> str:
    command = [sys.executable, "-m", "reidkit", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
