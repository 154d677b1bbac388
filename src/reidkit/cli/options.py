"""Options of commands: which were given, and which do not go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from reidkit.cli import completion
from reidkit.errors import ConfigError, shown

F = TypeVar("F", bound=Callable[..., Any])

images_argument: Callable[[F], F] = click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path)
)


class EncoderPath(click.Path):
    """Where an encoder lies, or the name of one of ours: ``./lomo`` is a folder, ``lomo`` never is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from reidkit.encoders.own import place_of

        super().convert(value, param, ctx)
        return place_of(value)


gallery_argument: Callable[[F], F] = click.argument(
    "location", metavar="GALLERY", shell_complete=completion.galleries
)
pattern_option: Callable[[F], F] = click.option(
    "--pattern", help='Read labels from file names, for example "{identity}_c{camera}_{frame}.jpg".'
)
column_option: Callable[[F], F] = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="KEY=NAME",
    help="What a table calls a column, for example path=file or camera=cam_name; may be repeated.",
)

views_option: Callable[[F], F] = click.option(
    "--views",
    help="Embed each image as a whole, with its mirror image (flip), or with crops besides (crops).",
)

backend_option: Callable[[F], F] = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="What embeds on a CPU: torch, onnx, openvino, or what is fastest here.",
)


def refuse(options: Mapping[str, Any], reason: str) -> None:
    """Raise :class:`ConfigError` where any of these options, by their names, was given."""
    found = [name for name, value in options.items() if not any(value is left for left in (None, False, ()))]
    if found:
        raise ConfigError(f"{', '.join(found)}: {reason}")


def by_flag(asked: Mapping[str, Any], flags: Mapping[str, str]) -> dict[str, Any]:
    """Values by what one types, for :func:`refuse`; ``flags`` are by the name of the parameter."""
    return {flag: asked[name] for name, flag in flags.items()}


def given(**options: Any) -> dict[str, Any]:
    """Those that are not left out."""
    return {name: value for name, value in options.items() if value is not None}


def named_columns(texts: Sequence[str]) -> dict[str, str] | None:
    """What a table calls its columns, from texts such as ``path=file``; None where none is named.

    ``column.path=file``, as other commands take it, will do as well.

    Raises :class:`ConfigError` for another form.
    """
    for text in texts:
        key, separator, name = text.removeprefix("column.").partition("=")
        if not (separator and key.strip() and name.strip()):
            raise ConfigError(f"--column {shown(text)}: write KEY=NAME, for example --column path=file")
    names = dict(text.removeprefix("column.").split("=", 1) for text in texts)
    if len(names) < len(texts):
        raise ConfigError("--column: a key is named twice; name each column once")
    return names or None
