"""``reid gallery``: what a gallery holds, whether it is whole, and what is taken out of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli.options import gallery_argument
from reidkit.cli.output import from_here, json_option, print_json, say, say_next, tell
from reidkit.errors import ConfigError, DataError
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.galleries import Gallery, Item, Where

where_option = click.option(
    "--where", "conditions", multiple=True, help="Only these, for example camera!=3; may be repeated."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say how many items it would be.")
_NUM_SHOWN = 10
_FIRST = ("location", "num_items", "num_people", "num_cameras", "not_counted")
_WHERE_ANY = {
    "num_thumbnails",
    "num_dead_rows",
    "num_without_identity",
    "num_without_camera",
    "num_without_time",
}
_WORDS = {
    "bytes": "bytes on disk",
    "searched_bytes": "bytes that a search reads",
    "num_dead_rows": "removed, to be compacted",
}
_PICTURES_STAY = (
    "the photos themselves stay where they are: delete them, too, or the next `reid index` of their folder "
    "brings them back, since the gallery keeps no name of what it forgot"
)
_FOR_PROGRAMS = ("former_fingerprints",)  # by which a gallery of an earlier version knows its encoder


@click.group("gallery")
def gallery_command() -> None:
    """Say what a gallery holds, check it, mend it, take items out, copy it.

    \b
    reid gallery info people.gallery
    reid gallery list people.gallery --where zone=hall
    reid gallery forget people.gallery 0001 --dry-run
    reid gallery expire people.gallery --older-than 30d
    reid gallery verify people.gallery
    reid gallery repair people.gallery --drop
    reid gallery export people.gallery people-export
    reid gallery import other.gallery people-export
    reid gallery index people.gallery --min-recall 0.95
    reid gallery copy people.gallery postgresql://user@host/database?gallery=people
    """


@gallery_command.command("info")
@gallery_argument
@json_option
def info_command(location: str, as_json: bool) -> None:
    """Print how much a gallery holds, of how many people and cameras, and which encoder filled it."""
    from reidkit.galleries import contents, open_gallery

    with open_gallery(location, create=False) as gallery:
        info = gallery.info() | contents(gallery)
    if as_json:
        print_json(info)
        return
    picture = from_here(info.pop("first_picture", None))
    print_info(info)
    say_next("search", picture or "IMAGE", "--gallery", gallery.location)


def print_info(info: Mapping[str, Any]) -> None:
    """What there is to know, in words; nothing of what is not so, or not there."""
    known = [
        (_WORDS.get(key) or key.removeprefix("num_").replace("_", " "), _text(value))
        for key, value in sorted(info.items(), key=lambda pair: pair[0] not in _FIRST)
        if value is not False and (value != 0 or key not in _WHERE_ANY)
    ]
    width = max(len(what) for what, _ in known)
    for what, value in known:
        tell(f"{what:<{width}}  {value}")


@gallery_command.command("verify")
@gallery_argument
def verify_command(location: str) -> None:
    """Compare all that a gallery holds with the checksums written with it; exit code 2 if it is damaged."""
    from reidkit.galleries import open_gallery

    with open_gallery(location, create=False) as gallery:
        found = gallery.verify()
        if not found.damaged:
            tell(f"{gallery.location}: all {found.num_items} items are as they were written")
            return
        if not found.labels:
            print_items(gallery.items(ids=found.damaged[:_NUM_SHOWN]))
    raise DataError(
        f"{gallery.location} is damaged: {len(found.damaged)} of {found.num_items} items; "
        f"`reid gallery repair {shlex.quote(gallery.location)} --drop` drops them, and `reid index` puts "
        "their images in again"
    )


@gallery_command.command("repair")
@gallery_argument
@click.option("--drop", is_flag=True, help="Drop the items that are damaged.")
def repair_command(location: str, drop: bool) -> None:
    """Mend a damaged gallery: drop the items whose labels or embeddings are not what was written."""
    from reidkit.galleries import open_gallery

    with open_gallery(location, create=False) as gallery:
        dropped = gallery.repair(drop=drop)
        left = counted(len(gallery), "item")
    tell(f"{gallery.location}: dropped {counted(len(dropped), 'damaged item')}, {left} left")


@gallery_command.command("list")
@gallery_argument
@where_option
@click.option("--limit", type=click.IntRange(min=1), help="Print so many at most.")
@json_option
def list_command(location: str, conditions: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Print what is known of each item, a line each; --limit says how many are left out."""
    from reidkit.galleries import open_gallery
    from reidkit.search.whole_paths import typed_where

    where = typed_where(conditions)
    with open_gallery(location, create=False) as gallery:
        items = gallery.items(where=where)
        print_why_none(gallery, where, len(items))
    print_listed(items[:limit], as_json)
    if limit is not None and limit < len(items):
        say(f"left out: {counted(len(items) - limit, 'item')} of {len(items)}")


