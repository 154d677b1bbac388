"""``reid gallery``: what a gallery holds, and whether it is whole."""

from __future__ import annotations

from typing import Any

import click

from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.errors import DataError

location_argument = click.argument("location")
_NUM_SHOWN = 10


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
    print_table(("", ""), [(key.replace("_", " "), _text(value)) for key, value in info.items()])


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
            for item in gallery.items(ids=found.damaged[:_NUM_SHOWN]):
                say(f"  {item}")
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
        tell(f"{location}: dropped {len(dropped)} damaged items, {len(gallery)} are left")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    return "" if value is None else str(value)
