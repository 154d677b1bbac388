"""Tables of a terminal that is narrower than they are: nothing is cut, no word is broken."""

from __future__ import annotations

import pytest

from reidkit.cli.output import print_table

LONG = "photos/" + "a" * 60 + ".jpg"
LONGER = "/".join(["folder"] * 20) + "/image.png"


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_what_fits_stays_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "number"), [("a", 1), ("bcd", 22)], title="things", right=("number",))
    assert lines(capsys) == ["things", "name  number", "a          1", "bcd       22"]


def test_the_widest_column_stands_below_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("0.912", "door", "anna", LONG), ("0.455", "yard", "ben", "b.jpg")]
    print_table(("score", "camera", "identity", "image"), rows, right=("score",))
    assert lines(capsys) == [
        "score  camera  identity",
        "  image",
        "0.912  door    anna",
        f"  {LONG}",
        "0.455  yard    ben",
        "  b.jpg",
    ]


def test_a_column_that_says_nothing_goes_first(capsys: pytest.CaptureFixture[str]) -> None:
    wide = "n" * 75
    print_table(("image", "probably"), [(wide, ""), ("m", "")])
    assert lines(capsys) == ["image", wide, "m"]


def test_a_name_longer_than_the_terminal_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("image", "score"), [(LONGER, 0.5)])
    assert f"  {LONGER}" in lines(capsys)


def test_no_line_is_wider_than_the_terminal_unless_one_name_is(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [f"column-{number}" for number in range(14)]
    print_table(columns, [[f"{number * 'x'}" for number in range(14)]])
    printed = lines(capsys)
    assert max(map(len, printed)) <= 80
    for word in (*columns[1:], "x" * 13):
        assert any(word in line.split() for line in printed)


def test_a_name_with_spaces_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    place = "own photos/north door/2024-05-01/person 14 - 0913.bmp"
    print_table(("score", "identity", "image"), [("0.912", "Anna Maria von Zimmern", place)])
    printed = lines(capsys)
    assert f"  {place}" in printed
    assert any("Anna Maria von Zimmern" in line for line in printed)


def test_a_sentence_is_broken_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "what"), [("msml", "word " * 30)], prose=("what",))
    printed = lines(capsys)
    assert max(map(len, printed)) <= 80
    assert len(printed) > 2
    assert "".join(printed).count("word") == 30
