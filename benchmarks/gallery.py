"""What the checks of a gallery cost: opening, a process's first search and later ones, beside a bare product.

    python benchmarks/gallery.py --items 100000 1000000 --write

Needs room for the vectors on the disk of the temporary folder, and as much memory for the bare product.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import Gallery, open_gallery
from results import processor, write_section

DIM = 512
AT_A_TIME = 20_000


def fill(path: Path, num: int) -> None:
    rng = np.random.default_rng(0)
    with open_gallery(path) as gallery:
        for start in range(0, num, AT_A_TIME):
            numbers = range(start, min(start + AT_A_TIME, num))
            gallery.add(
                rng.standard_normal((len(numbers), DIM), dtype=np.float32),
                sources=[f"/photos/camera/{number:08}.jpg" for number in numbers],
                identities=[f"{number % 5000:05}" for number in numbers],
                cameras=[("door", "hall", 3)[number % 3] for number in numbers],
                contents=[f"{number:032x}" for number in numbers],
            )


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """The median of several runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def bare(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> object:
    """A product and a partial sort: what a search can hardly be faster than."""
    scores = query @ vectors.T
    return np.argpartition(-scores, 10, axis=1)[:, :10]


def measure(path: Path) -> dict[str, float]:
    query = np.random.default_rng(1).standard_normal((1, DIM), dtype=np.float32)
    query /= np.linalg.norm(query)
    found: dict[str, float] = {}
    opened: list[Gallery] = []
    found["opening"] = seconds(lambda: opened.append(open_gallery(path, create=False)))
    gallery = opened[0]
    with gallery:
        [file] = path.glob("vectors*")
        file.read_bytes()  # so that all is compared in a warm file cache
        found["first search (checks all vectors)"] = seconds(lambda: gallery.search(query))
        found["later searches"] = seconds(lambda: gallery.search(query), 9)
        found["first filter (checks all labels)"] = seconds(
            lambda: gallery.search(query, where={"camera": 3})
        )
        found["later filters"] = seconds(lambda: gallery.search(query, where={"camera": 3}), 3)
        num, batch = len(gallery), np.tile(query, (100, 1))
        found["batches of 100"] = seconds(lambda: gallery.search(batch), 3)
    words = np.memmap(file, "<f4", mode="r").reshape(num, -1)
    vectors = np.ascontiguousarray(words[:, :DIM])
    found["bare product"] = seconds(lambda: bare(vectors, query), 9)
    found["opening again"] = seconds(lambda: open_gallery(path, create=False).close(), 9)
    return found


def table(measured: dict[int, dict[str, float]]) -> str:
    """Milliseconds and multiples of the bare product, a column a size; shares of the check below."""
    sizes = list(measured)
    lines = [
        "| | " + " | ".join(f"{num:,} items" for num in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for what in measured[sizes[0]]:
        cells = [
            f"{1e3 * found[what]:,.1f} ms, {found[what] / found['bare product']:.2f} x"
            for found in measured.values()
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for searches in (1, 10, 100):
        shares = [
            (found["first search (checks all vectors)"] - found["later searches"])
            / (searches * found["later searches"])
            for found in measured.values()
        ]
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| the check, as a share of {searches} searches of a process | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--gallery", type=Path, help="where galleries are kept for the next run")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as temporary:
        for num in arguments.items:
            path = (arguments.gallery or Path(temporary)) / f"{num}.gallery"
            if not path.exists():
                print(f"filling {num:,} x {DIM}: {seconds(lambda: fill(path, num)):.1f} s")  # noqa: B023
            measured[num] = measure(path)
    text = f"{table(measured)}\n\n{DIM} values an embedding, {processor()}, NumPy {np.__version__}."
    print(text)
    if arguments.write:
        write_section("gallery", text)


if __name__ == "__main__":
    main()
