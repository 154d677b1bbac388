"""Printing: tables a person reads, JSON a program reads. Here all text is made fit to print."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
NUM_LISTED = 20  # lines on what was left out

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
    prose: Sequence[str] = (),
) -> None:
    """A table; the columns named in ``right`` are numbers and stand flush right.

    What is wider than the terminal is folded: columns without content go, then the widest stand below their
    row, each on a line of its own. Columns named in ``prose`` hold sentences and lists, which are broken
    between words; all else are names, which stay whole: a path with a space in it can be copied.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    names = [_cell(column) for column in columns]
    room = Console().width
    least = [
        max(_longest_word(name), *map(_longest_word if name.plain in prose else _length, column), 0)
        for name, *column in zip(names, *cells, strict=True)
    ]
    beside, below = _folded(cells, least, room)
    whole = [max(map(_length, column)) for column in zip(names, *cells, strict=True)]
    widths = _widths([least[place] for place in beside], [whole[place] for place in beside], room)
    console = Console(width=max(room, sum(widths) + _GAP * len(widths)))
    if title is not None:
        console.print(_cell(title), style="bold", soft_wrap=True)
    justify = ["right" if columns[place] in right else "left" for place in beside]
    lines = [names, *cells]
    for part in [[line] for line in lines] if below else [lines]:
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
        for side, width in zip(justify, widths, strict=True):
            table.add_column(justify=side, width=width)  # type: ignore[arg-type]
        for line in part:
            table.add_row(*[line[place] for place in beside], style="bold" if line is names else "")
        console.print(table)
        for place in below:
            if part[0][place].plain:
                style = "bold" if part[0] is names else ""
                console.print(Text("  ") + part[0][place], style=style, soft_wrap=True)


def _folded(cells: list[list[Text]], least: list[int], room: int) -> tuple[list[int], list[int]]:
    """Places of the columns that stand beside each other within ``room``, and of those below their row."""
    beside, below = list(range(len(least))), []

    def too_wide() -> bool:
        return sum(least[place] for place in beside) + _GAP * (len(beside) - 1) > room

    if too_wide():
        beside = [place for place in beside if any(row[place].plain for row in cells)] or beside[:1]
    while too_wide() and len(beside) > 1:
        widest = max(beside, key=lambda place: least[place])
        beside.remove(widest)
        below.append(widest)
    return beside, sorted(below)


def _widths(least: list[int], whole: list[int], room: int) -> list[int]:
    """Widths of columns with which no name is broken, beyond ``room`` if they must."""
    widths = list(least)
    left = max(0, room - sum(widths) - _GAP * (len(widths) - 1))
    for place in sorted(range(len(widths)), key=lambda place: whole[place] - least[place]):
        more = min(left, whole[place] - least[place])  # columns that miss little come first
        widths[place] += more
        left -= more
    return widths


def _longest_word(cell: Text) -> int:
    return max(map(cell_len, cell.plain.split(" ")))


def _length(cell: Text) -> int:
    return cell_len(cell.plain)


def tell(text: object = "", *, lines: bool = False) -> None:
    """A result for a person, on standard output: one line, or a text of several ``lines``."""
    click.echo(_fit(text, lines))


def say(text: object = "", *, bold: bool = False, lines: bool = False) -> None:
    """A sentence for a person, on standard error, so that standard output stays for results."""
    fit = _fit(text, lines)
    click.echo(click.style(fit, bold=True) if bold else fit, err=True)


def say_next(*words: object) -> None:
    """The command of ``reid`` to go on with. Before a file named like an option stands its folder."""
    say(f"next: {shlex.join(['reid', *(_typed(str(word)) for word in words)])}")


def _typed(word: str) -> str:
    try:
        return f"./{word}" if word.startswith("-") and Path(word).exists() else word
    except OSError:  # too long to be the name of a file
        return word


def print_left_out(sentences: Iterable[str]) -> None:
    """What was not taken, and why, on standard error; of many the first, and how many more."""
    listed = list(sentences)
    for sentence in listed[:NUM_LISTED]:
        say(f"left out: {sentence}")
    if listed[NUM_LISTED:]:
        say(f"left out: {len(listed) - NUM_LISTED:,} more")


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


def from_here(source: str | None) -> str:
    """A gallery's whole path as it is typed in the current folder; nothing where there is none."""
    path = Path(source or "")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else source or ""


def _fit(text: object, lines: bool) -> str:
    """Text as it is printed: a line break inside a single line is one of a file's name, or of a label."""
    if lines:
        return printable(text, keep="\n\t")
    line = str(text)
    blank = line[: len(line) - len(line.lstrip("\n"))]
    return blank + printable(line[len(blank) :])


def _cell(value: object) -> Text:
    """As rich's own text, in which nothing is markup."""
    return Text(printable(value))
