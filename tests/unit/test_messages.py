"""What the library says is for callers from Python and from the command line alike."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import reidkit

SOURCE = Path(reidkit.__file__).parent
AN_OPTION = re.compile(r"(?<![\w-])--[a-z]")
COMMANDS = re.compile(r"`?(?:reid|pip) [^`;]*")


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of what is written between quotes, docstrings apart."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for text in formatted for part in ast.walk(text) if part is not text}
    for node in ast.walk(tree):
        if id(node) in alone | parts:
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def speaks_of_an_option(text: str) -> bool:
    """Whether it names an option of a command outside of a whole command, and not its name in Python."""
    words = COMMANDS.sub("", text)
    is_argument = re.fullmatch(r"--[a-z-]+", text)  # of a command that the library runs
    return bool(AN_OPTION.search(words)) and not is_argument and "in Python" not in text


def test_the_library_names_arguments_not_options():
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {text}"
        for path in sorted(SOURCE.rglob("*.py"))
        if "cli" not in path.relative_to(SOURCE).parts
        for line, text in texts(ast.parse(path.read_text("utf-8")))
        if speaks_of_an_option(text)
    ]
    assert not found, "name the argument, which the option is called by as well:\n" + "\n".join(found)


def test_what_speaks_of_an_option():
    assert speaks_of_an_option("give --root, the folder")
    assert speaks_of_an_option("take a part (`--where`)")
    assert not speaks_of_an_option("make one with `reid evaluate RUN --store-calibration`")
    assert not speaks_of_an_option("choose one with --weights KEY (key= in Python)")
    assert not speaks_of_an_option("--out")
    assert not speaks_of_an_option("root is missing")
