"""Where tensors live, and how precisely the hardware there multiplies them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reidkit.errors import TrainingError


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; elsewhere it is emulated and slow."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it is asked of the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False  # or its libraries are kept to that, by ATEN_CPU_CAPABILITY
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@contextmanager
def full_memory_explained(device: torch.device, remedy: str) -> Iterator[None]:
    """Inside it, memory that runs out is told in one sentence, with what was asked for and the remedy.

    Raises:
        TrainingError: in place of the device's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if not tells_of_full_memory(error):
            raise
        asked = _ASKED.search(str(error))
        raise TrainingError(
            f"the memory of {device} is full{f', {asked[1]} more were asked for' if asked else ''}. {remedy}"
        ) from error


def tells_of_full_memory(error: Exception) -> bool:
    """Whether an error is of memory that ran out."""
    # CUDA has a class of its own; other devices, and CUDA's libraries, only say it.
    return isinstance(error, torch.OutOfMemoryError) or bool(_FULL.search(str(error)))


_FULL = re.compile(
    r"out of memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED", re.IGNORECASE
)
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
