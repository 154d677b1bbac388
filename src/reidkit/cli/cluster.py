"""``reid cluster``: people among a gallery's pictures, as proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.gallery import print_why_none, where_option
from reidkit.cli.options import EncoderPath, gallery_argument
from reidkit.cli.output import json_option, print_json, print_table, say, say_next, tell
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.clustering.cluster import Method
    from reidkit.clustering.proposals import Person, Proposals

_NUM_SHOWN = 20


@click.command("cluster")
@gallery_argument
@where_option
@click.option(
    "--method",
    type=click.Choice(["agglomerative", "dbscan"]),
    default="agglomerative",
    show_default=True,
    help="Average linkage, or DBSCAN of scikit-learn.",
)
@click.option(
    "--distance",
    type=float,
    default=0.75,
    show_default=True,
    help="How far two may be, from 0 to 1, to be one person; smaller makes more people.",
)
@click.option(
    "--neighbours",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Neighbours by which pictures are compared: about twice as many as a person has pictures.",
)
@click.option(
    "--threshold",
    "false_match_rate",
    type=float,
    metavar="RATE",
    help="Join no pair that scores so low that more than RATE of two persons' pairs do; needs a calibration.",
)
@click.option(
    "--encoder",
    "run",
    type=EncoderPath(),
    help="Run folder whose calibration --threshold asks, if the one indexed with moved.",
)
@click.option(
    "--walks/--no-walks",
    default=False,
    help="Let pairs count less that known people walk between more slowly.  [default: no]",
)
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page, .html.")
@click.option("--dry-run", is_flag=True, help="Propose nothing; only say what would be.")
@json_option
def cluster_command(
    location: str,
    conditions: tuple[str, ...],
    method: Method,
    distance: float,
    neighbours: int,
    false_match_rate: float | None,
    run: Path | None,
    walks: bool,
    page: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find out who is who among a gallery's pictures, and propose people.

    Pictures of one identity, and of one tracklet, stay together; identities, tracklets that one camera saw at
    one time, and whom somebody told apart stay apart. What is proposed is no identity until somebody accepts
    it (`reid review`). Run again, it keeps what was accepted, and the names of what it finds again.

    \b
    reid cluster people.gallery --page people.html
    reid review accept people.gallery new-1 --as anna
    reid cluster people.gallery --where time>=2024-05-01 --dry-run
    """
    from reidkit.clustering.cluster import ClusterOptions
    from reidkit.clustering.proposals import propose
    from reidkit.galleries import open_gallery
    from reidkit.search.whole_paths import typed_where

    where = typed_where(conditions)
    lowest = None if false_match_rate is None else lowest_score(location, run, false_match_rate)
    options = ClusterOptions(method, distance, neighbours, lowest=lowest)
    with open_gallery(location, create=False) as gallery:
        found = propose(gallery, options, where=where, walks=walks, dry_run=dry_run)
        print_why_none(gallery, where, found.num_items)
        print_found(found, gallery.location, as_json, dry_run)
        if page is not None:
            from reidkit.reports.people_page import write_people_page

            write_people_page(page, found, location=gallery.location, gallery=gallery)
            say(f"wrote {page}")
    if not as_json:
        print_next(found, gallery.location, has_page=page is not None, dry_run=dry_run)


def lowest_score(location: str, run: Path | None, false_match_rate: float) -> float:
    """The score from which on pairs may be joined, by the encoder's calibration."""
    from reidkit.search.searcher import Searcher

    with Searcher(location, encoder=run) as searcher:
        lowest = searcher.lowest_score(false_match_rate)
    say(f"joined are pairs that score {lowest:.3f} or more (false-match rate {false_match_rate:g})")
    return lowest


def print_found(found: Proposals, location: str, as_json: bool, dry_run: bool) -> None:
    for note in found.notes:
        say(note)
    if as_json:
        print_json(asdict(found))
        return
    num_new = sum(not person.is_known for person in found.people)
    would = "would be proposed" if dry_run else "proposed"
    counts = {"new person": num_new, "person": len(found.people) - num_new, "picture": found.num_alone}
    new, known, alone = (counted(num, noun) for noun, num in counts.items())
    pictures = counted(found.num_items, "picture")
    tell(f"{location}: {pictures}, {new} {would}, {known} known, {alone} like no other")
    if found.people:
        columns = ("person", "pictures", "new", "cameras")
        print_table(columns, _row_of_each(found.people), right=("pictures", "new"), prose=("cameras",))
    if found.people[_NUM_SHOWN:]:
        say(f"not shown: {len(found.people) - _NUM_SHOWN:,} more; --json, or --page, shows them")


def print_next(found: Proposals, location: str, *, has_page: bool, dry_run: bool) -> None:
    """What to do with what was found: look at it, then decide."""
    proposed = sorted(found.people, key=lambda person: (person.num_proposed == 0, person.is_known))
    if not proposed or not proposed[0].num_proposed:
        return
    if not has_page:
        say_next("cluster", location, "--page", "people.html")
    if not dry_run and found.too_large is None:
        named = [] if proposed[0].is_known else ["--as", "NAME"]
        say_next("review", "accept", location, proposed[0].name, *named)


def _row_of_each(people: Sequence[Person]) -> list[tuple[object, ...]]:
    return list(map(_row, people[:_NUM_SHOWN]))


def _row(person: Person) -> tuple[object, ...]:
    cameras = sorted({str(item.camera) for item in person.items if item.camera is not None})
    return person.name, len(person.items), person.num_proposed, ", ".join(cameras) or "unknown"
