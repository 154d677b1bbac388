"""``reid search``: the most similar people in a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.index import print_conversion
from reidkit.cli.options import backend_option, images_argument, refuse
from reidkit.cli.output import json_option, print_json, print_left_out, print_table, say, tell
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.galleries import Hit
    from reidkit.search.searcher import Found

_COLUMNS = ("score", "camera", "identity", "image")


@click.command("search")
@images_argument
@click.option("--gallery", "location", required=True, help="Gallery to search, made by `reid index`.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Hits for each image.")
@click.option(
    "--where",
    "conditions",
    multiple=True,
    help="Only these, for example camera!=3; may be repeated. A name with a comma stands in quotes.",
)
@click.option(
    "--encoder",
    "run",
    type=click.Path(path_type=Path),
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
@click.option("--include-self", is_flag=True, help="Keep hits that are the query's own picture.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the hits, .png.")
@backend_option
@json_option
def search_command(
    images: tuple[Path, ...],
    location: str,
    top: int,
    conditions: tuple[str, ...],
    run: Path | None,
    false_match_rate: float | None,
    prior: float | None,
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

    An image that is in the gallery itself, at its place or as a copy, is left out of its own hits.
    """
    from reidkit.datasets._given_images import image_paths
    from reidkit.galleries import parse_where
    from reidkit.search.searcher import Searcher

    given = image_paths(images)
    print_left_out(given.left_out)
    where = parse_where(conditions)
    with Searcher(location, encoder=run, backend=backend) as searcher:
        print_conversion(searcher.converted, location)
        if searcher.calibration is None:
            refuse({"--threshold": false_match_rate, "--prior": prior}, searcher.no_calibration)
        lowest = None if false_match_rate is None else searcher.lowest_score(false_match_rate)
        found = searcher.search(
            given.paths,
            top=top,
            where=where,
            include_self=include_self,
            lowest=lowest,
            prior=prior,
        )
        if not any(found):
            say(searcher.why_nothing(where))
    if not include_self:
        print_left_out_as_own(found)
    if lowest is not None:
        say(f"shown are hits that score {lowest:.3f} or more (false-match rate {false_match_rate:g})")
    print_hits_as_json(given.paths, found) if as_json else print_hits(given.paths, found)
    if picture is not None:
        from reidkit.reports.search_picture import draw_hits

        print_grey(draw_hits(picture, given.paths, found))
        say(f"wrote {picture}")


def print_left_out_as_own(found: Sequence[Found]) -> None:
    num = sum(len(result.own) for result in found)
    if num:
        hits = "1 hit that is" if num == 1 else f"{num} hits that are"
        say(f"left out: {hits} the query's own picture; --include-self keeps it")


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


def _percent(probability: float) -> str:
    """Nothing is certain, and nothing impossible."""
    percent = min(99.9, max(0.1, 100 * probability))
    return f"{percent:.0f} %" if 1 <= percent <= 99 else f"{percent:.1f} %"


def _row(hit: Hit, *, is_own: bool) -> tuple[str, ...]:
    source = Path(hit.source or "")
    if source.is_relative_to(Path.cwd()):
        source = source.relative_to(Path.cwd())
    camera = "" if hit.camera is None else str(hit.camera)
    return f"{hit.score:.3f}", camera, hit.identity or "", f"{source} (the query)" if is_own else str(source)


def print_grey(sources: Sequence[str]) -> None:
    """Which pictures could not be drawn."""
    if sources:
        say(
            f"drawn grey: {len(sources)} of the pictures found, which cannot be read any more, {sources[0]} "
            "first; where they moved, `reid index` with their new place finds them again"
        )
