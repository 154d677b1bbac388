"""What a gallery's checks, filters and storages cost: first searches and later ones, beside a bare product.

    python benchmarks/gallery.py --items 100000 1000000 --write

Storages are compared at the first size. Needs room for the vectors on the disk of the temporary folder, and
as much memory for the bare product.
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

from reidkit import registry
from reidkit.galleries import Gallery, Where, open_gallery
from reidkit.galleries._storage import STORAGES, Storage
from results import processor, write_section

DIM = 512
AT_A_TIME = 20_000


def fill(path: Path, num: int, storage: Storage = "float32") -> None:
    rng = np.random.default_rng(0)
    with open_gallery(path, storage=storage) as gallery:
        for start in range(0, num, AT_A_TIME):
            numbers = range(start, min(start + AT_A_TIME, num))
            gallery.add(
                rng.standard_normal((len(numbers), DIM), dtype=np.float32),
                sources=[f"/photos/camera/{number:08}.jpg" for number in numbers],
                identities=[f"{number % 5000:05}" for number in numbers],
                cameras=[camera(number) for number in numbers],
                contents=[f"{number:032x}" for number in numbers],
            )


def camera(number: int) -> str:
    """In each thousand "rare" once, "some" a hundred times, "many" otherwise."""
    return "rare" if number % 1000 == 0 else "some" if number % 10 == 1 else "many"


FILTERS: dict[str, Where] = {
    "90 %": {"camera": "many"},
    "10 %": {"camera": "some"},
    "0.1 %": {"camera": "rare"},
}


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


def alternately(one: Callable[[], object], other: Callable[[], object], times: int = 15) -> float:
    """How many times as long the other takes: the median of ratios of neighbours, as machines are noisy."""
    return statistics.median(seconds(other) / seconds(one) for _ in range(times))


def measure(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds, and ratios to the search without a filter."""
    query = np.random.default_rng(1).standard_normal((1, DIM), dtype=np.float32)
    query /= np.linalg.norm(query)
    found: dict[str, float] = {}
    registry.get("gallery", "embedded")  # modules are imported once, whatever the gallery's size
    opened: list[Gallery] = []
    found["opening"] = seconds(lambda: opened.append(open_gallery(path, create=False)))
    [gallery] = opened
    with gallery:
        [file] = path.glob("vectors*")
        file.read_bytes()  # so that all is compared in a warm file cache
        found["first search (checks all vectors)"] = seconds(lambda: gallery.search(query))
        found["later searches"] = seconds(lambda: gallery.search(query), 9)
        found["first filter by camera of a process"] = seconds(
            lambda: gallery.search(query, where=FILTERS["0.1 %"])
        )
        found["first filter by identity, of 5,000"] = seconds(
            lambda: gallery.search(query, where={"identity": "00007"})
        )
        ratios = ratios_of_filters(gallery, query)
        num, batch = len(gallery), np.tile(query, (100, 1))
        found["batches of 100"] = seconds(lambda: gallery.search(batch), 3)
    words = np.memmap(file, "<f4", mode="r").reshape(num, -1)
    vectors = np.ascontiguousarray(words[:, :DIM])
    found["bare product"] = seconds(lambda: bare(vectors, query), 9)
    found["opening again"] = seconds(lambda: open_gallery(path, create=False).close(), 9)
    return found, ratios


def ratios_of_filters(gallery: Gallery, query: NDArray[np.float32]) -> dict[str, float]:
    batch = np.tile(query, (100, 1))
    ratios = {}
    for share, where in FILTERS.items():
        ratios[f"one query, {share} pass"] = alternately(
            lambda: gallery.search(query),
            lambda: gallery.search(query, where=where),  # noqa: B023
        )
        ratios[f"100 queries, {share} pass"] = alternately(
            lambda: gallery.search(batch),
            lambda: gallery.search(batch, where=where),  # noqa: B023
            3,
        )
    ratios["one query, people instead of pictures"] = alternately(
        lambda: gallery.search(query), lambda: gallery.search(query, group="identity"), 5
    )
    return ratios


def compare_storages(paths: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Of each storage: multiples of float32's times in turn, bytes read, recall of float32's top 10."""
    queries = np.random.default_rng(2).standard_normal((100, DIM), dtype=np.float32)
    compared: dict[str, dict[str, float]] = {}
    with open_gallery(paths["float32"], create=False) as reference:
        expected = reference.search(queries)
        for storage, path in paths.items():
            with open_gallery(path, create=False) as gallery:
                found = gallery.search(queries)
                same = [
                    len({hit.id for hit in ours} & {hit.id for hit in theirs}) / len(theirs)
                    for ours, theirs in zip(found, expected, strict=True)
                ]
                compared[storage] = {
                    "MB that a search reads": gallery.info()["searched_bytes"] / 1e6,
                    "MB on disk": gallery.info()["bytes"] / 1e6,
                    "one query, in those of float32": alternately(
                        lambda: reference.search(queries[:1]),
                        lambda: gallery.search(queries[:1]),
                        9,
                    ),
                    "100 queries, in those of float32": alternately(
                        lambda: reference.search(queries),
                        lambda: gallery.search(queries),
                        3,
                    ),
                    "recall of float32's ten nearest": statistics.mean(same),
                }
    return compared


def table_of_storages(num: int, compared: dict[str, dict[str, float]]) -> str:
    lines = [f"| {num:,} items | " + " | ".join(compared) + " |", "|---" * (len(compared) + 1) + "|"]
    for what in next(iter(compared.values())):
        digits = 0 if what.startswith("MB") else 4 if what.startswith("recall") else 2
        cells = " | ".join(f"{of_one[what]:,.{digits}f}" for of_one in compared.values())
        lines.append(f"| {what} | {cells} |")
    return "\n".join(lines)


def table(measured: dict[int, dict[str, float]]) -> str:
    """Milliseconds and multiples of the bare product, a column a size; shares of the check below."""
    sizes = list(measured)
    lines = heading(sizes)
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


def table_of_ratios(measured: dict[int, dict[str, float]]) -> str:
    """How many times as long filtered searches take, a column a size."""
    sizes = list(measured)
    lines = heading(sizes)
    for what in measured[sizes[0]]:
        cells = " | ".join(f"{ratios[what]:.2f} x" for ratios in measured.values())
        lines.append(f"| {what} | {cells} |")
    return "\n".join(lines)


def heading(sizes: list[int]) -> list[str]:
    return [
        "| | " + " | ".join(f"{num:,} items" for num in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]


def filled(place: Path, num: int, storage: Storage) -> Path:
    """A gallery of so many items, which is kept for the next run."""
    path = place / f"{num}.{storage}.gallery"
    if not path.exists():
        print(f"filling {num:,} x {DIM} {storage}: {seconds(lambda: fill(path, num, storage)):.1f} s")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--gallery", type=Path, help="where galleries are kept for the next run")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    measured, ratios, num = {}, {}, arguments.items[0]
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.gallery or Path(temporary)
        for size in arguments.items:
            measured[size], ratios[size] = measure(filled(place, size, "float32"))
        storages = compare_storages({storage: filled(place, num, storage) for storage in STORAGES})
    text = (
        f"{table(measured)}\n\nA search with a filter or for groups, in searches without one:\n\n"
        f"{table_of_ratios(ratios)}\n\nHow embeddings are stored; random ones, whose scores lie closest:\n\n"
        + table_of_storages(num, storages)
        + f"\n\n{DIM} values an embedding, {processor()}, shared with other work, NumPy {np.__version__}."
    )
    print(text)
    if arguments.write:
        write_section("gallery", text)


if __name__ == "__main__":
    main()
