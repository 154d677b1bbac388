"""Writes the pages that are made of the code: commands, configuration keys, public names, and a notebook.

They are built with the site (`make docs`) and not kept: what they say cannot be out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import click

from reidkit import registry
from reidkit.cli import cli
from reidkit.config import tables

HERE = Path(__file__).parent
API = {
    "reidkit": "What `import reidkit as rk` gives.",
    "reidkit.losses": "Loss functions. [Which one?](../../losses/README.md)",
    "reidkit.models": "Networks, and what one of your own must be. [Networks](../../models.md)",
    "reidkit.galleries": "Stores of embeddings. [Galleries](../../galleries.md)",
    "reidkit.search": "A gallery and its encoder at work together.",
    "reidkit.clustering": "From a gallery's pictures to people.",
    "reidkit.evaluation": "From embeddings and labels to metrics. [Evaluation](../../evaluation.md)",
    "reidkit.ops": "What losses are made of.",
    "reidkit.video": "From videos and boxes to people. [Video](../../video.md)",
    "reidkit.config": "The tables of a recipe. [Every key](configuration.md)",
    "reidkit.trust": "What a name in a file may import. [Trust](../../explain/trust.md)",
}
"""Public modules, in the order in which the reference lists them."""


def write(folder: Path) -> None:
    """Write all pages into a folder; pages that are as they were stay untouched, so that builds are quick."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "commands.md": commands(),
        "configuration.md": configuration(),
        "components.md": components(),
        "api.md": api_index(),
        "notebook.md": notebook(HERE.parent / "examples" / "report.ipynb"),
        **{f"{module}.md": api(module, text) for module, text in API.items()},
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()


# --- commands, from their help ---------------------------------------------------------------------------


def commands() -> str:
    parts = ["# Commands\n", "What `reid COMMAND --help` says, of every command.\n"]
    context = click.Context(cli, info_name="reid")
    parts.append("```text\n" + cli.get_help(context) + "\n```\n")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, context, f"reid {name}", depth=2)
    return "\n".join(parts)


def _command(command: click.Command, parent: click.Context, words: str, *, depth: int) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=words.rpartition(" ")[2])
    yield f"{'#' * depth} {words}\n"
    yield "```text\n" + command.get_help(context) + "\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _command(below, context, f"{words} {name}", depth=depth + 1)


# --- configuration keys, from their declarations ---------------------------------------------------------


def configuration() -> str:
    parts = [
        "# Configuration\n",
        "Every key of a recipe, which `reid train RECIPE KEY=VALUE` changes. `reid config FILE` prints all "
        "of them; [recipes](../../recipes.md) are what comes along.\n",
        "| key | default | what changing it does |\n|---|---|---|",
        "| `seed` | `0` | of weights, batches and augmentation |\n",
    ]
    for name, kind in get_type_hints(tables.Config).items():
        table = tables.LossConfig if name == "loss" else kind
        if not dataclasses.is_dataclass(table):
            continue
        prefix = "loss.NAME" if name == "loss" else name
        parts += [f"## {prefix}\n", inspect.cleandoc(table.__doc__ or "") + "\n", _keys(prefix, table)]
    parts.append(
        "What to read next: [training](../../training.md), [components and their options](components.md).\n"
    )
    return "\n".join(parts)


def _keys(prefix: str, table: Any) -> str:
    rows = ["| key | default | values | what changing it does |", "|---|---|---|---|"]
    for name, field in table.__dataclass_fields__.items():
        told = field.default
        if name == "options":
            continue
        default = told.default if told.default_factory is None else told.default_factory()
        told_text = _cell(told.description or "")
        rows.append(f"| `{prefix}.{name}` | `{_shown(default)}` | {_values(field.type)} | {told_text} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f'"{value}"'
        if isinstance(value, str)
        else str(value)
    )


