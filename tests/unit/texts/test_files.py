import os

import pytest

from reidkit.errors import CheckpointError, ConfigError
from reidkit.texts.files import MOST_LEVELS, parse_json, parse_toml, read_json, read_text


def test_text_is_utf_8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "a.toml"
    for content in ("é = 1".encode(), b"\xef\xbb\xbf" + "é = 1".encode()):
        path.write_bytes(content)
        assert read_text(path) == "é = 1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed = 1".encode("utf-16"), "UTF-16"),
        ("é = 1".encode("cp1252"), "no text in UTF-8 (byte 0xe9 at 0)"),
        (b"\x89PNG\r\n", "no text in UTF-8"),
    ],
)
def test_other_encodings_are_told(tmp_path, content, said):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_text(path)
    assert said in str(error.value)


def test_what_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, said in {
        ".": "is a folder",
        "fifo": "no regular file",
        "loop": "cannot be read",
        "gone": "no such file",
        "x" * 5000: "name too long",
        "a\0b": "cannot be the name of a file",
    }.items():
        with pytest.raises(CheckpointError) as error:
            read_text(tmp_path / name, error=CheckpointError)
        assert said in str(error.value)
        assert len(str(error.value)) < 500


DEEP = "[" * 100_000
EDGE = "[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1)


@pytest.mark.parametrize("value", [DEEP, EDGE, "1" * 5000])
def test_depth_and_digits_are_bounded(value):
    with pytest.raises(ConfigError):
        parse_toml(f"a = {value}", "it")
    with pytest.raises(CheckpointError):
        parse_json(value, "it", error=CheckpointError)


def test_json_has_a_key_once(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": {"c": 1, "c": 2}}')
    with pytest.raises(CheckpointError, match=r"a\.json: not usable as JSON: the key 'c' is there twice"):
        read_json(path, error=CheckpointError)
    path.write_text('{"a": 1, "b": {"c": 1}}')
    assert read_json(path, error=CheckpointError) == {"a": 1, "b": {"c": 1}}
