"""VIPeR's ten splits with a network trained here; write the table into docs/results.md.

    python benchmarks/viper.py $REIDKIT_DATA

`small-cpu` learns Market-1501's people first; then, for every split, it goes on with the 316 training people
of that split. A run that is complete is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from results import processor, write_section

NUM_SPLITS = 10
COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10", "rank-20")
# VIPeR has two images of a person; twenty of its epochs are 180 steps.
FINE_TUNING = (
    "sampler.identities_per_batch=32",
    "sampler.images_per_identity=2",
    "optim.lr=3e-4",
    "train.epochs=20",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with market1501-500/ and viper/")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    options = parser.parse_args()
    market, viper = options.out / "small-cpu-trihard", options.data / "viper"
    train(market, f"data.root={options.data / 'market1501-500'}")
    tuned = [options.out / f"viper-{split}" for split in range(NUM_SPLITS)]
    for split, run in enumerate(tuned):
        data = ("data.name=viper", f"data.root={viper}", f"data.split={split}")
        train(run, f"train.init={market}", *data, *FINE_TUNING)
    as_it_is = [scores(market, "--data", "viper", "--root", viper, "--split", k) for k in range(NUM_SPLITS)]
    with_xqda = [scores(run, "--metric", "xqda") for run in tuned]
    rows = {
        "trained on Market-1501's people": as_it_is,
        "and on each split's": [scores(run) for run in tuned],
        "and XQDA on top": with_xqda,
    }
    table = "\n".join(
        [
            f"| small-cpu | {' | '.join(COLUMNS)} |",
            "|---|---|---|---|---|---|",
            *(f"| {name} | {' | '.join(cells(results))} |" for name, results in rows.items()),
            "",
            f"Both directions; mean ± standard deviation of {NUM_SPLITS} splits, in percent; {processor()}.",
        ]
    )
    write_section("viper", table)
    print(table)


def train(run: Path, *overrides: str) -> None:
    reid("train", "small-cpu", *overrides, "--out", run)


def scores(*words: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(reid("evaluate", *words, "--no-report", "--json"))
    return result


def cells(results: list[dict[str, Any]]) -> list[str]:
    columns = [[100 * result[name] for result in results] for name in COLUMNS]
    return [f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" for values in columns]


def reid(*words: object) -> str:
    command = [sys.executable, "-m", "reidkit", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
