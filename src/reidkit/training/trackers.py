"""Where a run's numbers go: ``metrics.jsonl`` always, TensorBoard where it is installed, the log.

A tracker is anything that can be called with a record (a flat dict with "kind", "step" and "epoch"). If it
has a ``close()``, that is called when training ends, for whatever reason. An adapter to another system is a
function of the run folder that returns a tracker; ``train.trackers`` names it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reidkit import registry
from reidkit.errors import CheckpointError, shown
from reidkit.files import append, write_atomically
from reidkit.texts.files import parse_json, read_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

Record: TypeAlias = Mapping[str, Any]
Tracker: TypeAlias = Callable[[Record], None]

_OF_EVERY_RECORD: Mapping[str, type] = {"kind": str, "step": int}


class MetricsFile:
    """Appends records to a file of JSON lines.

    Args:
        path: the file.
        last_step: records beyond this step are removed first: a resumed run writes them again.
        due: kinds of records of that very step that it also writes again.
    """

    def __init__(self, path: Path, *, last_step: int, due: Collection[str] = ()) -> None:
        self.path = path
        kept = [
            record
            for record in read_metrics(path)
            if record["step"] < last_step or (record["step"] == last_step and record["kind"] not in due)
        ]
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))

    def __call__(self, record: Record) -> None:
        append(self.path, json.dumps(record) + "\n")


def read_metrics(path: Path, *, required: Mapping[str, type] = _OF_EVERY_RECORD) -> list[dict[str, Any]]:
    """Records of a metrics file, without a last line that a crash cut short; empty if there is no file.

    Args:
        path: the file.
        required: keys that every record must have, with the types of their values.

    Raises:
        CheckpointError: a line that is no such record.
    """
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(read_text(path, error=CheckpointError).split("\n")[:-1], start=1):
        if line:
            record = parse_json(line, f"{path}, line {number}", error=CheckpointError)
            if not isinstance(record, dict) or not all(
                isinstance(record.get(key), kind) for key, kind in required.items()
            ):
                raise CheckpointError(
                    f"{path}, line {number}: {shown(record)} is no record of a training, which has "
                    f"{' and '.join(required)}; delete that line or move the file away"
                )
            records.append(record)
    return records


class TensorBoard:
    """Writes TensorBoard events below a folder.

    Args:
        folder: where they go.
        last_step: events beyond this step are hidden: a resumed run writes them again.
    """

    def __init__(self, folder: Path, *, last_step: int) -> None:
        self.folder, self.last_step = folder, last_step
        self._writer: SummaryWriter | None = None

    def __call__(self, record: Record) -> None:
        if self._writer is None:  # it starts a thread, which must not be there when the loader forks
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self.last_step + 1)
        for name, value in record.items():
            if isinstance(value, float) and name != "step":
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def tensorboard(folder: Path, *, last_step: int) -> Tracker | None:
    """A :class:`TensorBoard`, or None where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return None
    return TensorBoard(folder, last_step=last_step)


def named_tracker(name: str, folder: Path) -> Tracker:
    """The tracker that ``name`` (``module:function``, or registered) makes of a run folder.

    It is made when the first record comes: by then the folder holds ``run.json`` and ``config.toml``, and the
    loader has forked its processes. Only the main process has records.
    """
    return _MadeLate(lambda: registry.build("tracker", name, {}, folder))


class _MadeLate:
    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._make = make
        self._tracker: Tracker | None = None

    def __call__(self, record: Record) -> None:
        if self._tracker is None:
            self._tracker = self._make()
        self._tracker(record)

    def close(self) -> None:
        if self._tracker is not None:
            close_tracker(self._tracker)
            self._tracker = None


def close_tracker(tracker: Tracker) -> None:
    """Call its ``close()``, if it has one."""
    close = getattr(tracker, "close", None)
    if close is not None:
        close()


class Meter:
    """Mean loss terms, images per second and the share of time spent waiting for data, since it was made.

    A tracker that resumes from the state of another also counts what that one has seen.
    """

    def __init__(self) -> None:
        self._start = self._mark = time.perf_counter()
        self._waited = 0.0
        self._num_images = 0
        self._terms: dict[str, list[Tensor]] = {}

    def data_wanted(self) -> None:
        """From now on this waits; so it does from when it was made."""
        self._mark = time.perf_counter()

    def data_ready(self) -> None:
        self._waited += time.perf_counter() - self._mark

    def step_done(self, terms: dict[str, Tensor], *, num_images: int) -> None:
        for name, value in terms.items():
            self._terms.setdefault(name, []).append(value.detach())
        self._num_images += num_images

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, as plain values."""
        return {
            "terms": {name: [value.item() for value in values] for name, values in self._terms.items()},
            "num_images": self._num_images,
            "waited": self._waited,
            "elapsed": time.perf_counter() - self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        import torch

        self._terms = {
            name: [torch.tensor(value, dtype=torch.float64) for value in values]
            for name, values in state["terms"].items()
        }
        self._num_images, self._waited = state["num_images"], state["waited"]
        self._mark = time.perf_counter()
        self._start = self._mark - state["elapsed"]

    def read(self) -> dict[str, float]:
        """The figures by name. Only here, not at each step, are losses fetched from a GPU."""
        means = {
            f"loss/{name}": sum(value.item() for value in values) / len(values)
            for name, values in self._terms.items()
        }
        elapsed = time.perf_counter() - self._start
        return {
            **means,
            "images_per_second": self._num_images / elapsed,
            "waiting_for_data": self._waited / elapsed,
        }


def record_text(record: Record, *, num_epochs: int) -> str | None:
    """The sentence on an epoch or a validation; None for a record of another kind."""
    if record["kind"] == "epoch":
        terms = [
            f"{name.removeprefix('loss/')} {value:.3f}"
            for name, value in record.items()
            if name.startswith("loss/")
        ]
        return "  ".join([f"epoch {record['epoch'] + 1}/{num_epochs}", *terms, speed_text(record)])
    if record["kind"] == "validation":
        return f"  validation: mAP {100 * record['mAP']:.1f}, rank-1 {100 * record['rank-1']:.1f}"
    return None


def speed_text(record: Record) -> str:
    """Images a second, what holds them up and what memory they take, as a record of steps has it."""
    memory = record.get("gpu_memory_gb", record.get("memory_gb"))
    used = f", {memory:.1f} GB" if memory is not None else ""
    waiting = f"{100 * record['waiting_for_data']:.0f} % waiting for data"
    return f"{record['images_per_second']:.0f} images/s, {waiting}{used}"


def peak_memory(device: torch.device | None = None) -> dict[str, float]:
    """The most memory used so far, in GB: of this process and, where one is used, of its GPU.

    ``device`` is where it computes; the current GPU where left out.
    """
    import torch

    peak = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        peak["gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return peak
