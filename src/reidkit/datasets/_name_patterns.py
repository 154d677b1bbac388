"""Patterns for file names: ``{identity}_c{camera}_{frame}.jpg``, matched in time linear in the name.

A regular expression would backtrack: a name of 40 digits that just fails to fit five fields keeps it busy
for ever. Here each open piece of a pattern remembers from where on it has failed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

from reidkit.errors import ConfigError, did_you_mean, shown

MAX_LENGTH = 300  # characters of a pattern
MAX_STEPS = 20_000  # of a match where a field is repeated, so that failures cannot be remembered

# What a piece can take at most from some place on; it may also take less.
_TEXT = re.compile(r"[^/]+")
_ANY = re.compile(r"[^/]*")
_DIGITS = re.compile(r"[0-9]+")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_SUFFIX = re.compile(r"\.[^./]+")

FIELDS = {"identity": _TEXT, "camera": _TEXT, "frame": _DIGITS, "tracklet": _DIGITS, "time": _SECONDS}
_EXAMPLE = "{identity}_c{camera}_{frame}.jpg"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A field, a ``*`` or a suffix (``longest``), or a text that must stand there."""

    literal: str = ""
    longest: re.Pattern[str] | None = None
    field: str | None = None
    repeats: bool = False


class NamePattern:
    """A pattern for paths below a root, with forward slashes.

    Fields are identity (required, unless ``needs_identity`` is false) and camera (text inside one folder or
    file name), frame and tracklet (digits), time (seconds). ``*`` stands for any text inside one name, ``.*``
    at the end for any suffix; all else is literal. Where a name can be read in several ways, earlier fields
    take as much as they can: "john_carter_c1" splits at its last "_c". A field that comes twice must be the
    same text both times.

    Raises:
        ConfigError: what is not a pattern; every fault is named.
    """

    def __init__(self, pattern: Any, *, needs_identity: bool = True) -> None:
        # The same name typed on two systems differs in the form of its accents.
        self._pieces, problems = _parse(normalize("NFC", pattern) if isinstance(pattern, str) else pattern)
        if not problems and needs_identity and "identity" not in self.fields:
            problems = [f"pattern {pattern!r} has no {{identity}}; write for example {_EXAMPLE}"]
        if problems:
            raise ConfigError(problems)
        self.text = str(pattern)
        self._has_repeats = any(piece.repeats for piece in self._pieces)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the pattern, in its order."""
        return tuple(p.field for p in self._pieces if p.field is not None and not p.repeats)

    def match(self, name: str) -> dict[str, str] | None:
        """Fields of a whole name, or ``None`` where it does not fit.

        Raises :class:`ConfigError` for a name that fits in too many ways to try, with a repeated field.
        """
        name = normalize("NFC", name)
        spans = _Match(name, self._pieces, remembers=not self._has_repeats).spans()
        if spans is None:
            return None
        return {
            piece.field: name[start:end]
            for piece, (start, end) in zip(self._pieces, spans, strict=True)
            if piece.field is not None
        }


class _Match:
    """One name against the pieces, from left to right, each as long as the others allow."""

    def __init__(self, name: str, pieces: list[_Piece], *, remembers: bool) -> None:
        self.name = name
        self.pieces = pieces
        self.ends: list[int] = []
        self.remembers = remembers
        self.num_steps = 0
        # By piece and longest end: all ends from this one on have failed, whatever the start.
        self.failed_from: dict[tuple[int, int], int] = {}

    def spans(self) -> list[tuple[int, int]] | None:
        if not self._fits(0, 0):
            return None
        return list(itertools.pairwise([0, *self.ends]))

    def _fits(self, place: int, start: int) -> bool:
        """Whether the pieces from ``place`` on fit the name from ``start`` on; then ``ends`` are theirs."""
        del self.ends[place:]
        if place == len(self.pieces):
            return start == len(self.name)
        self._count_step()
        piece = self.pieces[place]
        if piece.longest is None:
            literal = self._captured(piece.field) if piece.repeats else piece.literal
            return self.name.startswith(literal, start) and self._goes_on(place, start + len(literal))
        found = piece.longest.match(self.name, start)
        return found is not None and self._fits_open(place, start, found.end())

    def _fits_open(self, place: int, start: int, longest: int) -> bool:
        # Ends possible from here are those possible from any earlier start, as far as they lie behind it.
        lowest = self.failed_from.get((place, longest), longest + 1)
        first = start if self.pieces[place].longest is _ANY else start + 1
        following = self.pieces[place + 1].literal if place + 1 < len(self.pieces) else ""
        end = min(longest, lowest - 1)
        while (end := self.name.rfind(following, first, end + len(following))) >= first:
            if not (self.pieces[place].longest is _SECONDS and self.name[end - 1] == "."):
                if self._goes_on(place, end):
                    return True
                self._count_step()
            end -= 1
            if end < first:
                break
        if self.remembers:
            self.failed_from[place, longest] = min(first, lowest)
        return False

    def _goes_on(self, place: int, end: int) -> bool:
        del self.ends[place:]
        self.ends.append(end)
        if self._fits(place + 1, end):
            return True
        del self.ends[place:]
        return False

    def _captured(self, field: str | None) -> str:
        place = next(n for n, piece in enumerate(self.pieces) if piece.field == field)
        return self.name[self.ends[place - 1] if place else 0 : self.ends[place]]

    def _count_step(self) -> None:
        self.num_steps += 1
        if not self.remembers and self.num_steps > MAX_STEPS:
            raise ConfigError(
                f"{shown(self.name)} could fit the pattern in more ways than can be tried, since a field "
                "comes twice in it; use * for the second"
            )


def _parse(pattern: Any) -> tuple[list[_Piece], list[str]]:
    """Pieces, and every fault."""
    if not isinstance(pattern, str):
        return [], [f"pattern is of type {type(pattern).__name__}; expected a text such as {_EXAMPLE}"]
    if len(pattern) > MAX_LENGTH:
        return [], [f"the pattern has {len(pattern)} characters; expected at most {MAX_LENGTH}"]
    problems: list[str] = []
    pieces: list[_Piece] = []
    for text in re.split(r"(\{[^{}]*\}|\*+)", pattern.removesuffix(".*")):
        field = text[1:-1]
        if text.startswith("*"):
            pieces.append(_Piece(longest=_ANY))
        elif not (text.startswith("{") and text.endswith("}")):
            if "{" in text or "}" in text:
                problems.append(f"pattern {pattern!r} has a brace without its other half")
            pieces += [_Piece(literal=text)] if text else []
        elif field not in FIELDS:
            problems.append(
                f"pattern {pattern!r} has an unknown field {text};{did_you_mean(field, FIELDS)} "
                f"Fields: {', '.join(FIELDS)}"
            )
        elif any(piece.field == field for piece in pieces):
            pieces.append(_Piece(field=field, repeats=True))
        else:
            pieces.append(_Piece(field=field, longest=FIELDS[field]))
    if pattern.endswith(".*"):
        pieces.append(_Piece(longest=_SUFFIX))
    if not problems:
        problems += _ambiguities(pattern, pieces)
    return pieces, problems


def _ambiguities(pattern: str, pieces: list[_Piece]) -> list[str]:
    problems = []
    for left, right in itertools.pairwise(pieces):
        if right.field is not None and not right.repeats and (left.field is not None or left.longest is _ANY):
            both = f"{_as_written(left)}{_as_written(right)}"
            problems.append(
                f"pattern {pattern!r} has {both} side by side: nothing says where one ends and the other "
                "begins; write the text that stands between them"
            )
    return problems


def _as_written(piece: _Piece) -> str:
    return "*" if piece.field is None else f"{{{piece.field}}}"


Reader = Callable[[str], dict[str, str] | None]
"""From a path below the root to its fields; ``None`` where it has none."""


def identity_folder(name: str) -> dict[str, str] | None:
    """Without a pattern: the first folder is the identity."""
    identity, slash, rest = name.partition("/")
    return {"identity": identity} if slash and rest else None
