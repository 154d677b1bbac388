"""Figures as inline SVG, and pictures of ranked lists.

The SVG strings go into an HTML page: transparent, as wide as their container, with text and axes in
``currentColor`` and in the page's font, so that they follow light and dark themes; their ids carry the
figure's name, so that figures of one page do not collide.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK = "#0a0b0c"
"""Stands for the page's text colour while a figure is drawn; the finished SVG says currentColor."""

# Readable on white and on near-black alike (contrast of 3 and more), and for colour-blind readers.
BLUE, ORANGE, TEAL, PURPLE, GREY = "#3b82d6", "#d9730d", "#16977f", "#a165c9", "#7d8590"
LINES = [(colour, style) for style in ("-", "--", ":") for colour in (BLUE, ORANGE, TEAL, PURPLE)]

RIGHT, WRONG = "#1a8f4c", "#d13b3b"

MAX_POINTS = 200
"""A curve of more points is drawn as the means of this many stretches."""

_QUIET_SVG = {"Creator": None, "Date": None, "Format": None, "Type": None}


def cmc_figure(cmc: NDArray[np.float64]) -> str:
    """SVG of the share of queries (percent) whose first right image is within rank k, for every k.

    Args:
        cmc: (max_rank,), fractions; index 0 is rank 1.
    """
    percent = 100 * np.asarray(cmc, dtype=np.float64)
    ranks = np.arange(1, len(percent) + 1)
    figure, axes = _axes("rank k", "queries answered within rank k (%)")
    axes.plot(ranks, percent, color=BLUE, linewidth=2)
    for rank in [k for k in (1, 5, 10, 20) if k <= len(percent)]:
        axes.plot(rank, percent[rank - 1], "o", color=BLUE, markersize=5)
        axes.annotate(
            f"{percent[rank - 1]:.1f}",
            (rank, percent[rank - 1]),
            xytext=(4, -12),
            textcoords="offset points",
            color=INK,
        )
    # The axis starts a little below the curve: good models differ in their last few percent only.
    lowest = 10 * math.floor((percent.min() - 5) / 10)
    axes.set_ylim(max(lowest, 0), 101)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, "cmc")


def distance_figure(
    edges: NDArray[np.float64],
    positive: NDArray[np.int64],
    negative: NDArray[np.int64],
    *,
    hardest_positive: float,
    hardest_negative: float,
) -> str:
    """SVG of how far apart pairs of one person and pairs of two people lie.

    Args:
        edges: (bins + 1,), limits of the bins in distance.
        positive: (bins,), pairs of one person in each bin; each class is drawn as a share of itself.
        negative: (bins,), pairs of two people.
        hardest_positive: greatest distance of a pair of one person.
        hardest_negative: least distance of a pair of two people.
    """
    figure, axes = _axes("distance", "share of pairs (%)")
    for counts, colour, style, label in [
        (positive, BLUE, "-", "same person"),
        (negative, ORANGE, "--", "different people"),
    ]:
        share = 100 * counts / max(counts.sum(), 1)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.6, linestyle=style, label=label)
    for distance, colour in [(hardest_positive, BLUE), (hardest_negative, ORANGE)]:
        if np.isfinite(distance):
            axes.axvline(distance, color=colour, linewidth=1.2, linestyle=(0, (1, 2)))
    occupied = np.flatnonzero((positive > 0) | (negative > 0))
    if len(occupied):
        axes.set_xlim(edges[occupied[0]], edges[occupied[-1] + 1])
        axes.margins(x=0.03)
    axes.set_ylim(bottom=0)
    _legend(axes)
    return _svg(figure, "distances")


def loss_figure(records: Sequence[Mapping[str, Any]]) -> str:
    """SVG of the total loss and its terms over the training steps; empty where no loss was recorded.

    Args:
        records: lines of a run's ``metrics.jsonl``; keys ``loss`` and ``loss/NAME`` of kind ``step``.
    """
    keys = {key for record in records if record.get("kind") == "step" for key in record}
    terms = sorted(key for key in keys if key.startswith("loss/"))
    figure, axes = _axes("training step", "loss")
    if len(terms) != 1:
        _curve(axes, records, "step", "loss", x="step", color=INK, linewidth=2, label="total")
    for term, (colour, style) in zip(terms, LINES * len(terms), strict=False):
        name = term.removeprefix("loss/")
        _curve(axes, records, "step", term, x="step", color=colour, linestyle=style, label=name)
    if not axes.lines:
        return ""
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _legend(axes)
    return _svg(figure, "loss")


def learning_rate_figure(records: Sequence[Mapping[str, Any]]) -> str:
    """SVG of the learning rate over the training steps; empty where none was recorded."""
    figure, axes = _axes("training step", "learning rate")
    _curve(axes, records, "step", "lr", x="step", color=TEAL)
    if not axes.lines:
        return ""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return _svg(figure, "lr")


