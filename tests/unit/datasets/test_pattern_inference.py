"""Patterns made out of names: what is an identity and what a camera, and when that cannot be told."""

from __future__ import annotations

from itertools import product

import pytest

from reidkit.datasets._pattern_guess import guess_pattern
from reidkit.datasets._pattern_inference import infer_pattern

PLACES = ("north door", "car park")
WHO = ("ann", "bob", "cy", "di", "ed", "flo")


def tree(text: str) -> list[str]:
    """Names of twelve people, two pictures by each of two cameras."""
    names = [
        text.format(p=p, place=place, c=c, n=n, day=f"2024-05-0{1 + p % 3}", who=WHO[p % 6])
        for p, (c, place), n in product(range(12), enumerate(PLACES), range(2))
    ]
    return list(dict.fromkeys(names))


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("{place}/{day}/p{p:03}_{n}.bmp", "{camera}/*/p{identity}_{frame}.*"),
        ("{day}/{place}/p{p:03}_{n}.bmp", "*/{camera}/p{identity}_{frame}.*"),
        ("{place}/{p:03}-{n}.jpg", "{camera}/{identity}-{frame}.*"),
        ("{who}/{place}/IMG_{p}{n}.jpg", "{identity}/{camera}/IMG_{frame}.*"),
        ("person{p}_view{c}_{n:04}.png", "person{identity}_view{camera}_{frame}.*"),
        ("2024/{place}/{n}_id{p}.jpg", "*/{camera}/*_id{identity}.*"),
        ("{who} at {place} {n}.jpg", "{identity} at {camera} * {frame}.*"),
    ],
)
def test_folders_and_numbers_are_told_apart(form, pattern):
    assert infer_pattern(tree(form)) == pattern


@pytest.mark.parametrize(
    "form", ["{who}/{n}.jpg", "{p:03}_{n}.jpg", "{place}/{day}/{n}_{p}{c}{n}.jpg", "{day}/{n}.jpg"]
)
def test_a_counter_or_a_date_is_no_camera(form):
    assert infer_pattern(tree(form)) is None


@pytest.mark.parametrize(
    ("numbers", "pattern"), [(range(3, 300, 7), "{camera}/{identity}.*"), (range(1, 100), None)]
)
def test_numbers_that_count_a_folders_pictures_are_no_identities(numbers, pattern):
    assert infer_pattern([f"{place}/{n}.jpg" for place in PLACES for n in numbers]) == pattern


def test_names_of_which_nothing_can_be_told():
    assert infer_pattern([f"{place}/{place[0]}{n}.jpg" for place in PLACES for n in range(9)]) is None
    assert infer_pattern([]) is None
    assert infer_pattern(["a", "b/c", "d/e/f.jpg"]) is None


def test_usual_patterns_come_first():
    assert guess_pattern(tree("{p:04}_c{c}s1_{n}_00.jpg")) == "{identity}_c{camera}s{tracklet}_{frame}_*.*"
