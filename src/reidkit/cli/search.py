"""``reid search``: the most similar people in a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli import completion
from reidkit.cli.index import print_conversion
from reidkit.cli.options import EncoderPath, backend_option, images_argument, refuse
from reidkit.cli.output import from_here, json_option, print_json, print_left_out, print_table, say, tell
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.errors import DataError
    from reidkit.galleries import Group, GroupBy, Hit
    from reidkit.search.found import Found
    from reidkit.search.people import FoundPeople, PeopleSearch, Pool
    from reidkit.search.searcher import Searcher

_COLUMNS = ("score", "camera", "identity", "image")
_NUM_PICTURES = 10  # of each person, in JSON and in the picture


@click.command("search")
@images_argument
@click.option(
    "--gallery",
    "location",
    shell_complete=completion.galleries,
    required=True,
    help="Gallery to search, made by `reid index`.",
)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Hits for each image.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    help="Only these, for example camera!=3; may be repeated. A name with a comma stands in quotes.",
)
@click.option(
    "--query",
    "known",
    multiple=True,
    metavar="LABEL",
    help="What is known of the images, such as camera=3, for conditions such as camera!=query; may be "
    "repeated. An image that the gallery holds has the labels of its item.",
)
@click.option(
    "--encoder",
    "run",
    type=EncoderPath(),
    help="Run folder, if the one indexed with moved; its place is kept.",
)
@click.option(
    "--threshold",
    "false_match_rate",
    type=float,
    metavar="RATE",
    help="Hide hits that score so low that more than RATE of two persons' pairs do: 0.001 is one in 1,000.",
)
@click.option(
    "--prior",
    type=float,
    help="How probable it is, before looking, that an item shows the person.  [default: the images of one "
    "identity, by the gallery's labels, over all]",
)
@click.option(
    "--group",
    type=click.Choice(["identity", "tracklet"]),
    help="Find people, or tracklets, in place of single pictures.",
)
@click.option(
    "--pool",
    type=click.Choice(["best", "mean", "reciprocal"]),
    help="What scores a person: the best picture, the mean of all, or the neighbourhood (k-reciprocal "
    "re-ranking).  [default: best]",
)
@click.option("--include-self", is_flag=True, help="Keep hits that are the query's own picture.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the hits, .png.")
@backend_option
@json_option
def search_command(
    images: tuple[Path, ...],
    location: str,
    top: int,
    conditions: tuple[str, ...],
    known: tuple[str, ...],
    run: Path | None,
    false_match_rate: float | None,
    prior: float | None,
    group: GroupBy | None,
    pool: Pool | None,
    include_self: bool,
    picture: Path | None,
    backend: str,
    as_json: bool,
) -> None:
    """Find who in a gallery looks most like the person in each of IMAGES.

    A score is the cosine similarity of two embeddings: 1 is the same picture, higher is nearer. Where the
    encoder is calibrated (training with a validation part does it, or `reid evaluate --store-calibration`),
    the probability that a hit shows the same person stands beside it, unless the calibration does not fit
    what this gallery and the picture look like: then the reason is told.

    \b
    reid search query.jpg --gallery people.gallery --where camera!=3
    reid search query.jpg --gallery people.gallery --threshold 0.001
    reid search query.jpg --gallery people.gallery --query camera=3 --where camera!=query
    reid search query.jpg --gallery people.gallery --where time=query+-10m
    reid search query.jpg --gallery people.gallery --group identity --pool mean

    An image that is in the gallery itself, at its place or as a copy, is left out of its own hits; so is
    whoever was told apart from the person in it (`reid review reject`).
    """
    from reidkit.datasets._given_images import image_paths
    from reidkit.galleries import parse_labels, parse_where
    from reidkit.search.people import PeopleSearch
    from reidkit.search.searcher import Searcher

    given = image_paths(images)
    print_left_out(given.left_out)
    where, labels = parse_where(conditions), parse_labels(known)
    with Searcher(location, encoder=run, backend=backend) as searcher:
        print_conversion(searcher.converted, searcher.location)
        asked = {"include_self": include_self, "queries": [labels] * len(given.paths)}
        if group is None:
            refuse({"--pool": pool}, "it scores people; give --group identity or --group tracklet, too")
            asked |= {"top": top, "where": where, "prior": prior}
            show_pictures(searcher, given.paths, asked, false_match_rate, picture, as_json)
        else:
            refuse(
                {"--threshold": false_match_rate, "--prior": prior}, "it is of single pictures, not people"
            )
            options = PeopleSearch(group, pool or "best", top, _NUM_PICTURES, where)
            show_people(searcher, given.paths, options, asked, picture, as_json)


def show_pictures(
    searcher: Searcher,
    images: Sequence[Path],
    asked: Mapping[str, Any],
    false_match_rate: float | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Search for pictures, and print them."""
    if searcher.calibration is None:
        refuse({"--threshold": false_match_rate, "--prior": asked["prior"]}, searcher.no_calibration)
    lowest = None if false_match_rate is None else searcher.lowest_score(false_match_rate)
    unread: dict[int, DataError] = {}
    found = searcher.search(images, lowest=lowest, skip=unread.__setitem__, **asked)
    images = print_unread(images, unread)
    if not any(found):
        say(searcher.why_nothing(asked["where"]))
    print_left_out_hits(found, asked["include_self"])
    if lowest is not None:
        say(f"shown are hits that score {lowest:.3f} or more (false-match rate {false_match_rate:g})")
    print_hits_as_json(images, found) if as_json else print_hits(images, found)
    if picture is not None:
        from reidkit.reports.search_picture import draw_hits

        print_grey(draw_hits(picture, images, found, gallery=searcher.gallery))
        say(f"wrote {picture}")


