"""Charts of training, from the records of one run, or of several in one picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reidkit.reports.charts import BLUE, INK, LINES, MAX_POINTS, ORANGE, TEAL, Chart, add_legend, new_axes

Records = Sequence[Mapping[str, Any]]
"""Lines of a run's ``metrics.jsonl``."""


def loss_figure(records: Records) -> Chart | None:
    """The loss and its terms in the course of training; ``None`` where no loss was recorded.

    Args:
        records: lines of a run's ``metrics.jsonl`` with ``loss`` and ``loss/NAME``: those of kind ``step``,
            or those of kind ``epoch``, whichever are more.
    """
    steps = _more_of(_of_kind(records, "step"), _epochs_done(records))
    terms = sorted({key for record in steps for key in record if key.startswith("loss/")})
    x, x_label = _time(steps)
    figure, axes = new_axes(x_label, "loss")
    if len(terms) != 1:
        _curve(axes, steps, x, "loss", _Line(INK, "total", width=2))
    for term, (colour, style) in zip(terms, itertools.cycle(LINES), strict=False):
        _curve(axes, steps, x, term, _Line(colour, term.removeprefix("loss/"), style))
    if not axes.lines:
        return None
    axes.set_ylim(bottom=min(0.0, axes.dataLim.ymin))
    add_legend(axes, figure)
    return Chart("loss", figure)


def gradient_norm_figure(records: Records) -> Chart | None:
    """Length of each loss's gradient in the course of training; ``None`` where none was recorded.

    Args:
        records: lines of a run's ``metrics.jsonl``; those of kind ``gradients`` with ``norm/NAME``.
    """
    chart = _gradient_figure(records, "norm/", "length of the gradient")
    if chart is not None and max(chart.figure.axes[0].dataLim.intervaly) > 0:
        chart.figure.axes[0].set_yscale("log")
        chart.figure.axes[0].tick_params(which="minor", colors=INK, length=0)
    return chart


def gradient_cosine_figure(records: Records) -> Chart | None:
    """Cosine between the gradients of each two losses; ``None`` where none was recorded."""
    chart = _gradient_figure(records, "cosine/", "cosine of two gradients")
    if chart is not None:
        chart.figure.axes[0].set_ylim(-1, 1)
    return chart


def _gradient_figure(records: Sequence[Mapping[str, Any]], prefix: str, y_label: str) -> Chart | None:
    found = _of_kind(records, "gradients")
    x, x_label = _time(found)
    figure, axes = new_axes(x_label, y_label)
    names = sorted({key for record in found for key in record if key.startswith(prefix)})
    for name, (colour, style) in zip(names, itertools.cycle(LINES), strict=False):
        _curve(axes, found, x, name, _Line(colour, name.removeprefix(prefix).replace(",", ", "), style))
    if not axes.lines:
        return None
    add_legend(axes, figure)
    return Chart(f"gradient_{prefix.rstrip('/')}", figure)


def learning_rate_figure(records: Records) -> Chart | None:
    """The learning rate in the course of training; ``None`` where none was recorded."""
    steps = _of_kind(records, "step")
    x, x_label = _time(steps)
    figure, axes = new_axes(x_label, "learning rate")
    _curve(axes, steps, x, "lr", _Line(TEAL))
    if not axes.lines:
        return None
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return Chart("lr", figure)


def validation_figure(records: Records) -> Chart | None:
    """mAP and rank-1 on the validation images by epoch; ``None`` where no validation was recorded."""
    validations = _of_kind(records, "validation")
    figure, axes = new_axes("epoch", "validation score (%)")
    _curve(axes, validations, "epoch", "mAP", _Line(BLUE, "mAP"), scale=100)
    _curve(axes, validations, "epoch", "rank-1", _Line(ORANGE, "rank-1", "--"), scale=100)
    if not axes.lines:
        return None
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(axes, figure)
    return Chart("validation", figure)


def runs_figure(records: Mapping[str, Records], name: str) -> Chart | None:
    """The course of several runs in one picture, by the runs' names; ``None`` where fewer than two have one.

    Args:
        records: of each run.
        name: "mAP" of the validations, in percent; or "loss", the sum of all terms.
    """
    is_loss = name == "loss"
    figure, axes = new_axes("epoch", "loss" if is_loss else f"validation {name} (%)")
    for (run, lines), (colour, style) in zip(records.items(), itertools.cycle(LINES), strict=False):
        found = _sums(_epochs_done(lines)) if is_loss else _validations(lines)
        _curve(axes, found, "progress", name, _Line(colour, run, style), scale=1 if is_loss else 100)
    if len(axes.lines) < 2:
        return None
    add_legend(axes, figure)
    return Chart(f"runs_{name}", figure)


def _sums(epochs: Records) -> list[dict[str, Any]]:
    """With the sum of the terms as ``loss``."""
    return [
        {**record, "loss": sum(v for k, v in record.items() if k.startswith("loss/") and _is_number(v))}
        for record in epochs
        if any(key.startswith("loss/") for key in record)
    ]


def _validations(records: Records) -> list[Mapping[str, Any]]:
    return [
        {**record, "progress": record["epoch"]}
        for record in _of_kind(records, "validation")
        if _is_number(record.get("epoch"))
    ]


def shows_a_course(chart: Chart) -> bool:
    """Whether a chart of training has more than one point of any curve: a single dot shows nothing."""
    return any(len(np.atleast_1d(line.get_xdata())) > 1 for line in chart.figure.axes[0].lines)


def _epochs_done(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Records of epochs, whose means stand at the end of each."""
    found = [record for record in _of_kind(records, "epoch") if _is_number(record.get("epoch"))]
    return [{**record, "progress": record["epoch"] + 1} for record in found]


def _more_of(steps: list[Mapping[str, Any]], epochs: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return epochs if len(epochs) > len(steps) else steps


def _of_kind(records: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [record for record in records if record.get("kind") == kind]


def _time(steps: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The key that measures training progress, and its axis label."""
    if all("progress" in record for record in steps):
        return "progress", "epoch"  # in parts of an epoch
    return "step", "training step"


class _Line(NamedTuple):
    """How a curve is drawn; without a label it is not in the legend."""

    color: str
    label: str | None = None
    style: str = "-"
    width: float = 1.6


def _curve(
    axes: Axes,
    records: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    line: _Line,
    *,
    scale: float = 1,
) -> None:
    """Draw ``y`` of the records over ``x``; nothing where no record has both."""
    points = [(r[x], scale * r[y]) for r in records if _is_number(r.get(x)) and _is_number(r.get(y))]
    if not points:
        return
    stretches = np.array_split(sorted(points), min(len(points), MAX_POINTS))
    xs, ys = np.array([stretch.mean(axis=0) for stretch in stretches]).T
    marker = "o" if len(xs) <= 20 else ""
    axes.plot(
        xs,
        ys,
        label=line.label,
        color=line.color,
        linestyle=line.style,
        linewidth=line.width,
        marker=marker,
        markersize=3.5,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
