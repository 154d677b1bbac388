"""Patterns made out of names: what is an identity and what a camera, and when that cannot be told."""

from __future__ import annotations

import unicodedata
from itertools import product

import pytest

from reidkit.datasets._name_patterns import NamePattern
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
        ("{place}-20240501T{n}-id{p}.jpg", "{camera} *T*-id{identity}.*"),
        ("{place}_p{p}_{n}_0001.jpg", "{camera} *_p{identity}_*_{frame}.*"),
        ("20240501{place}_id{p}.jpg", "20240501{camera} *_id{identity}.*"),
        ("{who} at {place} {n}.jpg", "{identity} at {camera} * {frame}.*"),
        ("{place}/{day}/Person {p:02} - {n}.jpg", "{camera}/*/Person {identity} - {frame}.*"),
        ("person {p:02} cam {c}.jpg", "person {identity} cam {camera}.*"),
        ("id-{p:03}-cam-{c}-{n:04}.jpg", "id-{identity}-cam-{camera}-{frame}.*"),
        ("personne{p}_caméra{c}.jpg", "personne{identity}_caméra{camera}.*"),
        ("{p:03}/{place}/{n}.jpg", "{identity}/{camera}/{frame}.*"),
        ("Person {p:02}/{place}/{n}.jpg", "{identity}/{camera}/{frame}.*"),
        ("2024-05-01_1{c}-00-{p:02}_person{p}_cam{c}.jpg", "*_person{identity}_cam{camera}.*"),
        ("2024-05-01_person{p}_cam{c}_{n}.jpg", "*_person{identity}_cam{camera}_{frame}.*"),
        ("{who}{p:02}_{place}.jpg", "{identity}_{camera} *.*"),
        ("{who}{c}{n}_{place}.jpg", None),  # a person's picture under one camera is in none other
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


def test_names_of_a_mac_are_read_as_others_are():
    names = [unicodedata.normalize("NFD", name) for name in tree("{place} Süd/p{p:03}_{n}.jpg")]
    assert infer_pattern(names) == "{camera}/p{identity}_{frame}.*"


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("person_{p:02}_camera_{c}.jpg", "person_{identity}_camera_{camera}.*"),
        ("camara{c}/persona{p:02}_{n}.jpg", "{camera}/persona{identity}_{frame}.*"),
        ("2024-05-01_1{c}-{n}-{p:02}_person{p}_cam{c}.jpg", "*_person{identity}_cam{camera}.*"),
        ("cam_{place}/{p:03}_{n}.jpg", "cam_{camera}/{identity}_*.*"),
    ],
)
def test_a_usual_pattern_cuts_no_word_in_two_and_reads_nobody_who_never_comes_back(form, pattern):
    assert guess_pattern(tree(form)) == pattern


def test_seconds_since_1970_are_times():
    names = [f"{n // 4:04}_c{n % 2}_{1_714_557_600 + n}.jpg" for n in range(40)]
    assert guess_pattern(names) == "{identity}_c{camera}_{time}.*"
    assert guess_pattern([name.replace("_17", "_97") for name in names]) == "{identity}_c{camera}_{frame}.*"


def test_usual_patterns_come_first():
    assert guess_pattern(tree("{p:04}_c{c}s1_{n}_00.jpg")) == "{identity}_c{camera}s{tracklet}_{frame}_*.*"


def people_folders(form: str) -> list[str]:
    """Names of 93 photos of six people, most of whom one camera alone saw."""
    return sorted(
        form.format(who=WHO[n % 6], c=1 + n % 6 // 2, n=70_952 + 131 * n, day=f"2024-05-0{1 + n % 3}")
        for n in range(93)
    )


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("{who}/cam{c}_{n:06}.jpg", "{identity}/cam{camera}_{frame}.*"),
        ("{who}/c{c}_{n:06}.jpg", "{identity}/c{camera}_{frame}.*"),
        ("{who}/camera-{c} {n}.jpg", "{identity}/camera-{camera} {frame}.*"),
        ("{who}/Cam_0{c}_{day}_{n}.jpg", "{identity}/Cam_{camera}_*-*-*_{frame}.*"),
        ("{who}/IMG_{n}_cam{c}.jpg", "{identity}/IMG_*_cam{camera}.*"),
        ("{who}/{n}_c{c}.jpg", "{identity}/*_c{camera}.*"),
        ("{who}/c{c}s1_{n}_01.jpg", "{identity}/c{camera}s*_*_{frame}.*"),
        ("{day}/{who}/cam{c}_{n}.jpg", "*/{identity}/cam{camera}_{frame}.*"),
        ("{who}/{day}/cam{c}_{n}.jpg", "{identity}/*/cam{camera}_{frame}.*"),
    ],
)
def test_the_folder_is_the_identity_and_the_file_says_the_camera(form, pattern):
    names = people_folders(form)
    guess = guess_pattern(names)
    assert guess is not None
    fields = [NamePattern(guess).match(name) for name in names]
    assert {one["identity"] for one in fields} == set(WHO)
    assert {one["camera"].lstrip("0") for one in fields} == {"1", "2", "3"}
    assert guess == pattern


@pytest.mark.parametrize(
    "form",
    [
        "{who}/{n}.jpg",
        "{who}/music{c}_{n}.jpg",  # no word for a camera
        "{who}/cam2_{n}.jpg",  # one camera
        "{who}/cam{n}.jpg",  # a counter
        "{day}/cam{c}_{n}.jpg",  # dates are nobody
        "{who}/room {c}/cam{c}_{n}.jpg",  # two levels may be identities
        "{who}/p{c} x cam{c} {n}.jpg",  # the file's name says an identity, too
        "{who}/{c}-x-cam{c}-{n}.jpg",  # and may do so here
    ],
)
def test_no_camera_is_read_of_a_file_where_it_would_be_a_guess(form):
    assert guess_pattern(people_folders(form)) is None


def test_no_field_swallows_what_stands_behind_it():
    names = people_folders("{who}/cam{c}_{n}.jpg")
    assert (
        guess_pattern([name.replace(".jpg", "_b.jpg") if "1" in name[-7:] else name for name in names])
        is None
    )
    two_numbers = [name.replace(".jpg", f"_{place}.jpg") for place, name in enumerate(names)]
    guess = guess_pattern(two_numbers)
    assert guess is None or {NamePattern(guess).match(n)["camera"] for n in two_numbers} == {"1", "2", "3"}
