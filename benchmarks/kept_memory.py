"""What a step of training gains where its process keeps the memory that it frees, as `reid train` does.

    python benchmarks/kept_memory.py [--write]

Random weights and images, one thread. Counted are seconds that the processor worked for a process, those of
the system included. Each step is taken in processes of its own, which take turns; the best step counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from reidkit import config
from reidkit.training.kept_memory import keep_freed_memory
from results import processor, write_section
from training_step import a_step, batch_size

CELLS = [(recipe, size) for recipe in ("small-strong", "small-cpu") for size in ((128, 64), (256, 128))]
STEPS, TURNS = 4, 3
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        recipe, height, width, how = options.child
        print(json.dumps(measured(recipe, (int(height), int(width)), keep=how == "kept")))
        return
    lines = [
        "| recipe | size | images a second, given back | kept | gain | peak memory, given back | kept |",
        "|---|---|---|---|---|---|---|",
        *(row(recipe, size) for recipe, size in CELLS),
        "",
        f"Images of one processor second of one thread; {processor()}, shared with other work; "
        f"torch {torch.__version__}.",
    ]
    table = "\n".join(lines)
    print(table)
    if options.write:
        write_section("kept-memory", table)


def row(recipe: str, size: tuple[int, int]) -> str:
    found: dict[str, list[Figures]] = {"given back": [], "kept": []}
    for _ in range(TURNS):
        for how in found:
            words = ["--child", recipe, *map(str, size), how]
            done = subprocess.run(
                [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
            )
            found[how].append(json.loads(done.stdout))
    back, kept = (max(figures["speed"] for figures in found[how]) for how in found)
    peaks = [f"{max(figures['gb'] for figures in found[how]):.1f} GB" for how in found]
    cells = [recipe, f"{size[0]} x {size[1]}", f"{back:.1f}", f"{kept:.1f}", f"{kept / back:.2f}", *peaks]
    return f"| {' | '.join(cells)} |"


def measured(recipe: str, size: tuple[int, int], *, keep: bool) -> Figures:
    """Of this process: images a second, and the most memory that it held."""
    torch.set_num_threads(1)
    if keep and not keep_freed_memory():
        raise SystemExit("only glibc can be told to keep memory")
    settings = config.load(recipe, [f"transform.height={size[0]}", f"transform.width={size[1]}"])
    step = a_step(settings)
    step()
    seconds = []
    for _ in range(STEPS):
        before = time.process_time()
        step()
        seconds.append(time.process_time() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"speed": batch_size(settings) / min(seconds), "gb": peak}


if __name__ == "__main__":
    main()