@gallery_command.command("remove")
@gallery_argument
@where_option
@dry_run_option
def remove_command(location: str, conditions: tuple[str, ...], dry_run: bool) -> None:
    """Remove the items that all conditions let through, and every byte of them."""
    from reidkit.galleries import erase, open_gallery
    from reidkit.search.whole_paths import typed_where

    where = typed_where(conditions)
    if not where:
        raise ConfigError("nothing says what to remove; give --where, such as --where camera=3")
    with open_gallery(location, create=False) as gallery:
        num = erase(gallery, where, dry_run=dry_run)
        print_why_none(gallery, where, num)
        print_removed(gallery.location, num, len(gallery), dry_run)


@gallery_command.command("forget")
@gallery_argument
@click.argument("identity")
@dry_run_option
def forget_command(location: str, identity: str, dry_run: bool) -> None:
    """Remove all items of the person IDENTITY, and every byte of them; pictures elsewhere are left alone."""
    from reidkit.galleries import forget, open_gallery

    with open_gallery(location, create=False) as gallery:
        num = forget(gallery, identity, dry_run=dry_run)
        print_removed(gallery.location, num, len(gallery), dry_run)


@gallery_command.command("expire")
@gallery_argument
@click.option("--older-than", required=True, metavar="AGE", help="Such as 30d; s, m, h, d and w are known.")
@dry_run_option
def expire_command(location: str, older_than: str, dry_run: bool) -> None:
    """Remove the items that are older than AGE, and every byte of them; those without a time stay."""
    from reidkit.galleries import contents, expire, open_gallery

    with open_gallery(location, create=False) as gallery:
        num = expire(gallery, older_than, dry_run=dry_run)
        print_removed(gallery.location, num, len(gallery), dry_run)
        num_without_time = contents(gallery).get("num_without_time")
    if num_without_time:
        say(f"not looked at: {counted(num_without_time, 'item')} without a time, which may be older")


@gallery_command.command("compact")
@gallery_argument
def compact_command(location: str) -> None:
    """Give back the room of what was removed or replaced."""
    from reidkit.galleries import open_gallery

    with open_gallery(location, create=False) as gallery:
        num = gallery.compact()
    tell(f"{gallery.location}: dropped {counted(num, 'embedding')} of removed or replaced items")


@gallery_command.command("index")
@gallery_argument
@click.option(
    "--min-recall",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Keep no index that finds fewer of the 10 nearest.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="So many stored items are searched for to measure that.",
)
@click.option("--drop", is_flag=True, help="Delete the index instead: all is searched exactly.")
def index_gallery_command(location: str, min_recall: float, sample: int, drop: bool) -> None:
    """Make an approximate index, which pays beyond a few million items; its recall is measured first.

    Searches with conditions, and for people, stay exact. What is added later is searched exactly beside it:
    make it again when that has become much. Compacting, removing and forgetting drop it.
    """
    from reidkit.galleries import open_gallery
    from reidkit.progress import progress

    with open_gallery(location, create=False) as gallery:
        if drop:
            gallery.drop_index()
            tell(f"{gallery.location}: no index, search is exact")
            return
        with progress("items indexed") as shown:
            recall = gallery.build_index(min_recall=min_recall, sample=sample, progress=shown)
        num = counted(min(sample, len(gallery)), "item")
        tell(f"{gallery.location}: the index found {100 * recall:.1f} % of the 10 nearest to {num}")