def validation_figure(records: Sequence[Mapping[str, Any]]) -> str:
    """SVG of mAP and rank-1 on the validation images by epoch; empty where no validation was recorded."""
    figure, axes = _axes("epoch", "validation score (%)")
    for key, colour, style in [("mAP", BLUE, "-"), ("rank-1", ORANGE, "--")]:
        _curve(
            axes, records, "validation", key, x="epoch", scale=100, color=colour, linestyle=style, label=key
        )
    if not axes.lines:
        return ""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return _svg(figure, "validation")


def ranked_list_picture(
    query: Image.Image, hits: Sequence[tuple[Image.Image, float, bool | None]], *, height: int = 192
) -> Image.Image:
    """One query and its hits from left to right, each with its score; right and wrong marked.

    Args:
        query: the image asked with.
        hits: (image, score, whether it shows the query's person); ``None`` where that is not known.
        height: of each image in the picture, in pixels.
    """
    # Shape and place of everything follow from the height, so that any size looks the same.
    border, gap, caption = max(2, height // 48), height // 14, height // 6
    cells = [_cell(query, "query", None, "#333333", height, border, caption)]
    for image, score, is_match in hits:
        colour = GREY if is_match is None else RIGHT if is_match else WRONG
        cells.append(_cell(image, f"{score:.2f}", is_match, colour, height, border, caption))
    width = sum(cell.width + gap for cell in cells) + gap * 3
    picture = Image.new("RGB", (width, cells[0].height + 2 * gap), "white")
    left = gap
    for place, cell in enumerate(cells):
        picture.paste(cell, (left, gap))
        left += cell.width + gap * (3 if place == 0 else 1)
    return picture


def contact_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other on white, flush left."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A figure of one pair of axes, drawn in the ink that becomes currentColor."""
    # 360 points wide: 10-point text stays readable when the page is as narrow as a telephone.
    figure = Figure(figsize=(5, 3), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.grid(color=INK, alpha=0.13, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
    return figure, axes


def _legend(axes: Axes) -> None:
    if len(axes.get_legend_handles_labels()[1]) > 0:
        legend = axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a loss named "a$b$" is no formula


def _curve(
    axes: Axes,
    records: Sequence[Mapping[str, Any]],
    kind: str,
    key: str,
    *,
    x: str,
    scale: float = 1,
    **style: Any,
) -> None:
    """Draw ``key`` of the records of one kind over ``x``; nothing where no record has both."""
    # A resumed run records its last steps again: the later record counts.
    points = {
        record[x]: scale * record[key]
        for record in records
        if record.get("kind") == kind and _is_number(record.get(x)) and _is_number(record.get(key))
    }
    if points:
        xs, ys = np.array(sorted(points.items()), dtype=np.float64).T
        if len(xs) > MAX_POINTS:
            xs, ys = (
                np.array([stretch.mean() for stretch in np.array_split(v, MAX_POINTS)]) for v in (xs, ys)
            )
        axes.plot(xs, ys, marker="o" if len(xs) <= 20 else "", markersize=3.5, **style)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element for an HTML page."""
    buffer = io.StringIO()
    # Text stays text; ids follow from the content, so that equal figures are equal strings.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reidkit"}):
        figure.savefig(buffer, format="svg", metadata=_QUIET_SVG)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # matplotlib's style sheet has a rule for "*", which inside a page would mean the whole page.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor")


def _cell(
    image: Image.Image,
    caption: str,
    is_match: bool | None,
    colour: str,
    height: int,
    border: int,
    caption_height: int,
) -> Image.Image:
    """An image in a frame with its caption, and before the caption a check mark or a cross."""
    image = image.convert("RGB")
    image = image.resize(
        (max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS
    )
    font = ImageFont.load_default(size=round(caption_height * 0.6))
    mark_size = 0 if is_match is None else round(caption_height * 0.6)
    text_width = math.ceil(font.getlength(caption))
    label_width = text_width + (mark_size + border if mark_size else 0)
    width = max(image.width + 2 * border, label_width)
    cell = Image.new("RGB", (width, height + 2 * border + caption_height), "white")
    draw = ImageDraw.Draw(cell)
    left = (width - image.width) // 2
    draw.rectangle((left - border, 0, left + image.width + border - 1, height + 2 * border - 1), fill=colour)
    cell.paste(image, (left, border))
    left = (width - label_width) // 2
    middle = height + 2 * border + caption_height // 2
    if is_match is not None:
        mark = _mark(is_match, mark_size)
        cell.paste(colour, (left, middle - mark_size // 2), mark)
    draw.text((left + label_width - text_width, middle), caption, font=font, fill="#333333", anchor="lm")
    return cell


def _mark(is_match: bool, size: int) -> Image.Image:
    """A check mark or a cross as a mask (L) of ``size`` by ``size`` pixels."""
    big = 8 * size  # drawn large and reduced, for smooth edges
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    strokes = (
        [[(0.1, 0.55), (0.4, 0.85), (0.9, 0.15)]]
        if is_match
        else [[(0.15, 0.15), (0.85, 0.85)], [(0.15, 0.85), (0.85, 0.15)]]
    )
    for stroke in strokes:
        draw.line([(x * big, y * big) for x, y in stroke], fill=255, width=big // 6, joint="curve")
    return mask.resize((size, size), Image.Resampling.LANCZOS)
