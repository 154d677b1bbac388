"""The way from a folder of photos to ranked people, and on to an encoder of one's own, command by command.

    python benchmarks/first_hour.py $REIDKIT_DATA [--steps 4] [--write]

The photos are VIPeR's, in folders of places and days as somebody might have sorted them. They are indexed by
the encoder that comes with reidkit, by Open Model Zoo's person-reidentification-retail-0288, and by one that
learned from them. Beside seconds stand those of all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import processor, write_section

PLACES = {"cam_a": "north door", "cam_b": "car park"}
PER_DAY = 220
NETWORK = "person-reidentification-retail-0288"
PATTERN = "{camera}/*/p{identity}_{frame}.*"
COMMANDS = (
    "reid check photos --yes",
    f"reid split photos --pattern '{PATTERN}' --out people.csv",
    f"reid index photos --pattern '{PATTERN}' --gallery people.gallery",
    "reid search query.bmp --gallery people.gallery --where 'camera=car park' --top 3",
    "reid evaluate reidkit-small --data table --root people.csv --out results/reidkit-small",
    f"reid evaluate network/{NETWORK}.xml --data table --root people.csv --out results/ready-made",
    f"reid index network/{NETWORK}.xml photos --pattern '{PATTERN}' --gallery better.gallery",
    "reid train small-strong data.name=table data.root=people.csv --out runs/mine",
    "reid evaluate runs/mine",
    "reid export runs/mine --out mine.onnx",
    f"reid index mine.onnx photos --pattern '{PATTERN}' --gallery mine.gallery",
    "reid search query.bmp --gallery mine.gallery --where 'camera=car park' --top 3",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with models/ and viper/")
    parser.add_argument("--steps", type=int, default=len(COMMANDS), help="only the first so many")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    arguments = parser.parse_args()
    lines = ["| command | seconds | processor seconds | mAP | rank-1 |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        num_photos = make_photos(arguments.data, Path(folder))
        for command in COMMANDS[: arguments.steps]:
            seconds, worked = timed(command, Path(folder))
            lines.append(f"| `{command}` | {seconds:.0f} | {worked:.0f} | {scores(command, Path(folder))} |")
    lines += [
        "",
        f"{num_photos:,} photos; {os.cpu_count()} cores of {processor()}, shared with other work, so that "
        "processor seconds tell more.",
    ]
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_section("first-hour", table)


def make_photos(data: Path, folder: Path) -> int:
    """Copy the photos as somebody might have sorted them, one to search for, and the network."""
    num = 0
    for camera, place in PLACES.items():
        for number, file in enumerate(sorted((data / "viper" / camera).glob("*.bmp"))):
            name = f"p{file.name.partition('_')[0]}_{1 + (camera == 'cam_b')}.bmp"
            target = folder / "photos" / place / f"2024-05-{1 + number // PER_DAY:02}" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            num += 1
    shutil.copyfile(next((folder / "photos" / "north door").rglob("*.bmp")), folder / "query.bmp")
    shutil.copytree(data / "models" / NETWORK, folder / "network")  # apart: it is not at hand at first
    return num


def scores(command: str, folder: Path) -> str:
    """mAP and rank-1 of what a command has just evaluated, as two cells; empty ones for other commands."""
    if not command.startswith("reid evaluate"):
        return " | "
    words = shlex.split(command)
    results = folder / (words[-1] if "--out" in words else words[2]) / "evaluation.json"
    found = json.loads(results.read_text())
    return f"{100 * found['mAP']:.1f} | {100 * found['rank-1']:.1f}"


def timed(command: str, folder: Path) -> tuple[float, float]:
    """Run a command; seconds that passed, and that processors worked for it."""
    print(f"$ {command}", flush=True)
    words = [sys.executable, "-m", "reidkit", *shlex.split(command)[1:]]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, worked


if __name__ == "__main__":
    main()
