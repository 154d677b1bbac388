"""Labels: one reading of identities and cameras, whatever they come from."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.labels import empty_cells, label_text, label_value, lookalikes, read_labels

TWO_FORMS = ("José", "Jose\u0301")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (np.int16(12), "12"),
        (np.uint64(2**64 - 1), str(2**64 - 1)),
        (2**64, str(2**64)),
        (12.0, "12"),
        (np.float32(-1.0), "-1"),
        (-0.0, "0"),
        (Decimal("12.00"), "12"),
        ("12.0", "12.0"),
        (" 0001\t", "0001"),
        ("\ufeff0001", "0001"),
        (" \u200eanna\u200b ", "anna"),
        ("an\u200bna", "an\u200bna"),
        (2.0**53 - 1, str(2**53 - 1)),
        (Decimal(2**60), str(2**60)),
        (np.str_("anna"), "anna"),
        (b"anna", "anna"),
        (np.bytes_("José".encode()), "José"),
        (TWO_FORMS[1], TWO_FORMS[0]),
        (b"caf\xc3\xa9", "café"),
        ("caf\udce9", "caf\\xe9"),  # how Python has the file name b"caf\xe9"
        (None, None),
        ("", None),
        (" ", None),
        (float("nan"), None),
        (np.float64("nan"), None),
        (np.datetime64("NaT"), None),
        (Decimal("nan"), None),
        (Decimal("sNaN"), None),
        (np.float16(2), "2"),
    ],
)
def test_one_label_as_text(value: object, text: str | None) -> None:
    assert label_text(value) == text


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.bool_(False), 1.5, float("inf"), Decimal("0.5"), date(2024, 5, 1), 1j, [1], {"a": 1}),
        *(2.0**53, np.float32(2**24), np.float16(2**11), -(2.0**60)),
        *(np.datetime64("2024-05-01"), np.arange(6).reshape(3, 2), b"caf\xe9", "\ud800", object()),
        *(np.timedelta64(3, "s"), np.timedelta64(3, "ns")),
        pytest.param(10**5000, id="5000 digits"),
    ],
)
def test_what_is_no_label_is_refused_in_one_short_line(value: object) -> None:
    with pytest.raises(DataError) as caught:
        label_text(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12", 12), (12.0, 12), ("-1", -1), (0, 0), (str(2**63 - 1), 2**63 - 1)]
    + [(text, text) for text in ("0001", "1.0", "-5", "+1", "-0", "٣", "1_0", str(2**63), "9" * 5000)],
)
def test_plain_whole_numbers_are_values(value: object, expected: int | str) -> None:
    assert label_value(value) == expected


@pytest.mark.parametrize(
    ("values", "kind", "names", "codes"),
    [
        ([3, "1", "1.0", 1.0], "numbers", ["3", "1", "1", "1"], [3, 1, 1, 1]),
        (["-1.0", "10.00", "7,0"], "numbers", ["-1", "10", "7"], [-1, 10, 7]),
        (["0001", "0003", "-1"], "text", ["0001", "0003", "-1"], [1, 3, -1]),
        (["0001", "1", "2"], "text", ["0001", "1", "2"], [1, 2, 3]),
        (["ben", "-1.0", "anna", -1], "text", ["ben", "-1", "anna", "-1"], [2, -1, 1, -1]),
        (["1", "1.0", "x"], "text", ["1", "1.0", "x"], [1, 2, 3]),
        (["-5", "3"], "text", ["-5", "3"], [1, 2]),
        ([2**70, 5], "text", [str(2**70), "5"], [1, 2]),
        (["1,000", "2"], "text", ["1,000", "2"], [1, 2]),
        (list(TWO_FORMS), "text", ["José", "José"], [1, 1]),
        ([None, 2, float("nan")], "numbers", [None, "2", None], [None, 2, None]),
        ([], "numbers", [], []),
    ],
)
def test_a_column_is_read_as_one(values: list, kind: str, names: list, codes: list) -> None:
    column = read_labels(values, what="identities", junk=True)
    assert (column.kind, list(column.names), list(column.codes)) == (kind, names, codes)


def test_the_order_of_rows_changes_nothing() -> None:
    values = ["0007", "anna", "-1", "7", "Ben", "ben", None, "7.0", 7]
    codes = dict(zip(values, read_labels(values, what="identities", junk=True).codes, strict=True))
    for seed in range(20):
        random.Random(seed).shuffle(values)
        again = read_labels(values, what="identities", junk=True)
        assert dict(zip(values, again.codes, strict=True)) == codes


def test_without_junk_minus_one_is_a_camera_like_any_other() -> None:
    assert read_labels(["-1", "door"], what="cameras").codes == (1, 2)


@pytest.mark.parametrize(
    "values",
    [
        *(np.array([1, 2]), np.array([1.0, 2.0], np.float32), np.array(["1", "2"]), np.array([b"1", b"2"])),
        *(np.array([1, "2.0"], object), (text for text in "12")),
    ],
)
def test_arrays_of_any_kind_are_columns(values: object) -> None:
    column = read_labels(values, what="identities")
    assert (column.kind, column.codes, column.names) == ("numbers", (1, 2), ("1", "2"))


@pytest.mark.parametrize("values", ["anna", b"anna", np.array(["2024-05-01"], "datetime64[ns]"), [1, True]])
def test_a_column_that_is_none_is_refused(values: object) -> None:
    with pytest.raises(DataError, match="cameras"):
        read_labels(values, what="cameras")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "nan"], "identities: 'nan' is what programs write for an empty cell; write -1 where none is"),
        (np.array([1, np.nan]).astype(str), "'nan' is what programs write"),
        (["None", "None"], "'None' is what programs write"),
        (["NA", "-1.0", "<NA>"], "'<NA>' is what programs write"),
        (["1.50001E+17", "anna"], "'1.50001E+17' is a number that a spreadsheet has rounded"),
        (["1,5E+05"], "'1,5E+05' is a number that a spreadsheet has rounded"),
        (np.array([2**24, 2**24 + 1], np.float32), "identities, row 0: np.float32(1.6777216e+07) is a float"),
    ],
)
def test_what_programs_wrote_for_a_label_is_refused(values: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(values, what="identities")
    assert message in str(caught.value)


def test_what_programs_write_may_be_a_name_among_names() -> None:
    names = ("anna", "NA", "Nan", "1e3")
    assert read_labels(names, what="identities").names == names
    assert empty_cells(names) == ["NA"]
    assert read_labels(["Nan", "1"], what="identities").names == ("Nan", "1")


@pytest.mark.parametrize(
    ("values", "reading"),
    [
        ([1, 2], "cameras: numbers"),
        (["1.0", "2"], "cameras: numbers, written as floats"),
        (["01", "2"], "cameras: text, as written, since '01' is not a plain whole number; by their value"),
        (["b", "1"], "cameras: text, as written, since 'b' is not a plain whole number; from 1 in sorted"),
        ([None], "cameras: none"),
    ],
)
def test_how_a_column_was_read_is_told(values: list, reading: str) -> None:
    assert read_labels(values, what="cameras").reading.replace("numbered ", "").startswith(reading)


def test_the_name_is_left_out_where_the_code_says_it() -> None:
    column = read_labels(["0001", "12"], what="cameras")
    assert [column.written(row) for row in (0, 1)] == ["0001", None]


def test_names_that_look_alike() -> None:
    names = ["1", "0001", "2", "Anna", "anna", "ben", "１２", "12", "ﬁn", "fin", "a  b", "a b"]
    names += ['="07"', "'7", "+7", "٣", "3", "be\u200bn"]
    expected = [("0001", "1"), ("12", "１２"), ("3", "٣"), ("'7", "+7", '="07"'), ("Anna", "anna")]
    expected += [("a  b", "a b"), ("ben", "be\u200bn"), ("fin", "ﬁn")]
    assert lookalikes(names) == sorted(expected)
