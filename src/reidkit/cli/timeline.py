"""``reid timeline``: where and when a person was, and how long people take from camera to camera."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.options import gallery_argument, refuse
from reidkit.cli.output import json_option, print_json, print_table, say, say_next, tell
from reidkit.errors import ConfigError
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.search.transitions import Transitions
    from reidkit.search.visits import Timeline

HOW_TO_LABEL = (
    "times and cameras come from names or a table: `reid index` again with --pattern, such as "
    "'cam{camera}_{time}.*' ({time} is in Unix seconds), or with a .csv of the columns path, camera and time"
)


@click.command("timeline")
@gallery_argument
@click.argument("identity", required=False)
@click.option("--transitions", is_flag=True, help="Instead, how long known people take between cameras.")
@click.option(
    "--gap",
    default="30m",
    show_default=True,
    metavar="AGE",
    help="A visit is over after so long without a picture.",
)
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page, .html.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw it, .png.")
@json_option
def timeline_command(
    location: str,
    identity: str | None,
    transitions: bool,
    gap: str,
    page: Path | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Say where and when a person was: sightings in a row at one camera are one visit.

    IDENTITY is the name of a person, or of a proposal.

    \b
    reid timeline people.gallery anna --page anna.html
    reid timeline people.gallery --transitions
    """
    from reidkit.galleries import age, open_gallery
    from reidkit.search.visits import items_of, timeline

    if (identity is None) is not transitions:
        raise ConfigError("give the name of a person, or --transitions")
    with open_gallery(location, create=False) as gallery:
        if identity is None:
            from reidkit.search import transitions as walks

            refuse({"--page": page, "--picture": picture}, "these are of one person; name one")
            print_transitions(walks.transitions(gallery.items(), gap=age(gap)), as_json)
            return
        items = items_of(gallery, identity)
        found = timeline(items, gap=age(gap))
        is_proposed = items[0].identity is None
        print_timeline(found, identity, is_proposed, as_json)
        if page is not None:
            from reidkit.reports.timeline_page import write_timeline_page

            write_timeline_page(page, identity, found, is_proposed=is_proposed, gallery=gallery)
            say(f"wrote {page}")
        elif found.visits and not as_json:
            say_next("timeline", gallery.location, identity, "--page", "visits.html")
    if picture is not None:
        from reidkit.reports.timeline_page import draw_timeline

        say(f"wrote {draw_timeline(picture, found)}")


def print_timeline(found: Timeline, name: str, is_proposed: bool, as_json: bool) -> None:
    from reidkit.labels import lasting

    if is_proposed:
        say(f"{name} is a proposal: nobody has said yet that this is one person")
    if found.num_unknown:
        print_unknown(found)
    if as_json:
        print_json(asdict(found)["visits"])
        return
    tell(f"{name}: {counted(len(found.visits), 'visit')}")
    rows = [
        (
            visit.begin,
            lasting(visit.end - visit.start),
            visit.camera,
            len(visit.items),
            lasting(pause) if place else "",
        )
        for place, (visit, pause) in enumerate(zip(found.visits, found.pauses, strict=True))
    ]
    if rows:
        print_table(("from", "for", "camera", "pictures", "since the last"), rows, right=("pictures",))


def print_unknown(found: Timeline) -> None:
    """Which pictures are in no visit, and how they come by what they lack."""
    lacks = {"time": found.num_without_time, "camera": found.num_without_camera}
    what = ", ".join(f"{num:,} without a {label}" for label, num in lacks.items() if num)
    say(f"left out: {counted(found.num_unknown, 'picture')} ({what})")
    say(f"{HOW_TO_LABEL}; what is there is not embedded again")


def print_transitions(found: Transitions, as_json: bool) -> None:
    from reidkit.labels import lasting

    if as_json:
        print_json([{**asdict(one), "is_believed": one.is_believed} for one in found.known])
        return
    if not found.known:
        say("nobody with a name was seen at two cameras in one walk; `reid review accept` names people")
        say(HOW_TO_LABEL)
        return
    rows = [
        (
            one.start,
            one.end,
            one.num,
            lasting(one.median),
            " to ".join(map(lasting, one.quartiles)),
            "" if one.is_believed else "too few",
        )
        for one in found.known
    ]
    print_table(
        ("from", "to", "walks", "median", "middle half", ""),
        rows,
        right=("walks",),
        prose=("middle half", ""),
    )
    if not found:
        say("too few walks are known for `reid cluster` to let them count")
