"""Errors that teach: what is wrong, with the value seen; what is allowed; what to do.

Everything a user can cause derives from :class:`ReidError`. The command line prints such an error as
one line and exits with code 2; anything else is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from reidkit.texts.printable import printable

MOST_SUGGESTIONS = 10
MOST_PROBLEMS = 20
_LONGEST_NAME = 100  # of those that near ones are looked for


class ReidError(Exception):
    """A mistake that the caller can mend. The message says how."""


class ConfigError(ReidError):
    """A configuration that cannot be used. ``problems`` holds every fault found, not only the first."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        told = self.problems[:MOST_PROBLEMS]
        more = len(self.problems) - len(told)
        super().__init__("\n".join([*told, *([f"and {more:,} more problems"] if more else [])]))


class DataError(ReidError):
    """Files, labels or arrays that are not what they should be."""


class CheckpointError(ReidError):
    """A run folder, checkpoint or weights file that is missing, damaged or made by something else."""


class TrainingError(ReidError):
    """Training cannot go on: a loss that is not finite, a batch that cannot be drawn."""


class UnknownName(ConfigError):
    """A name nobody registered. The message lists the nearest ones.

    >>> raise UnknownName("loss", "trihrad", ["msml", "trihard"])
    Traceback (most recent call last):
        ...
    reidkit.errors.UnknownName: unknown loss 'trihrad'; did you mean 'trihard'? Known: msml, trihard
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        listed = (
            f"{did_you_mean(name, known)} {listed_names(name, known)}"
            if known
            else " none is registered: give your own, module:name"
        )
        super().__init__(f"unknown {kind} {shown(name)};{listed}")


class MissingExtra(ReidError):
    """An optional dependency that is not installed.

    >>> raise MissingExtra("pyarrow", extra="data", needed_for="reading Parquet tables")
    Traceback (most recent call last):
        ...
    reidkit.errors.MissingExtra: reading Parquet tables needs pyarrow: pip install "reidkit[data]"
    """

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(f'{needed_for} needs {package}: pip install "reidkit[{extra}]"')


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` did you mean 'x'?`` for the nearest known name, or an empty string if none is near."""
    nearest = difflib.get_close_matches(name[:_LONGEST_NAME], list(known), n=1, cutoff=0.6)
    return f" did you mean {nearest[0]!r}?" if nearest else ""


def listed_names(name: str, known: Sequence[str]) -> str:
    """``Known: a, b, c``; of many the ten nearest to ``name``, and how many more there are."""
    if len(known) <= 3 * MOST_SUGGESTIONS:
        return f"Known: {', '.join(known)}"
    nearest = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=MOST_SUGGESTIONS, cutoff=0.0)
    return f"Known: {', '.join(sorted(nearest))}, and {len(known) - len(nearest):,} more"


def shown(value: object, limit: int = 80) -> str:
    """``repr(value)`` for a message: fit to print, and cut where it is longer than ``limit`` characters.

    >>> shown("x" * 100_000, limit=10)
    "'xxxxxxxxx... (100,002 characters)"
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, values that hold themselves
        return f"a value of type {type(value).__name__} that is too long to show"
    return shortened(text, limit)


def shortened(text: str, limit: int = 80) -> str:
    """A text for a message: fit to print, and cut where it is longer than ``limit`` characters."""
    fit = printable(text[:limit])  # escapes are longer than what they stand for
    if len(text) <= limit and len(fit) <= limit:
        return fit
    return f"{fit[:limit]}... ({len(text):,} characters)"


def short(value: object, limit: int = 80) -> str:
    """What a library or a file says, for a message: its first line with words, cut where it is long."""
    text = str(value) if isinstance(value, str | Exception) else shown(value, limit)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(value).__name__)
    return shortened(line, limit)


@contextmanager
def working_on(what: object) -> Iterator[None]:
    """Let an error that nobody foresaw say which file, or what else, was being worked on."""
    try:
        yield
    except ReidError:
        raise
    except Exception as error:
        error.add_note(str(what))
        raise
