"""``reid search``: the most similar people in a gallery."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli.data import refuse
from reidkit.cli.images import image_paths, images_argument
from reidkit.cli.index import say_if_converted
from reidkit.cli.output import json_option, print_json, print_table, say
from reidkit.errors import DataError

if TYPE_CHECKING:
    from reidkit.galleries import Hit
    from reidkit.same_person import Calibration

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
    help="How probable a hit shows the person, before looking; changes the probabilities.  [default: 0.5]",
)
@click.option("--include-self", is_flag=True, help="Keep hits that are the query's own picture.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the hits, .png.")
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
    as_json: bool,
) -> None:
    """Find who in a gallery looks most like the person in each of IMAGES.

    A score is the cosine similarity of two embeddings: 1 is the same picture, higher is nearer. Where the
    encoder is calibrated (training with a validation part does it, or `reid evaluate --store-calibration`),
    the probability that a hit shows the same person stands beside it.

    \b
    reid search query.jpg --gallery people.gallery --where camera!=3
    reid search query.jpg --gallery people.gallery --threshold 0.001

    An image that is in the gallery itself, at its place or as a copy, is left out of its own hits.
    """
    from reidkit.external import is_network_file
    from reidkit.galleries import parse_where
    from reidkit.search import Searcher

    paths = image_paths(images)
    where = parse_where(conditions)
    with Searcher(location, encoder=run) as searcher:
        say_if_converted(searcher)
        calibration, lowest = searcher.calibration, None
        if calibration is None:
            refuse(
                {"--threshold": false_match_rate, "--prior": prior},
                f"{searcher.place} has no calibration, which would say what scores mean; "
                + (
                    "a network's file that was made elsewhere cannot keep one: leave the option out"
                    if searcher.place is not None and is_network_file(searcher.place)
                    else f"make one with `reid evaluate {searcher.place} --store-calibration`"
                ),
            )
        elif false_match_rate is not None:
            lowest = calibration.threshold_at(false_match_rate)
        prior = 0.5 if prior is None else prior
        results = searcher.search(paths, top=top, where=where, include_self=include_self)
        if not any(result.hits or result.own for result in results):
            say(searcher.why_nothing(where))
    found = [list(result.hits) for result in results]
    own = [{hit.id for hit in result.own} for result in results]
    if not include_self and any(own):
        num = sum(map(len, own))
        hits = "1 hit that is" if num == 1 else f"{num} hits that are"
        say(f"left out: {hits} the query's own picture; --include-self keeps it")
    if lowest is not None:
        found = [[hit for hit in hits if hit.score >= lowest] for hits in found]
        say(f"shown are hits that score {lowest:.3f} or more (false-match rate {false_match_rate:g})")
    if as_json:
        print_json(
            [
                {"query": str(p), "hits": [_plain(hit, hit.id in same, calibration, prior) for hit in hits]}
                for p, hits, same in zip(paths, found, own, strict=True)
            ]
        )
    else:
        print_hits(paths, found, own=own, calibration=calibration, prior=prior)
    if picture is not None:
        draw_hits(paths, found, picture)
        say(f"wrote {picture}")


def print_hits(
    paths: list[Path],
    found: list[list[Hit]],
    *,
    own: list[set[int]] | None = None,
    calibration: Calibration | None = None,
    prior: float = 0.5,
) -> None:
    """A table for each query, with probabilities where a calibration is given.

    ``own`` are ids of hits that show the query's own picture, which are marked.
    """
    columns = list(_COLUMNS)
    if calibration is not None:
        columns.insert(1, "probably same person")
    for path, hits, same in zip(paths, found, own or [set()] * len(paths), strict=True):
        rows = [list(_row(hit, is_own=hit.id in same)) for hit in hits]
        for row, hit in zip(rows, hits, strict=True):
            if calibration is not None:
                row.insert(1, _percent(float(calibration.probability(hit.score, prior=prior))))
        print_table(columns, rows, title=str(path), right=columns[: columns.index("camera")])


def _percent(probability: float) -> str:
    """Nothing is certain, and nothing impossible."""
    percent = min(99.9, max(0.1, 100 * probability))
    return f"{percent:.0f} %" if 1 <= percent <= 99 else f"{percent:.1f} %"


def _plain(hit: Hit, is_own: bool, calibration: Calibration | None, prior: float) -> dict[str, Any]:
    values = dataclasses.asdict(hit) | {"is_query": is_own}
    if calibration is not None:
        values["probability"] = float(calibration.probability(hit.score, prior=prior))
    return values


def _row(hit: Hit, *, is_own: bool) -> tuple[str, ...]:
    source = Path(hit.source or "")
    if source.is_relative_to(Path.cwd()):
        source = source.relative_to(Path.cwd())
    cells = (hit.camera, hit.identity, f"{source} (the query)" if is_own else source)
    return f"{hit.score:.3f}", *("" if cell is None else str(cell) for cell in cells)


def draw_hits(
    paths: list[Path], found: list[list[Hit]], picture: Path, *, identities: list[str] | None = None
) -> None:
    """A picture with a row for each query: the query, then its hits, right or wrong where that is known."""
    import io

    from PIL import Image

    from reidkit.files import write_atomically
    from reidkit.images import load_image
    from reidkit.viz import ranked_list_picture

    grey: list[str] = []

    def shown(hit: Hit) -> Image.Image:
        try:
            return load_image(hit.source or "")
        except DataError:  # moved or deleted since it was indexed; its place stays
            grey.append(hit.source or "an item without a source")
            return Image.new("RGB", (64, 128), "grey")

    def is_match(hit: Hit, query: int) -> bool | None:
        return None if identities is None else hit.identity == identities[query]

    lists = [
        (load_image(path), [(shown(hit), hit.score, is_match(hit, query)) for hit in hits])
        for query, (path, hits) in enumerate(zip(paths, found, strict=True))
    ]
    buffer = io.BytesIO()
    ranked_list_picture(lists).save(buffer, format="PNG", optimize=True)
    write_atomically(picture, buffer.getbuffer())
    if grey:
        say(
            f"drawn grey: {len(grey)} of the pictures found, which cannot be read any more, {grey[0]} first; "
            "where they moved, `reid index` with their new place finds them again"
        )
