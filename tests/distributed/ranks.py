"""Two processes as torchrun starts them, without the seconds that it and they need for imports.

What torchrun itself does, as starting them again, is tested with torchrun.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from tests import warm

NUM_RANKS = 2


@dataclass(frozen=True)
class Rank:
    """How one of the processes ended, and what it said."""

    code: int | None
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
    processes = []
    try:
        for rank in range(NUM_RANKS):
            place = environment_of(rank, store.port)
            processes.append(warm.start(target, *arguments, says=folder / str(rank), environment=place))
        for process in processes:
            process.join(seconds)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [
        Rank(process.exitcode, *(warm.said(folder / str(rank), stream) for stream in ("stdout", "stderr")))
        for rank, process in enumerate(processes)
    ]


def run_well(target: Callable[..., None], *arguments: object, folder: Path, seconds: float = 240) -> None:
    """The same; each of them must end well."""
    for rank in run_ranks(target, *arguments, folder=folder, seconds=seconds):
        assert rank.code == 0, rank.stderr


def environment_of(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(NUM_RANKS),
        "LOCAL_WORLD_SIZE": str(NUM_RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
