"""Training progress: a bar on a terminal, below the lines of the log."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from reidkit.cli.output import STANDARD_ERROR
from reidkit.training.trackers import Record, speed_text


class TrainingProgress:
    """A tracker that moves a bar at every step record; elsewhere than on a terminal there is none."""

    def __init__(self, *, num_epochs: int, quiet: bool = False) -> None:
        self.bar: Progress | None = None
        if sys.stderr.isatty() and not quiet:
            columns = (
                TextColumn("training"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=STANDARD_ERROR)
            self.task = self.bar.add_task("", total=num_epochs)

    def __enter__(self) -> TrainingProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, record: Record) -> None:
        if record["kind"] == "step" and self.bar is not None:
            self.bar.update(self.task, completed=record["progress"], description=_step_text(record))


def _step_text(record: Record) -> str:
    loss = sum(value for name, value in record.items() if name.startswith("loss/"))
    return f"loss {loss:.3f}, {speed_text(record)}"
