"""Which library embeds fastest on this machine: measured once for an encoder, and kept.

What is kept lies in the user's cache, ``reidkit/backends``, in a folder for each encoder, machine and set of
versions: ``choice.json``, and the network's file for the library that was fastest. The file is believed while
its digest is that of the file that was written. Of folders the latest few are kept.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reidkit import logs
from reidkit.encoders.runtimes import is_installed, num_threads
from reidkit.errors import CheckpointError, ReidError, short
from reidkit.files import WriteError, user_cache, write_atomically
from reidkit.texts.files import read_json

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder
    from reidkit.encoders.network import Network

logger = logs.get_logger(__name__)

NAMES = {"torch": "PyTorch", "onnx": "onnxruntime", "openvino": "OpenVINO"}
MOST_KEPT = 8  # encoders

_CHOICE_FILE = "choice.json"
_NUM_COMPARED = 16  # images
_NUM_ROUNDS = 3
_LEAST_GAIN = 1.1  # times PyTorch's speed; less is not worth the file


@dataclass(frozen=True, slots=True)
class Choice:
    """What embeds.

    Attributes:
        network: in place of PyTorch's; None where that goes on.
        told: what was found out, in words.
        as_wished: False where something does not work that should.
    """

    network: Network | None
    told: str
    as_wished: bool = True


def kept(
    encoder: Encoder, backend: str, images: NDArray[np.uint8], expected: NDArray[np.float32]
) -> Choice | None:
    """What was found out before; None where that was not done, or is not to be trusted.

    Args:
        encoder: by PyTorch.
        backend: the one wanted, or "auto" for the fastest.
        images: RGB (B, H, W, 3).
        expected: the encoder's embeddings of them (B, D).
    """
    folder = _folder(encoder)
    if backend == "auto":
        backend = _read_choice(folder)
    if backend == "torch":
        return Choice(None, "embedded by PyTorch, which was found to be fastest here")
    file = _file(folder, backend)
    if not backend or not file.is_file():
        return None
    try:
        network = _opened(file, encoder)
    except ReidError:  # damaged, or put there by somebody else
        return None
    if problem := _disagreement(network, images, expected):
        return Choice(None, f"embedded by PyTorch, not by {NAMES[backend]}: {problem}", as_wished=False)
    return Choice(network, f"embedded by {NAMES[backend]}")


def measured(
    encoder: Encoder, backend: str, images: NDArray[np.uint8], expected: NDArray[np.float32]
) -> Choice:
    """Find out what embeds fastest, or whether the wanted backend agrees, and keep it; as :func:`kept`."""
    wanted = [name for name in ("onnx", "openvino") if backend in ("auto", name) and is_installed(name)]
    if not wanted:
        return Choice(None, 'embedded by PyTorch; for others: pip install "reidkit[export]"')
    logger.info(
        f"finding out whether {' or '.join(NAMES[name] for name in wanted)} embeds faster than PyTorch here "
        "(once for this encoder, half a minute)"
    )
    with TemporaryDirectory(prefix="reidkit-backends-") as drafts:
        networks, problems = _exported(encoder, wanted, Path(drafts), images, expected)
        if backend == "auto":
            speeds = _speeds({"torch": encoder.network, **networks}, images)
            fastest = max(speeds, key=speeds.__getitem__)
            if speeds[fastest] < _LEAST_GAIN * speeds["torch"]:
                fastest = "torch"
            told = f"embedded by {NAMES[fastest]}: {_listed(speeds)}"
        else:
            fastest = backend if networks else "torch"
            told = f"embedded by {NAMES[fastest]}"
        _keep(encoder, fastest, Path(drafts), is_fastest=backend == "auto")
    told = "; ".join([told, *problems])
    return Choice(networks.get(fastest), told, as_wished=not problems)


def _exported(
    encoder: Encoder,
    wanted: list[str],
    drafts: Path,
    images: NDArray[np.uint8],
    expected: NDArray[np.float32],
) -> tuple[dict[str, Network], list[str]]:
    """The encoder's network for each library, where it agrees; and what is wrong with the others."""
    from reidkit.encoders.export import write_encoder
    from reidkit.encoders.export_files import onnx_program

    networks: dict[str, Network] = {}
    try:
        program = onnx_program(encoder)
    except Exception as error:  # of an exporter that knows only so many networks
        return networks, [f"the network cannot be exported: {short(error, 200)}"]
    problems = []
    for name in wanted:
        try:
            network = write_encoder(encoder, program, _file(drafts, name), to=name).network
        except Exception as error:  # whatever a runtime raises
            problems.append(f"not by {NAMES[name]}: {short(error, 200)}")
            continue
        if problem := _disagreement(network, images, expected):
            problems.append(f"not by {NAMES[name]}: {problem}")
        else:
            networks[name] = network
    return networks, problems


