"""A pattern made out of the names themselves, where none of the usual ones fits.

Names are cut into columns: each folder is one, and the file's name is cut into letters, digits and what is
between them. A column is a camera where there are few of it and most identities have several; an identity
where it comes back. Which column is what can only be guessed, so that the pattern is for a person to confirm.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reidkit.datasets._cameras_in_folders import DATE, MOST_CAMERAS
from reidkit.datasets._name_patterns import NamePattern
from reidkit.errors import ConfigError

_RUNS = re.compile(r"[0-9]+|[^\W\d_]+|[\W_]+")
_FOLDER_WORD = re.compile(r"([^\W\d_]+)[ _-]?[0-9]+")
_BETWEEN = " _-.#"  # stands between a word and its number
_OF_CAMERA = {"c", "cam", "camera", "view", "kamera", "k", "camara", "telecamera"}
_OF_IDENTITY = {"p", "id", "pid", "person", "people", "identity", "subject"}
_OF_IDENTITY |= {"persona", "personne", "pessoa", "persoon"}
_OF_NEITHER = {"f", "frame", "img", "image", "dsc", "dscn", "pic", "photo", "t", "s", "bild", "foto"}

# Parts without a meaning, with numbers and signs in between: one * says the same.
_MANY_PARTS = re.compile(r"\*(?:[^/{}*A-Za-z]*\*)*(?:[-_. ][0-9]+)*")

_LONG = 4  # digits of a date, a time or a count: the photos of another day have others there
_CROSSED = 0.5  # share of identities that several cameras must have seen


@dataclass(frozen=True, slots=True)
class _Column:
    """What stands at one place of all names. ``before`` is the word that stands in front of it, and of
    folders that in front of the number in each."""

    values: tuple[str, ...]
    before: str
    is_folder: bool

    @property
    def number(self) -> int:
        return len(set(self.values))

    @property
    def are_digits(self) -> bool:
        return all(value.isdecimal() for value in self.values)

    @property
    def are_dates(self) -> bool:
        return all(DATE.fullmatch(value) for value in self.values)


def infer_pattern(names: Sequence[str]) -> str | None:
    """The likeliest pattern of names of one form, with several identities and cameras; None without one.

    Args:
        names: paths below the root, with forward slashes.
    """
    names = [unicodedata.normalize("NFC", name) for name in names]  # as patterns read them
    pieces = _columns(names)
    columns = [piece for piece in pieces if isinstance(piece, _Column) and piece.number > 1]
    pairs = itertools.product(_identities(columns), _cameras(columns, len(names)))
    for identity, camera in pairs:
        is_outer = identity.is_folder and columns.index(identity) < columns.index(camera)
        if identity.number <= camera.number or (not is_outer and _counts(identity, camera)):
            continue
        if _share_crossed(identity.values, camera.values) < _CROSSED:
            continue
        fields = {id(identity): "{identity}", id(camera): "{camera}"}
        for text in (_as_pattern(pieces, fields), _as_pattern(_with_dates(pieces), fields)):
            for shorter in (_MANY_PARTS.sub("*", text.removesuffix(".*")) + ".*", text):
                if _reads(shorter, names, camera):
                    return shorter
    return None


def _columns(names: Sequence[str]) -> list[_Column | str]:
    """Columns, and the texts between them that are the same in all; none where names are of two forms."""
    split = [_split(name) for name in names]
    if len({tuple(kind for kind, _ in parts) for parts in split}) != 1:
        return []
    pieces: list[_Column | str] = []
    before = ""
    for place, (kind, text) in enumerate(split[0]):
        values = tuple(parts[place][1] for parts in split)
        same = len(set(values)) == 1
        if kind == "between" and not same:
            return []
        is_long_number = kind == "digits" and len(text) >= _LONG
        if kind == "between" or (same and kind != "folder" and not is_long_number):
            pieces.append(text)
        else:
            word = _word_of_folders(values) if kind == "folder" else before
            pieces.append(_Column(values, word, kind == "folder"))
        if not (kind == "between" and text.strip(_BETWEEN) == ""):
            before = _plain(text) if same and kind == "letters" else ""
    return pieces


def _word_of_folders(values: Sequence[str]) -> str:
    """The word in front of the number in the names of all folders, as in "cam 1"; empty without one."""
    words = {_plain(found[1]) if (found := _FOLDER_WORD.fullmatch(value)) else "" for value in values}
    return words.pop() if len(words) == 1 else ""


def _plain(word: str) -> str:
    """In lower case and without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", word.lower()) if sign.isalpha())


