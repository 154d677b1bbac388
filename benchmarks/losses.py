"""Time and memory of every metric loss, as multiples of a bare distance pass; writes docs/results.md.

    python benchmarks/losses.py [--write] [--sizes 128 512 2048 4096] [--losses NAME ...] [--processor-time]

The unit is what every loss of pairs pays at least: a float32 N x N matrix of Euclidean distances, written
plainly, and its backward pass. Unit and subject run in turn and the median of their ratios counts, so a busy
machine slows both alike. Memory is the peak of one forward and backward pass in a process of its own, in
N x N float32 matrices (of the process on a CPU, of PyTorch's allocator on a GPU), beyond the batch and the
libraries.

With --processor-time one thread works and its processor time counts, for a machine that does other work; that
is a table of its own.

Beside reidkit's losses stand pytorch-metric-learning's batch-hard triplet loss, and its triplet loss over all
triplets where these fit into memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from reidkit import registry
from results import processor, rows_before, write_section

DIM, IMAGES_PER_IDENTITY = 512, 4
SIZES = (128, 512, 2048, 4096)
MEMORY_SIZE = 2048
SMALL = 128  # where call overhead rules, one limit for all
LIMITS = {
    **dict.fromkeys(("trihard", "msml"), 0.9),
    "sn": 1.2,
    **dict.fromkeys(("p2s", "hap2s"), 1.5),
    "contrastive": 2.5,
    **dict.fromkeys(("triplet", "quadruplet"), 4.0),
}
LIMIT_SMALL, LIMIT_MEMORY = 3.5, 6.0
LIMIT_MEMORY_MINED = 1.0  # of the losses that mine: in blocks, without an N x N matrix
MINED = ("trihard", "msml", "sn")
BATCH_HARD, ALL_TRIPLETS = "pytorch-metric-learning, batch hard", "pytorch-metric-learning, all triplets"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Loss = Callable[[Tensor, Tensor], Tensor]
clock = time.perf_counter


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--losses", nargs="+", help="only these; other rows stay as they were written")
    parser.add_argument("--processor-time", action="store_true", help="of one thread, not by the clock")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/results.md")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(peak_memory(options.memory_of))
        return
    section = "losses"
    if options.processor_time:
        global clock
        clock, section = time.process_time, "losses-processor-time"
        torch.set_num_threads(1)
    names, before = [*ours(), BATCH_HARD, ALL_TRIPLETS], rows_before(section)
    lines = [
        "| loss | " + " | ".join(f"N = {size}" for size in options.sizes) + f" | memory, N = {MEMORY_SIZE} |",
        "|---|" + "---|" * (len(options.sizes) + 1),
    ]
    print("\n".join(lines), flush=True)
    for name in names:
        if options.losses and name not in options.losses:
            lines += [before[name]] if options.write and name in before else []
            continue
        cells = [cell(ratio(name, size), limit(name, size)) for size in options.sizes]
        cells.append(cell(memory_in_another_process(name), memory_limit(name)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    unit = ", ".join(f"{1e3 * statistics.median(unit_times(size)):.3g} ms" for size in options.sizes)
    lines += [
        "",
        f"One unit: {unit}. {DIM} values an embedding, {IMAGES_PER_IDENTITY} images an identity, "
        f"{machine()}.",
    ]
    print("\n".join(lines[-2:]))
    if options.write:
        write_section(section, "\n".join(lines), script="losses")


def ours() -> list[str]:
    """Losses of pairs: not those that compare with parameters of identities."""
    components = {name: registry.get("loss", name) for name in registry.names("loss")}
    return [n for n, loss in components.items() if loss.reads == "metric" and not hasattr(loss, "fill")]


def limit(name: str, size: int) -> float | None:
    if name not in LIMITS:
        return None
    return LIMIT_SMALL if size <= SMALL else LIMITS[name]


def memory_limit(name: str) -> float | None:
    if name not in LIMITS:
        return None
    return LIMIT_MEMORY_MINED if name in MINED else LIMIT_MEMORY


def cell(value: float | None, most: float | None) -> str:
    """A number, in bold with its limit where it is above."""
    if value is None:
        return "does not fit"
    return f"{value:.2f}" if most is None or value <= most else f"**{value:.2f}** (limit {most:g})"


# --- what is measured ----------------------------------------------------------------------------------


def bare_distance_pass(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Sum of all distances, in plain PyTorch."""
    squared_norms = embeddings.square().sum(dim=1)
    squared = squared_norms[:, None] + squared_norms - 2 * embeddings @ embeddings.T
    return squared.clamp_min(1e-12).sqrt().sum()


