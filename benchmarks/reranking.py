"""Time and memory of k-reciprocal re-ranking at Market-1501's size; writes them into docs/results.md.

    python benchmarks/reranking.py [--write] [--dim 512]

Identities and cameras are Market-1501's 3,368 queries and 15,913 gallery images (junk left out), read from
`$REIDKIT_DATA/meta`; embeddings are made up: a centre for each identity, an offset for each of its cameras,
noise. Beside re-ranking stands what no exact method can do without, the 21 nearest of all 19,281 rows by
float32 products and a selection of the largest; and, at a size that it can do, the literal method of dense
N x N arrays that the tests compare with. Memory is the peak of the process beyond what it held before, the
result included.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.evaluation import evaluate_features
from reidkit.reranking import Reranker, query_expansion, rerank
from reidkit.types import JUNK, Features
from results import processor, write_section

REPOSITORY = Path(__file__).parent.parent
LITERAL_STEP = 10  # one in so many queries and gallery items is left to the literal method
QUERIES_PER_BLOCK = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=512, help="values an embedding")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    query, gallery = market_features(options.dim)
    few = every(query, LITERAL_STEP), every(gallery, LITERAL_STEP)
    literal = literal_method()
    rerank(query.embeddings[:50], gallery.embeddings[:50])  # loads the libraries

    lines = ["| | queries x gallery | time | extra memory | mAP | rank-1 |", "|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)

    def row(
        name: str, function: Callable[[Features, Features], Any], query: Features, gallery: Features
    ) -> float:
        """Measure, print and keep one row of the table; returns seconds."""
        seconds, mebibytes, result = measured(function, query, gallery)
        scores = "| | |"
        if result is not None:
            scores = "| {:.1f} | {:.1f} |".format(*(100 * score for score in result))
        lines.append(
            f"| {name} | {len(query)} x {len(gallery)} | {seconds:.1f} s | {mebibytes:.0f} MiB {scores}"
        )
        print(lines[-1], flush=True)
        return seconds

    row("no re-ranking, evaluated", plain, query, gallery)
    row("average query expansion (8), evaluated", expanded, query, gallery)
    search = row("21 nearest of all rows", nearest_of_all, query, gallery)
    whole = row("re-ranking", whole_matrix, query, gallery)
    row("re-ranking by query blocks, evaluated", streamed, query, gallery)
    row("re-ranking", whole_matrix, *few)
    row("literal, dense, float64", literal, *few)
    lines += [
        "",
        f"Re-ranking takes {whole / search:.1f} x the search for the 21 nearest. {options.dim} values an "
        f"embedding, {torch.get_num_threads()} threads of {processor()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, Python {platform.python_version()}.",
    ]
    print("\n".join(lines[-2:]))
    if options.write:
        write_section("reranking", "\n".join(lines))


# --- what is measured ----------------------------------------------------------------------------------


def plain(query: Features, gallery: Features) -> tuple[float, float]:
    evaluation = evaluate_features(query, gallery)
    return evaluation.mean_average_precision, evaluation.rank(1)


def expanded(query: Features, gallery: Features) -> tuple[float, float]:
    embeddings = query_expansion(query.embeddings, gallery.embeddings, top=8)
    return plain(Features(embeddings, query.identities, query.cameras), gallery)


def nearest_of_all(query: Features, gallery: Features) -> None:
    rows = torch.from_numpy(np.concatenate([query.embeddings, gallery.embeddings]))
    for block in rows.split(512):
        (block @ rows.T).topk(21)


def whole_matrix(query: Features, gallery: Features) -> None:
    rerank(query.embeddings, gallery.embeddings)


def streamed(query: Features, gallery: Features) -> tuple[float, float]:
    """mAP and rank-1 of the re-ranked lists under Market-1501's rule, without the whole matrix."""
    reranker = Reranker(query.embeddings, gallery.embeddings)
    precisions, firsts = [], []
    for start in range(0, len(query), QUERIES_PER_BLOCK):
        for row, distances in enumerate(reranker.rows(slice(start, start + QUERIES_PER_BLOCK)), start):
            order = np.argsort(distances, kind="stable")
            same = gallery.identities[order] == query.identities[row]
            kept = ~(same & (gallery.cameras[order] == query.cameras[row]))
            ranks = 1 + np.flatnonzero(same[kept])
            if len(ranks):
                precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
                firsts.append(ranks[0] == 1)
    return float(np.mean(precisions)), float(np.mean(firsts))


def literal_method() -> Callable[[Features, Features], None]:
    dense = runpy.run_path(str(REPOSITORY / "tests" / "unit" / "test_reranking.py"))["dense_rerank"]

    def run(query: Features, gallery: Features) -> None:
        dense(query.embeddings, gallery.embeddings)

    return run


# --- how, and on what ----------------------------------------------------------------------------------


def measured(
    function: Callable[[Features, Features], Any], query: Features, gallery: Features
) -> tuple[float, float, Any]:
    """Seconds, peak MiB beyond what is held before, and the result."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before = resident("VmRSS")
    started = time.perf_counter()
    result = function(query, gallery)
    return time.perf_counter() - started, (resident("VmHWM") - before) / 1024, result


def resident(field: str) -> int:
    """KiB of this process in memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def market_features(dim: int) -> tuple[Features, Features]:
    folder = (
        Path(os.environ.get("REIDKIT_DATA", REPOSITORY.parent / "shared" / "data")) / "meta" / "market1501"
    )
    rng = np.random.default_rng(0)
    labels = [market_labels(folder / f"market1501_{part}.csv") for part in ("query", "test")]
    num_identities = 1 + max(int(identities.max()) for identities, _ in labels)
    centres = rng.normal(size=(num_identities, dim))
    of_cameras = rng.normal(size=(num_identities, 7, dim))
    sides = []
    for identities, cameras in labels:
        embeddings = centres[identities] + of_cameras[identities, cameras]
        distractors = identities == 0  # each shows something of its own
        embeddings[distractors] = 2**0.5 * rng.normal(size=(distractors.sum(), dim))
        embeddings += 2.1 * rng.normal(size=embeddings.shape)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        sides.append(Features(embeddings.astype(np.float32), identities, cameras))
    return sides[0], sides[1]


def market_labels(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Identities and cameras, without junk."""
    rows = [line.split(",") for line in path.read_text().split()]
    identities = np.array([int(identity) for identity, _ in rows])
    cameras = np.array([int(re.search(r"_c(\d)s", image)[1]) for _, image in rows])
    return identities[identities != JUNK], cameras[identities != JUNK]


def every(features: Features, step: int) -> Features:
    return Features(features.embeddings[::step], features.identities[::step], features.cameras[::step])


if __name__ == "__main__":
    main()
