"""Feature files that were made wrong, by accident or not: one line each, at bounded cost."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.feature_files import (
    check_target,
    holds_features,
    load_features,
    save_embeddings,
    save_features,
)
from reidkit.types import Features

GOOD = {"embeddings": np.eye(3, dtype=np.float32), "identities": np.arange(3)}


def npy(header: str | None = None, array: object = None, data: bytes = b"") -> bytes:
    if header is None:
        buffer = io.BytesIO()
        np.save(buffer, array)  # type: ignore[arg-type]
        return buffer.getvalue()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_features(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 600
    return message


HEADERS = {
    "(" * 5000: "damaged",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }": "and 4 bytes follow",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }": r"\(-3, 4\) of float32",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }": "holds Python objects",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000000,), }": "bytes follow",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }": "shape|type",
    "{'descr': '<f4', 'shape': (1,), }": "damaged",
    "import os": "damaged",
    "": "damaged",
}


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_claim_too_much(tmp_path: Path, header: str, folder: bool) -> None:
    members = {"embeddings.npy": npy(header, data=bytes(4)), "identities.npy": npy(array=np.arange(3))}
    if folder:
        for name, data in members.items():
            (tmp_path / name).write_bytes(data)
        message = refusal(tmp_path)
    else:
        message = refusal(npz(tmp_path / "f.npz", members))

    assert re.search(HEADERS[header], message), message


def test_archives_that_are_none_of_features(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    eye = npy(array=np.eye(3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("embeddings.npy", eye)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("embeddings.npy", eye)
    assert "the member 'embeddings.npy' twice" in refusal(path)
    npz(path, {"embeddings.npy": eye, "readme.txt": b"hello"})
    assert "'readme.txt', which is no array" in refusal(path)
    npz(path, {"embeddings.npy": bytes(1 << 20), "identities.npy": b""}, zipfile.ZIP_DEFLATED)
    assert "is damaged" in refusal(path)
    data = bytearray(npz(path, {"embeddings.npy": eye}).read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "'embeddings.npy' is encrypted" in refusal(path)
    npz(path, {"x" * 50_000: eye})
    assert "no array" in refusal(path)
    path.write_bytes(b"PK\3\4" + bytes(50))
    assert "damaged or no .npz file" in refusal(path)


def test_an_archive_that_unfolds_beyond_measure(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 512), }"
    data = bytearray(npz(path, {"embeddings.npy": npy(header)}).read_bytes())
    place = data.rindex(b"PK\1\2")
    data[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)  # the size that the directory tells
    path.write_bytes(data)
    assert "would unfold to 4,294,967,280" in refusal(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identities": np.array([[1], [2], [3]])}, r"identities has shape \(3, 1\)"),
        ({"identities": np.array(["2024-01-01"] * 3, "M8[D]")}, "identities are dates or times"),
        ({"identities": np.array([1.5, 2, 3])}, "identities, row 0: 1.5 is not a whole number"),
        ({"identities": np.array([np.nan, 2, 3])}, "identities, row 0: no identity"),
        ({"identities": np.array([True, False, True])}, "of type bool"),
        ({"cameras": np.array([1 + 2j, 1, 1])}, "cameras, row 0"),
        ({"tracklets": np.array([0.5, 1, 2])}, "tracklets are of type float64; expected whole numbers"),
        ({"times": np.array(["noon", "1", "2"])}, "times are of type .*; expected numbers of seconds"),
        ({"embeddings": np.eye(3, dtype=complex)}, "type complex128"),
        ({"embeddings": np.zeros((3, 0), np.float32)}, r"embeddings have shape \(3, 0\)"),
        ({"embeddings": np.float32(1)}, r"embeddings have shape \(\)"),
    ],
)
def test_arrays_of_other_types(tmp_path: Path, change: dict[str, object], message: str) -> None:
    np.savez(tmp_path / "f.npz", **{**GOOD, **change})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        load_features(tmp_path / "f.npz")


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_labels_mean_the_same_however_they_are_written(tmp_path: Path, suffix: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    dresses = [
        (np.array([1, 2, -1]), [1, 2, -1]),
        (np.array([1.0, 2.0, -1.0]), [1, 2, -1]),
        (np.array(["1", "2", "-1"]), [1, 2, -1]),
        (np.array(["1.0", "2.0", "-1.0"]), [1, 2, -1]),
        (np.array([b"anna", b"ben", b"-1"]), ["anna", "ben", "-1"]),
        (np.array(["0001", "1", "-1.0"]), ["0001", "1", "-1"]),
        (np.array([1, 2, 3], np.uint64), [1, 2, 3]),
        (np.array([2**62, 2, 3]), [2**62, 2, 3]),
    ]
    for written, expected in dresses:
        path = tmp_path / f"f.{suffix}"
        if suffix == "npz":
            np.savez(path, **{**GOOD, "identities": written})  # type: ignore[arg-type]
        else:
            pq.write_table(pa.table({"embedding": np.eye(3).tolist(), "identity": written.tolist()}), path)
        assert load_features(path)[0].identities.tolist() == expected, written


def test_both_sets_are_one_column_and_a_missing_camera_is_missing(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {
        "embedding": np.eye(3).tolist(),
        "identity": ["1", "anna", "1"],
        "camera": pa.array(["door", None, "hall"]).dictionary_encode(),
        "part": ["query", "gallery", "gallery"],
    }
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    query, gallery = load_features(tmp_path / "f.parquet")
    assert gallery is not None
    assert (query.identities.tolist(), gallery.identities.tolist()) == (["1"], ["anna", "1"])
    assert query.cameras is not None
    assert gallery.cameras is not None
    assert (query.cameras.tolist(), gallery.cameras.tolist()) == (["door"], ["", "hall"])
    pq.write_table(pa.table({**table, "camera": [1.0, None, 10.0]}), tmp_path / "f.parquet")
    query, gallery = load_features(tmp_path / "f.parquet")
    assert gallery is not None
    assert gallery.cameras is not None
    assert gallery.cameras.tolist() == [-1, 10]


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ([[[1.0]], [[2.0]]], "'embedding' is of type list<.*list"),
        ([["a"], ["b"]], "expected a list of floating-point numbers"),
        ([[1], [2]], "expected a list of floating-point numbers"),
        ([[1.0, None], [2.0, 3.0]], "1 numbers of the embeddings are missing"),
        ([{"a": 1.0}, {"a": 2.0}], "'embedding' is of type struct"),
    ],
)
def test_columns_of_other_types(tmp_path: Path, embedding: list[object], message: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"embedding": embedding, "identity": [1, 2]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=message):
        load_features(tmp_path / "f.parquet")


def test_a_table_that_repeats_one_value_beyond_measure(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "f.parquet"
    rows = 2_000
    big = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * 512, np.float16)), 512)
    pq.write_table(pa.table({"embedding": big, "identity": np.zeros(rows, np.int8)}), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reidkit.evaluation.feature_tables._MAX_BYTES", 1 << 20)
        patch.setattr("reidkit.evaluation.feature_tables._MAX_RATIO", 10)
        assert "claims 1,026,000 values" in refusal(path)


def test_one_dimension_and_fortran_order(tmp_path: Path) -> None:
    wide = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    np.savez(tmp_path / "f.npz", embeddings=wide, identities=np.arange(3))
    np.testing.assert_array_equal(load_features(tmp_path / "f.npz")[0].embeddings, wide)
    for name in ("one.npz", "one.parquet"):
        save_features(tmp_path / name, Features(np.ones((3, 1), np.float32), np.arange(3)))
        assert load_features(tmp_path / name)[0].embeddings.shape == (3, 1)


def test_capitals_and_contents_tell_the_kind(tmp_path: Path) -> None:
    features = Features(np.eye(3), np.arange(3))
    for name, other in (("F.NPZ", "f.dat"), ("F.Parquet", "features")):
        save_features(tmp_path / name, features)
        assert holds_features(tmp_path / name)
        (tmp_path / other).write_bytes((tmp_path / name).read_bytes())
        assert holds_features(tmp_path / other)
        assert load_features(tmp_path / other)[0].identities.tolist() == [0, 1, 2]
    (tmp_path / "swapped.npz").write_bytes((tmp_path / "F.Parquet").read_bytes())
    assert len(load_features(tmp_path / "swapped.npz")[0]) == 3
    npz(tmp_path / "weights.bin", {"archive/data.pkl": b"x"})
    assert not holds_features(tmp_path / "weights.bin")
    with pytest.raises(DataError, match="runs whatever code is in it"):
        load_features(tmp_path / "F.PKL")


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ending in \.npz or \.parquet"):
        check_target("f.csv")
    (tmp_path / "f.npz").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_target(tmp_path / "f.npz")
    check_target("F.NPZ")


def test_file_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    names = [os.fsdecode(b"caf\xe9.jpg"), "plain.jpg", "李.jpg"]
    save_embeddings(tmp_path / "f.npz", np.eye(3), paths=names)
    with np.load(tmp_path / "f.npz") as file:
        assert file["paths"].tolist() == names
    save_embeddings(tmp_path / "f.parquet", np.eye(3), paths=names)
    assert [os.fsdecode(path) for path in pq.read_table(tmp_path / "f.parquet")["path"].to_pylist()] == names
    for name in ("g.npz", "g.parquet"):
        save_features(tmp_path / name, Features(np.eye(3), np.arange(3)), query_paths=names)
        sources = load_features(tmp_path / name)[0].sources
        assert sources is not None
        assert sources.tolist() == names


def test_paths_tell_pictures_apart_unless_they_are_of_frames(tmp_path: Path) -> None:
    features = Features(np.eye(3), np.arange(3))
    save_features(tmp_path / "f.npz", features, query_paths=["a", "a", "b"])
    assert load_features(tmp_path / "f.npz")[0].sources is None
    kept = Features(np.eye(3), np.arange(3), sources=np.array(["x", "y", "z"]))
    for name in ("f.npz", "f.parquet"):
        save_features(tmp_path / name, kept, query_paths=["a", "a", "b"])
        sources = load_features(tmp_path / name)[0].sources
        assert sources is not None
        assert sources.tolist() == ["x", "y", "z"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("f.npz", "f.parquet", "f.dat"):
        os.mkfifo(tmp_path / name)
        assert "is a named pipe" in refusal(tmp_path / name)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder/embeddings.npy")
    assert "is a named pipe" in refusal(tmp_path / "folder")


def test_text_that_is_none(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"embedding": np.eye(3).tolist(), "identity": ["ZZZZ", "b", "c"]}
    pq.write_table(pa.table(table), tmp_path / "f.parquet", compression="none", write_statistics=False)
    data = (tmp_path / "f.parquet").read_bytes()
    assert b"ZZZZ" in data
    (tmp_path / "f.parquet").write_bytes(data.replace(b"ZZZZ", b"Z\xff\xfeZ"))
    assert "cannot be read as Parquet" in refusal(tmp_path / "f.parquet")


@pytest.mark.parametrize("name", ["f.npz", "f.parquet"])
def test_a_missing_camera_is_written_without_a_pickle(tmp_path: Path, name: str) -> None:
    for cameras, read in ((["door", None, "hall"], ["door", "", "hall"]), ([1, None, 2], [1, -1, 2])):
        written = Features(np.eye(3), np.arange(3), np.array(cameras, dtype=object))
        save_features(tmp_path / name, written)
        found = load_features(tmp_path / name)[0].cameras
        assert found is not None
        assert found.tolist() == read
