"""VIPeR's ten splits with a network trained here; write the table into docs/results.md.

    python benchmarks/viper.py $REIDKIT_DATA

`small-cpu` learns Market-1501's people first; then, for every split, it goes on with the 316 training people
of that split. A run that is complete is not trained again.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import reidkit as rk
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
    parser.add_argument("--market", type=Path, help="run of small-cpu to start from; trained if left out")
    options = parser.parse_args()
    market = options.market or options.out / "small-cpu-trihard"
    if options.market is None:
        train(market, f"data.root={options.data / 'market1501-500'}")
    as_it_is, tuned, with_xqda = [], [], []
    for split in range(NUM_SPLITS):
        run = options.out / f"viper-{split}"
        place = (f"data.root={options.data / 'viper'}", f"data.split={split}")
        train(run, f"train.init={market}", "data.name=viper", *place, *FINE_TUNING)
        data = rk.load_dataset("viper", options.data / "viper", split=split)
        as_it_is.append(rk.evaluate(rk.load_encoder(market), data))
        tuned.append(rk.evaluate(rk.load_encoder(run), data))
        with_xqda.append(rk.evaluate(rk.load_encoder(run), data, metric="xqda"))
    rows = {
        "trained on Market-1501's people": as_it_is,
        "and on the split's": tuned,
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
    command = [sys.executable, "-m", "reidkit", "train", "small-cpu", *overrides, "--out", str(run)]
    subprocess.run(command, check=True)


def cells(results: list[rk.Evaluation]) -> list[str]:
    columns = [[100 * result.metrics[name] for result in results] for name in COLUMNS]
    return [f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" for values in columns]


if __name__ == "__main__":
    main()
