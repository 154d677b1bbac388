"""NumPy arrays of what people hold: lists, tensors with gradients, on any device, in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError

_ONE_LINE = 160


class Embeddings(np.ndarray[Any, np.dtype[np.floating[Any]]]):
    """Embeddings (N, D) that know which encoder they come from; an array like any other.

    Slices, copies and other types of number keep ``fingerprints``: today's, then what earlier versions called
    the same encoder. So do rows that are joined (``np.concatenate``, ``np.stack``), and those of two encoders
    cannot be. What is computed from them is a plain array, and so is ``np.asarray`` of them.
    """

    fingerprints: tuple[str, ...]

    def __new__(cls, values: NDArray[np.floating[Any]], fingerprints: tuple[str, ...]) -> Self:
        """A view of the values."""
        embeddings = np.asarray(values).view(cls)
        embeddings.fingerprints = tuple(fingerprints)
        return embeddings

    def __array_finalize__(self, source: object) -> None:
        self.fingerprints = getattr(source, "fingerprints", ())

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar or not plain.ndim else plain

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        result = super().__array_function__(function, types, args, options)
        if function is np.concatenate and (args[1:] or (options.get("axis", 0),))[0] == 0:
            rows = [part for part in args[0] if np.ndim(part) == 2]  # 1-D parts become one longer row
            if type(result) is np.ndarray and len(rows) == len(args[0]):
                return _signed(result, shared_fingerprints(rows))
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Embeddings, (np.asarray(self), self.fingerprints)


def fingerprints_of(embeddings: Any) -> tuple[str, ...]:
    """Those of the encoder that made them, of a list the one of all its rows; empty where they do not say.

    Raises :class:`DataError` for a list with rows of different encoders.
    """
    if isinstance(embeddings, list | tuple) and any(isinstance(row, Embeddings) for row in embeddings):
        return shared_fingerprints(embeddings)
    return embeddings.fingerprints if isinstance(embeddings, Embeddings) else ()


def shared_fingerprints(parts: Sequence[Any]) -> tuple[str, ...]:
    """Those of the one encoder that made all parts; empty where a part does not say.

    Raises :class:`DataError` where two parts say that they come from different ones.
    """
    said = [fingerprints_of(part) for part in parts]
    known = [fingerprints for fingerprints in said if fingerprints]
    shared = tuple(one for one in (known or [()])[0] if all(one in others for others in known))
    if known and not shared:
        names = list(dict.fromkeys(fingerprints[0] for fingerprints in known))
        raise DataError(
            f"embeddings of different encoders, of fingerprints {names[0]} and {names[1]}, do not belong in "
            "one array; encode all images with the same one"
        )
    return shared if len(known) == len(said) else ()


def _signed(values: NDArray[Any], fingerprints: tuple[str, ...]) -> NDArray[Any]:
    return Embeddings(values, fingerprints) if fingerprints else values


def check_one_encoder(query: Any, gallery: Any) -> None:
    """Raise :class:`DataError` where both sides say which encoder they come from, and it is not the same."""
    first, second = fingerprints_of(query), fingerprints_of(gallery)
    if first and second and not set(first) & set(second):
        raise DataError(
            f"query and gallery embeddings come from different encoders, of fingerprints {first[0]} and "
            f"{second[0]}; scores between the two mean nothing: encode both with the same one"
        )


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
        if isinstance(values, list | tuple) and any(hasattr(value, "detach") for value in values):
            values = [plain_array(value, name) for value in values]
        if isinstance(values, list | tuple):
            values = _signed(np.asarray(values), fingerprints_of(values))
        array = values if isinstance(values, np.memmap | Embeddings) else np.asarray(values)
        if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
            raise DataError(f"{name} have masked values; leave these rows out")
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except DataError:
        raise
    except Exception as error:  # objects raise what they like
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
