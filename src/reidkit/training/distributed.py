"""Several processes as one: the process group, and the gather through which gradients flow.

Every process computes every loss over the *global* batch, gathered by :func:`gather_with_gradient`, so
that hard pairs are mined among all images. The gradients are correct for the following reason. With W
processes, loss L and model parameters t, each process has the whole dL/df. The backward pass sums it over
the processes (W dL/df) and hands each its own rows f_r. Data-parallel training averages ``W dL/df_r df_r/dt``
over the processes, and the sum over r of ``dL/df_r df_r/dt`` is the gradient of one process with the whole
batch.
Parameters of a loss (a classifier) have the whole gradient on every process, so averaging leaves it as it
is. Nothing needs to be scaled by W. Model and losses go into one ``DistributedDataParallel`` module.

A batch norm uses the statistics of the images on its own process, so training on several processes
differs from training on one unless :func:`synchronise_batch_norm` is used.

The equality is exact only if dropout inside a loss draws the same numbers on every process; otherwise the
gradient is that of the loss averaged over the processes' draws.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

# Data-parallel training imports this later on, and its default arguments then hold the process group for
# good: gloo's threads outlive shutdown() and now and then abort the process at its exit. Too early, they
# hold nothing.
import torch.distributed.nn
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from reidkit.errors import ConfigError, DataError, ReidError, TrainingError

TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = 24 * 60.0
"""Minutes that processes wait for one that works alone: ranking or a report may take hours. One that ended is
noticed at once, whatever the limit."""

Result = TypeVar("Result")

_cpu_group: dist.ProcessGroup | None = None  # beside NCCL's, for words and waiting; None is the default group


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
        _join("gloo")
        return
    local_rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= num_gpus:
        raise ConfigError(
            f"LOCAL_RANK is {local_rank}, but this machine shows {num_gpus} GPUs; start at most {num_gpus} "
            'processes here, or hide the GPUs with CUDA_VISIBLE_DEVICES="" to train on the CPU'
        )
    torch.cuda.set_device(local_rank)
    _join("cpu:gloo,cuda:nccl")
    global _cpu_group
    _cpu_group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))


def _join(backend: str) -> None:
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # Machines may count restarts differently.
    if restart == "0" or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        dist.init_process_group(backend)
        return
    # Torchrun keeps one store over all restarts, where gloo would find the addresses of processes that died.
    store, rank, world_size = next(rendezvous("env://"))
    dist.init_process_group(
        backend, store=PrefixStore(f"restart-{restart}", store), rank=rank, world_size=world_size
    )


def shutdown() -> None:
    """Leave the process group, if there is one. Let go of data-parallel modules first: they hold it."""
    global _cpu_group
    if dist.is_initialized():
        _cpu_group = None
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


def barrier(*, minutes: float = LONGEST_WAIT) -> None:
    """Wait until every process is here. It precedes all talk below, whose own limits are short.

    Raises:
        TrainingError: a process ended, or did not come within these minutes; names it where it can.
    """
    if not dist.is_initialized():
        return
    try:
        dist.monitored_barrier(_cpu_group, timeout=timedelta(minutes=minutes), wait_all_ranks=True)
    except RuntimeError as error:
        raise TrainingError(
            f"rank {rank()} waited for the other processes in vain: {str(error).splitlines()[0]}. Look at "
            "what these ranks said last; the same command goes on from the last checkpoint"
        ) from error


@contextmanager
def failures_explained() -> Iterator[None]:
    """Replace errors of the process group by what they mean.

    Raises:
        TrainingError: in place of such an error; the model's own errors stay what they are.
    """
    try:
        yield
    except RuntimeError as error:
        # NCCL and the store raise their own classes; gloo's errors are recognised by their source path.
        if not dist.is_initialized() or not (isinstance(error, dist.DistError) or "/gloo/" in str(error)):
            raise
        what, *_ = str(error).partition(". This is typically")  # gloo's guess at the cause, replaced by ours
        raise TrainingError(
            f"rank {rank()} lost the other processes: {what.splitlines()[0]}. Usually one of them ended or "
            "hangs: look at what the other ranks said last. The same command goes on from the last checkpoint"
        ) from error


def gather_objects(item: Any) -> list[Any]:
    """Gather one object from each process, by rank, on every process."""
    if not dist.is_initialized():
        return [item]
    barrier()
    items = [None] * world_size()
    dist.all_gather_object(items, item, _cpu_group)
    return items


def gather_on_main(item: Any) -> list[Any] | None:
    """Gather one object from each process, by rank, on the main process; None on the others."""
    if not dist.is_initialized():
        return [item]
    barrier()
    items = [None] * world_size() if is_main() else None
    dist.gather_object(item, items, 0, _cpu_group)
    return items


def from_main(item: Any) -> Any:
    """Broadcast an object of the main process."""
    if not dist.is_initialized():
        return item
    barrier()
    items = [item]
    dist.broadcast_object_list(items, 0, _cpu_group, device=torch.device("cpu"))
    return items[0]


def run_on_main(action: Callable[[], Result]) -> Result:
    """Run ``action`` on the main process; all return its result or raise its :class:`ReidError`."""
    result, problem = None, None
    if is_main():
        try:
            result = action()
        except ReidError as error:
            problem = error
    result, problem = from_main((result, problem))
    if problem is not None:
        raise problem
    return cast(Result, result)


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with their values on the main process."""
    if dist.is_initialized():
        barrier()
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def largest(number: int) -> int:
    """The maximum of a number over the processes."""
    if not dist.is_initialized():
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX, _cpu_group)
    return int(found)


