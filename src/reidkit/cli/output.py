"""Printing: tables a person reads, JSON a program reads. Here all text is made fit to print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reidkit.printable import printable

F = TypeVar("F", bound=Callable[..., Any])
_GAP = 2  # spaces between the columns of a table

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
    table = Table(
        title=None if title is None else _cell(title),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
    )
    console = Console()
    cells = [[_cell(value) for value in row] for row in rows]
    names = [_cell(column) for column in columns]
    widths = _widths([names, *cells], console.width)
    for column, name, width in zip(columns, names, widths, strict=True):
        justify = "right" if column in right else "left"
        table.add_column(name, justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _widths(rows: list[list[Text]], room: int) -> list[int | None]:
    """Widths of columns with which no word is broken; none where there is no room for that."""
    columns = list(zip(*rows, strict=True))
    lines = [[line for cell in column for line in cell.plain.split("\n")] for column in columns]
    whole = [max(cell_len(line) for line in column) for column in lines]
    words = [max(cell_len(word) for line in column for word in line.split(" ")) for column in lines]
    left = room - sum(words) - _GAP * (len(columns) - 1)
    if left < 0:
        return [None] * len(columns)
    widths: list[int | None] = list(words)
    for place in sorted(range(len(columns)), key=lambda place: whole[place] - words[place]):
        more = min(left, whole[place] - words[place])  # columns that miss little come first
        widths[place] = words[place] + more
        left -= more
    return widths


def tell(text: object = "") -> None:
    """A result for a person, on standard output."""
    click.echo(printable(text, keep="\n\t"))


def say(text: object = "", *, bold: bool = False) -> None:
    """A sentence for a person, on standard error, so that standard output stays for results."""
    fit = printable(text, keep="\n\t")
    click.echo(click.style(fit, bold=True) if bold else fit, err=True)


def _cell(value: object) -> Text:
    """As rich's own text, in which nothing is markup."""
    return Text(printable(value))
