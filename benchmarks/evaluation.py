"""Time and memory of an evaluation at the size of Market-1501, and with 500,000 distractors more.

    python benchmarks/evaluation.py [--write] [--data DIR] [--repeats 5] [--num-distractors 500000]

Identities and cameras are Market-1501's own (the label files in DIR/meta/market1501), the embeddings made up.
The unit is the bare product of all queries and gallery items in float32, tile by tile in the sizes that the
evaluation uses, by NumPy, whose product it uses too; torch's is measured beside it. The subject is the whole
of ``evaluate_features``: embeddings read and normalised, products, ranks, scores. Unit and subject run in
turn and the median of their ratios counts, so that a busy machine slows both alike.

"The usual way" sorts the whole matrix of distances stably and looks up which of the sorted items match.

Memory is what a process of its own needs at most during the call, beyond what it held before with the
embeddings loaded; of embeddings in a file, the pages that the system keeps for the file are not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from reidkit.analysis.bootstrap import bootstrap_interval
from reidkit.analysis.roc import distance_distributions, roc
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.types import JUNK, Evaluation, Features
from results import processor, write_section

DIM, TILE = 512, (512, 16_384)
LIMIT_TIME, LIMIT_MEMORY = 3.0, 200
LIMIT_LINEAR, LIMIT_MEMORY_DISTRACTORS = 1.15, 500
LEAST_USUAL = 3.0
LIMIT_STATISTICS = 8.0
CLASSES, MAPPED = "classes", "classes, float16 in a file"
USUAL = (CLASSES,)
KINDS = (CLASSES, "random", "no negative values", "collapsed", "all equal", MAPPED)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("REIDKIT_DATA", default)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-distractors", type=int, default=500_000)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/results.md")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(extra_memory(Path(options.memory_of[0]), mapped=options.memory_of[1] == "mapped"))
        return
    text = "\n".join([*market_lines(options), "", *distractor_lines(options), "", machine()])
    if options.write:
        write_section("evaluation", text)


def market_lines(options: argparse.Namespace) -> list[str]:
    lines = shown(
        "| embeddings | mAP | rank-1 | seconds | bare products | extra memory, MB | the usual way |",
        "|---|---|---|---|---|---|---|",
    )
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            write_features(Path(folder), kind, options.data)
            query, gallery = read_features(Path(folder), mapped=kind == MAPPED)
            units, subjects = in_turn(query, gallery, options.repeats)
            result = evaluate_features(query, gallery)
            usual = usual_seconds(query, gallery, result) if kind in USUAL else []
            memory = memory_in_another_process(Path(folder), mapped=kind == MAPPED)
        ratio = statistics.median(np.divide(subjects, units))
        slower = f"{min(usual) / statistics.median(subjects):.1f} x" if usual else ""
        if usual and min(usual) < LEAST_USUAL * statistics.median(subjects):
            slower = f"**{slower}** (at least {LEAST_USUAL:g})"
        lines += shown(
            f"| {kind} | {100 * result.mean_average_precision:.1f} | {100 * result.rank(1):.1f} "
            f"| {statistics.median(subjects):.2f} | {cell(ratio, LIMIT_TIME)} x "
            f"| {cell(memory, LIMIT_MEMORY, 0)} | {slower} |"
        )
        if kind == CLASSES:
            statistics_line = pair_statistics(query, gallery, result.average_precisions)
            torch_line = (
                f"torch's product of the same tiles takes {torch_ratio(query, gallery):.2f} x NumPy's."
            )
    lines += shown(
        "",
        f"{len(query):,} queries, {len(gallery):,} gallery items, {DIM} values each. {torch_line}",
        statistics_line,
    )
    return lines


def distractor_lines(options: argparse.Namespace) -> list[str]:
    """With distractors appended, beside the same embeddings without, all in float16 files."""
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        write_features(Path(few), MAPPED, options.data)
        write_features(Path(many), MAPPED, options.data, num_distractors=options.num_distractors)
        small, large = (read_features(Path(folder), mapped=True) for folder in (few, many))
        before = [seconds(lambda: evaluate_features(*small)) for _ in range(3)]
        unit = seconds(lambda: bare_products(*large))
        subject = seconds(lambda: evaluate_features(*large))
        after = [seconds(lambda: evaluate_features(*small)) for _ in range(3)]
        memory = memory_in_another_process(Path(many), mapped=True)
    proportional = statistics.median(before + after) * len(large[1]) / len(small[1])
    return shown(
        f"With {options.num_distractors:,} distractors more, {len(large[1]):,} gallery items in a float16 "
        f"file: {subject:.1f} s, {cell(subject / unit, LIMIT_TIME)} x the bare products, "
        f"{cell(subject / proportional, LIMIT_LINEAR)} x what is proportional to the gallery's size, "
        f"{cell(memory, LIMIT_MEMORY_DISTRACTORS, 0)} MB extra memory."
    )


def in_turn(query: Features, gallery: Features, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of the bare products and of the evaluation."""
    units, subjects = [], []
    for _ in range(repeats):
        units.append(seconds(lambda: bare_products(query, gallery)))
        subjects.append(seconds(lambda: evaluate_features(query, gallery)))
    return units, subjects


