"""How a command ends when something went wrong: one line, and an exit code.

2 is a mistake of the caller, or of the machine: a full disk, too little memory. 3 is a bug of reidkit's.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Sequence

import click

from reidkit.errors import ReidError, shortened
from reidkit.texts.addresses import without_passwords
from reidkit.texts.printable import printable

MOST_CHARACTERS = 900  # of a line: what is longer holds a value that somebody forgot to cut
_ADVICE = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
    errno.EACCES: "this user may not read or write there; choose another place or change its permissions",
    errno.EPERM: "this user may not read or write there; choose another place or change its permissions",
    errno.EROFS: "choose a place that can be written",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer processes",
    errno.ENOMEM: "close other programs, or make batches or images smaller",
}


def ending(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    """What to print and the exit code. ``words`` are those of the command that was running.

    Addresses in it have lost their passwords, wherever they came from.
    """
    line, code = _ending(error, words)
    return without_passwords(line), code


def _ending(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    if isinstance(error, ReidError):
        lines = str(error).split("\n") if hasattr(error, "problems") else [str(error)]
        return "\n".join(["error: " + _line(lines[0]), *map(_line, lines[1:])]), 2
    if isinstance(error, click.ClickException):
        message = _line(error.format_message()).rstrip(".")
        return f"error: {message}{_how_it_is_written(error)}", error.exit_code
    if _is_memory(error):
        return (
            "error: there is not enough memory for this; make batches or images smaller, or processes fewer",
            2,
        )
    if isinstance(error, RecursionError):
        return f"error: what was read is nested too deeply, or holds itself{_worked_on(error)}", 2
    if isinstance(error, OSError) and error.errno is not None:
        return f"error: {_line(_of_system(error))}{_worked_on(error)}", 2
    what = f"{type(error).__name__}: {shortened(str(error), 300)}"
    command = shortened(shlex.join(["reid", *words]), 500)
    return (
        f"error: this is a bug in reidkit ({_line(what)}){_worked_on(error)}; please report it, with what "
        f"this shows: {command} --debug",
        3,
    )


def _line(text: str) -> str:
    return shortened(" ".join(text.split("\n")), MOST_CHARACTERS)


def _how_it_is_written(error: click.ClickException) -> str:
    """The words that the command takes, in their order, and where its help is."""
    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    command = context.command
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece]
    usage = _line(" ".join([context.command_path, *pieces]))
    choice = (
        f" (commands: {', '.join(command.list_commands(context))})"
        if isinstance(command, click.Group)
        else ""
    )
    return f"; usage: {usage}{choice}; see {context.command_path} --help"


def _is_memory(error: Exception) -> bool:
    # torch has errors of its own, and importing it only to name them takes seconds.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error))
    )


def _of_system(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f"{' and '.join(shortened(name, 200) for name in names)}: " if names else ""
    advice = _ADVICE.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}{f'; {advice}' if advice else ''}"


def _worked_on(error: Exception) -> str:
    """What :func:`reidkit.errors.working_on` noted."""
    notes = getattr(error, "__notes__", [])
    return f", while working on {printable(shortened(notes[0], 300))}" if notes else ""
