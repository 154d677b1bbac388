"""Several processes as one: the process group, and the gather through which gradients flow.

Every process computes every loss over the *global* batch, gathered by :func:`gather_with_gradient`, so
that hard pairs are sought among all images. Why the gradients come out right, for W processes, the loss L,
and model parameters t: each process has the whole dL/df; the backward pass sums it over the processes (W
dL/df) and hands each its own rows f_r; data-parallel training averages ``W dL/df_r df_r/dt`` over the
processes, and the sum over r of ``dL/df_r df_r/dt`` is the gradient of one process with the whole batch.
Parameters of a loss (a classifier) have the whole gradient on every process, and so their average is that
too. Nothing is to be scaled by W. Model and losses go into one ``DistributedDataParallel`` module.

A dropout inside a loss must draw the same numbers on every process for the equality to be exact;
otherwise the gradient is that of the mean loss over the processes' draws.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import torch
import torch.distributed as dist

# Data-parallel training imports this later on, and its default arguments then hold the process group for
# good: gloo's threads outlive shutdown() and now and then abort the process at its exit. Too early, they
# hold nothing.
import torch.distributed.nn
from torch import Tensor

from reidkit.errors import ConfigError, DataError

TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def initialise() -> None:
    """Join the process group that torchrun's environment describes; do nothing outside of one.

    NCCL carries tensors on GPUs, gloo those on the CPU. With GPUs, the process takes the one of its local
    rank: ``torch.device("cuda")`` is that one from then on.

    Raises:
        ConfigError: more processes on this machine than GPUs.
    """
    if dist.is_initialized() or any(name not in os.environ for name in TORCHRUN_VARIABLES):
        return
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return
    local_rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= num_gpus:
        raise ConfigError(
            f"LOCAL_RANK is {local_rank}, but this machine shows {num_gpus} GPUs; start at most {num_gpus} "
            'processes here, or hide the GPUs with CUDA_VISIBLE_DEVICES="" to train on the CPU'
        )
    torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl")


def shutdown() -> None:
    """Leave the process group, if there is one. Let go of data-parallel modules first: they hold it."""
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """The tensors of all processes in the order of their ranks: (n, ...) -> (W * n, ...).

    In the backward pass gradients are summed over the processes, so every process must reach it. Without
    a process group the tensor itself is returned.

    Raises:
        DataError: the processes hold different numbers of rows.
    """
    if not dist.is_initialized():
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def gather_labels(labels: Tensor) -> Tensor:
    """Like :func:`gather_with_gradient`, for tensors that carry no gradient: (n,) -> (W * n,)."""
    return _all_gather(labels) if dist.is_initialized() else labels


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.num_rows = len(tensor)
        return _all_gather(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.num_rows, ctx.num_rows)


def _all_gather(tensor: Tensor) -> Tensor:
    _check_equal_lengths(tensor)
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _check_equal_lengths(tensor: Tensor) -> None:
    """Unequal lengths would hang the gather or fill it with rubbish."""
    length = torch.tensor([len(tensor)], device=tensor.device)
    lengths = [torch.empty_like(length) for _ in range(world_size())]
    dist.all_gather(lengths, length)
    found = torch.cat(lengths).tolist()
    if len(set(found)) > 1:
        raise DataError(
            f"the processes hold {', '.join(map(str, found))} rows (rank 0 first); "
            "every process must bring the same number, so drop the last, smaller batch"
        )
