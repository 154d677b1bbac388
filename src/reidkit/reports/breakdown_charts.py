"""Charts that break metrics down or compare two runs, and maps laid over photos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from reidkit.reports.charts import (
    BLUE,
    GREY,
    INK,
    LINES,
    MAX_POINTS,
    ORANGE,
    PURPLE,
    TEAL,
    Chart,
    add_legend,
    new_axes,
)
from reidkit.texts.printable import printable

FEW_QUERIES = 10
"""A field of fewer says little, and gets no colour."""

_MOST_CAMERAS_WITH_NUMBERS = 8
_ROW_WIDTH = 380  # of all fields of a row, in characters of one point
_LEAST_TINT, _MOST_TINT = 0.06, 0.55  # text in the page's colour stays readable on both, in both themes


def precision_recall_figure(recalls: NDArray[np.float64], precisions: NDArray[np.float64]) -> Chart:
    """Precision (percent) over recall (percent), both (L,) fractions."""
    figure, axes = new_axes("right photos found (%)", "of those seen, right (%)")
    axes.plot(100 * recalls, 100 * precisions, color=BLUE, linewidth=2)
    axes.set_xlim(-1, 101)
    axes.set_ylim(0, 103)
    return Chart("precision_recall", figure)


def roc_figure(
    false_positive_rates: NDArray[np.float64],
    true_positive_rates: NDArray[np.float64],
    *,
    marked: Mapping[float, float],
) -> Chart:
    """Share of pairs of one person accepted over the share of pairs of two, the latter on a log axis.

    Args:
        false_positive_rates: (T,), ascending.
        true_positive_rates: (T,).
        marked: true positive rate by false positive rate, drawn as dots with their percentage.
    """
    figure, axes = new_axes("different people accepted (%)", "same person accepted (%)")
    least = 10.0 ** np.floor(np.log10(min(marked, default=0.1)))
    wanted = np.geomspace(least, 1, MAX_POINTS)
    # The curve is a staircase: at a rate it is as high as the last step before it.
    step = np.searchsorted(false_positive_rates, wanted, side="right") - 1
    axes.plot(100 * wanted, 100 * true_positive_rates[step], color=BLUE, linewidth=2)
    for rate, share in marked.items():
        axes.plot(100 * rate, 100 * share, "o", color=BLUE, markersize=5)
        axes.annotate(
            f"{100 * share:.1f}",
            (100 * rate, 100 * share),
            xytext=(5, -12),
            textcoords="offset points",
            color=INK,
        )
    axes.set_xscale("log")
    axes.set_xticks([100 * rate for rate in marked] + [100], [f"{100 * rate:g}" for rate in marked] + ["100"])
    axes.minorticks_off()
    axes.set_ylim(-6, 103)
    return Chart("roc", figure)


def camera_figure(
    name: str,
    query_cameras: Iterable[Any],
    gallery_cameras: Iterable[Any],
    fractions: NDArray[np.float64],
    num_queries: NDArray[np.integer[Any]],
) -> Chart:
    """Heat map of metrics (A, B), NaN left empty, by query camera (rows) and gallery camera (columns).

    ``num_queries`` (A, B) stand below the metrics; fields of fewer than :data:`FEW_QUERIES` have no colour.
    """
    figure, axes = new_axes("gallery camera", "query camera")
    num_rows, num_columns = fractions.shape
    figure.set_figheight(min(4.8, 1.2 + 0.42 * num_rows))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    many = np.isfinite(fractions) & (num_queries >= FEW_QUERIES)
    low, high = (fractions[many].min(), fractions[many].max()) if many.any() else (0.0, 1.0)
    for row, column in zip(*np.nonzero(np.isfinite(fractions)), strict=True):
        value = fractions[row, column]
        share = (value - low) / (high - low) if high > low else 0.5
        tint = _LEAST_TINT + (_MOST_TINT - _LEAST_TINT) * share if many[row, column] else 0.0
        axes.add_patch(
            Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, color=BLUE, alpha=tint, linewidth=0)
        )
        if max(fractions.shape) <= _MOST_CAMERAS_WITH_NUMBERS:
            texts = f"{100 * value:.0f}", f"n = {num_queries[row, column]:,}"
            fitting = _ROW_WIDTH / (num_columns * len(texts[1]))
            for text, height, size in zip(texts, (-0.12, 0.27), (9, min(8, fitting)), strict=True):
                axes.text(column, row + height, text, color=INK, ha="center", va="center", fontsize=size)
    axes.set_xlim(-0.5, num_columns - 0.5)
    axes.set_ylim(num_rows - 0.5, -0.5)
    font_size = 10 if max(fractions.shape) <= _MOST_CAMERAS_WITH_NUMBERS else 6
    axes.set_xticks(range(num_columns), list(map(printable, gallery_cameras)), fontsize=font_size)
    axes.set_yticks(range(num_rows), list(map(printable, query_cameras)), fontsize=font_size)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    return Chart(name, figure)


def reliability_figure(
    predicted: NDArray[np.float64], observed: NDArray[np.float64], *, name: str = "reliability"
) -> Chart:
    """Share of pairs that do show one person over the probability given for it, both (B,) fractions."""
    figure, axes = new_axes("probability given (%)", "same person indeed (%)")
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle="--", label="perfect")
    axes.plot(
        100 * predicted, 100 * observed, "-o", color=BLUE, linewidth=2, markersize=5, label="this model"
    )
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    add_legend(axes, figure)
    return Chart(name, figure)


def projection_figure(points: NDArray[np.float64], names: Sequence[str]) -> Chart:
    """Points (N, 2), each with the mark and the colour of its name (N)."""
    figure, axes = new_axes("", "")
    figure.set_figheight(3.4)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    labels = np.array(names)
    looks = [(colour, mark) for mark in "os^Dv" for colour in (BLUE, ORANGE, TEAL, PURPLE)]
    for number, name in enumerate(dict.fromkeys(names)):
        x, y = points[labels == name].T
        colour, mark = looks[number % len(looks)]
        axes.plot(x, y, mark, color=colour, markersize=4, markeredgewidth=0, alpha=0.85, label=name)
    add_legend(axes, figure)
    return Chart("projection", figure)


def two_cmc_figure(cmcs: Mapping[str, NDArray[np.float64]]) -> Chart:
    """Share of queries (percent) with a right image within rank k, a curve for each named run."""
    figure, axes = new_axes("rank k", "queries (%)")
    for (name, cmc), (colour, _), style in zip(cmcs.items(), LINES, ("-", "--"), strict=False):
        axes.plot(
            np.arange(1, len(cmc) + 1), 100 * cmc, color=colour, linestyle=style, linewidth=2, label=name
        )
    least = 100 * min(float(cmc.min()) for cmc in cmcs.values())
    axes.set_ylim(max(10 * np.floor((least - 8) / 10), 0), 101)
    add_legend(axes, figure)
    return Chart("two_cmc", figure)


def heat_overlay(photo: Image.Image, heat: NDArray[np.floating[Any]]) -> Image.Image:
    """The photo in grey with a map (H, W) in [0, 1] over it: the brighter, the higher."""
    grey = np.asarray(photo.convert("L").convert("RGB"), dtype=np.float64)
    resized = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize(
        photo.size, Image.Resampling.BILINEAR
    )
    weight = np.clip(np.asarray(resized, dtype=np.float64), 0, 1)
    colours = 255 * matplotlib.colormaps["inferno"](weight)[..., :3]
    cover = 0.75 * weight[..., None]
    return Image.fromarray(np.rint((1 - cover) * grey + cover * colours).astype(np.uint8))
