"""Files of weights: what a file is, by its content, and the named tensors in it. Nothing in it is run.

A file may hold several sets of weights (a network and its moving average, a student and its teacher). They
are told apart by where they lie: ``state_dict_ema``, ``model.encoder_q``.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from reidkit.errors import CheckpointError, did_you_mean, short

WHOLE = "(whole file)"
"""The name of a set that lies in no nest."""

# Nests that scripts keep a network's own weights in; of two in one file the first is meant.
_USUAL = ("state_dict", "model", "net", "model_state_dict", "network", "module", "weights", "params", WHOLE)
# What stands before a name because of how a network was wrapped: data parallel, compiled, Lightning.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
# Beginnings of names by which one set holds several networks.
_ROLES = (
    *("student", "teacher", "encoder_q", "encoder_k", "online_encoder", "target_encoder", "momentum_encoder"),
    *("model_ema", "ema_model", "ema", "model_1", "model_2", "model_1_ema", "model_2_ema"),
)
_MOST_LEVELS = 8
_MOST_EXPANDED = 2**30  # bytes that tensors may have beyond their file's, where values are repeated
_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # of torch.save's format before zip files
_OTHER_KINDS = (  # first bytes of files that are whole and something else
    (b"\x89HDF", "an HDF5 file, of Keras or MATLAB"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"\xfd7zXZ", "compressed by xz; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it first"),
    (b"7z\xbc\xaf", "a 7-zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file; get the file by `git lfs pull`"),
    (b"<", "a web page or XML, not a file of weights; was it downloaded by its right address?"),
)
_CONVERT = (
    "python -c \"import sys, torch; c = torch.load(sys.argv[1], 'cpu', weights_only=False); "
    "c = c if isinstance(c, dict) else c.state_dict(); c = c.get('state_dict', c.get('model', c)); "
    "c = {k: torch.as_tensor(v) if hasattr(v, '__array__') else v for k, v in c.items()}; "
    "torch.save(c, 'weights.pth')\""
)
_CONVERT_SCRIPT = (
    'python -c "import sys, torch; '
    "torch.save(torch.jit.load(sys.argv[1], 'cpu').state_dict(), 'weights.pth')\""
)
_CONVERT_PICKLE = (
    "python -c \"import pickle, sys, torch; c = pickle.load(open(sys.argv[1], 'rb')); c = c.get('model', c); "
    "torch.save({k: torch.as_tensor(v) for k, v in c.items()}, 'weights.pth')\""
)


_JOIN = (
    'python -c "import json, os, sys, torch; from safetensors.torch import load_file; p = sys.argv[1]; '
    "f = {os.path.join(os.path.dirname(p), n) for n in json.load(open(p))['weight_map'].values()}; w = {}; "
    "[w.update(load_file(n) if n.endswith('.safetensors') else torch.load(n, 'cpu', weights_only=True)) "
    "for n in f]; torch.save(w, 'weights.pth')\""
)
_INDEX_WITHIN = 1 << 20  # bytes; an index begins with totals of a line each
_TYPES = {"BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64", "C64"}
"""Numbers in safetensors files that networks are made of; 8-bit floats are told by their tensors."""


@dataclass(frozen=True)
class WeightsFile:
    """One set of weights of a file.

    Attributes:
        tensors: by name, without what wrappers put in front of it; plain, on the CPU, all values finite.
        key: which set it is.
        others: the file's other sets.
    """

    tensors: Mapping[str, Tensor]
    key: str
    others: tuple[str, ...]


def read_weights(path: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Tensors by name, as :func:`read_weights_file` finds them."""
    return dict(read_weights_file(path, key=key).tensors)


