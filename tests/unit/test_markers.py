"""What is marked for a process of its own lies where `make test` looks for it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_runs_all_that_is_alone() -> None:
    folders = re.findall(r'"alone and not slow" ([\w/]+)', (ROOT / "Makefile").read_text("utf-8"))
    marked = [
        file
        for file in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"pytest\.mark\.alone\b", file.read_text("utf-8"))
    ]
    assert len(marked) > 2
    for file in marked:
        assert any(file.is_relative_to(ROOT / folder) for folder in folders), file
