"""A stand-in for an accelerator: tensors on a device of their own that the CPU computes.

Of an accelerator it has what code for one gets wrong unseen on a CPU: an operation that mixes its tensors
with the CPU's raises, and so does ``numpy()``. As on CUDA, single numbers of the CPU (tensors without
dimensions) may join in, and copying is allowed where it is asked for. Results are those of the CPU.

:func:`register` must come before a process's first backward pass, since the autograd engine looks once for
devices; so tests start a process for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from reidkit.ops import DEVICES_WITHOUT_FLOAT64

NAME = "standin"
_COPIES = {"aten::copy_", "aten::_to_copy"}


class OnDevice(Tensor):
    """Its ``values`` lie on the CPU, which nobody can tell."""

    values: Tensor

    @staticmethod
    @torch.inference_mode(False)  # torch cannot make views of an inference tensor of a class of its own
    def __new__(cls, values: Tensor) -> OnDevice:
        tensor: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})

    @property  # type: ignore[misc]
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, new: OnDevice) -> None:  # as modules convert their weights
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.values = new.values

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.values.__reduce_ex__(protocol)  # saved as values, as a GPU's are


_has_float64 = True


@contextmanager
def without_float64() -> Iterator[None]:
    """Inside it, no tensor of the device is float64, as on Apple's."""
    global _has_float64
    _has_float64 = False
    DEVICES_WITHOUT_FLOAT64.add(NAME)
    try:
        yield
    finally:
        _has_float64 = True
        DEVICES_WITHOUT_FLOAT64.remove(NAME)


def _compute(function: Any, args: Any, kwargs: Any) -> Any:
    """The function on the CPU's values of its arguments; what comes out is on the device."""
    known: dict[int, OnDevice] = {}
    copies = function._schema.name in _COPIES

    def lowered(tensor: Tensor) -> Tensor:
        if isinstance(tensor, OnDevice):
            known[id(tensor.values)] = tensor
            return tensor.values
        if tensor.ndim and not copies:
            raise RuntimeError(f"{function}: a tensor of shape {tuple(tensor.shape)} is on {tensor.device}")
        return tensor

    asked = kwargs.get("device")
    kwargs = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    args, kwargs = tree_map_only(Tensor, lowered, (args, kwargs))
    found = function(*args, **kwargs)
    if asked is not None and asked.type == "cpu":
        return found
    if function._schema.name == "aten::copy_" and id(found) not in known:
        return found  # to the CPU

    def raised(values: Tensor) -> OnDevice:
        if values.dtype == torch.float64 and not _has_float64:
            raise TypeError(f"{function}: the device has no float64")
        return known[id(values)] if id(values) in known else OnDevice(values)

    return tree_map_only(Tensor, raised, found)


class _Module:
    """What torch asks of a device's own module."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Its numbers are drawn by the CPU's generator."""

    @staticmethod
    def get_rng_state(device: Any = 0) -> Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = 0) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    class device:
        """A context in which another device is the current one; there is one only."""

        def __init__(self, index: Any) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *failure: object) -> None:
            pass


# What autocast computes in half precision, of what networks here are made of.
_CAST = ("conv2d", "linear", "mm", "addmm", "bmm", "baddbmm", "matmul", "scaled_dot_product_attention")
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

_libraries: list[torch.library.Library] = []  # what they register lasts as long as they


def register() -> torch.device:
    """Make the device known to torch."""
    _setup_privateuseone_for_python_backend(NAME, _Module)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(lambda function, *args, **kwargs: _compute(function, args, kwargs), "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for name in _CAST:
        aten.impl(name, partial(_cast, getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    _libraries.extend((everything, aten))
    torch.tensor = partial(_new_tensor, torch.tensor)
    return torch.device(NAME)


def _new_tensor(new: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    """In two steps: torch's own way of making a tensor elsewhere passes over Python."""
    made: Tensor = new(*args, **kwargs)
    return made if device is None else made.to(device)


def _cast(function: Any, *args: Any, **kwargs: Any) -> Any:
    half = torch.get_autocast_dtype(NAME)
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        args, kwargs = tree_map_only(
            Tensor, lambda t: t.to(half) if t.dtype == torch.float32 else t, (args, kwargs)
        )
        return function(*args, **kwargs)
