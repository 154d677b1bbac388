"""Printing: tables a person reads, JSON a program reads. Here all text is made fit to print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reidkit.printable import printable

F = TypeVar("F", bound=Callable[..., Any])

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
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        justify = "right" if column in right else "left"
        table.add_column(_cell(column), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(_cell, row))
    Console().print(table)


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
