"""``reid gallery``: what a gallery holds, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.errors import DataError
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.galleries import Item

location_argument = click.argument("location")
_NUM_SHOWN = 10
_FOR_PROGRAMS = ("former_fingerprints",)  # by which a gallery of an earlier version knows its encoder


@click.group("gallery")
def gallery_command() -> None:
    """Say what a gallery holds, check it, mend it.

    \b
    reid gallery info people.gallery
    reid gallery verify people.gallery
    reid gallery repair people.gallery --drop
    """


@gallery_command.command("info")
@location_argument
@json_option
def info_command(location: str, as_json: bool) -> None:
    """Print how much a gallery holds, and which encoder filled it."""
    from reidkit.galleries import open_gallery

    with open_gallery(location, create=False) as gallery:
        info = gallery.info()
    if as_json:
        print_json(info)
        return
    print_info(info)


def print_info(info: Mapping[str, Any]) -> None:
    """What there is to know, in words; nothing of what is not so."""
    first, *others = [
        (key.replace("_", " "), _text(value)) for key, value in info.items() if value is not False
    ]
    print_table(first, others)


@gallery_command.command("verify")
@location_argument
def verify_command(location: str) -> None:
    """Compare all that a gallery holds with the checksums written with it; exit code 2 if it is damaged."""
    from reidkit.galleries import open_gallery

    with open_gallery(location, create=False) as gallery:
        found = gallery.verify()
        if not found.damaged:
            tell(f"{location}: all {found.num_items} items are as they were written")
            return
        if not found.labels:
            print_items(gallery.items(ids=found.damaged[:_NUM_SHOWN]))
    raise DataError(
        f"{location} is damaged: {len(found.damaged)} of {found.num_items} items; `reid gallery repair "
        f"{location} --drop` drops them, and `reid index` puts their images in again"
    )


@gallery_command.command("repair")
@location_argument
@click.option("--drop", is_flag=True, help="Drop the items that are damaged.")
def repair_command(location: str, drop: bool) -> None:
    """Mend a damaged gallery: drop the items whose labels or embeddings are not what was written."""
    from reidkit.galleries import open_gallery

    with open_gallery(location, create=False) as gallery:
        dropped = gallery.repair(drop=drop)
        left = counted(len(gallery), "item")
    tell(f"{location}: dropped {counted(len(dropped), 'damaged item')}, {left} left")


def print_items(items: Sequence[Item]) -> None:
    for item in items:
        say(f"  {item}")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        known = {key: part for key, part in value.items() if key not in _FOR_PROGRAMS}
        return ", ".join(f"{key.replace('_', ' ')} {_text(part)}" for key, part in known.items())
    if isinstance(value, list | tuple):
        return " and ".join(map(_text, value))
    if value is True:
        return "yes"
    return "" if value is None else str(value)
