"""Files of features: .npz, folders of .npy, Parquet."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.cases import Answer, Case, Maker, kind
from tests.fuzz.mutation import damaged, damaged_text
from tests.fuzz.world import World

_ASK = ("--no-report", "--out", "out", "--json")


def _evaluate(name: str, right: Answer | None = None) -> Case:
    return Case(("evaluate", name, *_ASK), writes=("out",), right=right)


def _same_scores(world: World) -> Answer:
    """That the scores are those of the undamaged file."""

    def right(stdout: str) -> str | None:
        kept = world.folder / "scores.json"
        if not kept.exists():
            from reidkit.evaluation.evaluation import evaluate_features
            from reidkit.evaluation.feature_files import load_features

            kept.write_text(json.dumps(evaluate_features(*load_features(world.features(".npz"))).as_dict()))
        expected, found = json.loads(kept.read_text()), json.loads(stdout)
        return (
            None if all(found.get(key) == value for key, value in expected.items()) else "the scores differ"
        )

    return right


@kind("npz bytes", weight=40)
def npz(maker: Maker) -> Case:
    maker.write("f.npz", damaged(maker.world.features(".npz").read_bytes(), maker.random))
    return _evaluate("f.npz", right=_same_scores(maker.world))


@kind("Parquet bytes", weight=40)
def parquet(maker: Maker) -> Case:
    maker.write("f.parquet", damaged(maker.world.features(".parquet").read_bytes(), maker.random))
    return _evaluate("f.parquet")


@kind("npy bytes", weight=30)
def npy(maker: Maker) -> Case:
    folder = maker.folder / "f"
    shutil.copytree(maker.world.features(""), folder)
    file = maker.random.choice(sorted(folder.iterdir()))
    content = file.read_bytes()
    if maker.random.random() < 0.5:
        header = content[10:128].decode("latin-1").rstrip()
        hurt = damaged_text(header, maker.random)[:60_000]
        content = content[:8] + len(hurt).to_bytes(2, "little") + hurt + content[128:]
    else:
        content = damaged(content, maker.random)
    file.write_bytes(content)
    return _evaluate("f")


_DTYPES = (
    "f2",
    "f4",
    "f8",
    ">f4",
    "g",
    "i1",
    "i8",
    "u8",
    "?",
    "c8",
    "O",
    "U5",
    "S5",
    "V8",
    "M8[s]",
    "m8[D]",
    "f4,i4",
)
_SHAPES = (
    (),
    (0,),
    (1,),
    (40,),
    (10,),
    (30,),
    (40, 1),
    (40, 8),
    (10, 8),
    (30, 8),
    (10, 1),
    (0, 8),
    (10, 0),
    (1, 1, 8),
    (10, 8, 1),
)
_ARRAY = st.builds(
    lambda dtype, shape, order, fill: _array(dtype, shape, order, fill),
    st.sampled_from(_DTYPES),
    st.sampled_from(_SHAPES),
    st.sampled_from("CF"),
    st.sampled_from(("ones", "zeros", "nan", "inf", "random", "huge", "-1", "texts", "same")),
)
_NAMES = st.sampled_from(
    ("embeddings", "identities", "cameras", "tracklets", "indices", "times", "paths", "query_embeddings",
     "query_identities", "query_cameras", "gallery_embeddings", "gallery_identities", "gallery_cameras",
     "gallery_times", "camera", "\x1b[31m", "../../x", "a/b", "[/]", "é", "query_", "embeddings.npy")
)  # fmt: skip
_CHANGES = st.dictionaries(_NAMES, _ARRAY | st.none(), min_size=1, max_size=3)


def _array(dtype: str, shape: tuple[int, ...], order: Any, fill: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    numbers: dict[str, Any] = {
        "ones": 1, "zeros": 0, "nan": np.nan, "inf": np.inf, "huge": 1e38, "-1": -1, "same": 7,
        "texts": None, "random": None,
    }  # fmt: skip
    try:
        if fill == "texts":
            texts = rng.choice(
                np.array(["0001", "1", "1.0", "-1", "", "[/]", "\x1b[1m", "é", "e\u0301", "b"], dtype=object),
                shape,
            )
            return np.asarray(texts, dtype=dtype, order=order)
        if fill == "random":
            return np.asarray(rng.normal(size=shape) * 3, order=order).astype(dtype)
        with np.errstate(all="ignore"):
            return np.full(shape, numbers[fill], order=order).astype(dtype)
    except (ValueError, TypeError, OverflowError):
        return np.zeros(shape, np.float32)


def _packed(arrays: dict[str, np.ndarray], how: str) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", member.getvalue())
            if how == "twice":
                archive.writestr(f"{name}.npy", member.getvalue()[:-1])
        if how == "more":
            archive.writestr("readme.txt", "x")
        if how == "bomb":
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 100)}
            )
            archive.writestr("query_times.npy", header.getvalue() + bytes(1000))
    return buffer.getvalue()


@kind("npz structure", weight=50)
def arrays(maker: Maker) -> Case:
    with np.load(maker.world.features(".npz")) as file:
        content: dict[str, np.ndarray] = dict(file)
    for name, array in maker.draw(_CHANGES).items():
        if array is None:
            content.pop(name, None)
        else:
            content[name] = array
    if maker.random.random() < 0.3:
        content = {
            name.removeprefix("query_"): array
            for name, array in content.items()
            if not name.startswith("gal")
        }
    how = maker.random.choice(("stored", "stored", "compressed", "twice", "more", "bomb"))
    maker.write("f.npz", _packed(content, how))
    return _evaluate("f.npz")


_CELLS = st.sampled_from(
    ("int", "float", "text", "bytes", "bool", "date", "null", "list", "struct", "decimal", "dictionary",
    "nested",
     "uint64", "half", "lists of text", "unequal lists", "large", "duration", "time", "fixed bytes")
)  # fmt: skip
_COLUMNS = st.dictionaries(
    st.sampled_from(
        (
            "embedding",
            "identity",
            "camera",
            "part",
            "tracklet",
            "index",
            "time",
            "path",
            "Identity",
            "\x1b[1m",
        )
    ),
    _CELLS | st.none(),
    min_size=1,
    max_size=3,
)


def column(cells: str, count: int) -> Any:
    """A pyarrow array of odd cells."""
    import datetime
    import decimal

    import pyarrow as pa

    numbers = list(range(count))
    made = {
        "int": lambda: pa.array(numbers),
        "float": lambda: pa.array([n + 0.5 if n % 3 else float("nan") for n in numbers]),
        "text": lambda: pa.array([("0001", "1", "1.0", "-1", "", "[/]", "\x1b[1m")[n % 7] for n in numbers]),
        "bytes": lambda: pa.array([(b"1", b"\xff", b"")[n % 3] for n in numbers]),
        "bool": lambda: pa.array([n % 2 == 0 for n in numbers]),
        "date": lambda: pa.array([datetime.date(2024, 1, 1 + n % 28) for n in numbers]),
        "null": lambda: pa.nulls(count),
        "list": lambda: pa.array([[float(n), 1.0] for n in numbers]),
        "struct": lambda: pa.array([{"a": n} for n in numbers]),
        "decimal": lambda: pa.array([decimal.Decimal(n) for n in numbers]),
        "dictionary": lambda: pa.array([f"p{n % 3}" for n in numbers]).dictionary_encode(),
        "nested": lambda: pa.array([[[1.0]] for _ in numbers]),
        "uint64": lambda: pa.array([2**64 - 1 - n for n in numbers], pa.uint64()),
        "half": lambda: pa.array(np.ones(count, np.float16)),
        "lists of text": lambda: pa.array([["a", "b"] for _ in numbers]),
        "unequal lists": lambda: pa.array([[1.0] * (n % 3) for n in numbers]),
        "large": lambda: pa.array(["x" * 100_000 if n == 0 else "y" for n in numbers]),
        "duration": lambda: pa.array([datetime.timedelta(n) for n in numbers]),
        "time": lambda: pa.array([datetime.time(n % 24) for n in numbers]),
        "fixed bytes": lambda: pa.array([b"abcd"] * count, pa.binary(4)),
    }
    return made[cells]()


@kind("Parquet structure", weight=50)
def columns(maker: Maker) -> Case:
    import pyarrow.parquet as parquet

    table = parquet.read_table(maker.world.features(".parquet"))
    for name, cells in maker.draw(_COLUMNS).items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if cells is not None:
            table = table.append_column(name, column(cells, len(table)))
    if maker.random.random() < 0.1:
        table = table.slice(0, 0)
    parquet.write_table(table, maker.folder / "f.parquet")
    return _evaluate("f.parquet")
