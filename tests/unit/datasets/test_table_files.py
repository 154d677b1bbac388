"""Tables in every dress that spreadsheets and programs give them."""

from __future__ import annotations

import datetime
import decimal
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from reidkit.datasets._table_files import read_table
from reidkit.datasets.table import table
from reidkit.errors import ConfigError, DataError

TEXT = "path,identity,camera,time\na.jpg,José,10.0,1.5\nb.jpg,-1,2,\n"
EXPECTED = [("a.jpg", 1, "José", 10, 1.5), ("b.jpg", -1, None, 2, None)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def read(path: Path, **options: Any) -> list[tuple[object, ...]]:
    return [
        (s.path.name, s.identity, s.identity_name, s.camera, s.time) for s in table(path, **options).train
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.Tsv", "t.txt", "t"])
def test_encodings_and_endings(images: Path, encoding: str, name: str) -> None:
    (images / name).write_bytes(TEXT.encode(encoding))
    assert read(images / name) == EXPECTED


def test_a_mark_of_utf_16_in_either_order(images: Path) -> None:
    (images / "t.csv").write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read(images / "t.csv") == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(",", ";").replace("1.5", "1,5"),
        TEXT.replace(",", ";").replace("10.0", "10,0"),
        TEXT.replace(",", "\t").replace("\n", "\r\n"),
        TEXT.replace(",", "|"),
        "sep=;\r\n" + TEXT.replace(",", ";"),
        TEXT.replace("\n", ",,\n"),
        "\n\n" + TEXT.replace("\n", "\n,,,\n"),
        TEXT.replace("a.jpg", '"a.jpg"').replace("path", '"path"'),
        TEXT.replace("\n", "\r"),
        TEXT.replace("path,identity", " PATH , Identity "),
        TEXT.replace("José", "Jose\u0301"),
        TEXT.replace("José", ' "José"').replace(' "', '" ').replace('José"', 'José "'),
    ],
)
def test_separators_and_spaces(images: Path, text: str) -> None:
    (images / "t.csv").write_text(text, newline="")
    assert read(images / "t.csv") == EXPECTED