def show_people(
    searcher: Searcher,
    images: Sequence[Path],
    options: PeopleSearch,
    asked: Mapping[str, Any],
    picture: Path | None,
    as_json: bool,
) -> None:
    """Search for people in place of pictures, and print them."""
    unread: dict[int, DataError] = {}
    found = searcher.search_people(images, options, skip=unread.__setitem__, **asked)
    images = print_unread(images, unread)
    if not any(found):
        say(searcher.why_nothing(options.where or {}))
    print_left_out_people(found)
    print_people_as_json(images, found) if as_json else print_people(images, found, options)
    if picture is not None:
        from reidkit.reports.search_picture import draw_people

        print_grey(draw_people(picture, images, found, gallery=searcher.gallery))
        say(f"wrote {picture}")


def print_unread(images: Sequence[Path], unread: Mapping[int, DataError]) -> list[Path]:
    """Say which images could not be read; returns the others."""
    from reidkit.search.pictures import searched_for

    rest = searched_for(images, unread)
    print_left_out(map(str, unread.values()))
    return rest


def print_left_out_hits(found: Sequence[Found], include_self: bool) -> None:
    own = 0 if include_self else sum(len(result.own) for result in found)
    print_left_out_numbers(own, sum(result.num_rejected for result in found))


def print_left_out_people(found: Sequence[FoundPeople]) -> None:
    print_left_out_numbers(
        sum(result.num_own for result in found), sum(result.num_rejected for result in found)
    )


def print_left_out_numbers(num_own: int, num_rejected: int) -> None:
    if num_own:
        hits = "1 hit that is" if num_own == 1 else f"{num_own} hits that are"
        say(f"left out: {hits} the query's own picture; --include-self keeps it")
    if num_rejected:
        say(
            f"left out: {counted(num_rejected, 'hit')} of people who were told apart from the query's; "
            "`reid review log` lists who said so"
        )


def print_prior(found: Sequence[Found]) -> None:
    """What the probabilities rest on, where some are shown; it is the same for all pictures."""
    for prior in {result.prior for result in found if result.probabilities}:
        say(f"probabilities: prior {prior}; --prior changes it")


def print_hits_as_json(images: Sequence[Path], found: Sequence[Found]) -> None:
    print_prior(found)
    print_json(
        [
            {"query": str(image), "hits": result.as_list()}
            | ({"prior": result.prior.value} if result.prior and result.probabilities else {})
            | ({"no_probability": result.no_probability} if result.no_probability else {})
            for image, result in zip(images, found, strict=True)
        ]
    )


def print_hits(images: Sequence[Path], found: Sequence[Found]) -> None:
    """A table for each query, with probabilities where there are some; a sentence where nothing was found."""
    print_prior(found)
    for image, result in zip(images, found, strict=True):
        if not result.hits:
            low = f", but {counted(result.num_low, 'hit')} of a lower score" if result.num_low else ""
            tell(f"{image}: nothing found{low}")
            continue
        if result.no_probability:
            say(f"{image}: no probabilities: {result.no_probability}")
        columns = list(_COLUMNS)
        rows = [list(_row(hit, is_own=result.is_own(hit))) for hit in result.hits]
        if result.probabilities:
            columns.insert(1, "probably same person")
            for row, probability in zip(rows, result.probabilities, strict=True):
                row.insert(1, _percent(probability))
        print_table(columns, rows, title=str(image), right=columns[: columns.index("camera")])


def print_people_as_json(images: Sequence[Path], found: Sequence[FoundPeople]) -> None:
    print_json(
        [
            {
                "query": str(image),
                "people": [{**asdict(person), "score": person.score} for person in result.people],
            }
            for image, result in zip(images, found, strict=True)
        ]
    )


def print_people(images: Sequence[Path], found: Sequence[FoundPeople], options: PeopleSearch) -> None:
    """A table for each query: whom it may show, with the nearest picture of each."""
    if options.pool == "reciprocal":
        say("scores are of re-ranked neighbourhoods: they order people, and are no cosines")
    for image, result in zip(images, found, strict=True):
        if not result.people:
            tell(f"{image}: nobody found")
            continue
        columns = ("score", options.group, "pictures", "cameras", "nearest picture")
        rows = [_row_of_person(person) for person in result.people]
        print_table(columns, rows, title=str(image), right=("score", "pictures"), prose=("cameras",))


def _percent(probability: float) -> str:
    """Nothing is certain, and nothing impossible."""
    percent = min(99.9, max(0.1, 100 * probability))
    return f"{percent:.0f} %" if 1 <= percent <= 99 else f"{percent:.1f} %"


def _row_of_person(person: Group) -> tuple[str, ...]:
    hit = person.hits[0]
    return (
        f"{person.score:.3f}",
        person.label or "",
        str(person.num_items),
        ", ".join(map(str, person.cameras)),
        from_here(hit.source) or f"#{hit.id}",
    )


def _row(hit: Hit, *, is_own: bool) -> tuple[str, ...]:
    source = from_here(hit.source) or f"#{hit.id}"
    camera = "" if hit.camera is None else str(hit.camera)
    return f"{hit.score:.3f}", camera, hit.identity or "", f"{source} (the query)" if is_own else source


def print_grey(sources: Sequence[str]) -> None:
    """Which pictures could not be drawn."""
    if sources:
        say(
            f"drawn grey: {len(sources)} of the pictures found, which cannot be read any more, {sources[0]} "
            "first; where they moved, `reid index` with their new place finds them again"
        )