def usual_seconds(query: Features, gallery: Features, result: Evaluation) -> list[float]:
    scores, expected = usual_way(query, gallery), (result.mean_average_precision, result.rank(1))
    if not np.allclose(scores, expected, rtol=0, atol=1e-5):
        raise SystemExit(f"the usual way gives mAP and rank-1 {scores}, reidkit {expected}")
    return [seconds(lambda: usual_way(query, gallery)) for _ in range(2)]


def pair_statistics(query: Features, gallery: Features, average_precisions: NDArray[np.float64]) -> str:
    taken = {
        "distance distributions": seconds(lambda: distance_distributions(compare(query, gallery))),
        "ROC curve": seconds(lambda: roc(compare(query, gallery))),
        "two bootstraps of 1,000 resamples": seconds(
            lambda: [bootstrap_interval(average_precisions, identities=query.identities) for _ in range(2)]
        ),
    }
    parts = ", ".join(f"{name} {value:.2f} s" for name, value in taken.items())
    return f"Beside the scores: {parts}; together {cell(sum(taken.values()), LIMIT_STATISTICS)} s."


def shown(*lines: str) -> list[str]:
    print("\n".join(lines), flush=True)
    return list(lines)


def cell(value: float, most: float, digits: int = 2) -> str:
    """A number, in bold with its limit where it is above."""
    text = f"{value:.{digits}f}"
    return text if value <= most else f"**{text}** (limit {most:g})"


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def machine() -> str:
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    return f"{threads} threads of {processor()}, NumPy {np.__version__}, Python {platform.python_version()}."


# --- embeddings ----------------------------------------------------------------------------------------


