"""Two processes with the environment that torchrun gives, forked from one that has imported torch already.

They differ from torchrun's in that they need no seconds for imports. What only torchrun does, as restarts, is
tested with torchrun.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

NUM_RANKS = 2
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["reidkit.training.trainer", "timm", "torch._dynamo"])


@dataclass(frozen=True)
class Rank:
    """How one of the processes ended, and what it said."""

    code: int
    stdout: str
    stderr: str


def run_ranks(
    target: Callable[..., None], *arguments: object, folder: Path, seconds: float = 240
) -> list[Rank]:
    """Call ``target`` in each of the processes and wait for them; one that hangs is killed.

    Args:
        target: of a module that can be imported.
        arguments: of it.
        folder: where what they say is kept.
        seconds: until they are killed.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun has one, too
    processes: list[BaseProcess] = [
        _WARM.Process(target=_be_rank, args=(rank, store.port, folder, target, arguments))
        for rank in range(NUM_RANKS)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [
        Rank(int(process.exitcode or 0), *(_said(folder, rank, stream) for stream in ("stdout", "stderr")))
        for rank, process in enumerate(processes)
    ]


def run_well(target: Callable[..., None], *arguments: object, folder: Path, seconds: float = 240) -> None:
    """The same; each of them must end well."""
    for rank in run_ranks(target, *arguments, folder=folder, seconds=seconds):
        assert rank.code == 0, rank.stderr


def command(*words: str) -> None:
    """The ``reid`` command, to be called in a process of its own."""
    from reidkit.cli import main

    sys.argv = ["reid", *words]
    main()


def _said(folder: Path, rank: int, stream: str) -> str:
    return (folder / f"{rank}.{stream}").read_text()


def _be_rank(
    rank: int, port: int, folder: Path, target: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    for stream in (sys.stdout, sys.stderr):
        name = {1: "stdout", 2: "stderr"}[stream.fileno()]
        with (folder / f"{rank}.{name}").open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(NUM_RANKS),
        "LOCAL_WORLD_SIZE": str(NUM_RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    target(*arguments)
