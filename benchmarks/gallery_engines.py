"""Gallery engines beside each other: searches, filters, groups, adding, recall; and how they grow.

    python benchmarks/gallery_engines.py --items 25000 100000 --folder 250000 1000000 --write

Starts a PostgreSQL server (see tests/postgres_server.py) that syncs what it commits, and a Milvus server
where the package `milvus` is installed, which carries one of version 2.3 (`pip install --no-deps milvus`).
The slopes between two sizes say what more embeddings will need, in docs/scale.md. A folder is measured at
sizes of its own as well, beyond what a processor's cache holds: between smaller ones its time grows faster
than it goes on to. Of several runs the lower quartile is told, since other work only ever adds to it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parent.parent))

from tests.milvus_server import running_milvus
from tests.postgres_server import PostgresServer, running_server

from gallery import bare
from reidkit.galleries import Gallery, Where, open_gallery
from results import RESULTS, processor, write_section

DIM, TOP, AT_A_TIME, PER_PERSON = 512, 10, 5000, 20
SPREAD = 0.6  # of a person's pictures about their mean, as a share of its length
EXACT, INDEXED, FOLDER = "PostgreSQL", "PostgreSQL, HNSW", "folder"
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "dynamic_shared_memory_type": "posix",
}
MILVUS, MILVUS_INDEXED = "Milvus", "Milvus, HNSW"
BARE = "a bare product"
COLUMNS = "id, place, source, identity, camera, labels_checksum, embedding_checksum, embedding"
FILTERS: dict[str, Where] = {
    "90 %": {"camera": "many"},
    "10 %": {"camera": "some"},
    "0.1 %": {"camera": "rare"},
}
SCALE = RESULTS.parent / "scale.md"
SIZES_TOLD = (10**7, 10**8, 10**9)


@dataclass
class Measured:
    """What one engine took at one size: seconds, shares, bytes and items a second, by name."""

    seconds: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    bytes_each: float = 0.0
    added: float = 0.0  # items a second, many at a time
    single: float = math.nan  # items a second, each durable
    copied: float = math.nan  # items a second, the same rows by a bare COPY with the same indexes
    built: float = 0.0  # seconds of the index


def people(num: int, seed: int, wanted: int | None = None) -> NDArray[np.float32]:
    """Unit embeddings (N, D), some of each person, or so many of all; the same people whatever the seed."""
    centres = np.random.default_rng(0).standard_normal((num // PER_PERSON + 1, DIM), dtype=np.float32)
    who = np.arange(num)[:: max(1, num // (wanted or num))][: wanted or num] % len(centres)
    rows = np.random.default_rng(seed + 1).standard_normal((len(who), DIM), dtype=np.float32)
    for start in range(0, len(rows), AT_A_TIME):
        some = rows[start : start + AT_A_TIME]
        some *= SPREAD
        some += centres[who[start : start + AT_A_TIME]]
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return rows


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """The lower quartile of several runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.quantiles(taken, n=4, method="inclusive")[0] if times > 1 else taken[0]


def camera(number: int) -> str:
    """In each thousand "rare" once, "some" a hundred times, "many" otherwise."""
    return "rare" if number % 1000 == 0 else "some" if number % 10 == 1 else "many"


def fill(gallery: Gallery, embeddings: NDArray[np.float32]) -> None:
    for start in range(0, len(embeddings), AT_A_TIME):
        numbers = range(start, min(start + AT_A_TIME, len(embeddings)))
        gallery.add(
            embeddings[numbers.start : numbers.stop],
            sources=[f"/photos/camera/{number:08}.jpg" for number in numbers],
            identities=[f"{number % (len(embeddings) // PER_PERSON + 1):07}" for number in numbers],
            cameras=[camera(number) for number in numbers],
        )


def searches(
    gallery: Gallery, queries: NDArray[np.float32], measured: Measured, *, people: bool = True
) -> None:
    """Searches of all kinds, once all is read and checked."""
    one = iter(np.tile(queries, (20, 1)))

    def search(where: Where | None = None) -> object:
        return gallery.search(next(one), top=TOP, where=where)

    search()
    search(FILTERS["0.1 %"])
    measured.seconds["one query"] = seconds(search, 15)
    measured.seconds["100 queries"] = seconds(lambda: gallery.search(queries[:100], top=TOP))
    for share, where in FILTERS.items():
        measured.seconds[f"one query, {share} pass"] = seconds(lambda: search(where), 15)  # noqa: B023
    if people:
        measured.seconds["one query, people"] = seconds(
            lambda: gallery.search(next(one), top=TOP, group="identity"), 7
        )


def found(gallery: Gallery, queries: NDArray[np.float32], where: Where | None) -> list[set[int]]:
    return [{hit.id for hit in hits} for hits in gallery.search(queries, top=TOP, where=where)]


