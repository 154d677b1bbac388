"""The documents as the tests read them: their code blocks, what is said of each, and their links.

Above a block, a comment of the Markdown may say what the tests are to do with it:

    <!-- not run: four GPUs -->      its commands and options are checked, and nothing is started
    <!-- file: my_losses.py -->      it is a file of that name, which later blocks of the page read
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = {"_build", "generated"}  # with the site, and not kept
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not MADE & set(page.parts)),
]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|file): (?P<what>[^\n]*?) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language ("" is a shell's), text, first line, and the comment above it."""

    language: str
    text: str
    line: int
    not_run: str = ""
    file: str = ""

    @property
    def is_shell(self) -> bool:
        return self.language in ("", "bash")

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block, continued ones joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            found["language"],
            found["text"],
            text.count("\n", 0, found.start()) + 1,
            not_run=found["what"] if found["mark"] == "not run" else "",
            file=found["what"] if found["mark"] == "file" else "",
        )
        for found in _BLOCK.finditer(text)
    ]


def links(page: Path) -> list[str]:
    """Where links and pictures within the documents lead, as written."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return _LINK.findall(prose)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
