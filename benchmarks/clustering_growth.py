"""How time and memory of clustering grow: drawn people of 20 pictures each, who look alike.

    python benchmarks/clustering_growth.py --items 10000 100000 --write

Each size and method in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from reidkit.clustering import ClusterOptions, cluster
from reidkit.clustering.agreement import agreement
from results import processor, write_section

DIM, PER_PERSON = 512, 20
WITHIN, SPREAD = 24, 0.5  # dimensions in which people differ at all, and their pictures about their mean
METHODS = {"agglomerative": ClusterOptions(), "dbscan": ClusterOptions(method="dbscan", farthest=0.5)}


def people(num: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings (N, D) and whose they are (N,)."""
    rng = np.random.default_rng(0)
    who = np.arange(num) % (num // PER_PERSON)
    few = rng.standard_normal((num // PER_PERSON, WITHIN))[who] + SPREAD * rng.standard_normal((num, WITHIN))
    axes = np.linalg.qr(rng.standard_normal((DIM, WITHIN)))[0]
    rows = (few @ axes.T).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), who


def measure(num: int, method: str) -> dict[str, float]:
    """Seconds, those of the processor, gigabytes at most, F1 in percent."""
    rows, who = people(num)
    started, used = time.perf_counter(), time.process_time()
    found = agreement(who, cluster(rows, METHODS[method]))
    return {
        "wall": time.perf_counter() - started,
        "processor": time.process_time() - used,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "f1": 100 * found.pairwise_f1,
    }


def alone(num: int, method: str) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--one", method, "--items", str(num)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def row(num: int, method: str) -> str:
    found = alone(num, method)
    line = (
        f"| {num:,} | {method} | {found['wall']:,.0f} s | {found['processor']:,.0f} s | "
        f"{found['memory']:.1f} GB | {found['f1']:.1f} |"
    )
    print(line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.items[0], options.one)))
        return
    rows = [row(num, method) for num in options.items for method in METHODS]
    header = ["| pictures | method | time | of the processor | memory | pairwise F1 |", "|---" * 6 + "|"]
    table = "\n".join(
        [*header, *rows, "", f"{os.cpu_count()} cores of {processor()}, shared with other work."]
    )
    if options.write:
        write_section("clustering-growth", table)


if __name__ == "__main__":
    main()
