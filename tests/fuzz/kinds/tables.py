"""Tables of images: CSV and Parquet."""

from __future__ import annotations

import shutil
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.hostile import texts
from tests.fuzz.kinds.features import column
from tests.fuzz.mutation import damaged, damaged_text
from tests.fuzz.world import table_rows


def _use(maker: Maker, name: str) -> Case:
    shutil.copytree(maker.world.photos(), maker.folder / "photos")
    way = maker.random.randrange(5)
    if way == 0:
        return Case(("split", name, "--out", "out.csv", "--data", "table"), writes=("out.csv",))
    if way == 1:
        return Case(("index", str(maker.world.encoder()), name, "--gallery", "g"), writes=("g",))
    return Case(("check", "table", name), codes=(0, 1, 2))


@kind("CSV text", weight=50)
def csv_text(maker: Maker) -> Case:
    maker.write("t.csv", damaged_text(maker.world.table(".csv").read_text(), maker.random))
    return _use(maker, "t.csv")


_CELLS = st.dictionaries(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(("path", "identity", "camera", "split", "time", "frame", "tracklet")),
    ),
    texts(),
    min_size=1,
    max_size=6,
)


@kind("CSV cells", weight=40)
def csv_cells(maker: Maker) -> Case:
    rows: list[dict[str, Any]] = table_rows()
    names = [*rows[0], *(("frame", "tracklet") if maker.random.random() < 0.3 else ())]
    for (number, name), text in maker.draw(_CELLS).items():
        rows[number][name] = text
    separator = maker.random.choice(",,,;\t")
    quote = maker.random.random() < 0.5
    lines = [separator.join(names)]
    for row in rows:
        cells = [str(row.get(name, "")) for name in names]
        lines.append(separator.join(f'"{cell}"' if quote else cell for cell in cells))
    maker.write("t.csv", maker.random.choice(("\n", "\n", "\r\n", "\r")).join(lines))
    return _use(maker, "t.csv")


@kind("Parquet table bytes", weight=20)
def parquet_bytes(maker: Maker) -> Case:
    maker.write("t.parquet", damaged(maker.world.table(".parquet").read_bytes(), maker.random))
    return _use(maker, "t.parquet")


_COLUMNS = st.dictionaries(
    st.sampled_from(("path", "identity", "camera", "split", "time", "frame", "tracklet", "more")),
    st.sampled_from(
        ("int", "float", "text", "bytes", "bool", "date", "null", "list", "struct", "decimal",
        "dictionary", "nested",
         "uint64", "half", "large", "duration", "time", "fixed bytes")
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip


@kind("Parquet table cells", weight=30)
def parquet_cells(maker: Maker) -> Case:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(table_rows())
    for name, cells in maker.draw(_COLUMNS).items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, column(cells, len(table)))
    pyarrow.parquet.write_table(table, maker.folder / "t.parquet")
    return _use(maker, "t.parquet")
