"""What must be true of every case, whatever went in."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.cases import Case

LONGEST_LINE = 1_100  # characters; messages are cut to 1,000, and how much was cut is told
MOST_LINES = 60
MOST_SECONDS = 10.0
MOST_MEMORY = 2 * 2**30
"""Growth in bytes."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What torch and onnxruntime make for themselves in the folder of temporary files.
_OF_LIBRARIES = ("../tmp/torchinductor_", "../tmp/.ses")
_WARNING = re.compile(r"\.py:\d+: \w*Warning|^\w*Warning: ", re.MULTILINE)


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        code: the exit code; None where an exception came out of the command.
        error: type and place of that exception, or of what the command's last net caught (code 3).
        traceback: the same in full.
        events: what the audit hook saw that no case may do.
        changes: files made, changed or gone, as :func:`changes` tells them.
    """

    code: int | None = 0
    error: str = ""
    traceback: str = ""
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    memory: int = 0
    events: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with an outcome, one short text a fault; most often nothing."""
    found = []
    if outcome.code is None:
        found.append(f"traceback: {outcome.error}")
    elif outcome.code == 3:
        found.append(f"bug: {outcome.error}")
    elif outcome.code not in case.codes:
        found.append(f"exit code {outcome.code}")
    text = outcome.stdout + outcome.stderr
    if "Traceback (most recent call last)" in text and outcome.code is not None:
        found.append("a traceback is printed")
    if match := _CONTROL.search(text):
        found.append(f"a control character is printed: {match[0]!r}")
    if _WARNING.search(outcome.stderr):
        found.append("a Python warning is printed")
    if outcome.code == 2:
        found += _told_badly(outcome.stderr)
    if outcome.seconds > MOST_SECONDS:
        found.append("more than 10 seconds")
    if outcome.memory > MOST_MEMORY:
        found.append("more than 2 GB")
    found += sorted(set(outcome.events))
    found += _wrong_changes(case, outcome)
    answered = outcome.code == 0 and case.right is not None and not found
    if answered and (wrong := case.right(outcome.stdout)):
        found.append(f"wrong answer: {wrong}")
    return found


def _told_badly(stderr: str) -> list[str]:
    """An error is one line; a configuration's are one line each; click's own have the usage before them."""
    lines = stderr.splitlines()
    starts = [number for number, line in enumerate(lines) if line.lower().startswith("error: ")]
    if not starts:
        return ["exit code 2 without an error"]
    problems = lines[starts[-1] :]
    if any(len(line) > LONGEST_LINE for line in problems):
        return ["an error line of more than 1,000 characters"]
    if len(lines) > MOST_LINES:
        return [f"{len(lines)} lines of errors"]
    return []


def _wrong_changes(case: Case, outcome: Outcome) -> list[str]:
    wrong = []
    for change in outcome.changes:
        what, _, name = change.partition(" ")
        if name.startswith(_OF_LIBRARIES):
            continue
        if name.endswith(".unfinished") or "/tmp/" in f"/{name}":
            wrong.append(f"left over: {re.sub(r'[^/]*.unfinished', '*.unfinished', name)}")
        elif not _is_below(name, case.writes + case.keeps):
            wrong.append(f"{what}, though not to be written: {name}")
        elif outcome.code == 2 and not _is_below(name, case.keeps):
            wrong.append(f"half done, {what}: {name}")
    return wrong[:3]


def _is_below(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every file below a folder by its name, with what tells one state of it from another."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            state = path.lstat()
            relative = str(path.relative_to(folder))
            if stat.S_ISDIR(state.st_mode):
                found[relative] = ("folder",)
            elif stat.S_ISLNK(state.st_mode):
                found[relative] = ("link", str(path.readlink()))
            elif stat.S_ISREG(state.st_mode):
                found[relative] = ("file", state.st_size, state.st_mtime_ns, state.st_ino)
            else:
                found[relative] = ("other", state.st_mode)
    return found


def changes(before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]) -> list[str]:
    """``made NAME``, ``changed NAME``, ``gone NAME``."""
    return [
        *(f"made {name}" for name in after if name not in before),
        *(f"changed {name}" for name in after if name in before and after[name] != before[name]),
        *(f"gone {name}" for name in before if name not in after),
    ]
