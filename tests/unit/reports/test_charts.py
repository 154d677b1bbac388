"""Figures: well-formed SVG without fixed colours or shared ids, tolerant of what a run recorded."""

from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from reidkit.reports import charts as viz
from reidkit.reports import training_charts as training
from reidkit.reports.breakdown_charts import (
    camera_figure,
    heat_overlay,
    precision_recall_figure,
    projection_figure,
    reliability_figure,
    roc_figure,
    two_cmc_figure,
)

CMC = np.linspace(0.6, 0.9, 50)
RATES = np.linspace(0, 1, 20_001)
CAMERA_SCORES = np.array([[np.nan, 0.5], [0.25, 0.75], [0.5, np.nan]])
CAMERA_COUNTS = np.array([[0, 40], [9, 30], [20, 0]])
EDGES = np.linspace(0, 2, 11)
POSITIVE = np.array([0, 4, 8, 4, 0, 0, 0, 0, 0, 0])
NEGATIVE = np.array([0, 0, 1, 3, 9, 9, 3, 0, 0, 0])
RECORDS = [
    {"kind": "step", "step": 20, "loss": 3.0, "loss/identity": 2.5, "loss/msml": 0.5, "lr": 1e-4},
    {"kind": "step", "step": 40, "loss": 2.0, "loss/identity": 1.8, "loss/msml": 0.2, "lr": 3e-4},
    {"kind": "gradients", "step": 20, "norm/identity": 2.0, "norm/msml": 20.0, "cosine/identity,msml": -0.1},
    {"kind": "gradients", "step": 40, "norm/identity": 1.0, "norm/msml": 30.0, "cosine/identity,msml": 0.2},
    {"kind": "validation", "step": 40, "epoch": 1, "mAP": 0.3, "rank-1": 0.5},
    {"kind": "validation", "step": 80, "epoch": 2, "mAP": 0.4, "rank-1": 0.6},
]


def distance_figure() -> viz.Chart:
    return viz.distance_figure(EDGES, POSITIVE, NEGATIVE, hardest_positive=0.75, hardest_negative=0.45)


def all_charts() -> list[viz.Chart]:
    charts = [
        viz.cmc_figure(CMC),
        distance_figure(),
        training.loss_figure(RECORDS),
        training.learning_rate_figure(RECORDS),
        training.validation_figure(RECORDS),
        training.gradient_norm_figure(RECORDS),
        training.gradient_cosine_figure(RECORDS),
        precision_recall_figure(np.linspace(0, 1, 101), np.linspace(1, 0.2, 101)),
        roc_figure(RATES, np.sqrt(RATES), marked={1e-4: 0.01, 1e-2: 0.1, 1e-1: 0.316}),
        camera_figure("camera_map", [1, 2, 3], ["gate $a$", "gate $b$"], CAMERA_SCORES, CAMERA_COUNTS),
        reliability_figure(np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.5, 0.8])),
        projection_figure(np.arange(12.0).reshape(6, 2), ["$ann$", "bob", "bob", "cy", "cy", "cy"]),
        two_cmc_figure({"runs/$a$": CMC, "runs/b": CMC - 0.1}),
    ]
    return [chart for chart in charts if chart is not None]


def all_figures() -> list[str]:
    return [chart.svg() for chart in all_charts()]


def svg_of(chart: viz.Chart | None) -> str:
    assert chart is not None
    return chart.svg()


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
    assert {"60.0", "62.4", "65.5", "71.6"} <= set(texts(viz.cmc_figure(CMC).svg()))


@pytest.mark.parametrize("cmc", [[0.0], [1.0], [0.5, 1.0], [1.0] * 50])
def test_a_cmc_of_any_length_can_be_drawn(cmc: list[float]) -> None:
    assert f"{100 * cmc[0]:.1f}" in texts(viz.cmc_figure(np.array(cmc)).svg())


def test_distances_without_negative_pairs_can_be_drawn() -> None:
    svg = viz.distance_figure(
        EDGES, POSITIVE, 0 * NEGATIVE, hardest_positive=0.75, hardest_negative=np.nan
    ).svg()
    assert "NaN" not in svg
    assert "nan" not in svg


