"""Errors that teach: what is wrong, with the value seen; what is allowed; what to do.

Everything a user can cause derives from :class:`ReidError`. The command line prints such an error as
one line and exits with code 2; anything else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ReidError(Exception):
    """A mistake that the caller can mend. The message says how."""


class ConfigError(ReidError):
    """A configuration that cannot be used. ``problems`` holds every fault found, not only the first."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


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
            f"{did_you_mean(name, known)} Known: {', '.join(known)}"
            if known
            else " none is registered: give your own, module:name"
        )
        super().__init__(f"unknown {kind} {name!r};{listed}")


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
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" did you mean {nearest[0]!r}?" if nearest else ""
