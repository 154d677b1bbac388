"""Feature files: what is written is read, and what is wrong is named."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError, MissingExtra
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.feature_files import holds_features, load_features, save_embeddings, save_features
from reidkit.types import Features

FILES = ("features.npz", "features.parquet")


def features(num: int, *, seed: int = 0, text: bool = False, **optional: np.ndarray) -> Features:
    rng = np.random.default_rng(seed)
    identities, cameras = np.arange(num) % 5, np.arange(num) % 3
    if text:
        identities = np.array([f"person {identity}" for identity in identities], dtype=object)
        cameras = np.array([f"door {camera}" for camera in cameras])
    return Features(rng.normal(size=(num, 4)).astype(np.float32), identities, cameras, **optional)


def same(read: Features | None, written: Features) -> None:
    assert read is not None
    for name in ("embeddings", "identities", "cameras", "tracklets", "indices", "times"):
        expected = getattr(written, name)
        if expected is None:
            assert getattr(read, name) is None, name
        else:
            np.testing.assert_array_equal(getattr(read, name), expected, err_msg=name)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_two_sets_come_back(tmp_path: Path, name: str, text: bool) -> None:
    query = features(6, text=text, tracklets=np.arange(6), indices=np.arange(6), times=np.arange(6) / 2)
    gallery = features(9, seed=1, text=text)
    paths = [Path(f"{row}.jpg") for row in range(6)]
    assert save_features(tmp_path / name, query, gallery, query_paths=paths) == tmp_path / name
    read_query, read_gallery = load_features(tmp_path / name)
    same(read_query, query)
    same(read_gallery, gallery)
    assert str(evaluate_features(read_query, read_gallery)) == str(evaluate_features(query, gallery))
    assert [path.name for path in tmp_path.iterdir()] == [name], "no temporary file stays"


@pytest.mark.parametrize("name", FILES)
def test_one_set_comes_back_as_one(tmp_path: Path, name: str) -> None:
    written = Features(np.eye(3), np.array([1, 1, 2]))
    save_features(tmp_path / name, written, query_paths=["a", "b", "c"])
    read, gallery = load_features(tmp_path / name)
    assert gallery is None
    same(read, written)


def test_parquet_in_the_columns_of_another_program(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "embedding": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],  # lists of any length, as most programs write
            "identity": ["a", "b", "a"],
            "part": ["query", "gallery", "gallery"],
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    query, gallery = load_features(tmp_path / "f.parquet")
    assert gallery is not None
    assert query.identities.tolist() == ["a"]
    assert gallery.embeddings.tolist() == [[0, 1], [0.6, 0.8]]
    assert gallery.cameras is None
    pq.write_table(table.slice(0, 1), tmp_path / "f.parquet")
    assert load_features(tmp_path / "f.parquet")[1] is None


def test_a_folder_is_memory_mapped(tmp_path: Path) -> None:
    query = features(6)
    for name in ("embeddings", "identities", "cameras"):
        for part in ("query", "gallery"):
            np.save(tmp_path / f"{part}_{name}.npy", getattr(query, name))
    assert holds_features(tmp_path)
    read, gallery = load_features(tmp_path)
    same(read, query)
    assert gallery is not None
    assert isinstance(gallery.embeddings, np.memmap)


def test_arrays_keep_their_type_in_npz(tmp_path: Path) -> None:
    half = Features(np.eye(3, dtype=np.float16), np.arange(3))
    save_features(tmp_path / "f.npz", half)
    assert load_features(tmp_path / "f.npz")[0].embeddings.dtype == np.float16


GOOD = {"embeddings": np.eye(3), "identities": np.arange(3), "cameras": np.zeros(3, int)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identities": None}, r"has no array 'identities'; Found: embeddings, cameras"),
        ({"embeddings": None, "embedings": np.eye(3)}, "no array 'embeddings'; did you mean 'embedings'"),
        (
            {"camera": np.zeros(3, int), "cameras": None},
            "array 'camera' of no known meaning; did you mean 'cam",
        ),
        ({"query_embeddings": np.eye(3)}, "has no array 'query_identities'"),
        ({"identities": np.arange(4)}, r"f.npz: identities has shape \(4,\), but there are 3 embeddings"),
        ({"embeddings": np.zeros((3, 2, 2))}, r"embeddings have shape \(3, 2, 2\)"),
        ({"embeddings": np.eye(3, dtype=int)}, "embeddings have shape .* type int64"),
        ({"identities": np.array(["a", None, 3], dtype=object)}, "'identities' holds Python objects.*tolist"),
    ],
)
def test_what_is_wrong_with_an_npz_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    arrays = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_features(tmp_path / "f.npz")
    assert "f.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"embedding": [[1.0], [2.0]]}, "no column 'identity'; Found: embedding"),
        ({"embeding": [[1.0], [2.0]], "identity": [1, 2]}, "no column 'embedding'; did you mean 'embeding'"),
        (
            {"embedding": [[1.0], [2.0]], "identity": [1, 2], "cam": [1, 2]},
            "column 'cam' of no known meaning",
        ),
        ({"embedding": [[1.0], [2.0, 3.0]], "identity": [1, 2]}, "embeddings have 1 to 2 numbers"),
        ({"embedding": [1.0, 2.0], "identity": [1, 2]}, "'embedding' is of type double"),
        (
            {"embedding": [[1.0], [2.0]], "identity": [1, None]},
            r"'identity' is empty in 1 of 2 rows \(first: 1\)",
        ),
        (
            {"embedding": [[1.0], [2.0]], "identity": [1, 2], "part": ["query", "galery"]},
            "row 1: part is 'galery'; did you mean 'gallery'",
        ),
        (
            {"embedding": [[1.0], [2.0]], "identity": [1, 2], "part": ["gallery"] * 2},
            "no array 'query_embeddings'",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, columns: dict[str, list], message: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=message):
        load_features(tmp_path / "f.parquet")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.99])
def test_a_truncated_file(tmp_path: Path, name: str, share: float) -> None:
    save_features(tmp_path / name, features(50), features(50))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=name):
        load_features(tmp_path / name)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_inside_an_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "f.npz"
    save(path, embeddings=features(50).embeddings, identities=np.arange(50))
    content = bytearray(path.read_bytes())
    content[400:410] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"f\.npz"):
        load_features(path)


def test_an_array_named_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((3, 4)))
    (tmp_path / "f.npy").rename(tmp_path / "f.npz")
    with pytest.raises(DataError, match=r"f\.npz holds one array, and features are several: numpy\.savez"):
        load_features(tmp_path / "f.npz")


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    save_features(tmp_path / "f.parquet", features(0))
    assert len(load_features(tmp_path / "f.parquet")[0]) == 0


def test_labels_of_two_kinds_in_one_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"do not fit into one table.*identity"):
        save_features(tmp_path / "f.parquet", features(3), features(3, text=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "query", "gallery", "is_refused"),
    [
        ("identities", ["1", "12"], ["0001", "0012"], True),
        ("identities", [1, 12], ["0001", "0012"], True),
        ("identities", [1, 12], ["0001", "12"], False),
        ("cameras", ["c1", "c2"], [1, 2], True),
        ("cameras", ["1", "1"], ["door", "hall"], False),  # cameras may well be called so
        ("cameras", [1, -1], ["door", "1"], False),
    ],
)
def test_two_ways_of_writing_that_never_meet_are_refused(
    tmp_path: Path, name: str, query: list, gallery: list, is_refused: bool
) -> None:
    labels = {f"{part}_identities": np.array([1, 12]) for part in ("query", "gallery")}
    labels |= {f"query_{name}": np.array(query), f"gallery_{name}": np.array(gallery)}
    np.savez(tmp_path / "f.npz", query_embeddings=np.eye(2), gallery_embeddings=np.eye(2), **labels)
    refusal = pytest.raises(DataError, match=f"query {name} are .*, and none is on both sides; write both")
    with refusal if is_refused else contextlib.nullcontext():
        evaluate_features(*load_features(tmp_path / "f.npz"))


def test_a_damaged_array_in_a_folder(tmp_path: Path) -> None:
    for name, array in GOOD.items():
        np.save(tmp_path / f"{name}.npy", array)
    whole = (tmp_path / "embeddings.npy").read_bytes()
    (tmp_path / "embeddings.npy").write_bytes(whole[:-8])
    with pytest.raises(DataError, match=r"'embeddings\.npy' is damaged"):
        load_features(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("name", ["features.pkl", "features.pickle", "f.pt", "f.pth", "inside.npz"])
def test_no_pickle_is_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "inside.npz":
        np.savez(tmp_path / name, **{**GOOD, "identities": np.array([Bomb()] * 3, dtype=object)})
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"runs whatever code is in it.*numpy\.savez|only unpickling"):
        load_features(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_the_line_to_convert_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another toolkit's user would paste it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_features("dist.pkl")
    command = str(caught.value)[str(caught.value).index("numpy.savez") :].rpartition(", tensors")[0]
    q = features(4)
    names = {"qf": q.embeddings, "q_pids": q.identities, "q_camids": q.cameras, "numpy": np}
    exec(command, {**names, "gf": q.embeddings, "g_pids": q.identities, "g_camids": q.cameras})
    read, gallery = load_features("features.npz")
    same(read, q)
    assert gallery is not None


def test_other_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is missing: there is no such file"):
        load_features(tmp_path / "f.npz")
    (tmp_path / "f.txt").touch()
    with pytest.raises(DataError, match=r"features are read from \.npz, \.parquet"):
        load_features(tmp_path / "f.txt")
    with pytest.raises(DataError, match=r"holds no \.npy file"):
        load_features(tmp_path)
    with pytest.raises(ConfigError, match=r"ending in \.npz or \.parquet"):
        save_features(tmp_path / "f.csv", features(3))
    with pytest.raises(DataError, match="2 paths for 3 embeddings"):
        save_features(tmp_path / "f.npz", features(3), query_paths=["a", "b"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"reidkit\[data\]"):
        save_features(tmp_path / "f.parquet", features(3))
    assert [path.name for path in tmp_path.iterdir()] == ["f.txt"]


@pytest.mark.parametrize("name", FILES)
def test_embeddings_without_labels_are_not_features(tmp_path: Path, name: str) -> None:
    save_embeddings(tmp_path / name, np.eye(2), paths=["a.jpg", "b.jpg"])
    with pytest.raises(DataError, match=r"has no (array 'identities'|column 'identity')"):
        load_features(tmp_path / name)