def check_agreement(settings: Mapping[str, Any]) -> None:
    """Check that all processes were given the same settings before they train together.

    Raises:
        ConfigError: on every process, naming the keys that differ and which rank has which value.
    """
    flat = gather_objects(_flattened(settings))
    problems = []
    for key in sorted({key for there in flat for key in there}):
        values = [there.get(key) for there in flat]
        if any(value != values[0] for value in values):
            shown = ", ".join(f"{value!r} on rank {rank}" for rank, value in enumerate(values))
            problems.append(f"{key}: {shown}")
    if problems:
        raise ConfigError(["the processes of this run were given different settings or data", *problems])


def data_parallel(module: nn.Module) -> nn.Module:
    """The module with the main process's weights, and gradients averaged over the processes."""
    if not dist.is_initialized():
        return module
    # Some parameters may get no gradient: their loss starts later, or no loss reads their feature.
    wrapped: nn.Module = DistributedDataParallel(module, find_unused_parameters=True)
    return wrapped


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


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, which must have equal numbers of images.

    Forward and backward are those of one process with the whole batch. PyTorch's own does the same on GPUs
    only. Without a process group, and in evaluation, it is a plain batch norm.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
            axes = [0, *range(2, inputs.ndim)]
            shape = [1, -1, *[1] * (inputs.ndim - 2)]
            mean = _mean_over_processes(values.mean(axes))  # (C,)
            centred = values - mean.view(shape)
            variance = _mean_over_processes(centred.square().mean(axes))
            self._learn_statistics(mean, variance, inputs.numel() // len(mean) * world_size())
            scale = (variance + self.eps).rsqrt()
            if self.weight is not None:
                scale = scale * self.weight
            outputs = centred * scale.view(shape)
            if self.bias is not None:
                outputs = outputs + self.bias.view(shape)
            return outputs.to(inputs.dtype)

    @torch.no_grad()
    def _learn_statistics(self, mean: Tensor, variance: Tensor, num_values: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        momentum = 1.0 / int(self.num_batches_tracked or 1) if self.momentum is None else self.momentum
        unbiased = variance * (num_values / max(1, num_values - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)

    def _check_input_dim(self, inputs: Tensor) -> None:
        """Any number of dimensions: 1d, 2d and 3d are one here."""


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Let the batch norms of a model see the batch of all processes; their weights keep their names.

    Raises:
        ConfigError: a layer that does more than normalising, which would be lost.
    """
    if not dist.is_initialized():
        return
    kind = nn.SyncBatchNorm if device.type == "cuda" else SynchronizedBatchNorm
    for path, parent in list(model.named_modules()):
        for name, norm in parent.named_children():
            if not isinstance(norm, _BatchNorm):
                continue
            if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                raise ConfigError(
                    f"layer {path}.{name} is a {type(norm).__name__}, which cannot be synchronised; choose "
                    "another network or train.batch_norm = 'local' or 'frozen'"
                )
            synchronised = kind(norm.num_features, norm.eps, norm.momentum)
            synchronised.weight, synchronised.bias = norm.weight, norm.bias
            synchronised.running_mean, synchronised.running_var = norm.running_mean, norm.running_var
            synchronised.num_batches_tracked = norm.num_batches_tracked
            setattr(parent, name, synchronised.train(norm.training))


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = _summed(tensor)
        # Compiled, PyTorch 2.11 gives no gradient to what an operation in place made.
        return total.clone() if torch.compiler.is_compiling() else total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _mean_over_processes(tensor: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(tensor)
    return total / world_size()


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Mean of a tensor that every process has, without a graph."""
    return _summed(tensor) / world_size() if world_size() > 1 else tensor


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.num_rows = len(tensor)
        return _all_gather(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0]).narrow(0, dist.get_rank() * ctx.num_rows, ctx.num_rows)


def _all_gather(tensor: Tensor) -> Tensor:
    _check_equal_lengths(len(tensor))
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _check_equal_lengths(length: int) -> None:
    """Unequal lengths would hang the gather or fill it with rubbish.

    They are compared among the CPUs: looking at a GPU's tensor waits until the GPU has done all its work.
    """
    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([length]), _cpu_group)
    found = torch.cat(lengths).tolist()
    if len(set(found)) > 1:
        raise DataError(
            f"the processes hold {', '.join(map(str, found))} rows (rank 0 first); "
            "every process must bring the same number, so drop the last, smaller batch"
        )


def _flattened(settings: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested tables by its whole name."""
    if isinstance(settings, Mapping):
        below = [(f"{path}.{key}".lstrip("."), value) for key, value in settings.items()]
    elif isinstance(settings, Sequence) and not isinstance(settings, str):
        below = [(f"{path}[{number}]", value) for number, value in enumerate(settings)]
    else:
        return {path: settings}
    return {key: value for name, item in below for key, value in _flattened(item, name).items()}
