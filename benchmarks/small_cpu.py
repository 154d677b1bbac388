"""Train and score `small-cpu` with each metric loss on real images; write the table into docs/results.md.

    python benchmarks/small_cpu.py $REIDKIT_DATA/market1501-500

A run that is complete is not trained again. The table stands between two marks in docs/results.md, so that no
figure there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from results import processor, write_section

# Published yardstick on this split: recipe of the same cost, 8 minutes, one seed.
YARDSTICK = {"trihard": (48.6, 60.0), "msml": (42.7, 56.2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in Market-1501's layout")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    options = parser.parse_args()
    rows = [row(loss, options.data, options.out / f"small-cpu-{loss}") for loss in YARDSTICK]
    table = "\n".join(
        [
            "| losses | mAP | rank-1 | rank-5 | mINP | yardstick mAP, rank-1 | training |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"One seed, {os.cpu_count()} CPU cores ({processor()}), torch {torch.__version__}, Python "
            f"{platform.python_version()}.",
        ]
    )
    write_section("small-cpu", table)
    print(table)


def row(loss: str, data: Path, run: Path) -> str:
    started = time.perf_counter()
    reid("train", "small-cpu", f"data.root={data}", f"loss.metric.kind={loss}", "--out", run)
    minutes_file = run / "minutes.txt"
    if not minutes_file.exists():  # a complete run trains no further: its time is that of the first call
        minutes_file.write_text(f"{(time.perf_counter() - started) / 60:.1f}")
    scores = json.loads(reid("evaluate", run, "--json"))
    numbers = [f"{100 * scores[key]:.1f}" for key in ("mAP", "rank-1", "rank-5", "mINP")]
    yardstick = "{}, {}".format(*YARDSTICK[loss])
    return f"| identity + {loss} | {' | '.join(numbers)} | {yardstick} | {minutes_file.read_text()} min |"


def reid(*words: object) -> str:
    command = [sys.executable, "-m", "reidkit", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