def recall(gallery: Gallery, exact: Gallery, queries: NDArray[np.float32]) -> dict[str, float]:
    """The share of the nearest that a gallery finds."""
    shares = {}
    for name, where in {"all": None, **FILTERS}.items():
        truth, seen = found(exact, queries, where), found(gallery, queries, where)
        shares[name] = sum(len(a & b) for a, b in zip(truth, seen, strict=True)) / sum(map(len, truth))
    return shares


def add_singly(gallery: Gallery, embeddings: NDArray[np.float32]) -> float:
    """Items a second, each in a change of its own."""
    taken = seconds(lambda: [gallery.add(row[None]) for row in embeddings])
    return len(embeddings) / taken


def filled(gallery: Gallery, embeddings: NDArray[np.float32], queries: NDArray[np.float32]) -> Measured:
    """A gallery filled and searched."""
    result, num = Measured(), len(embeddings)
    result.added = num / seconds(lambda: fill(gallery, embeddings))
    result.bytes_each = gallery.info()["bytes"] / num
    gallery.compact()
    searches(gallery, queries, result)
    result.recall = {"all": 1.0}
    return result


def measure_folder(num: int, folder: str) -> Measured:
    """A folder alone, beside a bare product with a partial sort."""
    embeddings, queries = people(num, 0), people(num, 1, 200)
    with open_gallery(folder) as gallery:
        result = filled(gallery, embeddings, queries)
    result.seconds[BARE] = seconds(lambda: bare(embeddings, queries[:1]), 15)
    print(f"{num:,} in a folder: {result}", flush=True)
    return result


def copied(server: PostgresServer, location: str, num: int) -> float:
    """Rows a second that a bare COPY takes, of what :func:`fill` added, as many at a time."""
    database, _, name = location.partition("?gallery=")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'SET search_path TO "reid_{name}", public'.encode())
        connection.execute("CREATE TABLE copies (LIKE items INCLUDING ALL)")
        taken = 0.0
        for start in range(0, num, AT_A_TIME):
            rows = f"SELECT {COLUMNS} FROM items ORDER BY place LIMIT {AT_A_TIME} OFFSET {start}"
            read = f"COPY ({rows}) TO STDOUT (FORMAT BINARY)"
            with connection.cursor() as cursor, cursor.copy(read.encode()) as copy:
                data = b"".join(bytes(piece) for piece in copy)
            written = f"COPY copies ({COLUMNS}) FROM STDIN (FORMAT BINARY)"
            began = time.perf_counter()
            with connection.cursor() as cursor, cursor.copy(written.encode()) as copy:
                for place in range(0, len(data), 2**16):
                    copy.write(data[place : place + 2**16])
            taken += time.perf_counter() - began
        connection.execute("DROP TABLE copies")
    return num / taken


def measure_milvus(
    embeddings: NDArray[np.float32], queries: NDArray[np.float32], local: Gallery, new: Callable[[], str]
) -> dict[str, Measured]:
    """Both of Milvus's indexes. With HNSW, groups are compared by the client, which takes minutes."""
    results = {}
    for name, index in ((MILVUS, "exact"), (MILVUS_INDEXED, "hnsw")):
        with open_gallery(f"{new()}&index={index}") as gallery:
            result = results[name] = Measured()
            result.added = len(embeddings) / seconds(lambda: fill(gallery, embeddings))
            searches(gallery, queries, result, people=index == "exact")
            result.recall = recall(gallery, local, queries[:50])
            result.single = add_singly(gallery, queries[:5])
            result.bytes_each = math.nan
    return results


def measure(
    num: int, folder: str, server: PostgresServer, milvus: Callable[[], str] | None
) -> dict[str, Measured]:
    """Each engine, with the same items and queries."""
    embeddings, queries = people(num, 0), people(num, 1, 200)
    results = {FOLDER: Measured(), EXACT: Measured(), INDEXED: Measured()}
    location = server.gallery()
    with open_gallery(folder) as local, open_gallery(location) as remote:
        for name, gallery in ((FOLDER, local), (EXACT, remote)):
            result = results[name] = filled(gallery, embeddings, queries)
            result.recall = recall(gallery, local, queries[:50])
        results[EXACT].copied = copied(server, location, num)
        result = results[INDEXED]
        result.built = seconds(lambda: remote.build_index(sample=1))  # type: ignore[attr-defined]
        with open_gallery(f"{location}&index=hnsw") as indexed:
            searches(indexed, queries, result)
            result.recall = recall(indexed, local, queries[:50])
            result.bytes_each = indexed.info()["bytes"] / num
            result.single = add_singly(indexed, queries[:50])
            result.added = len(queries) / seconds(lambda: indexed.add(queries))
        if milvus is not None:
            results |= measure_milvus(embeddings, queries, local, milvus)
        results[FOLDER].single = add_singly(local, queries[:100])
    with open_gallery(f"{location}-single") as remote:
        results[EXACT].single = add_singly(remote, queries[:200])
    return results


