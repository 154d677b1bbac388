"""docs/datasets/labels.md shows what each source makes of each kind of label; this module computes it.

Run as a script, it writes the tables into the page.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reidkit.datasets import load_dataset
from reidkit.errors import ReidError
from reidkit.evaluation.feature_files import load_features, save_features
from reidkit.evaluation.row_labels import camera_codes, camera_names, label_codes, label_names
from reidkit.galleries import open_gallery
from reidkit.types import JUNK, Dataset, Features, Sample

PAGE = Path(__file__).parents[2] / "docs" / "datasets" / "labels.md"

KINDS: dict[str, list[Any]] = {
    "whole numbers": [1, 12],
    "zeros in front": ["0001", "0012"],
    "with and without zeros": ["0001", "1"],
    "floats": [1.0, 12.0],
    "numbers in three dresses": [1, 1.0, "1"],
    "junk": [-1, -1.0, "-1"],
    "names": ["anna", "ben"],
    "names and numbers": ["anna", "1", "1.0"],
    "one accent in two forms": ["Jose\u0301", "Jos\u00e9"],
    "capitals": ["Anna", "anna"],
    "white space around": [" anna", "anna "],
    "bytes": [b"anna", b"ben"],
    "more than 64 bits": [2**64, 1],
    "fractions": [1.5, 2.5],
    "truth values": [True, False],
    "dates": [date(2024, 5, 1), date(2024, 5, 2)],
    "nothing": [None, "anna"],
    "an empty cell as programs write it": ["nan", "1"],
    "rounded by a spreadsheet": ["1.50001E+17", "1"],
    "floats beyond 2^53": [2.0**53, 1.0],
    "marks that cannot be seen": ["\ufeffanna", "anna\u200b"],
}
Labels = Sequence[Any]
TABLE = r"(?:^\|.*\n)+"
IN_WORDS = ("junk", "left out", "missing", "unknown")


def text(value: Any) -> str:
    """A label as a person types it into a file name or a spreadsheet."""
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def in_folders(root: Path, labels: Labels) -> list[str]:
    paths = [image(root / "gallery" / text(label) / f"{number}.jpg") for number, label in enumerate(labels)]
    return names_of(load_dataset("folder", root), paths)


def in_a_pattern(root: Path, labels: Labels) -> list[str]:
    paths = [
        image(root / "gallery" / f"{number}" / f"{text(label)}.jpg") for number, label in enumerate(labels)
    ]
    return names_of(load_dataset("folder", root, pattern="*/{identity}.jpg"), paths)


def in_market1501(root: Path, labels: Labels) -> list[str]:
    for part in ("bounding_box_train", "query"):
        (root / part).mkdir()
    names = [f"{text(label)}_c1s1_{number:06}_00.jpg" for number, label in enumerate(labels)]
    paths = [image(root / "bounding_box_test" / name) for name in names]
    return names_of(load_dataset("market1501", root), paths)


def in_csv(root: Path, labels: Labels) -> list[str]:
    paths = [image(root / f"{number}.jpg") for number in range(len(labels))]
    rows = [f'{path.name},"{text(label)}",gallery\n' for path, label in zip(paths, labels, strict=True)]
    (root / "t.csv").write_text("path,identity,split\n" + "".join(rows))
    return names_of(load_dataset("table", root / "t.csv"), paths)


def in_parquet(root: Path, labels: Labels) -> list[str]:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    paths = [image(root / f"{number}.jpg") for number in range(len(labels))]
    if len({type(label) for label in labels if label is not None}) > 1 or 2**64 in labels:
        labels = [text(label) for label in labels]  # a column has one type, of 64 bits
    columns = {"path": [path.name for path in paths], "identity": labels, "split": ["gallery"] * len(paths)}
    table = pyarrow.table(columns)
    parquet.write_table(table, root / "t.parquet")
    return names_of(load_dataset("table", root / "t.parquet"), paths)


def in_npz(root: Path, labels: Labels) -> list[str]:
    features = Features(np.eye(len(labels)), np.array(labels))
    return names_of_rows(load_features(save_features(root / "f.npz", features))[0])


def in_python(root: Path, labels: Labels) -> list[str]:
    return names_of_rows(Features(np.eye(len(labels)), np.array(labels, dtype=object)))


def in_a_gallery(root: Path, labels: Labels) -> list[str]:
    with open_gallery(root / "g") as gallery:
        gallery.add(np.eye(len(labels), dtype=np.float32), identities=labels)
        return ["missing" if item.identity is None else item.identity for item in gallery.items()]


def names_of(data: Dataset, paths: Sequence[Path]) -> list[str]:
    found = {sample.path: sample for split in data.splits.values() for sample in split}
    return [name_of(found[path]) if path in found else "left out" for path in paths]


def name_of(sample: Sample) -> str:
    return "junk" if sample.identity == JUNK else sample.identity_name or str(sample.identity)


def names_of_rows(features: Features) -> list[str]:
    """Names by the codes that are compared: rows of one code have the name of its first row."""
    codes = label_codes(features.identities).tolist()
    names = label_names(features.identities)
    return ["junk" if code == JUNK else names[codes.index(code)] for code in codes]


SOURCES: dict[str, Callable[[Path, Labels], list[str]]] = {
    "folder": in_folders,
    "pattern": in_a_pattern,
    "CSV": in_csv,
    "Parquet": in_parquet,
    "published layout": in_market1501,
    "npz": in_npz,
    "Python": in_python,
    "gallery": in_a_gallery,
}


CAMERAS: dict[str, list[Any]] = {
    "whole numbers": [1, 12],
    "zeros in front": ["01", "1"],
    "floats": [1.0, 12.0],
    "names": ["door", "hall"],
    "not known": [-1, "-1.0", 2],
    "not known, among names": ["-1", "door"],
    "nothing": [None, "door"],
    "nothing at all": [None, None],
    "an empty cell as programs write it": ["None", "1"],
}


def camera_in_a_pattern(root: Path, labels: Labels) -> list[str]:
    paths = [image(root / f"{number}" / f"{text(label)}.jpg") for number, label in enumerate(labels)]
    return cameras_of(load_dataset("folder", root, pattern="{identity}/{camera}.jpg"), paths)


def camera_in_csv(root: Path, labels: Labels) -> list[str]:
    paths = [image(root / f"{number}.jpg") for number in range(len(labels))]
    rows = [f'{path.name},1,"{text(label)}"\n' for path, label in zip(paths, labels, strict=True)]
    (root / "t.csv").write_text("path,identity,camera\n" + "".join(rows))
    return cameras_of(load_dataset("table", root / "t.csv"), paths)


def camera_in_parquet(root: Path, labels: Labels) -> list[str]:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    paths = [image(root / f"{number}.jpg") for number in range(len(labels))]
    if len({type(label) for label in labels if label is not None}) > 1:
        labels = [text(label) for label in labels]
    columns = {"path": [path.name for path in paths], "identity": [1] * len(paths), "camera": labels}
    parquet.write_table(pyarrow.table(columns), root / "t.parquet")
    return cameras_of(load_dataset("table", root / "t.parquet"), paths)


def camera_in_npz(root: Path, labels: Labels) -> list[str]:
    features = Features(np.eye(len(labels)), [1] * len(labels), np.array(labels, dtype=object))
    return cameras_of_rows(load_features(save_features(root / "f.npz", features))[0])


def camera_in_python(root: Path, labels: Labels) -> list[str]:
    return cameras_of_rows(Features(np.eye(len(labels)), [1] * len(labels), np.array(labels, dtype=object)))


def camera_in_a_gallery(root: Path, labels: Labels) -> list[str]:
    with open_gallery(root / "g") as gallery:
        gallery.add(np.eye(len(labels), dtype=np.float32), cameras=labels)
        return ["unknown" if item.camera is None else str(item.camera) for item in gallery.items()]


def cameras_of(data: Dataset, paths: Sequence[Path]) -> list[str]:
    found = {sample.path: sample for sample in data.train}
    return [camera_of(found[path]) if path in found else "left out" for path in paths]


def camera_of(sample: Sample) -> str:
    return "unknown" if sample.camera is None else sample.camera_name or str(sample.camera)


def cameras_of_rows(features: Features) -> list[str]:
    if features.cameras is None:
        return ["unknown"] * len(features)
    camera_codes(features.cameras)  # refuses what is none
    return [name or "unknown" for name in camera_names(features.cameras)]


CAMERA_SOURCES: dict[str, Callable[[Path, Labels], list[str]]] = {
    "pattern": camera_in_a_pattern,
    "CSV": camera_in_csv,
    "Parquet": camera_in_parquet,
    "npz": camera_in_npz,
    "Python": camera_in_python,
    "gallery": camera_in_a_gallery,
}


def cell(read: Callable[[Path, Labels], list[str]], labels: Labels) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            names = read(Path(folder), labels)
        except ReidError:
            return "refused"
    return ", ".join(name if name in IN_WORDS else f"`{name}`" for name in names)


def table(kinds: dict[str, list[Any]], sources: dict[str, Callable[[Path, Labels], list[str]]]) -> str:
    rows = [["written", *sources], ["---"] * (1 + len(sources))]
    for kind, labels in kinds.items():
        shown = f"{kind}: {', '.join(map(written, labels))}"
        rows.append([shown, *(cell(read, labels) for read in sources.values())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def tables() -> list[str]:
    return [table(KINDS, SOURCES), table(CAMERAS, CAMERA_SOURCES)]


def written(label: Any) -> str:
    return f"`{label}`" if isinstance(label, date) else f"`{ascii(label) if hidden(label) else repr(label)}`"


def hidden(label: Any) -> bool:
    return isinstance(label, str) and any(unicodedata.category(character) == "Cf" for character in label)


def test_the_page_shows_what_each_source_makes_of_each_label() -> None:
    found = re.findall(TABLE, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [part.splitlines() for part in found] == [part.splitlines() for part in tables()]


if __name__ == "__main__":
    computed = iter(tables())
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(TABLE, lambda _: next(computed), page, flags=re.MULTILINE), "utf-8")