@gallery_command.command("copy")
@click.argument("source")
@click.argument("target")
def copy_command(source: str, target: str) -> None:
    """Copy all items and decisions of the gallery SOURCE to TARGET, and compare what was copied.

    Both are folders or addresses of servers. TARGET is made if it is not there; what it holds besides stays.
    A copy that was interrupted goes on where it stopped.
    """
    from reidkit.galleries import copy_gallery, open_gallery
    from reidkit.progress import progress

    with (
        open_gallery(source, create=False) as original,
        open_gallery(target, encoder=original.encoder) as copy,
        progress("items copied") as shown,
    ):
        copied = copy_gallery(original, copy, progress=shown)
    tell(f"{copy.location}: {copied}")


@gallery_command.command("export")
@gallery_argument
@click.argument("folder", type=click.Path(path_type=Path))
def export_command(location: str, folder: Path) -> None:
    """Write all that a gallery holds to a new FOLDER, as plain files that other programs read.

    embeddings.npy holds the embeddings, items.jsonl the labels of each row, and decisions.jsonl what people
    decided.
    """
    from reidkit.galleries import export_gallery, open_gallery
    from reidkit.progress import progress

    with open_gallery(location, create=False) as gallery, progress("items written") as shown:
        num = export_gallery(gallery, folder, progress=shown)
    tell(f"{folder}: wrote {counted(num, 'item')} of {location}")


@gallery_command.command("import")
@gallery_argument
@click.argument("folder", type=click.Path(path_type=Path))
def import_command(location: str, folder: Path) -> None:
    """Add what `reid gallery export` wrote to FOLDER to a gallery, which is made if it is not there.

    What is added is compared when all of it is; an import that was interrupted goes on where it stopped.
    """
    from reidkit.galleries import ExportedGallery, copy_gallery, open_gallery
    from reidkit.progress import progress

    exported = ExportedGallery(folder)
    with open_gallery(location, encoder=exported.encoder) as gallery, progress("items copied") as shown:
        copied = copy_gallery(exported, gallery, progress=shown)
    tell(f"{gallery.location}: {copied}")


def print_why_none(gallery: Gallery, where: Where | None, num: int) -> None:
    """Which condition left nothing, and which labels there are, where there is nothing."""
    from reidkit.search.nothing_found import why_nothing

    if where and not num:
        say(why_nothing(gallery, where))


def print_removed(location: str, num: int, left: int, dry_run: bool) -> None:
    if dry_run:
        tell(f"{location}: would remove {counted(num, 'item')} of {left}")
    else:
        tell(f"{location}: removed {counted(num, 'item')}, {left} left")
        if num:
            say(_PICTURES_STAY)


def print_listed(items: Sequence[Item], as_json: bool) -> None:
    if as_json:
        print_json([asdict(item) for item in items])
        return
    for item in items:
        tell(_text_of_item(item))


def print_items(items: Sequence[Item]) -> None:
    for item in items:
        say(f"  {_text_of_item(item)}")


def _text_of_item(item: Item) -> str:
    return str(replace(item, source=from_here(item.source) or None))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        known = {key: part for key, part in value.items() if key not in _FOR_PROGRAMS}
        return ", ".join(f"{key.replace('_', ' ')} {_text(part)}" for key, part in known.items())
    if isinstance(value, list | tuple):
        return " and ".join(map(_text, value))
    if value is True:
        return "yes"
    return "" if value is None else str(value)
