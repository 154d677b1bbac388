"""Time and memory of k-reciprocal re-ranking at Market-1501's and MSMT17's size; writes docs/results.md.

    python benchmarks/reranking.py [--write] [--dim 512] [--only market1501 | msmt17] [--share 1.0]

At Market-1501's size identities and cameras are those of its 3,368 queries and 15,913 gallery images (junk
left out), read from `$REIDKIT_DATA/meta`; at MSMT17's (11,659 and 82,161 images of 3,060 identities under 15
cameras) they are drawn. Embeddings are made up: a centre for each identity, an offset for each of its
cameras, noise. Beside re-ranking stands what no exact method can do without, the 21 nearest of all rows by
float32 products and a partition; and, at a size that it can do, the literal method of dense N x N arrays that
the tests compare with. Memory is the peak of the process beyond what it held before, the result included;
MSMT17's size is measured in a process of its own. `--share` takes so much of MSMT17's size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.evaluation.evaluation import evaluate_features
from reidkit.reranking import query_expansion, rerank
from reidkit.types import JUNK, Features
from results import processor, write_section

REPOSITORY = Path(__file__).parent.parent
LITERAL_STEP = 10  # one in so many queries and gallery items is left to the literal method
ROWS_PER_BLOCK = 512
LIMITS = "Limits: 4 x and 1024 MiB at Market-1501's size, 3072 MiB at MSMT17's."
HEAD = ["| | queries x gallery | time | extra memory | mAP | rank-1 |", "|---|---|---|---|---|---|"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=512, help="values an embedding")
    parser.add_argument("--only", choices=["market1501", "msmt17"], help="one of the two sizes")
    parser.add_argument("--share", type=float, default=1.0, help="of MSMT17's size")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in the process of its own
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(reranked, *msmt17_features(options.dim, options.share))))
        return
    lines, summary = [*HEAD], []
    print("\n".join(HEAD), flush=True)
    if options.only != "msmt17":
        summary.append(at_market1501_size(options.dim, lines))
    if options.only != "market1501":
        at_msmt17_size(options.dim, options.share, lines)
    lines += [
        "",
        " ".join(
            [
                *summary,
                LIMITS,
                f"{options.dim} values an embedding, {torch.get_num_threads()} threads of {processor()}, "
                f"torch {torch.__version__}, NumPy {np.__version__}, Python {platform.python_version()}.",
            ]
        ),
    ]
    print("\n".join(lines[-2:]))
    if options.write:
        write_section("reranking", "\n".join(lines))


def at_market1501_size(dim: int, lines: list[str]) -> str:
    """Adds rows to ``lines``; returns the ratio of re-ranking to the search for neighbours, in words."""
    sides = market_features(dim)
    few = every(sides[0], LITERAL_STEP), every(sides[1], LITERAL_STEP)
    rerank(sides[0].embeddings[:50], sides[1].embeddings[:50])  # loads the libraries
    add_row(lines, "no re-ranking, evaluated", sides, measured(plain, *sides))
    add_row(lines, "average query expansion (8), evaluated", sides, measured(expanded, *sides))
    search = add_row(lines, "21 nearest of all rows", sides, measured(nearest_of_all, *sides))
    whole = add_row(lines, "re-ranking", sides, measured(whole_matrix, *sides))
    evaluated = add_row(lines, "re-ranking, evaluated", sides, measured(reranked, *sides))
    add_row(lines, "re-ranking", few, measured(whole_matrix, *few))
    add_row(lines, "literal, dense, float64", few, measured(literal_method(), *few))
    return (
        f"Re-ranking takes {whole / search:.1f} x the search for the 21 nearest, evaluated and beside the "
        f"plain ranking {evaluated / search:.1f} x."
    )


def at_msmt17_size(dim: int, share: float, lines: list[str]) -> None:
    command = [sys.executable, __file__, "--here", "--dim", str(dim), "--share", str(share)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    add_row(lines, "re-ranking, evaluated", [range(size) for size in msmt17_sizes(share)], found)


def add_row(lines: list[str], name: str, sides: Sequence[Sized], found: Sequence[Any]) -> float:
    """Print and keep one row of the table; returns seconds."""
    seconds, mebibytes, result = found
    scores = "| | |" if result is None else "| {:.1f} | {:.1f} |".format(*(100 * score for score in result))
    size = f"{len(sides[0]):,} x {len(sides[1]):,}"
    lines.append(f"| {name} | {size} | {seconds:.1f} s | {mebibytes:.0f} MiB {scores}")
    print(lines[-1], flush=True)
    return float(seconds)


# --- what is measured ----------------------------------------------------------------------------------


def plain(query: Features, gallery: Features) -> tuple[float, float]:
    evaluation = evaluate_features(query, gallery)
    return evaluation.mean_average_precision, evaluation.rank(1)


def expanded(query: Features, gallery: Features) -> tuple[float, float]:
    embeddings = query_expansion(query.embeddings, gallery.embeddings, top=8)
    return plain(Features(embeddings, query.identities, query.cameras), gallery)


def nearest_of_all(query: Features, gallery: Features) -> None:
    rows = np.concatenate([query.embeddings, gallery.embeddings])
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        scores = rows[start : start + ROWS_PER_BLOCK] @ rows.T
        np.argpartition(scores, -21, axis=1)[:, -21:]


def whole_matrix(query: Features, gallery: Features) -> None:
    rerank(query.embeddings, gallery.embeddings)


def reranked(query: Features, gallery: Features) -> tuple[float, float]:
    evaluation = evaluate_features(query, gallery, rerank=True)
    return evaluation.mean_average_precision, evaluation.rank(1)


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
    return made_up([market_labels(folder / f"market1501_{part}.csv") for part in ("query", "test")], dim=dim)


def msmt17_sizes(share: float) -> list[int]:
    return [round(share * size) for size in (11_659, 82_161)]


def msmt17_features(dim: int, share: float) -> tuple[Features, Features]:
    rng = np.random.default_rng(1)
    return made_up(
        [
            (rng.integers(1, 1 + round(share * 3_060), size), rng.integers(0, 15, size))
            for size in msmt17_sizes(share)
        ],
        dim=dim,
    )


def made_up(
    labels: list[tuple[NDArray[np.int64], NDArray[np.int64]]], *, dim: int
) -> tuple[Features, Features]:
    """Query and gallery embeddings (N, dim) for identities and cameras."""
    rng = np.random.default_rng(0)
    num_identities, num_cameras = (1 + max(int(side[kind].max()) for side in labels) for kind in (0, 1))
    centres = rng.standard_normal((num_identities, dim), np.float32)
    of_cameras = rng.standard_normal((num_identities, num_cameras, dim), np.float32)
    sides = []
    for identities, cameras in labels:
        embeddings = centres[identities] + of_cameras[identities, cameras]
        distractors = identities == 0  # each shows something of its own
        embeddings[distractors] = 2**0.5 * rng.standard_normal((distractors.sum(), dim), np.float32)
        embeddings += np.float32(2.1) * rng.standard_normal(embeddings.shape, np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        sides.append(Features(embeddings, identities, cameras))
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
