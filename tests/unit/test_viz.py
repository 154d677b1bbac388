"""Figures: well-formed SVG without fixed colours or shared ids, tolerant of what a run recorded."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from reidkit import viz

CMC = np.linspace(0.6, 0.9, 50)
EDGES = np.linspace(0, 2, 11)
POSITIVE = np.array([0, 4, 8, 4, 0, 0, 0, 0, 0, 0])
NEGATIVE = np.array([0, 0, 1, 3, 9, 9, 3, 0, 0, 0])
RECORDS = [
    {"kind": "step", "step": 20, "loss": 3.0, "loss/identity": 2.5, "loss/msml": 0.5, "lr": 1e-4},
    {"kind": "step", "step": 40, "loss": 2.0, "loss/identity": 1.8, "loss/msml": 0.2, "lr": 3e-4},
    {"kind": "validation", "step": 40, "epoch": 1, "mAP": 0.3, "rank-1": 0.5},
    {"kind": "validation", "step": 80, "epoch": 2, "mAP": 0.4, "rank-1": 0.6},
]


def distance_figure() -> str:
    return viz.distance_figure(EDGES, POSITIVE, NEGATIVE, hardest_positive=0.75, hardest_negative=0.45)


def all_figures() -> list[str]:
    return [
        viz.cmc_figure(CMC),
        distance_figure(),
        viz.loss_figure(RECORDS),
        viz.learning_rate_figure(RECORDS),
        viz.validation_figure(RECORDS),
    ]


def texts(svg: str) -> list[str]:
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")
    ]


def curve_length(svg: str, colour: str) -> int:
    """Number of points of the longest path drawn in a colour."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {colour}', svg)
    return max(len(re.findall("[ML]", path)) for path in paths)


@pytest.mark.parametrize("svg", all_figures())
def test_a_figure_follows_the_theme_and_the_width_of_its_page(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)
    assert "currentColor" in svg
    assert viz.INK not in svg
    assert "<style" not in svg  # it would hold for the whole page
    assert not re.search(r"#(000000|ffffff)", svg)
    assert "DejaVu" not in svg


def test_no_two_figures_share_an_id_and_every_reference_is_met() -> None:
    seen: set[str] = set()
    for svg in all_figures():
        ids = re.findall(r'\bid="([^"]*)"', svg)
        assert len(set(ids)) == len(ids)
        assert not seen & set(ids)
        references = re.findall(r"url\(#([^)]*)\)", svg) + re.findall(r'href="#([^"]*)"', svg)
        assert references
        assert set(references) <= set(ids)
        seen |= set(ids)


def test_figures_are_deterministic_and_leave_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    assert all_figures() == all_figures()
    assert dict(matplotlib.rcParams) == before


def test_the_cmc_is_labelled_in_percent() -> None:
    assert {"60.0", "62.4", "65.5", "71.6"} <= set(texts(viz.cmc_figure(CMC)))


@pytest.mark.parametrize("cmc", [[0.0], [1.0], [0.5, 1.0], [1.0] * 50])
def test_a_cmc_of_any_length_can_be_drawn(cmc: list[float]) -> None:
    assert f"{100 * cmc[0]:.1f}" in texts(viz.cmc_figure(np.array(cmc)))


def test_distances_without_negative_pairs_can_be_drawn() -> None:
    svg = viz.distance_figure(EDGES, POSITIVE, 0 * NEGATIVE, hardest_positive=0.75, hardest_negative=np.nan)
    assert "NaN" not in svg
    assert "nan" not in svg


def test_each_loss_is_named_in_the_legend() -> None:
    assert {"total", "identity", "msml"} <= set(texts(viz.loss_figure(RECORDS)))


def test_a_single_loss_is_not_drawn_twice() -> None:
    records = [{"kind": "step", "step": 1, "loss": 1.0, "loss/msml": 1.0}]
    assert "msml" in texts(viz.loss_figure(records))
    assert "total" not in texts(viz.loss_figure(records))


def test_names_are_text_not_markup_nor_formulas() -> None:
    svg = viz.loss_figure([{"kind": "step", "step": 1, "loss/<b>$x^2$": 1.0}])
    assert "<b>$x^2$" in texts(svg)
    assert "<b>" not in svg


def test_progress_in_epochs_is_preferred_to_steps() -> None:
    with_progress = [{**record, "progress": 0.5} for record in RECORDS]
    assert "epoch" in texts(viz.loss_figure(with_progress))
    assert "training step" in texts(viz.loss_figure(RECORDS))


@pytest.mark.parametrize("figure", [viz.loss_figure, viz.learning_rate_figure, viz.validation_figure])
@pytest.mark.parametrize(
    "records",
    [
        [],
        [{}],
        [{"kind": "epoch", "loss/msml": 1.0, "step": 3}],
        [{"kind": "step"}, {"kind": "validation"}],
        [{"kind": "step", "step": 1, "loss": float("nan"), "lr": None}],
        [{"kind": "validation", "epoch": 1, "mAP": None, "rank-1": "high"}],
    ],
)
def test_nothing_to_draw_gives_no_figure(figure, records) -> None:  # type: ignore[no-untyped-def]
    assert figure(records) == ""


def test_records_without_a_value_are_passed_over() -> None:
    gaps = [*RECORDS, {"kind": "step", "step": 50}, {"kind": "step", "step": 60, "lr": float("inf")}]
    assert viz.learning_rate_figure(gaps) == viz.learning_rate_figure(RECORDS)


def test_a_long_run_is_drawn_as_means_of_stretches() -> None:
    records = [{"kind": "step", "step": step, "lr": float(step % 2)} for step in range(10_000)]
    svg = viz.learning_rate_figure(records)
    # Zeros and ones average to one half, and a straight line is all that is left to draw.
    assert curve_length(svg, viz.TEAL) <= viz.MAX_POINTS
    assert len(svg) < 40_000


def test_a_ranked_list_picture_marks_right_wrong_and_unknown() -> None:
    grey = Image.new("RGB", (50, 100), "#808080")
    hits = [(grey, 0.9, True), (grey, 0.5, False), (grey, 0.4, None)]
    picture = viz.ranked_list_picture([(grey, hits)], height=96)
    colours = {colour for _, colour in picture.getcolors(maxcolors=100_000) or []}
    for name in (viz.RIGHT, viz.WRONG, viz.GREY):
        assert tuple(bytes.fromhex(name[1:])) in colours
    below_the_images = picture.crop((0, 106, picture.width, picture.height))
    reds = [(r, g, b) for _, (r, g, b) in below_the_images.getcolors(100_000) or [] if r > 180 and g < 100]
    assert reds, "the cross of the wrong hit is missing"


def test_pictures_of_several_queries_stand_below_each_other() -> None:
    tall, wide = Image.new("L", (30, 90)), Image.new("RGBA", (200, 50))
    one = viz.ranked_list_picture([(tall, [(wide, 0.1, True)])])
    two = viz.ranked_list_picture([(tall, [(wide, 0.1, True)]), (tall, [])])
    assert two.size == (one.width, 2 * one.height)
    assert list(two.crop((0, 0, *one.size)).tobytes()) == list(one.tobytes())
