import pytest

from reidkit.texts.printable import printable


@pytest.mark.parametrize(
    "text",
    [
        "",
        "photo[copy].jpg",
        "[/]",
        "José",
        "李 小龙\u3000",
        "नमस्ते",
        "مرحبا",
        "👨\u200d👩\u200d👧",
        "50\u00a0%",
        "a\\b$x$",
    ],
)
def test_what_shows_itself_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\rc\td\0", r"a\nb\rc\td\x00"),
        ("\x7f\x9b31m", r"\x7f\x9b31m"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u2066\u2069\u200e\u200f\u061c", r"\u2066\u2069\u200e\u200f\u061c"),
        ("a\u2028b\u2029c\u0085d", r"a\u2028b\u2029c\x85d"),
        ("\u200b\ufeff\u00ad", r"\u200b\ufeff\xad"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("caf\udce9.jpg", r"caf\xe9.jpg"),  # Latin-1, as Python keeps the byte
    ],
)
def test_what_acts_or_hides_is_shown_as_an_escape(text, fit):
    assert printable(text) == fit
    assert printable(fit) == fit


def test_texts_of_several_lines_and_other_values():
    assert printable("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"
    assert printable(3) == "3"
    assert printable(None) == "None"
