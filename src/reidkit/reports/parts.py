"""What report pages are made of: figures with a sentence, photos, ranked lists, and the page itself."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from reidkit.analysis.breakdown import MatchRanks
from reidkit.errors import DataError
from reidkit.evaluation.comparison import Comparison
from reidkit.evaluation.nearest import nearest_items
from reidkit.evaluation.row_labels import camera_names, label_name
from reidkit.evaluation.unit_rows import Indices
from reidkit.images.reading import load_image
from reidkit.reports.charts import Chart
from reidkit.texts.printable import printable
from reidkit.types import Evaluation, Features, Split

TEMPLATES = Path(__file__).parent / "templates"

IMAGE_SIZE = (384, 256)
"""Images of ranked lists are made to fit this width and height; half of it is shown until one clicks."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One side of an evaluation: its features, and its samples where the images are at hand."""

    features: Features
    split: Split | None
    has_cameras: bool

    def name(self, row: int) -> str:
        """File name of the image, or the number of the row."""
        return f"row {row}" if self.split is None else self.split[row].path.name

    def identity(self, row: int) -> str:
        """As it was written."""
        if self.split is not None and self.split[row].identity_name:
            return str(self.split[row].identity_name)
        return label_name(self.features.identities[row])

    def camera(self, row: int) -> str:
        """As it was written; empty where it is not known, or where no protocol counts it."""
        if not self.has_cameras or self.features.cameras is None:
            return ""
        return camera_names(self.features.cameras[[row]])[0]

    def photo(self, row: int) -> Image.Image:
        """The image; raises :class:`DataError` where it cannot be read or is not at hand."""
        if self.split is None:
            raise DataError("the features came without images")
        return load_image(self.split[row].path, box=self.split[row].box)


@dataclass(frozen=True, slots=True)
class Cell:
    """An image of a ranked list with its labels; ``camera`` is empty where cameras are not known.

    ``data_uri`` is empty where the image is not shown: ``problem`` then says why, and is empty itself where
    there are no images at all. ``score`` and ``is_match`` are ``None`` for the query itself.
    """

    name: str
    identity: str
    camera: str
    data_uri: str
    problem: str
    score: float | None = None
    is_match: bool | None = None


@dataclass(frozen=True, slots=True)
class RankedList:
    """A query with its nearest hits.

    ``average_precision`` and ``first_match_rank`` are those of the evaluation, ``match_ranks`` those of
    all right images of the gallery in the order shown; ``rows`` are the gallery rows of the hits.
    """

    row: int
    query: Cell
    hits: tuple[Cell, ...]
    rows: tuple[int, ...]
    average_precision: float
    first_match_rank: int
    match_ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with the sentence that says how to read it; ``findings`` are its numbers in words."""

    title: str
    chart: Chart
    explanation: str
    findings: str = ""

    @property
    def svg(self) -> Markup:
        return Markup(self.chart.svg())


def sides(
    query: Features, gallery: Features | None, query_split: Split | None, gallery_split: Split | None
) -> tuple[Shown, Shown]:
    """Both sides as they are shown; cameras count only where both have them."""
    items = query if gallery is None else gallery
    has_cameras = query.cameras is not None and items.cameras is not None
    if gallery is None:
        gallery_split = query_split if gallery_split is None else gallery_split
    return Shown(query, query_split, has_cameras), Shown(items, gallery_split, has_cameras)


def longest_list(
    evaluation: Evaluation,
    query: Features,
    gallery: Features | None,
    galleries: Sequence[Sequence[int]] | None,
) -> int:
    """Length of the longest ranked list of a query, which bounds every rank."""
    items = query if gallery is None else gallery
    if evaluation.protocol.startswith("single_gallery_shot"):
        return len(np.unique(items.identities))
    if galleries is not None:
        return max(map(len, galleries), default=0)
    return len(items) - 1 if gallery is None else len(items)


def check_lengths(evaluation: Evaluation, query: Shown, gallery: Shown) -> None:
    """Raise :class:`DataError` where samples, features and evaluation are not of the same images."""
    numbers = [
        ("query_split", query.split, len(query.features)),
        ("gallery_split", gallery.split, len(gallery.features)),
        ("evaluation (queries)", range(evaluation.num_queries), len(query.features)),
        ("evaluation (gallery)", range(evaluation.num_gallery), len(gallery.features)),
    ]
    for name, items, expected in numbers:
        if items is not None and len(items) != expected:
            raise DataError(
                f"{name} has {len(items)} items, the features have {expected}; "
                "a report needs samples, features and evaluation of the same images"
            )


def ranked_lists(
    rows: Indices,
    comparison: Comparison,
    matches: MatchRanks,
    *,
    evaluation: Evaluation,
    query: Shown,
    gallery: Shown,
    top: int,
) -> list[RankedList]:
    """The queries of ``rows`` with their ``top`` nearest; ``matches`` holds the ranks of their matches."""
    # Only these are ranked: the thousands of other queries are not on the page.
    ranking = nearest_items(comparison, top=top, rows=rows)
    lists = []
    for row, indices, scores, are_matches in zip(
        rows.tolist(), ranking.indices, ranking.scores, ranking.matches, strict=True
    ):
        shown = np.flatnonzero(indices >= 0).tolist()
        lists.append(
            RankedList(
                row=row,
                query=cell(query, row),
                hits=tuple(
                    replace(
                        cell(gallery, indices[place]),
                        score=float(scores[place]),
                        is_match=bool(are_matches[place]),
                    )
                    for place in shown
                ),
                rows=tuple(int(indices[place]) for place in shown),
                average_precision=float(evaluation.average_precisions[row]),
                first_match_rank=int(evaluation.first_match_ranks[row]),
                match_ranks=tuple(matches.of(row).tolist()),
            )
        )
    return lists


def cell(side: Shown, row: int) -> Cell:
    """The image of a row with its labels, or what is wrong with it."""
    data_uri = problem = ""
    if side.split is not None:
        try:
            data_uri = as_data_uri(side.photo(row))
        except DataError as error:
            path = side.split[row].path
            problem = str(error).replace(str(path), path.name)
    return Cell(
        name=side.name(row),
        identity=side.identity(row),
        camera=side.camera(row),
        data_uri=data_uri,
        problem=problem,
    )


def as_data_uri(image: Image.Image) -> str:
    """The image, made to fit :data:`IMAGE_SIZE`, as a JPEG inside a page."""
    image = image.copy()
    image.thumbnail(IMAGE_SIZE)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _fit_to_print(value: Any) -> Any:
    """Make any value safe to show in a page; our own HTML stays as it is."""
    return printable(value, keep="\n\t") if type(value) is str else value


def render(template: str, **values: Any) -> str:
    """The page of a template; what it is given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_fit_to_print,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    # Of all scripts a page lets this one run, by its hash: names and labels come from anywhere.
    environment.globals.update(script=Markup(script), script_hash=f"sha256-{digest}")
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.1f}"
    environment.filters["signed_percent"] = lambda fraction: f"{100 * fraction:+.1f}"
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment.get_template(template).render(**values)
