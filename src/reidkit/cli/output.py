"""Printing: tables a person reads, JSON a program reads. Here all text is made fit to print."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reidkit import logs
from reidkit.texts.printable import printable

F = TypeVar("F", bound=Callable[..., Any])
_GAP = 2  # spaces between the columns of a table

STANDARD_ERROR = Console(stderr=True)
"""Of all that the library tells while a command runs. A progress bar that stands on it stays below."""

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """A table; the columns named in ``right`` are numbers and stand flush right."""
    cells = [[_cell(value) for value in row] for row in rows]
    names = [_cell(column) for column in columns]
    widths = _widths([names, *cells], Console().width)
    console = Console(width=max(Console().width, sum(widths) + _GAP * len(widths)))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, name, width in zip(columns, names, widths, strict=True):
        justify = "right" if column in right else "left"
        table.add_column(name, justify=justify, width=width)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*row)
    if title is not None:
        console.print(_cell(title), style="bold", soft_wrap=True)
    console.print(table)


def _widths(rows: list[list[Text]], room: int) -> list[int]:
    """Widths of columns with which no word is broken, beyond ``room`` if they must: a path can be copied."""
    columns = list(zip(*rows, strict=True))
    whole = [max(cell_len(cell.plain) for cell in column) for column in columns]
    widths = [max(cell_len(word) for cell in column for word in cell.plain.split(" ")) for column in columns]
    left = max(0, room - sum(widths) - _GAP * (len(columns) - 1))
    for place in sorted(range(len(columns)), key=lambda place: whole[place] - widths[place]):
        more = min(left, whole[place] - widths[place])  # columns that miss little come first
        widths[place] += more
        left -= more
    return widths


def tell(text: object = "") -> None:
    """A result for a person, on standard output."""
    click.echo(printable(text, keep="\n\t"))


def say(text: object = "", *, bold: bool = False) -> None:
    """A sentence for a person, on standard error, so that standard output stays for results."""
    fit = printable(text, keep="\n\t")
    click.echo(click.style(fit, bold=True) if bold else fit, err=True)


def print_left_out(sentences: Iterable[str]) -> None:
    """What was not taken, and why, on standard error."""
    for sentence in sentences:
        say(f"left out: {sentence}")


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        STANDARD_ERROR.print(Text(self.format(record)), soft_wrap=True)


@contextmanager
def log_shown() -> Iterator[None]:
    """Inside it, what the library tells stands on standard error, a line each."""
    handler, before = _ToConsole(), logs.LIBRARY.level
    handler.setFormatter(logs.Printable())
    logs.LIBRARY.addHandler(handler)
    logs.LIBRARY.setLevel(logging.INFO)
    try:
        yield
    finally:
        logs.LIBRARY.setLevel(before)
        logs.LIBRARY.removeHandler(handler)


def _cell(value: object) -> Text:
    """As rich's own text, in which nothing is markup."""
    return Text(printable(value))
