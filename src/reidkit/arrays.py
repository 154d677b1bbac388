"""NumPy arrays of what people hold: lists, tensors with gradients, on any device, in bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError

_ONE_LINE = 160


def plain_array(values: Any, name: str) -> NDArray[Any]:
    """The values as an array; memory-mapped files stay so.

    Tensors are taken off their graph and their device, formats that NumPy lacks become float32. ``name`` is
    for messages.

    Raises :class:`DataError` for what is no array: rows of different lengths, sparse tensors, masked values.
    """
    try:
        if hasattr(values, "detach"):  # a tensor, by its own methods: torch need not be there
            values = values.detach().cpu()
            if str(values.dtype).removeprefix("torch.").startswith(("bfloat", "float8")):
                values = values.float()
            return np.asarray(values.resolve_conj().resolve_neg().numpy())
        array = values if isinstance(values, np.memmap) else np.asarray(values)
        if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
            raise DataError(f"{name} have masked values; leave these rows out")
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:_ONE_LINE]
        raise DataError(
            f"{name} are no array ({reason}); give a NumPy array, a tensor or nested lists"
        ) from error


def embedding_array(values: Any, name: str) -> NDArray[np.floating[Any]]:
    """Embeddings (N, D) of any float type; raises :class:`DataError` where they are something else."""
    array = plain_array(values, name)
    if array.ndim != 2 or array.dtype.kind != "f" or (len(array) and not array.shape[1]):
        raise DataError(
            f"{name} have shape {array.shape} and type {array.dtype}; expected floating-point (N, D)"
        )
    return array
