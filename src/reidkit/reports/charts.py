"""Charts of scores, as inline SVG or PNG, and pictures of ranked lists.

The SVG strings go into an HTML page: transparent, as wide as their container, with text and axes in
``currentColor`` and in the page's font, so that they follow light and dark themes; their ids carry the
chart's name, so that charts of one page do not collide. A PNG stands on white.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from reidkit.texts.printable import printable

INK = "#0a0b0c"
"""Stands for the page's text colour while a figure is drawn; the finished SVG says currentColor."""

# Readable on white and on near-black alike (contrast of 3 and more), and for colour-blind readers.
BLUE, ORANGE, TEAL, PURPLE, GREY = "#3b82d6", "#d9730d", "#16977f", "#a165c9", "#7d8590"
LINES = [(colour, style) for style in ("-", "--", ":") for colour in (BLUE, ORANGE, TEAL, PURPLE)]

RIGHT, WRONG = "#1a8f4c", "#d13b3b"

MAX_POINTS = 200
"""A curve of more points is drawn as the means of this many stretches."""

_QUIET_SVG = {"Creator": None, "Date": None, "Format": None, "Type": None}
_QUIET_PNG = {"Software": None}
_DOTS_PER_INCH = 200
_CHART_WIDTH, _FONT_SIZE = 302, 10  # points
_LEGEND_KEY, _LEGEND_GAP = 2.4, 1.2  # font sizes: a curve's sign with its space; between columns


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """A drawn figure; ``name`` marks its ids and names its file."""

    name: str
    figure: Figure

    def svg(self) -> str:
        """An ``<svg>`` element for an HTML page."""
        return _svg(self.figure, self.name)

    def png(self) -> bytes:
        """A PNG file, on white."""
        buffer = io.BytesIO()
        self.figure.patch.set_visible(True)
        with _any_script():
            self.figure.savefig(
                buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata=_QUIET_PNG
            )
        self.figure.patch.set_visible(False)
        return buffer.getvalue()


def cmc_figure(cmc: NDArray[np.float64]) -> Chart:
    """Share of queries (percent) whose first right image is within rank k, for every k.

    Args:
        cmc: (max_rank,), fractions; index 0 is rank 1.
    """
    percent = 100 * np.asarray(cmc, dtype=np.float64)
    ranks = np.arange(1, len(percent) + 1)
    figure, axes = new_axes("rank k", "queries (%)")
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
    lowest = 10 * math.floor((percent.min() - 8) / 10)
    axes.set_ylim(max(lowest, 0), 101)
    axes.set_xticks([1, *range(10, len(percent) + 1, 10)] if len(percent) >= 10 else ranks)
    return Chart("cmc", figure)


def distance_figure(
    edges: NDArray[np.float64],
    positive: NDArray[np.int64],
    negative: NDArray[np.int64],
    *,
    hardest_positive: float,
    hardest_negative: float,
    name: str = "distances",
    limits: tuple[float, float] | None = None,
) -> Chart:
    """Distances of positive pairs (one person) and negative pairs (two people).

    Args:
        edges: (bins + 1,), limits of the bins in distance.
        positive: (bins,), pairs of one person in each bin; each class is drawn as a share of itself.
        negative: (bins,), pairs of two people.
        hardest_positive: greatest distance of a pair of one person.
        hardest_negative: least distance of a pair of two people.
        name: of the chart.
        limits: least and greatest distance shown; those that occur if left out.
    """
    figure, axes = new_axes("distance", "share of pairs (%)")
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
    limits = limits or occupied_range(edges, positive + negative)
    if limits is not None:
        left, right = limits
        axes.set_xlim(left - 0.03 * (right - left), right + 0.03 * (right - left))
    axes.set_ylim(bottom=0)
    add_legend(axes, figure)
    return Chart(name, figure)


def occupied_range(edges: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float] | None:
    """Lower edge of the first bin that is not empty, upper edge of the last; ``None`` where all are."""
    occupied = np.flatnonzero(counts)
    return (float(edges[occupied[0]]), float(edges[occupied[-1] + 1])) if len(occupied) else None


def ranked_list_picture(
    lists: Sequence[tuple[Image.Image, Sequence[tuple[Image.Image, float, bool | None]]]],
    *,
    height: int = 192,
) -> Image.Image:
    """Queries one below the other, each with its hits from left to right; right and wrong marked.

    Args:
        lists: (query image, hits); a hit is (image, score, whether it shows the query's person), with
            ``None`` where that is not known.
        height: of each image in the picture, in pixels.
    """
    strips = [_strip(query, hits, height) for query, hits in lists]
    size = max(strip.width for strip in strips), sum(strip.height for strip in strips)
    picture = Image.new("RGB", size, "white")
    top = 0
    for strip in strips:
        picture.paste(strip, (0, top))
        top += strip.height
    return picture