def test_each_loss_is_named_in_the_legend() -> None:
    assert {"total", "identity", "msml"} <= set(texts(svg_of(training.loss_figure(RECORDS))))


@pytest.mark.parametrize(
    "names",
    [
        ["a", "global", "WWWWWW", "mmmmmm", "local"],
        [f"loss_{number}" for number in range(9)],
        [f"{100_000 + number}" for number in range(12)],
        ["identity_global1", "MMMMMMMMMMMMMMMM"],
        ["W" * 60, "a_name_that_goes_on_and_on_and_on_and_on"],
        ["身分損失大域局部" * 5, "日本語"],
    ],
)
def test_a_legend_is_neither_cut_nor_over_the_axes(names: list[str]) -> None:
    records = [{"kind": "step", "step": step, **{f"loss/{name}": step for name in names}} for step in (1, 2)]
    chart = training.loss_figure(records)
    assert chart is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        chart.figure.draw_without_rendering()
        [legend], [axes] = chart.figure.legends, chart.figure.axes
        place = legend.get_window_extent()
    assert len(legend.get_texts()) == len(names)
    assert place.x0 >= 0
    assert place.x1 <= chart.figure.bbox.x1
    assert place.y0 >= axes.get_window_extent().y1
    assert axes.get_window_extent().width > 0.7 * chart.figure.bbox.width


def test_a_single_loss_is_not_drawn_twice() -> None:
    records = [{"kind": "step", "step": 1, "loss": 1.0, "loss/msml": 1.0}]
    assert "msml" in texts(svg_of(training.loss_figure(records)))
    assert "total" not in texts(svg_of(training.loss_figure(records)))


def test_names_are_text_not_markup_nor_formulas() -> None:
    svg = svg_of(training.loss_figure([{"kind": "step", "step": 1, "loss/<b>$x^2$": 1.0}]))
    assert "<b>$x^2$" in texts(svg)
    assert "<b>" not in svg


def test_progress_in_epochs_is_preferred_to_steps() -> None:
    with_progress = [{**record, "progress": 0.5} for record in RECORDS]
    assert "epoch" in texts(svg_of(training.loss_figure(with_progress)))
    assert "training step" in texts(svg_of(training.loss_figure(RECORDS)))


@pytest.mark.parametrize(
    "figure",
    [training.loss_figure, training.learning_rate_figure, training.validation_figure],
)
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
    assert figure(records) is None


def test_records_without_a_value_are_passed_over() -> None:
    gaps = [*RECORDS, {"kind": "step", "step": 50}, {"kind": "step", "step": 60, "lr": float("inf")}]
    assert svg_of(training.learning_rate_figure(gaps)) == svg_of(training.learning_rate_figure(RECORDS))


def test_a_long_run_is_drawn_as_means_of_stretches() -> None:
    records = [{"kind": "step", "step": step, "lr": float(step % 2)} for step in range(10_000)]
    svg = svg_of(training.learning_rate_figure(records))
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


def test_a_camera_map_writes_the_scores_that_there_are() -> None:
    written = texts(
        camera_figure("m", [1, 2, 3], ["gate $a$", "gate $b$"], CAMERA_SCORES, CAMERA_COUNTS).svg()
    )
    assert [text for text in written if text.isdigit()][-4:] == ["50", "25", "75", "50"]
    assert {"gate $a$", "gate $b$", "1", "2", "3"} <= set(written)


def test_a_camera_map_writes_its_counts_and_does_not_colour_the_smallest() -> None:
    chart = camera_figure("m", [1, 2, 3], ["a", "b"], CAMERA_SCORES, CAMERA_COUNTS)
    assert {"n = 40", "n = 9", "n = 30", "n = 20"} <= set(texts(chart.svg()))
    tints = [patch.get_alpha() for patch in chart.figure.axes[0].patches]
    assert [tint == 0 for tint in tints] == [False, True, False, False]


