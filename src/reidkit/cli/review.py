"""``reid review``: what people decide of a gallery's items, and what they decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.options import F, gallery_argument
from reidkit.cli.output import json_option, print_json, print_left_out, print_table, say, say_next, tell
from reidkit.errors import ConfigError
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.galleries import Decision, Item

items_argument: Callable[[F], F] = click.argument("items", nargs=-1, required=True, metavar="ITEM...")
who_option: Callable[[F], F] = click.option(
    "--who", help="Who decides so.  [default: the name you are logged in under]"
)


@click.group("review")
def review_command() -> None:
    """Say who is who in a gallery; what is said is kept, with who and when, and can be taken back.

    An ITEM is a number, as `reid gallery list` shows it, or the path of its picture.

    \b
    reid review proposals people.gallery            # what `reid cluster` proposes
    reid review accept people.gallery new-1 --as anna
    reid review accept people.gallery anna --item 17 --item photos/3.jpg
    reid review reject people.gallery 17 204        # two different people
    reid review merge people.gallery anna new-7
    reid review split people.gallery 31 32 --as ben
    reid review log people.gallery
    reid review undo people.gallery 5
    reid review export people.gallery people.csv    # a table to train on
    """


@review_command.command("proposals")
@gallery_argument
@json_option
def proposals_command(location: str, as_json: bool) -> None:
    """List whom items without an identity are proposed to show."""
    from reidkit.galleries import holds_most, open_gallery, proposals

    with open_gallery(location, create=False) as gallery:
        found = proposals(gallery)
        print_proposals(found, as_json)
        if found and not as_json:
            largest = max(found, key=lambda name: len(found[name]))
            if holds_most(len(found[largest]), len(gallery)):
                say(f"{largest} has most of all pictures, so it is likely several people; look first")
                say_next("cluster", gallery.location, "--page", "people.html")
                return
            named = [] if gallery.items(where={"identity": largest}) else ["--as", "NAME"]
            say_next("review", "accept", gallery.location, largest, *named)


@review_command.command("accept")
@gallery_argument
@click.argument("name")
@click.option("--as", "identity", help="The person's name, where it is not NAME.")
@click.option("--item", "items", multiple=True, help="Of these items alone; may be repeated.")
@who_option
def accept_command(
    location: str, name: str, identity: str | None, items: tuple[str, ...], who: str | None
) -> None:
    """The items that are proposed as NAME, or those of --item, show that person."""
    from reidkit.galleries import accept, accept_proposal, item_ids, open_gallery, proposals

    with open_gallery(location, create=False) as gallery:
        if items:
            made = accept(gallery, item_ids(gallery, items), identity or name, who=who)
        else:
            made = accept_proposal(gallery, name, identity=identity, who=who)
        print_made(made)
        if proposals(gallery):
            say_next("review", "proposals", gallery.location)
        say_next("timeline", gallery.location, identity or name)


@review_command.command("accept-all")
@gallery_argument
@click.option("--least", type=click.IntRange(min=1), default=2, show_default=True, help="Of so many items.")
@who_option
def accept_all_command(location: str, least: int, who: str | None) -> None:
    """All proposals of at least so many items are right."""
    from reidkit.galleries import accept_all_proposals, open_gallery

    with open_gallery(location, create=False) as gallery:
        made = accept_all_proposals(gallery, least=least, who=who)
    tell(f"{gallery.location}: {counted(len(made), 'proposal')} accepted")
    say_next("gallery", "info", gallery.location)


@review_command.command("reject")
@gallery_argument
@items_argument
@who_option
def reject_command(location: str, items: tuple[str, ...], who: str | None) -> None:
    """The first item shows somebody else than each of the others, who are never shown as its hits again."""
    from reidkit.galleries import item_ids, open_gallery, reject

    with open_gallery(location, create=False) as gallery:
        first, *others = item_ids(gallery, items)
        print_made(reject(gallery, first, others, who=who))


@review_command.command("merge")
@gallery_argument
@click.argument("name")
@click.argument("others", nargs=-1, required=True)
@who_option
def merge_command(location: str, name: str, others: tuple[str, ...], who: str | None) -> None:
    """The person NAME and the OTHERS are one, called NAME."""
    from reidkit.galleries import merge, open_gallery

    with open_gallery(location, create=False) as gallery:
        print_made(merge(gallery, name, others, who=who))


@review_command.command("split")
@gallery_argument
@items_argument
@click.option("--as", "identity", help="Whom they show; nobody knows, where this is left out.")
@who_option
def split_command(location: str, items: tuple[str, ...], identity: str | None, who: str | None) -> None:
    """These items do not show who they are said to show."""
    from reidkit.galleries import item_ids, open_gallery, split

    with open_gallery(location, create=False) as gallery:
        print_made(split(gallery, item_ids(gallery, items), identity=identity, who=who))


@review_command.command("undo")
@gallery_argument
@click.argument("decision", type=int)
@who_option
def undo_command(location: str, decision: int, who: str | None) -> None:
    """Take DECISION back, by its number in the log; an undo can be undone, too."""
    from reidkit.galleries import open_gallery, undo

    with open_gallery(location, create=False) as gallery:
        print_made(undo(gallery, decision, who=who))


@review_command.command("log")
@gallery_argument
@json_option
def log_command(location: str, as_json: bool) -> None:
    """List all decisions: who decided what, and when."""
    from reidkit.galleries import in_force, open_gallery

    with open_gallery(location, create=False) as gallery:
        decisions = gallery.decisions()
    print_decisions(decisions, in_force(decisions), as_json)


@review_command.command("export")
@gallery_argument
@click.argument("table", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--where", "conditions", multiple=True, help="Only these, for example camera!=3.")
def export_command(location: str, table: Path, conditions: tuple[str, ...]) -> None:
    """Write the items whose identity is known as a table to train on: `reid train ... data.name=table`."""
    from reidkit.galleries import open_gallery, write_training_table
    from reidkit.search.whole_paths import typed_where

    if table.suffix.lower() != ".csv":
        raise ConfigError(f"{table} has no suffix .csv, by which tables are known; give it one")
    with open_gallery(location, create=False) as gallery:
        num, left_out = write_training_table(gallery, table, where=typed_where(conditions))
    print_left_out(left_out)
    tell(f"wrote {table}: {counted(num, 'image')}")


def print_made(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        tell(f"decision {decision.id}: {_text(decision)}")


def print_proposals(found: Mapping[str, Sequence[Item]], as_json: bool) -> None:
    if as_json:
        print_json({name: [asdict(item) for item in items] for name, items in found.items()})
        return
    if not found:
        say("there are no proposals; `reid cluster` makes some")
        return
    ordered = sorted(found.items(), key=lambda pair: -len(pair[1]))
    rows = [(name, len(items), ", ".join(f"#{item.id}" for item in items[:5])) for name, items in ordered]
    print_table(("proposal", "items", "first items"), rows, right=("items",), prose=("first items",))


def print_decisions(decisions: Sequence[Decision], valid: Sequence[Decision], as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(decision), "in_force": decision in valid} for decision in decisions])
        return
    if not decisions:
        say("nothing was decided yet")
        return
    standing = {decision.id for decision in valid}
    rows = [
        (
            decision.id,
            decision.moment,
            decision.who,
            _text(decision),
            "" if decision.id in standing or decision.kind == "undo" else "taken back",
        )
        for decision in decisions
    ]
    print_table(("no.", "when", "who", "what", ""), rows, right=("no.",), prose=("what", ""))


def _text(decision: Decision) -> str:
    items = [f"#{id}" for id in decision.items]
    some = ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")
    if decision.kind == "reject":
        others = ", ".join(items[1:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")
        return f"reject: {items[0]} shows somebody else than {others}"
    if decision.kind == "undo":
        return f"undo of decision {decision.undoes}"
    names = ", ".join(dict.fromkeys(name or "unknown" for name in decision.before))
    return (
        f"{decision.kind}: {some} {'show' if len(items) > 1 else 'shows'} {decision.after[0] or 'unknown'}"
        + (f", not {names}" if decision.kind != "accept" else "")
    )
