"""How far long work has come, told to a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from reidkit.texts.printable import printable

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""Called with (done, total)."""


@contextmanager
def progress(description: str) -> Iterator[ProgressCallback]:
    """A bar on a terminal, one line at the end elsewhere. Written to standard error."""
    if not sys.stderr.isatty():
        state = {"done": 0}
        yield lambda done, total: state.update(done=done)
        print(f"{printable(description)}: {state['done']:,}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    description_column = TextColumn("{task.description}", markup=False)
    columns = (description_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(description), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
