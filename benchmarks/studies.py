"""Run the small studies on real images; write their tables into docs/results.md.

    python benchmarks/studies.py $REIDKIT_DATA [--processes 2] [--only small-losses] [--cells '*/seed-0']
    python benchmarks/studies.py $REIDKIT_DATA --tables

What is finished is not done again, so that this can be stopped and started at any time. The 0 % cells of
`small-outliers` are those of `small-losses`. `small-jlml-viper` starts from runs/small-jlml, which is trained
on Market-1501's people first where it is not there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from results import device, write_section

STUDIES = (
    "small-losses",
    "small-outliers",
    "small-jlml-ablations",
    "small-jlml-viper",
    "small-leave-one-set-out",
)
# 7,519 crops at 128 x 64 take 0.2 GB; with one thread a run, another process for images gains nothing.
SETTINGS = ("train.num_workers=0", "train.cache=ram")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with market1501-500/ and viper/")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where studies go")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", choices=STUDIES, help="one of them")
    parser.add_argument(
        "--cells", metavar="PATTERN", help="some of its cells; all that are done are in the table"
    )
    parser.add_argument(
        "--tables", action="store_true", help="write the tables of the runs that are finished; train nothing"
    )
    parser.add_argument(
        "--section", help="of docs/results.md, where it is not called as the study; with --only"
    )
    parser.add_argument("--trained-on", default=device(), help="the machine, where it was not this one")
    options = parser.parse_args()
    for name in [options.only] if options.only else STUDIES:
        out = options.out / f"study-{name}"
        words = ["study", name, *SETTINGS, "--out", out, "--processes", options.processes]
        if name == "small-leave-one-set-out":
            words += [f"data.root={options.data}", 'data.sets=["market1501:market1501-500", "viper"]']
        elif name == "small-jlml-viper":
            words += [f"data.root={options.data / 'viper'}"]
            if not options.tables:
                data = f"data.root={options.data / 'market1501-500'}"
                reid("train", "small-jlml", data, *SETTINGS, "--out", "runs/small-jlml")
        else:
            words += [f"data.root={options.data / 'market1501-500'}"]
        if options.tables:
            words.append("--tables")
        if options.cells:
            words += ["--only", options.cells]
        if name == "small-outliers":
            words += ["--runs", options.out / "study-small-losses" / "runs"]
        # With runs to come, a study's tables end with exit code 1.
        reid(*words, check=not options.tables)
        _, _, table = (out / "table.md").read_text("utf-8").partition("\n")
        lines = [
            line for line in table.strip().splitlines() if "| 0/" not in line
        ]  # of which nothing was run
        text = "\n".join([*lines, "", f"{options.trained_on}."])
        write_section(options.section or name, text, script="studies")


def reid(*words: object, check: bool = True) -> None:
    subprocess.run([sys.executable, "-m", "reidkit", *map(str, words)], check=check)


if __name__ == "__main__":
    main()