def _opened(file: Path, encoder: Encoder) -> Network:
    """The network of a file that was kept.

    Raises :class:`CheckpointError` where it is not the encoder's.
    """
    from reidkit.encoders.loading import load_encoder

    network = load_encoder(file).network
    if encoder.fingerprint not in network.fingerprints(height=encoder.height, width=encoder.width):
        raise CheckpointError(f"{file} is of another encoder")
    return network


def _disagreement(network: Network, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> str:
    """What is too far apart; empty where nothing is."""
    from reidkit.encoders.agreement import compare_embeddings  # a few images have no need of it

    some = images[:_NUM_COMPARED]
    found = network.embed(some)
    return compare_embeddings(
        expected[: len(some)], found, images=list(some), drawn=False, int8=False
    ).problem


def _speeds(networks: Mapping[str, Network], images: NDArray[np.uint8]) -> dict[str, float]:
    """Images a second of each. They take turns, and the best counts: other work only ever slows down."""
    some = images[:_NUM_COMPARED]
    seconds = dict.fromkeys(networks, float("inf"))
    for _ in range(_NUM_ROUNDS):
        for name, network in networks.items():
            started = time.perf_counter()
            network.embed(some)
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return {name: len(some) / taken for name, taken in seconds.items()}


def _listed(speeds: Mapping[str, float]) -> str:
    return ", ".join(f"{NAMES[name]} {speed:.3g}" for name, speed in speeds.items()) + " images/s here"


# --- what is kept -----------------------------------------------------------------------------------------


def _folder(encoder: Encoder) -> Path:
    made_of = [encoder.fingerprint, _versions(), processor(), num_threads()]
    return user_cache("backends") / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _file(folder: Path, backend: str) -> Path:
    return folder / ("network.onnx" if backend == "onnx" else "network.xml")


def _read_choice(folder: Path) -> str:
    """The fastest backend; empty where it is not known."""
    try:
        choice = read_json(folder / _CHOICE_FILE, error=CheckpointError)
    except CheckpointError:
        return ""
    backend = choice.get("fastest") if isinstance(choice, dict) else None
    return backend if backend in NAMES else ""


def _keep(encoder: Encoder, backend: str, drafts: Path, *, is_fastest: bool) -> None:
    from reidkit.encoders.export import publish

    folder = _folder(encoder)
    try:
        if backend != "torch":
            publish(_file(drafts, backend), _file(folder, backend))
        if is_fastest:
            write_atomically(folder / _CHOICE_FILE, json.dumps({"fastest": backend}))
        folder.touch()  # where only a file in it was replaced
        _forget_oldest(folder.parent)
    except (WriteError, OSError) as error:
        _say_that_nothing_is_kept(short(error, 300))


@cache
def _say_that_nothing_is_kept(why: str) -> None:
    logger.warning(f"what embeds fastest cannot be kept, and is found out again each time: {why}")


def _forget_oldest(kept_here: Path) -> None:
    folders = sorted(kept_here.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-MOST_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("reidkit", "torch", "onnxruntime", "openvino"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor() -> str:
    """What the processor calls itself, and a digest of all that it can."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = dict(line.split(":", 1) for line in lines if ":" in line)  # those of the last core
    texts = {key.strip(): value.strip() for key, value in entries.items()}
    flags = hashlib.sha256(texts.get("flags", texts.get("Features", "")).encode()).hexdigest()[:8]
    return f"{texts.get('model name', platform.machine())} {flags}"
