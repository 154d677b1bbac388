"""Two runs on one page: differences, what changed most, and refusal of what cannot be compared."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.analysis.bootstrap import paired_difference
from reidkit.errors import DataError
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.reports.comparison import ComparedRun, write_comparison
from reidkit.types import Features, Sample

IDENTITIES = np.arange(20)


def run(name: str, *, noise: float, seed: int = 0) -> ComparedRun:
    """Twenty people, seen once by each of two cameras."""
    people = np.random.default_rng(0).normal(size=(20, 8))
    rng = np.random.default_rng(seed)
    query, gallery = (
        Features(people + noise * rng.normal(size=people.shape), IDENTITIES, np.full(20, camera))
        for camera in (1, 2)
    )
    return ComparedRun(name, evaluate_features(query, gallery), query, gallery)


def page_of(tmp_path: Path, first: ComparedRun, second: ComparedRun) -> str:
    return write_comparison(tmp_path / "comparison.html", first, second).read_text("utf-8")


def test_differences_come_with_paired_intervals(tmp_path: Path) -> None:
    first, second = run("weak", noise=1.2), run("strong", noise=0.6, seed=1)
    page = page_of(tmp_path, first, second)
    paired = paired_difference(
        first.evaluation.average_precisions,
        second.evaluation.average_precisions,
        identities=first.query.identities,
    )
    assert f"<strong>{100 * paired.difference:+.1f}</strong>" in page
    low, high = paired.interval
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in page
    assert f'<td class="number">{paired.p_value:.3f}</td>' in page
    assert re.findall(r'<th scope="row">([^<]*)<', page) == ["mAP", "rank-1", "rank-5", "rank-10", "mINP"]
    changes = second.evaluation.average_precisions - first.evaluation.average_precisions
    assert f"for {(changes > 0).sum()} queries, the lower for\n  {(changes < 0).sum()}" in page
    assert page.count("<svg") == 3


def test_the_queries_that_changed_most_come_first(tmp_path: Path) -> None:
    first, second = run("weak", noise=1.2), run("strong", noise=0.6, seed=1)
    page = page_of(tmp_path, first, second)
    changes = second.evaluation.average_precisions - first.evaluation.average_precisions
    shown = [float(text) for text in re.findall(r"\(([+-]\d+\.\d)\)</strong>", page)]
    fell = [round(100 * c, 1) for c in sorted(changes[changes < 0])[:6]]
    rose = [round(100 * c, 1) for c in sorted(changes[changes > 0])[::-1][:6]]
    assert rose
    assert shown == pytest.approx(fell + rose, abs=0.051)
    assert page.count('class="strip"') == 2 * len(shown)
    assert "<img" not in page


def test_images_are_shown_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "person.png"
    Image.new("RGB", (16, 32), "teal").save(path)
    split = tuple(Sample(path, int(i), 1, int(i)) for i in IDENTITIES)
    first, second = (
        replace(r, query_split=split, gallery_split=split)
        for r in (run("a", noise=1.2), run("b", noise=0.6, seed=1))
    )
    page = page_of(tmp_path, first, second)
    assert page.count("<img") == 11 * page.count('class="strip"')
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    one = run("same", noise=1.0)
    page = page_of(tmp_path, one, one)
    assert "same (2) against same (1)" in page
    assert page.count("None.") == 2
    assert "<strong>+0.0</strong>" in page


def test_ids_are_unique_and_names_escaped(tmp_path: Path) -> None:
    page = page_of(tmp_path, run("<b>$a$</b>", noise=1.2), run("b", noise=1.0))
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert "<b>" not in page
    assert "&lt;b&gt;$a$&lt;/b&gt;" in page


@pytest.mark.parametrize(
    ("notes", "titles"), [((), []), (("one",), ["Notes on both"]), (("other",), ["Notes on a", "Notes on b"])]
)
def test_what_is_to_be_noted_of_both_stands_once(
    tmp_path: Path, notes: tuple[str, ...], titles: list[str]
) -> None:
    told = ("one",) if notes else ()
    first, second = run("a", noise=1.2), run("b", noise=0.6, seed=1)
    first = replace(first, evaluation=replace(first.evaluation, notes=told))
    second = replace(second, evaluation=replace(second.evaluation, notes=notes))
    assert re.findall(r"<h3>(Notes on .*?)</h3>", page_of(tmp_path, first, second)) == titles


def test_another_protocol_is_said(tmp_path: Path) -> None:
    first = run("step", noise=1.0)
    trapezoid = evaluate_features(first.query, first.gallery, average_precision="trapezoid")
    second = replace(first, name="trapezoid", evaluation=trapezoid)
    assert "not scored in the same way" in page_of(tmp_path, first, second)
    assert "not scored in the same way" not in page_of(tmp_path, first, first)


def test_every_item_may_query_all_others(tmp_path: Path) -> None:
    one = run("a", noise=1.0)
    both = Features(
        np.concatenate([one.query.embeddings, one.gallery.embeddings]), np.concatenate([IDENTITIES] * 2)
    )
    alone = ComparedRun("a", evaluate_features(both, camera_filter="none"), both, None, camera_filter="none")
    assert "<strong>+0.0</strong>" in page_of(tmp_path, alone, alone)


def test_lists_show_a_query_s_own_gallery(tmp_path: Path) -> None:
    sides = []
    for one in (run("weak", noise=1.2), run("strong", noise=0.6, seed=1)):
        own = [(row, (row + 1) % 20, (row + 2) % 20) for row in range(20)]
        evaluation = evaluate_features(one.query, one.gallery, galleries=own)
        sides.append(replace(one, evaluation=evaluation, galleries=own))
    page = page_of(tmp_path, *sides)
    strips = page.split('class="strip"')[1:]
    assert strips
    assert {strip.split("</article>")[0].count('class="cell ') for strip in strips} == {4}
    assert "another order than the one shown here" not in page


def test_runs_on_other_images_are_refused(tmp_path: Path) -> None:
    first = run("first", noise=1.0)
    fewer = Features(first.query.embeddings[:9], IDENTITIES[:9], first.query.cameras[:9])
    second = ComparedRun("second", evaluate_features(fewer, first.gallery), fewer, first.gallery)
    with pytest.raises(DataError, match="first has 20 query items, second 9"):
        write_comparison(tmp_path / "page.html", first, second)
    shuffled = Features(first.gallery.embeddings, IDENTITIES[::-1], first.gallery.cameras)
    second = ComparedRun("second", evaluate_features(first.query, shuffled), first.query, shuffled)
    with pytest.raises(DataError, match="gallery row 0 is identity 0 in first and 19 in second"):
        write_comparison(tmp_path / "page.html", first, second)
    with pytest.raises(DataError, match="query_split has 1 items"):
        write_comparison(
            tmp_path / "page.html", replace(first, query_split=(Sample(Path("a"), 0, 0, 0),)), first
        )
    assert not (tmp_path / "page.html").exists()