def read_weights_file(path: str | Path, *, key: str | None = None) -> WeightsFile:
    """Read one set of weights of a PyTorch or safetensors file.

    Args:
        path: whatever its name ends in; its kind is found by its content.
        key: which set, such as "state_dict_ema"; left out, the one under the usual names.

    Raises:
        CheckpointError: missing, damaged, of another kind, holding what cannot be read without running code;
            none or several sets to choose from; tensors without plain values (sparse, quantised, complex,
            8-bit floats, on the meta device), or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        there = "it is no file; give the file of weights itself" if path.exists() else "no such file"
        raise CheckpointError(f"{path}: {there}")
    try:
        content = _load(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or short(error)}") from error
    sets = dict(_sets(path, content, (), set()))
    if not sets:
        held = ", ".join(map(short, content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no named weights but {short(held, 120) if held else 'nothing'}; expected tensors "
            "by name, or a dict with them under 'state_dict' or 'model'"
        )
    # Loose tensors beside the networks (a queue, centres of a loss) are no choice.
    most = max(map(len, sets.values()))
    comparable = [name for name, tensors in sets.items() if 2 * len(tensors) > most]
    chosen = _choose(path, sets, comparable, key)
    for name, tensor in sets[chosen].items():
        _check_kind(path, name, tensor)
    _check_size(path, sets[chosen])
    for name, tensor in sets[chosen].items():
        _check_values(path, name, tensor)
    return WeightsFile(sets[chosen], chosen, tuple(name for name in comparable if name != chosen))


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is damaged or no PyTorch file: it is empty")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**30:
        return _load_safetensors(path)
    if head.startswith(b"PK\x03\x04"):
        return _load_zip(path)
    for mark, what in _OTHER_KINDS:
        if head.lstrip().startswith(mark):
            raise CheckpointError(f"{path} is {what}")
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive: unpack it, or, if PyTorch wrote it (before 2017) and you trust where "
            f"it comes from, convert it there: {_CONVERT} {path}"
        )
    if not head.startswith(b"\x80"):
        raise CheckpointError(_not_weights(path, head))
    if _MAGIC not in head[:24]:
        raise CheckpointError(
            f"{path} was not read: it is a plain pickle, not a file of torch.save, and loading that can run "
            f"any code. If you trust where it comes from, convert it there: {_CONVERT_PICKLE} {path}"
        )
    with path.open("rb") as file:
        _refuse_reserving(path, file, num_pickles=4)
    return _load_torch(path)


def _not_weights(path: Path, head: bytes) -> str:
    """What to say of a file that begins as none of those that hold weights."""
    kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
    if not any(head):
        return f"{path} is damaged or no {kind} file: it begins with zeros, as an interrupted copy leaves it"
    if b'"weight_map"' in path.read_bytes()[:_INDEX_WITHIN]:
        return f"{path} is the index of weights kept in several files; put them into one: {_JOIN} {path}"
    what = "is damaged or no safetensors file" if kind == "safetensors" else "is no file of weights"
    return f"{path} {what}: it begins with {head[:16]!r}; expected one of PyTorch or safetensors"


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    # Of types of numbers that torch does not know come the latter two.
    except (SafetensorError, OSError, KeyError, AttributeError) as error:
        if types := _narrow_types(path):
            raise CheckpointError(
                f"{path} holds numbers of the type {short(', '.join(types))}, which are not read, and whose "
                "scales are kept elsewhere; save it as float32"
            ) from error
        raise CheckpointError(f"{path} is damaged or no safetensors file: {short(error)}") from error


def _narrow_types(path: Path) -> list[str]:
    """Types in a safetensors file's head that are none of :data:`_TYPES`."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            entries = json.loads(file.read(length))
            found = {entry["dtype"] for name, entry in entries.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []
    return sorted(str(name) for name in found - _TYPES)


def _load_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if any(entry.filename.rpartition("/")[2] == "constants.pkl" for entry in entries):
                raise CheckpointError(
                    f"{path} was not read: it is a TorchScript archive, that is, code. If you trust where it "
                    f"comes from, convert it there: {_CONVERT_SCRIPT} {path}"
                )
            if not pickles:
                names = ", ".join(entry.filename for entry in entries[:3])
                raise CheckpointError(
                    f"{path} is a zip archive, but not of PyTorch: it holds "
                    f"{short(names) if names else 'nothing'}"
                )
            if packed := [
                e for e in entries if e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            ]:
                raise CheckpointError(
                    f"{path} is packed in a way that PyTorch does not read ({short(packed[0].filename)}); "
                    "unpack it, and pack it with `zip -0`"
                )
            if sum(entry.file_size for entry in entries) > 4 * path.stat().st_size + 2**20:
                raise CheckpointError(f"{path} unpacks to far more than weights can be compressed by")
            with archive.open(pickles[0]) as file:
                _refuse_reserving(path, file, num_pickles=1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no PyTorch file ({short(error)})") from error
    return _load_torch(path)


def reserves_memory(file: Any, *, num_pickles: int = 1) -> bool:
    """Whether pickles hold the one thing that takes memory without holding as many bytes."""
    names = []
    try:
        for _ in range(num_pickles):
            names += [name for code, name, _ in pickletools.genops(file) if code.name == "GLOBAL"]
    except Exception:  # what is damaged is told when it is loaded
        pass
    return any(str(name).endswith(" bytearray") for name in names)


def _refuse_reserving(path: Path, file: Any, *, num_pickles: int) -> None:
    if reserves_memory(file, num_pickles=num_pickles):
        raise CheckpointError(f"{path} was not read: it holds a bytearray, which no file of weights needs")


class _Ignored:
    """Takes the place of NumPy numbers, which training checkpoints keep scores in and nobody needs here."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_IGNORED = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Ignored, n) for n in _IGNORED]):
            warnings.simplefilter("ignore")  # on pickle protocols and archive types; what matters is raised
            with path.open("rb") as file:  # of a path, torch goes by the name's ending
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"(?:GLOBAL|unsupported class|unrecognized function) ([\w.]+)", str(error))
        if unsafe is None and "Unsupported operand" not in str(error):
            raise CheckpointError(f"{path} is damaged or no PyTorch file") from error
        what = (
            f"besides tensors it holds {short(unsafe[1])!r}"
            if unsafe
            else "it is pickled by protocol 3 or later"
        )
        raise CheckpointError(
            f"{path} was not read: {what}, and loading that can run any code. If you trust where it comes "
            f"from, convert it there: {_CONVERT} {path}"
        ) from error
    except Exception as error:  # damaged bytes surface as almost any error
        raise CheckpointError(f"{path} is damaged or no PyTorch file ({short(error)})") from error


def _sets(
    path: Path, content: Any, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict of tensors, by its keys from outside in; each object once, as a file may hold itself."""
    if not isinstance(content, Mapping) or id(content) in seen or len(keys) > _MOST_LEVELS:
        return
    seen.add(id(content))
    for key, value in content.items():
        if isinstance(key, str) and "optim" not in key.lower():
            yield from _sets(path, value, (*keys, key), seen)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if numbers := [name for name in tensors if not isinstance(name, str)]:
        if not keys:
            raise CheckpointError(
                f"{path} names its tensors by {type(numbers[0]).__name__} ({short(numbers[0])}, ...), not by "
                "text; weights find their place by name"
            )
        return
    yield from _roles(".".join(keys) or WHOLE, tensors)


def _roles(key: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """A set, or the sets of the networks that it holds side by side."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        bare = _without_wrappers(name)
        role, dot, rest = bare.partition(".")
        is_role = dot and role in _ROLES
        part = parts.setdefault(role if is_role else "", {})
        bare = _without_wrappers(rest) if is_role else bare
        # Two weights of one name, one of them wrapped, are both kept; what they are for then comes to light.
        part[name if bare in part else bare] = tensor
    for role, part in parts.items():
        yield ".".join(filter(None, ["" if key == WHOLE and role else key, role])), part


def _without_wrappers(name: str) -> str:
    while (wrapper := next((w for w in _WRAPPERS if name.startswith(w)), None)) is not None:
        name = name.removeprefix(wrapper)
    return name.replace("._orig_mod.", ".")


def _choose(path: Path, sets: Mapping[str, object], comparable: Sequence[str], key: str | None) -> str:
    if key is not None:
        if key not in sets:
            listed = short(", ".join(map(repr, sets)), 200)
            raise CheckpointError(
                f"{path} has no weights under {key!r};{did_you_mean(key, sets)} it has {listed}"
            )
        return key
    usual = [name for name in comparable if all(part in _USUAL for part in name.split("."))]
    if not usual and len(comparable) > 1:
        listed = short(", ".join(map(repr, comparable)), 200)
        raise CheckpointError(
            f"{path} holds {len(comparable)} sets of weights; choose one with --weights KEY (key= in "
            f"Python): {listed}"
        )
    # Of nests within nests the innermost.
    return min(usual or comparable, key=lambda name: [*map(_rank, name.split(".")), len(_USUAL)])


def _rank(part: str) -> int:
    return _USUAL.index(part) if part in _USUAL else len(_USUAL)


def _check_size(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that repeat a few values without end, before anything is computed of them."""
    size, claimed = path.stat().st_size, sum(t.numel() * t.element_size() for t in tensors.values())
    if claimed > size + _MOST_EXPANDED:
        raise CheckpointError(
            f"{path} has {size:,} bytes, but its tensors claim {claimed / 1e9:,.0f} GB; it cannot be used"
        )


def _check_kind(path: Path, name: str, tensor: Tensor) -> None:
    fault = _fault(tensor)
    if fault:
        raise CheckpointError(f"{path}: weight {short(name)!r} {fault}")


def _check_values(path: Path, name: str, tensor: Tensor) -> None:
    # Both extremes are NaN where any value is, and no second tensor is made.
    if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
        raise CheckpointError(
            f"{path}: weight {short(name)!r} is not finite everywhere; the file cannot be used"
        )


def _fault(tensor: Tensor) -> str | None:
    """Why a tensor has no plain values, if it has none."""
    if tensor.is_meta:
        return "is on the meta device: the file holds its shape, not its values"
    if tensor.is_quantized:
        return "is quantised; save the network before it is quantised, or its tensors after dequantize()"
    if tensor.is_nested:
        return "is a nested tensor, which has no one shape"
    if tensor.layout != torch.strided:
        return f"is kept as {str(tensor.layout).removeprefix('torch.')}; save it after to_dense()"
    if tensor.is_complex():
        return f"is of complex numbers ({_kind(tensor)}), which no network here has"
    if tensor.is_floating_point() and tensor.element_size() < 2:
        bits = 4 if "float4" in _kind(tensor) else 8
        return (
            f"is of {bits}-bit floats ({_kind(tensor)}), whose scales are kept elsewhere; save it as float32"
        )
    return None


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