@pytest.mark.parametrize("num_cameras", [2, 6, 8])
@pytest.mark.parametrize("count", [1, 1234])
def test_counts_fit_into_their_fields(num_cameras: int, count: int) -> None:
    scores = np.full((num_cameras, num_cameras), 0.5)
    names = range(num_cameras)
    figure = camera_figure("m", names, names, scores, np.full(scores.shape, count)).figure
    figure.draw_without_rendering()
    [axes] = figure.axes
    field = axes.patches[0].get_window_extent().width
    counts = [text for text in axes.texts if text.get_text().startswith("n = ")]
    assert len(counts) == num_cameras**2
    assert all(text.get_window_extent().width < field for text in counts)


def test_losses_of_epochs_are_drawn_where_these_are_more_than_the_steps() -> None:
    epochs = [{"kind": "epoch", "epoch": epoch, "loss/msml": 1 / (1 + epoch)} for epoch in range(4)]
    few_steps = [{"kind": "step", "step": 20, "progress": 3.5, "loss/msml": 0.3}]
    chart = training.loss_figure([*few_steps, *epochs])
    assert chart is not None
    assert chart.figure.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3, 4]


def test_two_runs_are_drawn_in_one_picture() -> None:
    def run(scale: float) -> list[dict[str, object]]:
        epochs = [{"kind": "epoch", "epoch": n, "loss/a": scale, "loss/b": 1.0} for n in range(3)]
        return [*epochs, {"kind": "validation", "epoch": 3, "mAP": 0.5 * scale}]

    losses = training.runs_figure({"one": run(1.0), "other": run(2.0)}, "loss")
    assert losses is not None
    assert [line.get_ydata().tolist() for line in losses.figure.axes[0].lines] == [[2.0] * 3, [3.0] * 3]
    assert {"one", "other"} <= set(texts(losses.svg()))
    validations = training.runs_figure({"one": run(1.0), "other": run(2.0)}, "mAP")
    assert validations is not None
    assert not training.shows_a_course(validations)
    assert training.runs_figure({"one": run(1.0), "other": []}, "loss") is None


def test_a_single_dot_is_no_course() -> None:
    chart = training.loss_figure([{"kind": "epoch", "epoch": 0, "loss/msml": 1.0}])
    assert chart is not None
    assert not training.shows_a_course(chart)


def test_many_cameras_are_drawn_without_numbers() -> None:
    scores = np.full((20, 20), 0.5)
    assert (
        texts(camera_figure("m", range(20), range(20), scores, np.full((20, 20), 50)).svg()).count("50") == 0
    )


def test_a_roc_is_read_at_its_steps() -> None:
    """Rates (0, 0.3, 1): below 0.3 the curve is as high as at 0, above as at 0.3."""
    chart = roc_figure(np.array([0, 0.3, 1]), np.array([0.2, 0.9, 1]), marked={1e-2: 0.2})
    x, y = chart.figure.axes[0].lines[0].get_data()
    np.testing.assert_allclose(y[x < 30], 20)
    np.testing.assert_allclose(y[(x >= 30) & (x < 99.9)], 90)
    assert y[-1] == 100


def test_charts_are_pictures_on_white_too() -> None:
    for chart in (viz.cmc_figure(CMC), two_cmc_figure({"a": CMC, "b": CMC})):
        picture = Image.open(io.BytesIO(chart.png()))
        assert picture.format == "PNG"
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
        assert "#ffffff" not in chart.svg()


def test_an_overlay_is_grey_where_nothing_is_and_bright_where_most_is() -> None:
    photo = Image.new("RGB", (40, 80), (200, 20, 20))
    heat = np.zeros((8, 4), np.float32)
    heat[4:] = 1
    overlay = heat_overlay(photo, heat)
    assert overlay.size == photo.size
    red, green, blue = overlay.getpixel((20, 5))
    assert red == green == blue
    red, green, blue = overlay.getpixel((20, 75))
    assert min(red, green) > 150
    assert red + green + blue > 3 * 150


def test_gradients_of_losses_are_drawn_where_they_were_recorded():
    assert {"identity", "msml"} <= set(texts(svg_of(training.gradient_norm_figure(RECORDS))))
    assert "identity, msml" in texts(svg_of(training.gradient_cosine_figure(RECORDS)))
    assert training.gradient_norm_figure(RECORDS[:2]) is None
    nothing = [{"kind": "gradients", "step": 1, "norm/identity": 0.0}]
    assert svg_of(training.gradient_norm_figure(nothing))
