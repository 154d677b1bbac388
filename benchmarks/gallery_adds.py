"""Adds a second of single embeddings to a gallery in a folder, by several threads, each add durable.

    python benchmarks/gallery_adds.py [--write]

An add returns once its embedding and its labels are on the disk; what threads add meanwhile goes there
together.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import reidkit as rk
from results import processor, write_section

THREADS = (1, 8, 32, 64)
DIMENSION = 512
ADDS_EACH = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    arguments = parser.parse_args()
    table = as_table({num: adds_a_second(num) for num in THREADS})
    print(table)
    if arguments.write:
        write_section("gallery-adds", table)


def adds_a_second(num_threads: int) -> float:
    """Of so many threads at once; all that they added is there afterwards."""
    vectors = np.random.default_rng(0).normal(size=(num_threads, ADDS_EACH, DIMENSION)).astype(np.float32)
    failed: list[Exception] = []
    with tempfile.TemporaryDirectory() as folder, rk.open_gallery(Path(folder) / "gallery") as gallery:
        gallery.add(vectors[0, :1], sources=["first"])

        def add_some(thread: int) -> None:
            try:
                for index, vector in enumerate(vectors[thread]):
                    gallery.add(vector[None], sources=[f"{thread}-{index}"], cameras=[thread])
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=add_some, args=(number,)) for number in range(num_threads)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        if failed:
            raise failed[0]
        assert len(gallery) == 1 + num_threads * ADDS_EACH
    return num_threads * ADDS_EACH / seconds


def as_table(found: dict[int, float]) -> str:
    names = " | ".join(f"{num} thread{'s' if num > 1 else ''}" for num in found)
    rates = " | ".join(f"{rate:,.0f}" for rate in found.values())
    return (
        f"| | {names} |\n|---|{'---|' * len(found)}\n| adds a second | {rates} |\n\n"
        f"{DIMENSION} values an embedding, {ADDS_EACH} adds a thread; {processor()}."
    )


if __name__ == "__main__":
    main()
