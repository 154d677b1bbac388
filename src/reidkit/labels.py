"""Identities and cameras as their owner wrote them: one reading for folders, tables, features and galleries.

A label is text. It stays as written, but for what cannot be seen around it and for the form of its accents
(Unicode NFC: the same name typed on two systems is one name). Whether labels are numbers is decided once
for a whole *column*, all labels of one kind in a data set, and does not depend on their order:

- Where every label is a plain whole number (``1``, ``751``, ``-1``), or one written as a float by a
  program that left a gap in the column (``1.0``), they are numbers: ``1`` and ``1.0`` are one label.
- Otherwise all are text: one ``0001`` or ``anna`` makes ``1`` and ``1.0`` two labels.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal

from reidkit.errors import DataError, shown

JUNK_LABEL = "-1"
"""How an identity that counts neither as right nor as wrong is written."""

_FIRST_DATE, _LAST_DATE = 1e8, 253402300800.0  # of a time in seconds: 1973, and the year 10000

_NUMBER = re.compile(r"(0|-1|[1-9][0-9]{0,18})", re.ASCII)
# A program that met an empty cell writes floats; with a decimal comma where that is the custom.
_NUMBER_AS_FLOAT = re.compile(rf"{_NUMBER.pattern}(?:\.0+|,0)?", re.ASCII)
_LARGEST = 2**63 - 1
_EMPTY_CELLS = frozenset(
    ("nan", "NaN", "NAN", "NaT", "None", "null", "NULL", "NA", "<NA>", "N/A", "n/a", "#N/A")
)
_ROUNDED = re.compile(r"[0-9](?:[.,][0-9]+)?[eE]\+[0-9]+", re.ASCII)
_EXACT_BITS = {2: 11, 4: 24}  # of floats of so many bytes; of all others 53
# What copying leaves before and behind a text: marks of byte order, of direction, spaces of no width.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """Labels of one column, row by row; ``None`` where a label is missing.

    ``names`` are the labels as text, ``codes`` integers that are equal where the names are: of numbers
    their value; of text made of digits (``0001``) its value too, where no two would then be one; of other
    text the place in sorted order, from 1. With ``junk``, -1 has the code -1 in any column.
    ``reading`` says in a sentence how the column was read.
    """

    names: tuple[str | None, ...]
    codes: tuple[int | None, ...]
    kind: Literal["numbers", "text"]
    reading: str

    def written(self, row: int) -> str | None:
        """The name in a row, or ``None`` where its code says the same."""
        name, code = self.names[row], self.codes[row]
        return None if name == str(code) else name


def label_text(value: Any) -> str | None:
    """One label as text; ``None`` where it is missing (None, NaN, NaT, or only white space).

    Integers and whole floats are written plainly (12 and 12.0 give "12", the text "12.0" stays), bytes
    are UTF-8. Bytes of a file name that are not UTF-8 become visible escapes (``caf\\xe9``).

    Raises:
        DataError: a truth value, a fraction, a float beyond the whole numbers that its type can tell apart,
            a date, a list, bytes that are not UTF-8, ...
    """
    if value is None:
        return None
    if isinstance(value, bytes | bytearray):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            raise DataError(f"{shown(value)} is not UTF-8 text; write the label as UTF-8") from None
    if isinstance(value, str):
        return _normal(value) or None
    if is_missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, Real | Decimal) or is_duration(value):
        kind = type(value).__name__
        raise DataError(f"{shown(value)} is of type {kind}; a label is a text or a whole number")
    number: Any = value
    if _is_rounded(number):
        raise DataError(
            f"{shown(value)} is a float too large to tell it from the next whole number, so that two labels "
            "may have become one; write such labels as text or as integers"
        )
    if getattr(number, "dtype", None) is not None:
        number = number.item()  # a float16 cannot be compared with what it cannot hold
    if abs(number) > 10**38 or number != int(number):
        raise DataError(f"{shown(value)} is not a whole number of at most 38 digits; write it as text")
    return str(int(number))


def label_value(value: Any) -> int | str | None:
    """:func:`label_text`, with a plain whole number of 64 bits as ``int``; "0001", "1.0" and "-5" stay text.

    >>> [label_value(v) for v in ("12", 12.0, "0001", "anna", "")]
    [12, 12, '0001', 'anna', None]
    """
    text = label_text(value)
    return int(text) if text is not None and is_number(text) else text


def moment(seconds: float) -> str:
    """A time to be read by people: a date in UTC; as seconds what lies near 1970, which is no date at all.

    >>> moment(1714557600.0), moment(1714557600.25), moment(12.5)
    ('2024-05-01 10:00:00 UTC', '2024-05-01 10:00:00.250 UTC', '12.5 s')
    """
    if not is_date(seconds):
        return f"{seconds:g} s"
    time = datetime.fromtimestamp(seconds, UTC)
    fraction = f".{time.microsecond // 1000:03}" if time.microsecond else ""
    return f"{time:%Y-%m-%d %H:%M:%S}{fraction} UTC"


def is_date(seconds: float) -> bool:
    """Whether a time is so far from 1970 that it is one of the calendar; otherwise it counts seconds."""
    return _FIRST_DATE <= seconds < _LAST_DATE


def lasting(seconds: float) -> str:
    """A duration to be read by people.

    >>> [lasting(value) for value in (0.25, 59, 90, 7265, 200_000)]
    ['0.25 s', '59 s', '1 min 30 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, name, smaller, smaller_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name} {rest} {smaller_name}" if rest else f"{whole // size} {name}"
    return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"


def camera_value(value: Any) -> int | str | None:
    """:func:`label_value` of a camera: -1, however written, is one that is not known."""
    text = label_text(value)
    return None if text is None or is_junk(text) else label_value(text)


def read_labels(values: Iterable[Any], *, what: str, junk: bool = False) -> LabelColumn:
    """All labels of one kind in a data set, read together; see the module.

    Args:
        values: one a row, each as :func:`label_text` takes them; arrays of NumPy too.
        what: the kind, for messages and :attr:`LabelColumn.reading`: "identities".
        junk: whether -1 means "ignore" and never is a name.

    Raises:
        DataError: a value that is no label; the message gives its row, counted from 0. Or a text that no one
            wrote: an empty cell among numbers as programs write it ("nan"), a number that a spreadsheet has
            rounded ("1.5E+17").
    """
    names = _texts(values, what)
    distinct = {name for name in names if name is not None}
    _refuse_what_programs_wrote(distinct, what)
    odd = min((name for name in distinct if not is_number(name, as_float=True)), default=None)
    if odd is None:
        plain = {name: re.split("[.,]", name)[0] for name in distinct}
        codes = {name: int(number) for name, number in plain.items()}
        reading = f"{what}: numbers" + (
            ", written as floats" if any("." in name for name in distinct) else ""
        )
    else:
        plain = {name: JUNK_LABEL if junk and is_junk(name) else name for name in distinct}
        codes, how = _codes(set(plain.values()), junk=junk)
        reading = f"{what}: text, as written, since {shown(odd)} is not a plain whole number; {how}"
        codes = {name: codes[text] for name, text in plain.items()}
    return LabelColumn(
        names=tuple(None if name is None else plain[name] for name in names),
        codes=tuple(None if name is None else codes[name] for name in names),
        kind="numbers" if odd is None else "text",
        reading=reading if distinct else f"{what}: none",
    )


def empty_cells(names: Iterable[str]) -> list[str]:
    """Those of the names by which programs write an empty cell: "nan", "None"; sorted."""
    return sorted(_EMPTY_CELLS.intersection(names))


def listed(values: Any) -> list[Any]:
    """Values of an array or another sequence, floats of less than 64 bits as they are."""
    dtype = getattr(values, "dtype", None)
    is_short_float = getattr(dtype, "kind", "") == "f" and dtype.itemsize in _EXACT_BITS  # type: ignore[union-attr]
    return list(values) if is_short_float or not hasattr(values, "tolist") else list(values.tolist())


def lookalikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names that a person may have meant as one, sorted.

    They differ by leading zeros or a ``.0``, by capitals, by the quotes and signs that spreadsheets leave, or
    by characters that look alike or cannot be seen (full-width digits, ligatures, spaces of no width).

    >>> lookalikes(["1", "0001", "Anna", "anna", "ben"])
    [('0001', '1'), ('Anna', 'anna')]
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[_as_meant(name)].add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def near_labels(wanted: str, known: Iterable[str]) -> list[str]:
    """Labels that may have been meant by another text, the likeliest first.

    Those that differ as :func:`lookalikes` do; without one, of texts the most similar.

    >>> near_labels("1", ["0001", "0011"]), near_labels("yrad", ["door", "yard"])
    (['0001'], ['yard'])
    """
    labels = sorted(known)
    alike = [label for label in labels if _as_meant(label) == _as_meant(wanted)]
    if alike or is_number(wanted):  # another number is another person, however similar it looks
        return alike
    return difflib.get_close_matches(wanted, labels, n=1)


def is_missing(value: Any) -> bool:
    """Whether a value is one by which a program says that there is none: ``None``, NaN, NaT, pandas.NA."""
    try:
        return value is None or bool(value != value)  # NaN and NaT are the values that differ from themselves
    except (TypeError, ValueError):  # pandas.NA has no truth value; neither have arrays
        return type(value).__name__ == "NAType"
    except ArithmeticError:  # a signalling NaN refuses any comparison
        return True


def is_duration(value: Any) -> bool:
    """Whether a value is a duration of NumPy, which calls itself an integer."""
    return getattr(getattr(value, "dtype", None), "kind", "") == "m"


def is_number(text: str, *, as_float: bool = False) -> bool:
    """Whether a text is a plain whole number of 64 bits; or, ``as_float``, one written as "3.0" or "3,0"."""
    match = (_NUMBER_AS_FLOAT if as_float else _NUMBER).fullmatch(text)
    return match is not None and int(match[1]) <= _LARGEST


def is_junk(text: str) -> bool:
    """Whether a text is -1 in any of the ways a number is written."""
    match = _NUMBER_AS_FLOAT.fullmatch(text)
    return match is not None and match[1] == JUNK_LABEL


def _texts(values: Iterable[Any], what: str) -> list[str | None]:
    if isinstance(values, str | bytes):
        raise DataError(f"{what} is the text {shown(values)}; expected a list with one label a row")
    if getattr(getattr(values, "dtype", None), "kind", "") in ("m", "M"):  # tolist would make them integers
        raise DataError(f"{what} are dates or times; a label is a text or a whole number")
    texts = []
    for row, value in enumerate(listed(values)):
        try:
            texts.append(label_text(value))
        except DataError as error:
            raise DataError(f"{what}, row {row}: {error}") from None
    return texts


def _refuse_what_programs_wrote(names: set[str], what: str) -> None:
    empty = empty_cells(names)
    if empty and all(is_number(name, as_float=True) for name in names.difference(empty)):
        raise DataError(
            f"{what}: {shown(empty[0])} is what programs write for an empty cell; write -1 where none is "
            "known"
        )
    rounded = min(filter(_ROUNDED.fullmatch, names), default=None)
    if rounded is not None:
        raise DataError(
            f"{what}: {shown(rounded)} is a number that a spreadsheet has rounded, so that two labels may "
            "have become one; format the column as text there, and write all digits"
        )


def _codes(names: set[str], *, junk: bool) -> tuple[dict[str, int], str]:
    """Codes of text, and how they were chosen."""
    special = {JUNK_LABEL: int(JUNK_LABEL)} if junk and JUNK_LABEL in names else {}
    ordered = sorted(names - special.keys())
    if all(len(name) < 19 and name.isascii() and name.isdigit() for name in ordered):
        values = {name: int(name) for name in ordered}
        if len(set(values.values())) == len(values):
            return values | special, "numbered by their value"
    numbers = {name: number for number, name in enumerate(ordered, start=1)}
    return numbers | special, "numbered from 1 in sorted order"


def _normal(text: str) -> str:
    if not text.isascii():
        try:
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            raise DataError(f"{shown(text)} is not valid Unicode; write the label anew") from None
        text = unicodedata.normalize("NFC", text).strip().strip(_INVISIBLE)
    return text.strip()


def _as_meant(name: str) -> str:
    """The same for names that :func:`lookalikes` groups."""
    key = _as_seen(name).strip("=+'\"")
    number = re.fullmatch(r"0*([0-9]+)(?:\.0+|,0)?", key, re.ASCII)
    return number[1] if number else " ".join(key.split())


def _as_seen(name: str) -> str:
    """Without capitals, without characters that show nothing, digits of all scripts as 0 to 9."""
    text = unicodedata.normalize("NFKC", name).casefold()
    shown_ones = (character for character in text if unicodedata.category(character) != "Cf")
    return "".join(str(unicodedata.decimal(character, character)) for character in shown_ones)


def _is_rounded(number: Any) -> bool:
    if isinstance(number, Integral | Decimal):
        return False
    size = getattr(getattr(number, "dtype", None), "itemsize", 8)
    return bool(2 ** _EXACT_BITS.get(size, 53) <= abs(number) < float("inf"))