@contextmanager
def own_style() -> Iterator[None]:
    """Draw by matplotlib's defaults while inside.

    matplotlib obeys a ``matplotlibrc`` in the current folder, whoever put it there; one can have LaTeX
    started for every text.
    """
    with matplotlib.style.context("default"):
        yield


def new_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A figure of one pair of axes, drawn in the ink that becomes currentColor."""
    # 302 points wide: 10-point text stays readable where the page is as narrow as a telephone.
    figure = Figure(figsize=(4.2, 2.8), layout="constrained")
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


def add_legend(axes: Axes, figure: Figure) -> None:
    """Names of the curves above the axes, where they hide nothing; the figure grows to hold them."""
    handles, names = axes.get_legend_handles_labels()
    room = _CHART_WIDTH / _FONT_SIZE - 1.5  # in font sizes, without the margins
    names = [_shortened(printable(name), room - _LEGEND_KEY) for name in names]
    column = max(map(_width, names)) + _LEGEND_KEY
    num_columns = int((room + _LEGEND_GAP) // (column + _LEGEND_GAP))
    figure.set_figheight(figure.get_figheight() + 0.2 * ((len(names) - 1) // num_columns))
    legend = figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=num_columns,
        frameon=False,
        labelcolor=INK,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=_LEGEND_GAP,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a loss named "a$b$" is no formula


def _shortened(name: str, room: float) -> str:
    """A name that fits into a chart: the middle of a long one is left out."""
    kept = len(name) // 2
    shown = name
    while _width(shown) > room:
        kept -= 1
        shown = f"{name[:kept]}…{name[-kept:]}"
    return shown


def _width(text: str) -> float:
    """Of a text at most, in font sizes: a page shows it in a font of the reader's."""
    return sum(
        1.1 if unicodedata.east_asian_width(c) in "WF" or c in "MWmw@%…" else 0.8 if c.isupper() else 0.65
        for c in text
    )


@contextmanager
def _any_script() -> Iterator[None]:
    """Names may be of scripts that matplotlib's font lacks: pages show them in the reader's fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element for an HTML page."""
    buffer = io.StringIO()
    # Text stays text; ids follow from the content, so that equal figures are equal strings.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reidkit"}), _any_script():
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


def _strip(
    query: Image.Image, hits: Sequence[tuple[Image.Image, float, bool | None]], height: int
) -> Image.Image:
    """One query and its hits, side by side."""
    gap = height // 14
    cells = [_cell(query, "query", None, "#333333", height)]
    for image, score, is_match in hits:
        colour = GREY if is_match is None else RIGHT if is_match else WRONG
        cells.append(_cell(image, f"{score:.2f}", is_match, colour, height))
    lefts = [gap]
    for number, cell in enumerate(cells):
        lefts.append(lefts[-1] + cell.width + gap * (3 if number == 0 else 1))
    strip = Image.new("RGB", (lefts[-1], cells[0].height + 2 * gap), "white")
    for left, cell in zip(lefts, cells, strict=False):
        strip.paste(cell, (left, gap))
    return strip


def _cell(image: Image.Image, caption: str, is_match: bool | None, colour: str, height: int) -> Image.Image:
    """An image in a frame with its caption, and before the caption a check mark or a cross."""
    frame, line = max(2, height // 48), max(12, height // 6)
    image = image.convert("RGB").resize((max(1, round(image.width * height / image.height)), height))
    caption = printable(caption)
    font = ImageFont.load_default(size=round(line * 0.6))
    mark_size = 0 if is_match is None else round(line * 0.6)
    indent = mark_size + frame if mark_size else 0
    label_width = indent + math.ceil(font.getlength(caption))
    width = max(image.width + 2 * frame, label_width)
    cell = Image.new("RGB", (width, height + 2 * frame + line), "white")
    left = (width - image.width) // 2
    cell.paste(colour, (left - frame, 0, left + image.width + frame, height + 2 * frame))
    cell.paste(image, (left, frame))
    left, middle = (width - label_width) // 2, height + 2 * frame + line // 2
    if is_match is not None:
        cell.paste(colour, (left, middle - mark_size // 2), _mark(is_match, mark_size))
    ImageDraw.Draw(cell).text((left + indent, middle), caption, font=font, fill="#333333", anchor="lm")
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