def write_features(folder: Path, kind: str, data: Path, *, num_distractors: int = 0) -> None:
    """Labels and embeddings of both sides as .npy files; junk, which no protocol keeps, is left out."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2000, DIM), np.float32)
    spread = {"no negative values": 1.8, "collapsed": 2.0}.get(kind, 2.2)
    for side, file in (("query", "query"), ("gallery", "test")):
        identities, cameras = labels(data, f"{file}ID"), labels(data, f"{file}Cam")
        kept = identities != JUNK
        identities, cameras = identities[kept], cameras[kept]
        if side == "gallery":
            identities = np.concatenate([identities, np.zeros(num_distractors, np.int64)])
            cameras = np.concatenate([cameras, rng.integers(1, 7, num_distractors)])
        embeddings = np.lib.format.open_memmap(
            folder / f"{side}.npy",
            mode="w+",
            dtype=np.float16 if kind == MAPPED else np.float32,
            shape=(len(identities), DIM),
        )
        for start in range(0, len(identities), 8192):
            block = identities[start : start + 8192]
            embeddings[start : start + 8192] = made_up(kind, block, centres, spread, rng)
        embeddings.flush()
        np.savez(folder / f"{side}-labels.npz", identities=identities, cameras=cameras)


def labels(data: Path, name: str) -> NDArray[np.int64]:
    table = loadmat(data / "meta" / "market1501" / f"{name}.mat")
    return next(value for key, value in table.items() if not key.startswith("__")).ravel().astype(np.int64)


def made_up(
    kind: str, identities: NDArray[np.int64], centres: NDArray[np.float32], spread: float, rng: Any
) -> NDArray[np.floating[Any]]:
    """(n, D) about one centre an identity; distractors (identity 0) lie as far out, about none."""
    noise = rng.standard_normal((len(identities), DIM), np.float32)
    if kind == "random":
        return noise
    persons = (identities > 0)[:, None]
    embeddings = np.where(persons, centres[identities] + spread * noise, np.sqrt(1 + spread**2) * noise)
    if kind == "no negative values":
        return np.maximum(embeddings, 0)
    if kind == "collapsed":
        return centres[0] + 1e-3 * embeddings
    if kind == "all equal":
        return np.broadcast_to(centres[0], embeddings.shape)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def read_features(folder: Path, *, mapped: bool) -> tuple[Features, Features]:
    sides = []
    for side in ("query", "gallery"):
        embeddings = np.load(folder / f"{side}.npy", mmap_mode="r" if mapped else None)
        sides.append(Features(embeddings, **np.load(folder / f"{side}-labels.npz")))
    return sides[0], sides[1]


# --- what is measured ----------------------------------------------------------------------------------


def bare_products(query: Features, gallery: Features) -> None:
    """All products in float32; a half-precision file is converted once, a block at a time."""
    queries = query.embeddings.astype(np.float32, copy=False)
    tile = np.empty(TILE[0] * TILE[1], np.float32)
    for start in range(0, len(gallery), TILE[1]):
        items = gallery.embeddings[start : start + TILE[1]].astype(np.float32, copy=False)
        for first in range(0, len(queries), TILE[0]):
            rows = queries[first : first + TILE[0]]
            np.matmul(rows, items.T, out=tile[: len(rows) * len(items)].reshape(len(rows), len(items)))


def torch_ratio(query: Features, gallery: Features) -> float:
    """Median of the ratios of torch's and NumPy's products."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    queries, items = torch.from_numpy(query.embeddings), torch.from_numpy(gallery.embeddings)
    tile = torch.empty(TILE[0], len(items))

    def products() -> None:
        for first in range(0, len(queries), TILE[0]):
            rows = queries[first : first + TILE[0]]
            torch.mm(rows, items.T, out=tile[: len(rows)])

    products()
    return statistics.median(
        seconds(products) / seconds(lambda: bare_products(query, gallery)) for _ in range(5)
    )


def usual_way(query: Features, gallery: Features) -> tuple[float, float]:
    """mAP and rank-1 from one stable sort of the matrix of cosine distances."""
    sides = [
        part.embeddings / np.linalg.norm(part.embeddings, axis=1, keepdims=True) for part in (query, gallery)
    ]
    order = np.argsort(1 - sides[0] @ sides[1].T, axis=1, kind="stable")
    match = gallery.identities[order] == query.identities[:, None]
    kept = ~(match & (gallery.cameras[order] == query.cameras[:, None]))
    found = match & kept
    valid = found.any(axis=1)
    ranks = np.cumsum(kept, axis=1, dtype=np.int32)
    precisions = np.cumsum(found, axis=1, dtype=np.int32) / ranks.clip(1) * found
    first_is_match = (found & (ranks == 1)).any(axis=1)
    average_precisions = precisions.sum(axis=1)[valid] / found.sum(axis=1)[valid]
    return float(average_precisions.mean()), float(first_is_match[valid].mean())


# --- memory --------------------------------------------------------------------------------------------


def memory_in_another_process(folder: Path, *, mapped: bool) -> float:
    command = [sys.executable, __file__, "--memory-of", str(folder), "mapped" if mapped else "loaded"]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def extra_memory(folder: Path, *, mapped: bool) -> float:
    """MB, the first call of the process: libraries that it loads count."""
    query, gallery = read_features(folder, mapped=mapped)
    with peak("RssAnon" if mapped else "VmRSS") as found:
        evaluate_features(query, gallery)
    return (found["peak"] - found["before"]) / 1e6


@contextmanager
def peak(field: str) -> Iterator[dict[str, int]]:
    """Bytes held before, and at most until the end: by the system's count, or looked up each ms."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    found = {"before": resident(field), "peak": resident(field)}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1e-3):
            found["peak"] = max(found["peak"], resident(field))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        if field == "VmRSS":
            found["peak"] = resident("VmHWM")


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
