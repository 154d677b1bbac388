"""Training progress: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from reidkit.printable import printable
from reidkit.tracking import Record


class TrainingProgress:
    """A tracker that shows records to a person, on standard error."""

    def __init__(self, *, num_epochs: int, quiet: bool = False) -> None:
        self.num_epochs, self.quiet = num_epochs, quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.bar: Progress | None = None
        if sys.stderr.isatty() and not quiet:
            columns = (
                TextColumn("training"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.console)
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
        """Show a record: the bar moves at every step record, a line is printed at the end of an epoch."""
        if record["kind"] == "step" and self.bar is not None:
            self.bar.update(self.task, completed=record["progress"], description=_step_text(record))
        elif record["kind"] == "epoch":
            self.say(f"epoch {record['epoch'] + 1}/{self.num_epochs}  {_epoch_text(record)}")
        elif record["kind"] == "validation":
            self.say(f"  validation: mAP {100 * record['mAP']:.1f}, rank-1 {100 * record['rank-1']:.1f}")

    def say(self, text: str) -> None:
        """A sentence, above the bar where there is one."""
        self.console.print(Text(printable(text, keep="\n\t")), soft_wrap=True)


def _step_text(record: Record) -> str:
    loss = sum(value for name, value in record.items() if name.startswith("loss/"))
    return f"loss {loss:.3f}, {_speed_text(record)}"


def _epoch_text(record: Record) -> str:
    terms = [
        f"{name.removeprefix('loss/')} {value:.3f}"
        for name, value in record.items()
        if name.startswith("loss/")
    ]
    return "  ".join([*terms, _speed_text(record)])


def _speed_text(record: Record) -> str:
    memory = record.get("gpu_memory_gb", record.get("memory_gb"))
    used = f", {memory:.1f} GB" if memory is not None else ""
    waiting = f"{100 * record['waiting_for_data']:.0f} % waiting for data"
    return f"{record['images_per_second']:.0f} images/s, {waiting}{used}"