def build(name: str) -> Loss:
    if name == BATCH_HARD:
        from pytorch_metric_learning import losses, miners

        loss, miner = losses.TripletMarginLoss(margin=0.3), miners.BatchHardMiner()
        return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))
    if name == ALL_TRIPLETS:
        from pytorch_metric_learning import losses

        return losses.TripletMarginLoss(margin=0.3)
    loss = registry.build("loss", name)
    return loss.to(DEVICE)


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Identities that overlap: margins are violated, as early in training."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(size // IMAGES_PER_IDENTITY, DIM, generator=generator).repeat_interleave(
        IMAGES_PER_IDENTITY, 0
    )
    embeddings = 0.3 * centres + torch.randn(size, DIM, generator=generator)
    labels = torch.arange(size // IMAGES_PER_IDENTITY).repeat_interleave(IMAGES_PER_IDENTITY)
    return embeddings.to(DEVICE).requires_grad_(), labels.to(DEVICE)


def seconds(loss: Loss, embeddings: Tensor, labels: Tensor) -> float:
    """Of one forward and backward pass: by the clock on a CPU, by events on a GPU."""
    embeddings.grad = None
    if DEVICE == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        loss(embeddings, labels).backward()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    started = clock()
    loss(embeddings, labels).backward()
    return clock() - started


def num_repeats(size: int) -> int:
    return {128: 200, 512: 60, 2048: 9}.get(size, 5)


def unit_times(size: int) -> list[float]:
    embeddings, labels = batch(size)
    return [seconds(bare_distance_pass, embeddings, labels) for _ in range(num_repeats(size) + 2)][2:]


def ratio(name: str, size: int) -> float | None:
    """Median of the ratios of subject and unit, run in turn; None where it cannot fit into memory."""
    if name == ALL_TRIPLETS and not fits(size**3):
        return None
    loss, (embeddings, labels) = build(name), batch(size)
    ratios = []
    for number in range(num_repeats(size) + 2):
        unit = seconds(bare_distance_pass, embeddings, labels)
        subject = seconds(loss, embeddings, labels)
        if number >= 2:  # the first calls set up memory and kernels
            ratios.append(subject / unit)
    return statistics.median(ratios)


def fits(num_bytes: int) -> bool:
    """Whether half of the free memory holds so many bytes."""
    if DEVICE == "cuda":
        return num_bytes < torch.cuda.mem_get_info()[0] / 2
    return num_bytes < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


# --- memory --------------------------------------------------------------------------------------------


def memory_in_another_process(name: str) -> float | None:
    if name == ALL_TRIPLETS and not fits(2 * MEMORY_SIZE**3):
        return None
    command = [sys.executable, __file__, "--memory-of", name]
    # Else the C library keeps freed blocks for later, and they count as the loss's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(result.stdout)


def peak_memory(name: str) -> float:
    """Peak of one pass in N x N float32 matrices, beyond what is held before it."""
    loss = build(name)
    loss(*batch(SMALL)).backward()  # loads the libraries
    embeddings, labels = batch(MEMORY_SIZE)
    embeddings.grad = torch.zeros_like(embeddings)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(embeddings, labels).backward()
        peak = torch.cuda.max_memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
        before = resident("VmRSS")
        loss(embeddings, labels).backward()
        peak = resident("VmHWM")
    return (peak - before) / (4 * MEMORY_SIZE**2)


def resident(field: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def machine() -> str:
    if DEVICE == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return (
        f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)} of {processor()}, {versions}"
    )


if __name__ == "__main__":
    main()
