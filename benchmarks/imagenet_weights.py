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

from results import device, write_section

LARGE = ("transform.height=256", "transform.width=128", "transform.shift=12")
WITHOUT_METRIC_LOSS = ("loss.metric.weight=0",)
SMOOTH_MSML = ("loss.metric.kind=msml", "loss.metric.temperature=0.1")
IN_MEMORY = ("train.num_workers=0", "train.cache=ram")
# Name of the row: recipe, what is changed in it, seeds.
ROWS: dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]] = {
    "small-cpu, ResNet18 from random weights": ("small-cpu", (), (0,)),
    "small-strong, MobileNetV2": ("small-strong", (), (0, 1, 2)),
    "small-strong with the identity loss alone, MobileNetV2": (
        "small-strong",
        WITHOUT_METRIC_LOSS,
        (0, 1, 2),
    ),
    "small-strong with smooth MSML, MobileNetV2": ("small-strong", SMOOTH_MSML, (0, 1, 2)),
    "small-strong with smooth MSML of margin 1, MobileNetV2": (
        "small-strong",
        (*SMOOTH_MSML, "loss.metric.margin=1.0"),
        (0, 1, 2),
    ),
    "small-strong at 256 x 128, MobileNetV2": ("small-strong", LARGE, (0, 1, 2)),
    "small-efficientnet-lite0": ("small-efficientnet-lite0", (), (0, 1, 2)),
    "small-efficientnet-lite0 at 256 x 128": ("small-efficientnet-lite0", LARGE, (0, 1, 2)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in Market-1501's layout")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--only", nargs="*", help="some of the rows")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="some of the seeds")
    parser.add_argument("--write", action="store_true", help="write what is there, train nothing")
    options = parser.parse_args()
    runs = {name: folders(name, options.out) for name in ROWS}
    if not options.write:
        for name in options.only or ROWS:
            for seed, run in runs[name].items():
                if seed in options.seeds:
                    train(name, seed, run, options.data)
    table = "\n".join(
        [
            "| recipe | seeds | steps | mAP | rank-1 | rank-5 | mINP | trained on | CPU minutes |",
            "|---|---|---|---|---|---|---|---|---|",
            *[
                row(name, list(found.values()))
                for name, found in runs.items()
                if any(map(done, found.values()))
            ],
            "",
            "Mean ± sample standard deviation over seeds; CPU minutes of the runs where they were recorded. "
            "One thread a run, on machines shared with other work.",
        ]
    )
    print(table)
    if options.write:
        write_section("imagenet-weights", table)


def folders(name: str, out: Path) -> dict[int, Path]:
    plain = name.replace(", ", "-").replace(" ", "-")
    return {seed: out / f"{plain}-{seed}" for seed in ROWS[name][2]}


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
    (run / "machine.txt").write_text(device())
    (run / "scores.json").write_text(reid("evaluate", run, "--json"))


def cpu_minutes() -> float:
    """Of the commands run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def row(name: str, found: list[Path]) -> str:
    finished = [run for run in found if done(run)]
    scores = [json.loads((run / "scores.json").read_text()) for run in finished]
    figures = [spread([100 * s[key] for s in scores]) for key in ("mAP", "rank-1", "rank-5", "mINP")]
    steps = json.loads((finished[0] / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    files = [run / "cpu_minutes.txt" for run in finished]
    minutes = spread([float(file.read_text()) for file in files if file.exists()])
    machines = [run / "machine.txt" for run in finished]
    where = ", ".join(sorted({file.read_text() if file.exists() else device() for file in machines}))
    return f"| {name} | {len(finished)} | {steps} | {' | '.join(figures)} | {where} | {minutes} |"


def spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def reid(*words: object) -> str:
    command = [sys.executable, "-m", "reidkit", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
