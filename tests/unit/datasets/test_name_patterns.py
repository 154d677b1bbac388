"""Patterns for file names: what they read, and that no name keeps them busy."""

from __future__ import annotations

import re
import time
from typing import Literal
from unicodedata import normalize

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reidkit.datasets._name_patterns import FIELDS, MAX_LENGTH, NamePattern
from reidkit.errors import ConfigError

GREEDY = {
    "identity": r"[^/]+",
    "camera": r"[^/]+",
    "frame": r"\d+",
    "tracklet": r"\d+",
    "time": r"\d+(?:\.\d+)?",
}


def as_expression(pattern: str) -> re.Pattern[str]:
    """What a pattern means, as a regular expression that may take for ever."""
    expression = ""
    for piece in re.split(r"(\{\w+\})", pattern.removesuffix(".*")):
        field = piece[1:-1]
        if not piece.startswith("{"):
            expression += re.escape(piece).replace(r"\*", "[^/]*")
        elif f"(?P<{field}>" in expression:
            expression += f"(?P={field})"
        else:
            expression += f"(?P<{field}>{GREEDY[field]})"
    return re.compile(expression + (r"\.[^./]+" if pattern.endswith(".*") else ""), re.ASCII)


patterns = st.tuples(
    st.lists(
        st.tuples(
            st.sampled_from([*FIELDS, "identity"]),
            st.sampled_from(["_", "/", "1", "a", "*", "-*_", "**.", "_c"]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["", ".*", ".jpg", "*"]),
).map(lambda parts: "".join(f"{{{field}}}{text}" for field, text in parts[0]) + parts[1])
names = st.lists(st.sampled_from(["_", "/", "1", "a", "2", "1.5", ".", "_c", "-", ".jpg"]), max_size=12).map(
    "".join
)


@settings(max_examples=60, deadline=None)
@given(patterns, st.lists(names, min_size=10, max_size=10))
def test_patterns_read_what_the_regular_expression_reads(pattern: str, found: list[str]) -> None:
    try:
        compiled = NamePattern(pattern)
    except ConfigError:
        assume(False)
    for name in found:
        match = as_expression(pattern).fullmatch(name)
        assert compiled.match(name) == (None if match is None else match.groupdict())


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{identity}_" + "*_" * 25, "_" * 255 + "x"),
        ("{identity}" + "*a" * 25 + ".jpg", "a" * 255),
        ("{identity}" + "*" * 25, "a/" * 2000),
        ("{identity}1{frame}1{camera}1{time}1{tracklet}", "1" * 254 + "x"),
        ("*1" * 120 + "{identity}.*", "1" * 255),
        ("{identity}-{camera}-" + "*-" * 100, "-" * 254 + "x"),
    ],
)
def test_no_name_keeps_a_pattern_busy(pattern: str, name: str) -> None:
    start = time.process_time()
    NamePattern(pattern).match(name)
    assert time.process_time() - start < 5


def test_a_repeated_field_is_tried_in_a_bounded_number_of_ways() -> None:
    pattern = NamePattern("{identity}_{camera}_{identity}_{camera}_{identity}x")
    with pytest.raises(ConfigError, match=r"'_{79}.* could fit the pattern in more ways than can be tried"):
        pattern.match("_" * 255)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({}, "pattern is of type dict; expected a text such as {identity}_c"),
        (7, "pattern is of type int; expected a text"),
        (True, "pattern is of type bool; expected a text"),
        (["{identity}"], "pattern is of type list; expected a text"),
        ("", "pattern '' has no {identity}"),
        (
            "{identity}" + "x" * MAX_LENGTH,
            f"the pattern has {MAX_LENGTH + 10} characters; expected at most 300",
        ),
        ("{identity}{frame}.jpg", "has {identity}{frame} side by side: nothing says where one ends"),
        ("{frame}{identity}", "has {frame}{identity} side by side"),
        ("img*{frame}_{identity}.jpg", "has *{frame} side by side"),
        ("{}_{identity}", "has an unknown field {}; Fields: identity"),
    ],
)
def test_what_is_no_pattern_is_told_in_one_line(pattern: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NamePattern(pattern)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


PATTERN_AND_NAME = ("küche/{identity}_{camera}.jpg", "küche/josé_1.jpg")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_fit_in_either_form(forms: tuple[Literal["NFC", "NFD"], ...]) -> None:
    pattern, name = (normalize(form, text) for form, text in zip(forms, PATTERN_AND_NAME, strict=True))
    assert NamePattern(pattern).match(name) == {"identity": "josé", "camera": "1"}


def test_a_star_may_follow_a_field() -> None:
    assert NamePattern("{identity}_{frame}*.jpg").match("anna_12b.jpg") == {"identity": "anna", "frame": "12"}


def test_fields_come_in_the_order_of_the_pattern() -> None:
    assert NamePattern("{camera}/{identity}/{camera}_*.jpg").fields == ("camera", "identity")