def _values(kind: str) -> str:
    """The type as it is written in the declaration, for a reader of TOML."""
    if choices := re.match(r"Literal\[(.*)\]", kind):
        return ", ".join(f"`{choice.strip()}`" for choice in choices[1].split(","))
    words = {
        "PositiveInt": "whole number, 1 or more",
        "NonNegativeInt": "whole number, 0 or more",
        "Seed": "whole number, 0 or more",
        "Side": "pixels, 1 to 4096",
        "Shift": "pixels, 0 to 4096",
        "NumProcesses": "0 to 1024",
        "PositiveFloat": "number above 0",
        "NonNegativeFloat": "number, 0 or more",
        "Probability": "0 to 1",
        "LayerDecay": "above 0, up to 1",
        "AverageDecay": "0 up to 1",
        "Place": "path",
        "str": "text",
        "bool": "`true`, `false`",
        "Table": "table",
    }
    first = kind.removesuffix(" | None")
    return words.get(first, f"`{_cell(first)}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- components ------------------------------------------------------------------------------------------


def components() -> str:
    parts = [
        "# Components\n",
        "What names in a recipe and on a command line can be, as `reid list` tells, with their options.\n",
    ]
    for kind, title in (
        ("loss", "Losses"),
        ("model", "Networks"),
        ("dataset", "Data sets"),
        ("gallery", "Galleries"),
    ):
        rows = ["| name | what | options and defaults |", "|---|---|---|"]
        for name in registry.names(kind):  # type: ignore[arg-type]
            factory = registry.get(kind, name)  # type: ignore[arg-type]
            told = inspect.getdoc(getattr(factory, "func", factory)) or ""
            usual = registry.defaults(factory)
            options = ", ".join(f"`{key}={_shown(value)}`" for key, value in usual.items())
            rows.append(
                f"| `{name}` | {_cell(_plain(told.splitlines()[0] if told else ''))} | {_cell(options)} |"
            )
        parts += [f"## {title}\n", "\n".join(rows) + "\n"]
    return "\n".join(parts)


def _plain(text: str) -> str:
    """A docstring's line as Markdown: roles and double backticks become code."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


# --- public names, by autodoc ----------------------------------------------------------------------------


def api_index() -> str:
    rows = ["| module | what |", "|---|---|"]
    rows += [f"| [`{module}`]({module}.md) | {text} |" for module, text in API.items()]
    pages = "\n".join(API)
    return (
        "# Python\n\nPublic names, from their docstrings.\n\n"
        + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    )


def api(module: str, text: str) -> str:
    parts = [f"# {module}\n", text + "\n"]
    for name, value in _members(module):
        known = _first_page(value)
        if known != module:
            parts.append(f"`{name}`: see [{known}]({known}.md).\n")
        elif inspect.isclass(value):
            parts.append(_directive("autoclass", f"{module}.{name}", ":members:"))
        else:
            parts.append(_directive("autofunction", f"{module}.{name}"))
    return "\n".join(parts)


def _members(module: str) -> Iterator[tuple[str, Any]]:
    """Classes and functions that a module offers; names of types and numbers stand in those that use them."""
    found = import_module(module)
    for name in getattr(found, "__all__", None) or _public(found):
        value = getattr(found, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def _first_page(value: Any) -> str:
    return next(module for module in API if any(found is value for _, found in _members(module)))


def _public(module: Any) -> list[str]:
    """Names that a module without ``__all__`` defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


# --- a notebook, from its cells ---------------------------------------------------------------------------


def notebook(path: Path) -> str:
    """Its cells as text and code, without their results."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    parts = [
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, texts, strict=True)
    ]
    title, *rest = parts
    file = f"The cells of [a notebook](../../../examples/{path.name}), which Jupyter opens."
    next_pages = "[the report](../../evaluation.md#the-report), [all examples](../../examples/index.md)"
    return "\n\n".join([title, file, *rest, f"What to read next: {next_pages}."]) + "\n"


def _directive(kind: str, name: str, *options: str) -> str:
    lines = [f".. {kind}:: {name}", *(f"   {option}" for option in options)]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"
