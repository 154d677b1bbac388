"""The chart of where a person was, and when."""

import itertools
import warnings
from types import SimpleNamespace

import pytest

from reidkit.reports.charts import own_style
from reidkit.reports.timeline_page import timeline_chart

START = 1714557600.0  # 2024-05-01 10:00 UTC
HOUR, DAY = 3600.0, 86_400.0


def chart(length):
    times = (START, START + length)
    visits = [SimpleNamespace(camera=c, start=time, end=time, items=(1,)) for c, time in enumerate(times)]
    return timeline_chart(visits)


@pytest.mark.parametrize("length", [20.0, 600.0, 5 * HOUR, 3.5 * DAY, 40 * DAY, 3 * 365 * DAY])
def test_times_stand_beside_each_other_whatever_the_stay(length):
    with own_style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = chart(length).figure
        figure.canvas.draw()
        [axes] = figure.axes
        shown = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("length", "label"),
    [(600.0, "time (UTC), 2024-05-01"), (3.5 * DAY, "time (UTC), 2024-05-01 to 2024-05-04")],
)
def test_the_axis_says_of_which_days_it_is(length, label):
    with own_style():
        assert chart(length).figure.axes[0].get_xlabel() == label
