"""Text from outside, made fit to print.

File names, labels, names of runs and whatever a file holds may carry terminal commands, marks that turn the
direction of writing, line breaks, halves of characters. Whoever prints such a text, or writes it on a page,
sends it through :func:`printable` first.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # several scripts, and emoji, cannot be written without them


def printable(text: object, *, keep: str = "") -> str:
    r"""``str(text)`` with visible escapes in place of what is not to be seen or would act on the reader.

    Letters of all scripts and spaces stay as they are. Escaped are control characters, marks of direction
    and other invisible ones, line and paragraph separators, lone surrogates (as the byte they stand for in a
    file name that is not UTF-8), and code points without a meaning.

    Args:
        text: anything.
        keep: characters to leave alone, ``"\n\t"`` for a text of several lines.

    >>> print(printable("photo\x1b[2J\u202egpj.exe"))
    photo\x1b[2J\u202egpj.exe
    >>> print(printable("José 李 \udcff"))
    José 李 \xff
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c in keep or is_plain(c) else _escape(c) for c in text)


def is_plain(character: str) -> bool:
    """Whether a character shows itself and does nothing else."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that it could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def counted(number: int, noun: str) -> str:
    """A number with what it counts; the noun is given in the singular.

    >>> counted(1, "image"), counted(3000, "image"), counted(2, "identity")
    ('1 image', '3,000 images', '2 identities')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    if noun.endswith("person"):
        plural = f"{noun.removesuffix('person')}people"
    return f"{number:,} {noun if number == 1 else plural}"
