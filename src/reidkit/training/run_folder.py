"""The folder that holds everything about a training run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from reidkit import logs
from reidkit.errors import CheckpointError, ConfigError, shortened
from reidkit.files import check_own_folder, exclusive, remove_unfinished, write_atomically
from reidkit.provenance import LOCK_FILE, check_run_folder, read_run_file, versions
from reidkit.training import distributed
from reidkit.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from reidkit.training.trackers import MetricsFile, Tracker, tensorboard

logger = logs.get_logger(__name__)

TENSORBOARD = "tensorboard"
"""The folder of its events."""

_STATE: dict[str, type] = {
    "epoch": int,
    "batch": int,
    "best": dict,
    "num_processes": int,
    "weights": dict,
    "optimizer": dict,
    "scaler": dict,
}
"""What the state of a training holds in any case, whichever version wrote it."""


class RunFolder:
    """One run's folder, read by its main process for all and written by it alone.

    Args:
        path: the folder; made when something is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "last.ckpt"

    @contextmanager
    def held(self, settings: dict[str, Any]) -> Iterator[None]:
        """Keep other trainings out of the folder while inside; remove what killed ones left half-written.

        Raises:
            ConfigError: the folder holds something else, or a run with other settings, or one that is being
                trained now.
        """
        made = not self.path.exists()
        with ExitStack() as locks:

            def hold() -> None:
                check_run_folder(self.path, settings)
                check_own_folder(self.path / TENSORBOARD)
                if not locks.enter_context(exclusive(self.path / LOCK_FILE)):
                    raise ConfigError(
                        f"{self.path} is being trained by another process; wait for it, stop it, or choose "
                        "another folder"
                    )
                remove_unfinished(self.path)

            distributed.run_on_main(hold)
            try:
                yield
            finally:
                if made and distributed.is_main():
                    self._remove_unused()

    def _remove_unused(self) -> None:
        """Leave no folder behind for a training that was refused before it had written anything."""
        if [path.name for path in self.path.iterdir()] == [LOCK_FILE]:
            (self.path / LOCK_FILE).unlink()
            with suppress(OSError):  # another training has come meanwhile
                self.path.rmdir()

    def stored_state(self) -> dict[str, Any] | None:
        """The state to go on from, on every process; None where the run begins.

        Raises:
            CheckpointError: neither the last checkpoint nor the one before it can be read, or what they hold
                is no state of a training.
        """

        def read() -> dict[str, Any] | None:
            if not has_checkpoint(self.checkpoint):
                return None
            state, problem = load_checkpoint(self.checkpoint)
            if problem:
                logger.warning(problem)
            _check_state(state, self.checkpoint)
            before, now = state["num_processes"], distributed.world_size()
            if before != now:
                logger.warning(
                    f"{self.checkpoint} was saved by {before} processes, and {now} go on with it: batches "
                    "and losses stay the same; dropout draws other numbers, and batch norm sees other images "
                    "together unless train.batch_norm is 'synchronised' or 'frozen'"
                )
            return state

        return distributed.run_on_main(read)

    @contextmanager
    def taking_up(self) -> Iterator[None]:
        """While inside, parts of a state are given to what they are the state of.

        Raises :class:`CheckpointError` where one does not take its part.
        """
        try:
            yield
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            what = shortened(" ".join(str(error).split()), 300)
            raise CheckpointError(
                f"{self.checkpoint} does not fit this run ({type(error).__name__}: {what}); start again in "
                "another folder"
            ) from error

    def describe(
        self,
        settings: dict[str, Any],
        *,
        data_root: Path,
        validate_every: int,
        configuration: str | None,
        epoch: int,
    ) -> None:
        """Write down what the run is made from; of one that goes on in ``epoch``, what has changed."""
        if not distributed.is_main():
            return
        now = {"versions": versions(), "data_root": str(data_root), "validate_every": validate_every}
        path = self.path / "run.json"
        if not path.is_file():
            write_atomically(path, json.dumps({"settings": settings, **now}, indent=2))
        else:
            self._note_changes(path, now, epoch=epoch)
        # Rewritten at each start: other commands read the location of the data from it.
        file = self.path / "config.toml"
        if configuration is not None and not (file.is_file() and file.read_bytes() == configuration.encode()):
            write_atomically(file, configuration)

    def _note_changes(self, path: Path, now: dict[str, Any], *, epoch: int) -> None:
        run = read_run_file(path)
        resumed = run.get("resumed_with", [])
        before: dict[str, Any] = {key: value for part in (run, *resumed) for key, value in part.items()}
        changed = {key: value for key, value in now.items() if before.get(key, value) != value}
        if "validate_every" in changed:
            logger.warning(
                f"{self.path} was validated every {before['validate_every']} epochs so far and is every "
                f"{now['validate_every']} from now on; the best weights are chosen among the validated ones"
            )
        if changed:
            run["resumed_with"] = [*resumed, {"epoch": epoch, **changed}]
            write_atomically(path, json.dumps(run, indent=2))

    def trackers(self, *, last_step: int, due: Collection[str]) -> list[Tracker]:
        """Those of the run's own files, which keep what they hold up to a step but for kinds still due."""
        if not distributed.is_main():
            return []
        writer = tensorboard(self.path / TENSORBOARD, last_step=last_step)
        metrics = MetricsFile(self.path / "metrics.jsonl", last_step=last_step, due=due)
        return [metrics, writer] if writer else [metrics]

    def save(self, state: dict[str, Any]) -> None:
        # No barrier: processes come here by their own clocks, and only the main one has something to do.
        if distributed.is_main():
            save_checkpoint(self.checkpoint, state)


def _check_state(state: object, path: Path) -> None:
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds no state of a training, but a value of type {type(state).__name__}"
        )
    wrong = [key for key, kind in _STATE.items() if not isinstance(state.get(key), kind)]
    wrong += [key for key in ("epoch", "batch") if key not in wrong and state[key] < 0]
    if "optimizer" not in wrong and not _is_optimizer_state(state["optimizer"].get("state")):
        wrong.append("optimizer.state")
    if wrong:
        raise CheckpointError(
            f"{path} holds no state of a training that we can go on from: {', '.join(wrong)} missing "
            "or of another type; start again in another folder"
        )


def _is_optimizer_state(values: object) -> bool:
    """Whether it holds tensors and numbers by name for each parameter; others would fail in mid-training."""
    return isinstance(values, dict) and all(
        isinstance(of_parameter, dict)
        and all(isinstance(value, Tensor | float | int | None) for value in of_parameter.values())
        for of_parameter in values.values()
    )