def test_cells_may_hold_separators_and_line_ends(images: Path) -> None:
    (images / "t.csv").write_text(
        'path,identity,note\na.jpg,"Smith, Anna","two\nlines"\nb.jpg,ben,"a ""b"""\n'
    )
    assert [name for _, _, name, *_ in read(images / "t.csv")] == ["Smith, Anna", "ben"]
    assert list(read_table(images / "t.csv", {}).rows) == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column 'path'; Columns found: none"),
        (b"\xef\xbb\xbf", "has no column 'path'; Columns found: none"),
        (b"path,identity\n", "has a header and no rows"),
        (b"path,identity\na.jpg,M\xfcller\n", "line 2; in Windows-1252 it would read 'Müller': if"),
        (TEXT.encode("utf-16-le"), "is not UTF-8 text: byte 0xe9"),
        (b"path,identity\na.jpg,1\0\n", "holds a zero byte in line 2"),
        (b"path\0,\0", "holds a zero byte in line 1"),
        (b"\xff\xfep\0a", "is not UTF-16 text: truncated data in line 1"),
        (b"PK\x03\x04...", "is a ZIP file, as Excel's .xlsx are, not text; save it as text"),
        (b'path,identity\na.jpg,"1\n', 'row 2: unexpected end of data; a cell in quotes ends with one (")'),
        (b"path,identity\na.jpg," + b"1" * 200_000, "row 2: field larger than field limit"),
        (b"path,identity,identity\na.jpg,1,2\n", "has the column 'identity' twice"),
        (b"path,identity\na.jpg\n", "row 2: 1 cells under 2 columns"),
        (b"path,identity\na.jpg,1,2\n", "row 2: 3 cells under 2 columns"),
        (b"path,identity\n" + b"x" * 300 + b",1\n", "row 2: there is no file '"),
        (
            b"path,identity,time\na.jpg,1,nan\n",
            "time 'nan' is not a number of seconds, nor a time such as 20",
        ),
        (b"path,identity,time\na.jpg,1,1e400\n", "time '1e400' is not a number of seconds"),
        (b'path,identity,time\na.jpg,1,"1,5"\n', "time '1,5' is not a number of seconds"),
        (b"path,identity,frame\na.jpg,1,2.5\n", "frame '2.5' is not an integer from 0 on"),
        (b"path,identity,frame\na.jpg,1," + b"9" * 5000 + b"\n", " characters) is not an integer"),
        (b"path,identity,camera\na.jpg,1,2\nb.jpg,1,\n", "row 3: camera is empty"),
        (
            b"path,identity,camera\na.jpg,1,2\nb.jpg,1,nan\n",
            "t.csv: cameras: 'nan' is what programs write for an",
        ),
        (b"path,identity,camera\na.jpg,1,None\nb.jpg,1,None\n", "cameras: 'None' is what programs write"),
        (b"path,identity\na.jpg,1.50001E+17\nb.jpg,ben\n", "is a number that a spreadsheet has rounded"),
        (b"path,identity,Camera ID\na.jpg,1,2\n", "has a column 'camera id' and none called 'camera'"),
        (b"path,identity,camera_name\na.jpg,1,2\n", "column.camera=camera_name to use it"),
        (b"path,identity,cam-no\na.jpg,1,2\n", "column.camera=cam-no to use it"),
        (b"File Path,identity\na.jpg,1\n", "rename 'file path', or give 'column.path=file path'?"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_short_line(images: Path, content: bytes, message: str) -> None:
    (images / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        table(images / "t.csv")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + 2 * len(str(images))


def test_cameras_may_be_unknown_among_names(images: Path) -> None:
    (images / "t.csv").write_text("path,identity,camera\na.jpg,1,door\nb.jpg,1,-1\na.jpg,1,-1.0\n")
    cameras = [(s.camera, s.camera_name) for s in table(images / "t.csv").train]
    assert cameras == [(1, "door"), (None, None), (None, None)]


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_a_path_and_a_column_in_either_form(tmp_path: Path, listed: str, on_disk: str) -> None:
    path = tmp_path / unicodedata.normalize(on_disk, "Zoë") / "ä.jpg"  # type: ignore[arg-type]
    path = path.with_name(unicodedata.normalize(on_disk, path.name))  # type: ignore[arg-type]
    path.parent.mkdir()
    path.touch()
    text = unicodedata.normalize(listed, "path,identité\nZoë/ä.jpg,1\n")  # type: ignore[arg-type]
    (tmp_path / "t.csv").write_text(text)
    column = {"identity": unicodedata.normalize(on_disk, "Identité")}  # type: ignore[arg-type]
    assert [sample.path for sample in table(tmp_path / "t.csv", column=column).train] == [path]


def test_paths_of_windows(images: Path) -> None:
    (images / "sub").mkdir()
    (images / "sub" / "c.jpg").touch()
    (images / "t.csv").write_text("path,identity\n.\\sub\\c.jpg,1\n")
    assert [sample.path for sample in table(images / "t.csv").train] == [images / "sub" / "c.jpg"]


def test_times_may_be_iso(images: Path) -> None:
    (images / "t.csv").write_text(
        "path,identity,time\na.jpg,1,1970-01-01T00:01\nb.jpg,1,1970-01-01T01:00:00.5+01:00\n"
    )
    assert [time for *_, time in read(images / "t.csv")] == [60.0, 0.5]


def test_columns_by_other_names(images: Path) -> None:
    (images / "t.csv").write_text("File,who,cam_name,age\na.jpg,anna,door,7\nb.jpg,ben,hall,8\n")
    names = {"path": "file", "identity": "who", "camera": "cam_name"}
    data = table(images / "t.csv", column=names)
    assert [(s.identity_name, s.camera, s.camera_name) for s in data.train] == [
        ("anna", 1, "door"),
        ("ben", 2, "hall"),
    ]
    assert data.reading[0] == "columns that are not read: age"
    with pytest.raises(ConfigError, match="column has no key 'pth'; did you mean 'path'"):
        table(images / "t.csv", column={**names, "pth": "x"})
    with pytest.raises(
        ConfigError, match=r"has no column 'fille', given as column\.path; did you mean 'file'"
    ):
        table(images / "t.csv", column={**names, "path": "fille"})
    for wrong in ("file", {"path": 3}, 5):
        with pytest.raises(ConfigError, match=r"is no table of names; write for example column\.path=file"):
            table(images / "t.csv", column=wrong)  # type: ignore[arg-type]


NUMBERS = ([1, 2], [1.0, 2.0], [decimal.Decimal("1.00"), decimal.Decimal(2)], [b"1", b"2"], ["1", "2.0"])


@pytest.mark.parametrize("values", NUMBERS, ids=["int", "float", "decimal", "binary", "text"])
@pytest.mark.parametrize("name", ["t.parquet", "t.PARQUET", "t.csv"])
def test_numbers_of_every_parquet_type_are_one_identity(
    images: Path, values: list[object], name: str
) -> None:
    write_parquet(images / name, identity=values, camera=values)
    assert [(i, n, c) for _, i, n, c, _ in read(images / name)] == [(1, None, 1), (2, None, 2)]


def test_a_dictionary_and_a_gap_in_parquet(images: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    codes = pyarrow.array(["anna", "ben"]).dictionary_encode()
    write_parquet(images / "t.parquet", identity=codes, time=[None, float("nan")])
    assert [(n, t) for _, _, n, _, t in read(images / "t.parquet")] == [("anna", None), ("ben", None)]


def test_moments_in_parquet(images: Path) -> None:
    moments = [datetime.datetime(1970, 1, 1, 0, 1), datetime.datetime(1970, 1, 1, tzinfo=None)]
    write_parquet(images / "t.parquet", identity=["1", "2"], time=moments)
    assert [time for *_, time in read(images / "t.parquet")] == [60.0, 0.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([True, False], "row 2: identity: True is of type bool; a label is a text or a whole number"),
        ([1.5, 2.0], "row 2: identity: 1.5 is not a whole number"),
        ([datetime.date(2024, 5, 1)] * 2, "is of type date; a label is a text or a whole number"),
        ([[1], [2]], "row 2: identity: [1] is of type list"),
        ([b"M\xfcller", b"a"], "row 2: identity: b'M\\xfcller' is not UTF-8 text"),
        ([{"a": 1}] * 2, "is of type dict"),
        (["anna", None], "row 3: identity is empty"),
    ],
)
def test_what_is_no_label_in_parquet_is_told_by_row(images: Path, values: list[object], message: str) -> None:
    write_parquet(images / "t.parquet", identity=values)
    with pytest.raises(DataError) as caught:
        table(images / "t.parquet")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("identity is empty" in str(caught.value)) == (values[-1] is None)


def test_parquet_columns_are_read_for_what_they_are(images: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    (images / odd).touch()
    write_parquet(
        images / "t.parquet", path=[b"a.jpg", b"caf\xe9.jpg"], pid=[1.0, 2.0], camera=[3, 4], bbox=[[1], [2]]
    )
    data = table(images / "t.parquet", column={"identity": "PID"})
    assert [(s.path.name, s.identity) for s in data.train] == [("a.jpg", 1), (odd, 2)]
    assert data.reading[0] == "columns that are not read: bbox"
    write_parquet(images / "t.parquet", pid=[1.5, 2.0])
    with pytest.raises(DataError, match=r"row 2: pid: 1\.5 is not a whole number"):
        table(images / "t.parquet", column={"identity": "pid"})


def write_parquet(file: Path, **columns: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    parquet.write_table(pyarrow.table({"path": ["a.jpg", "b.jpg"]} | columns), file)