# --- what is told -----------------------------------------------------------------------------------------


def table(results: dict[str, Measured], num: int) -> str:
    """A column an engine."""
    base = results[FOLDER].seconds
    lines = [f"| {num:,} x {DIM} | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    for what in base:
        cells = [
            f"{1e3 * one.seconds[what]:,.1f} ms, {one.seconds[what] / base[what]:.2f} x"
            if what in one.seconds
            else ""
            for one in results.values()
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for share in results[FOLDER].recall:
        cells = [f"{one.recall[share]:.3f}" for one in results.values()]
        lines.append(f"| recall of the {TOP} nearest, {share} pass | {' | '.join(cells)} |")
    rows: dict[str, Callable[[Measured], str]] = {
        f"added a second, {AT_A_TIME:,} at a time": lambda one: f"{one.added:,.0f}",
        "the same rows, by a bare COPY with the same indexes": lambda one: known(one.copied),
        "added a second, one at a time, durable": lambda one: known(one.single),
        "bytes an embedding": lambda one: known(one.bytes_each),
        "the index is built in": lambda one: f"{one.built:,.0f} s" if one.built else "",
    }
    for what, cell in rows.items():
        lines.append(f"| {what} | {' | '.join(map(cell, results.values()))} |")
    return "\n".join(lines)


def known(number: float) -> str:
    """A number, if it was measured."""
    return "" if math.isnan(number) else f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


@dataclass(frozen=True)
class Line:
    """A straight line through two measurements."""

    offset: float
    slope: float

    @classmethod
    def through(cls, first: tuple[float, float], second: tuple[float, float]) -> Line:
        slope = (second[1] - first[1]) / (second[0] - first[0])
        return cls(first[1] - slope * first[0], slope)

    @classmethod
    def rising(cls, first: tuple[float, float], second: tuple[float, float]) -> Line:
        """The same for what cannot fall as there are more: where it seems to, noise is larger than it is."""
        return cls.through(first, second) if second[1] > first[1] else cls(second[1], 0.0)

    def at(self, place: float) -> float:
        return self.offset + self.slope * place


@dataclass(frozen=True)
class Growth:
    """How an engine grows: exact search with the number of items, the index with its logarithm."""

    name: str
    query: Line
    is_exact: bool
    bytes_each: float
    added: float
    recall: Line
    built_each: Line
    sizes: tuple[int, int]
    bare: float  # seconds of a bare product for each embedding, where that was measured

    @classmethod
    def of(cls, name: str, small: Measured, large: Measured, sizes: tuple[int, int]) -> Growth:
        is_exact = name != INDEXED
        places = [float(size) if is_exact else math.log2(size) for size in sizes]
        logs = [math.log2(size) for size in sizes]
        what = "one query"
        query = Line.rising((places[0], small.seconds[what]), (places[1], large.seconds[what]))
        recall = Line.through((logs[0], small.recall["all"]), (logs[1], large.recall["all"]))
        built = Line.rising((logs[0], small.built / sizes[0]), (logs[1], large.built / sizes[1]))
        per_item = 0.0
        if BARE in small.seconds:
            per_item = Line.through((sizes[0], small.seconds[BARE]), (sizes[1], large.seconds[BARE])).slope
        return cls(name, query, is_exact, large.bytes_each, large.added, recall, built, sizes, per_item)

    def seconds(self, num: float) -> float:
        return self.query.at(num if self.is_exact else math.log2(num))

    def hours_to_fill(self, num: float, added: float) -> float:
        build = 0.0 if self.is_exact else num * max(self.built_each.at(math.log2(num)), 0)
        return (num / added + build) / 3600


def scale(growths: list[Growth]) -> str:
    """What more embeddings need, and when to change engine."""
    lines = [
        "| embeddings | engine | on disk, in memory to be fast | one query | recall | to fill |",
        "|---" * 6 + "|",
    ]
    loaded = next(one.added for one in growths if one.name == EXACT)
    for num in SIZES_TOLD:
        for one in growths:
            added = loaded if one.name == INDEXED else one.added
            share = min(1.0, max(0.0, one.recall.at(math.log2(num))))
            recall = "exact" if one.is_exact else f"{share:.2f}"
            filled = duration(3600 * one.hours_to_fill(num, added))
            lines.append(
                f"| 10^{round(math.log10(num))} | {one.name} | {amount(num * one.bytes_each)} | "
                f"{duration(one.seconds(num))} | {recall} | {filled} |"
            )
    between = ", ".join(f"{one.sizes[0]:,} and {one.sizes[1]:,} ({one.name})" for one in growths)
    place = f"Measured between {between} x {DIM}, {machine()}."
    return "\n".join([*lines, "", *slopes(growths), "", *changes(growths), "", place])


def slopes(growths: list[Growth]) -> list[str]:
    told = []
    for one in growths:
        per = "a million embeddings" if one.is_exact else "a doubling"
        slope = one.query.slope * (1e6 if one.is_exact else 1)
        more = f"{1e3 * slope:+,.1f} ms" if slope else "no more than the noise,"
        index = ""
        if not one.is_exact:
            index = f"; recall {one.recall.slope:+.3f} and building {1e3 * one.built_each.slope:+.2f} ms an "
            index += "embedding, a doubling"
        bare = f" ({1e3 * one.bare * 1e6:,.1f} ms of it a bare product)" if one.bare else ""
        told.append(
            f"- {one.name}: one query {more} {per}{bare}, {one.bytes_each:,.0f} bytes an "
            f"embedding, {one.added:,.0f} added a second{index}."
        )
    return told


def changes(growths: list[Growth]) -> list[str]:
    """Where one engine is no longer the one to take."""
    by_name = {one.name: one for one in growths}
    told = []
    for one in growths:
        if one.is_exact:
            slow = [f"{limit:g} s from {reach(one, limit)}" for limit in (0.1, 1.0)]
            memory = [f"{size} GB from {rounded(size * 1e9 / one.bytes_each)}" for size in (16, 64, 256)]
            told.append(
                f"- {one.name}: a query takes {' and '.join(slow)} embeddings; they fill {', '.join(memory)}."
            )
    exact, indexed = by_name[EXACT], by_name[INDEXED]
    for other in (by_name[FOLDER], exact):
        fewest = max(indexed.sizes[0], other.sizes[0])  # lines tell nothing of fewer
        steps = (fewest * 2 ** (power / 2) for power in range(60))
        crossing = next((num for num in steps if indexed.seconds(num) < other.seconds(num)), None)
        if crossing is not None:
            least = ", the fewest at which both were measured" if crossing == fewest else ""
            told.append(
                f"- The index is faster than {other.name} from {rounded(crossing)} embeddings on{least}."
            )
    return told


def reach(growth: Growth, limit: float) -> str:
    """From how many embeddings on a query takes longer."""
    line = growth.query
    return rounded(max(0.0, (limit - line.offset) / line.slope) if line.slope else 0.0)


def rounded(number: float) -> str:
    """To two places that count."""
    if number < 1:
        return "the first"
    step = 10 ** max(0, int(math.log10(number)) - 1)
    return f"{round(number / step) * step:,.0f}"


def amount(num: float) -> str:
    return f"{num / 1e9:,.0f} GB" if num < 1e12 else f"{num / 1e12:,.1f} TB"


def machine() -> str:
    return f"{os.cpu_count()} cores of {processor()}, shared with other work"


def duration(taken: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if taken >= 2 * size:
            return f"{taken / size:,.0f} {unit}"
    return f"{1e3 * taken:,.0f} ms"


@contextlib.contextmanager
def milvus_if_there() -> Iterator[Callable[[], str] | None]:
    """New locations on a Milvus server; ``None``, which is told, where none can be started."""
    if importlib.util.find_spec("milvus") is None:
        print("without Milvus: the package milvus, which carries a server, is not installed", flush=True)
        yield None
        return
    with running_milvus() as new_location:
        yield new_location


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs=2, default=[25_000, 100_000], metavar=("FEW", "MANY"))
    parser.add_argument("--folder", type=int, nargs=2, default=[250_000, 1_000_000], metavar=("FEW", "MANY"))
    parser.add_argument("--write", action="store_true", help="into docs/results.md and docs/scale.md")
    arguments = parser.parse_args()
    few, many = sorted(arguments.items)
    sizes = {FOLDER: tuple(sorted(arguments.folder)), EXACT: (few, many), INDEXED: (few, many)}
    measured, alone = {}, []
    for num in sizes[FOLDER]:
        with tempfile.TemporaryDirectory() as temporary:
            alone.append(measure_folder(num, f"{temporary}/gallery"))
    with (
        tempfile.TemporaryDirectory() as temporary,
        running_server(**SETTINGS) as server,
        milvus_if_there() as milvus,
    ):
        for num in (few, many):
            measured[num] = measure(num, f"{temporary}/{num}.gallery", server, milvus)
            print(table(measured[num], num), flush=True)
    growths = [
        Growth.of(name, *(alone if name == FOLDER else (measured[few][name], measured[many][name])), pair)
        for name, pair in sizes.items()
    ]
    told = scale(growths)
    print(f"\n{told}")
    if arguments.write:
        text = f"{table(measured[many], many)}\n\n*x* is a multiple of the folder's time. {machine()}."
        write_section("gallery-engines", text)
        write_section("scale", told, script="gallery_engines", page=SCALE)


if __name__ == "__main__":
    main()