def _split(name: str) -> list[tuple[str, str]]:
    """Kind and text of each part of a name, less its ending."""
    *folders, file = name.split("/")
    parts = [part for folder in folders for part in (("folder", folder), ("between", "/"))]
    stem = file.rpartition(".")[0] or file
    for run in _RUNS.findall(stem):
        kind = "digits" if run.isdecimal() else "letters" if run[0].isalpha() else "between"
        parts.append((kind, run))
    return parts


def _identities(columns: Sequence[_Column]) -> Iterator[_Column]:
    """Those that may be identities, the likeliest first."""
    likely = [
        column
        for column in columns
        if not column.are_dates
        and column.before not in _OF_CAMERA | _OF_NEITHER
        and len(column.values) >= 2 * column.number
    ]
    yield from sorted(likely, key=lambda column: column.before not in _OF_IDENTITY)


def _cameras(columns: Sequence[_Column], num_names: int) -> Iterator[_Column]:
    """Those that may be cameras, the likeliest first: of a number nobody knows what it counts."""
    likely = [
        column
        for column in columns
        if not column.are_dates
        and column.before not in _OF_IDENTITY | _OF_NEITHER
        and column.number <= min(MOST_CAMERAS, num_names // 2)
        and (column.is_folder or column.before in _OF_CAMERA or not column.are_digits)
    ]
    yield from sorted(likely, key=lambda column: column.before not in _OF_CAMERA)


def _counts(number: _Column, folder: _Column) -> bool:
    """Whether a number without a name counts the images of each folder, from 0 or 1 on."""
    if number.before in _OF_IDENTITY or not number.are_digits:
        return False
    numbers = defaultdict(list)
    for value, place in zip(number.values, folder.values, strict=True):
        numbers[place].append(int(value))
    return all(
        min(seen) < 2 and sorted(seen) == list(range(min(seen), min(seen) + len(seen)))
        for seen in numbers.values()
    )


def _share_crossed(identities: Sequence[str], cameras: Sequence[str]) -> float:
    """Share of identities with several cameras; none where a camera has a single identity."""
    cameras_of, identities_of = defaultdict(set), defaultdict(set)
    for person, place in zip(identities, cameras, strict=True):
        cameras_of[person].add(place)
        identities_of[place].add(person)
    if min(map(len, identities_of.values())) < 2:
        return 0.0
    return sum(len(cameras) > 1 for cameras in cameras_of.values()) / len(cameras_of)


def _reads(text: str, names: Sequence[str], camera: _Column) -> bool:
    """Whether the pattern reads all names, and of them what was meant: fields take as much as they can."""
    try:
        pattern = NamePattern(text)
    except ConfigError:  # columns without anything in between
        return False
    read = [fields for name in names if (fields := pattern.match(name)) is not None]
    cameras = [fields["camera"] for fields in read]
    identities = [fields["identity"] for fields in read]
    return cameras == list(camera.values) and _share_crossed(identities, cameras) >= _CROSSED


def _with_dates(pieces: Sequence[_Column | str]) -> list[_Column | str]:
    """Pieces in which numbers that are the same in all names are texts: one may border on a column."""
    return [
        piece if isinstance(piece, str) or piece.is_folder or piece.number > 1 else piece.values[0]
        for piece in pieces
    ]


def _as_pattern(pieces: Sequence[_Column | str], fields: dict[int, str]) -> str:
    texts = []
    for piece in pieces:
        texts.append(piece if isinstance(piece, str) else fields.get(id(piece), "*"))
    last = pieces[-1]
    if isinstance(last, _Column) and texts[-1] == "*" and last.are_digits:
        texts[-1] = "{frame}"
    return "".join(texts).replace("{identity}*", "{identity}") + ".*"
