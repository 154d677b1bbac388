"""MATLAB files of both kinds: values and axes, and files that are damaged or of the other kind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from reidkit.errors import DataError, MissingExtra
from reidkit.matlab import load_variable, open_hdf5

sys.path.append(str(Path(__file__).parents[1]))
from dataset_writers import Hdf5Writer, cells, save_mat, structs

MATRIX = np.arange(6, dtype=np.uint16).reshape(2, 3)


@pytest.fixture
def version5(tmp_path: Path) -> Path:
    path = tmp_path / "five.mat"
    save_mat(path, {"m": MATRIX, "one": np.array([[7]]), "names": cells(["a", "bc"]),
                    "s": structs([{"x": 1, "y": "u"}, {"x": 2, "y": "v"}])})  # fmt: skip
    return path


@pytest.fixture
def version73(tmp_path: Path) -> Path:
    path = tmp_path / "seven.mat"
    writer = Hdf5Writer(path)
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    writer.cell([[writer.matrix(MATRIX), writer.matrix(np.empty((0, 0)))], [writer.matrix(picture)] * 2], "c")
    writer.close()
    return path


def test_version_5_comes_without_axes_of_length_1(version5: Path) -> None:
    assert load_variable(version5, "m").tolist() == MATRIX.tolist()
    assert load_variable(version5, "one") == 7
    assert load_variable(version5, "names").tolist() == ["a", "bc"]
    assert load_variable(version5, "s")["y"].tolist() == ["u", "v"]


def test_version_73_has_matlabs_axes_and_empty_cells(version73: Path) -> None:
    with open_hdf5(version73) as file:
        variable = file.variable("c")
        assert variable.shape == (2, 2)
        assert file.cell(variable[0, 0]).tolist() == MATRIX.tolist()
        assert file.cell(variable[0, 1]).size == 0
        assert file.cell(variable[1, 0]).shape == (2, 4, 3)
        with pytest.raises(DataError, match=r"seven\.mat has no variable 'd'; found c$"):
            file.variable("d")


def test_a_missing_variable_is_told_with_those_found(version5: Path) -> None:
    with pytest.raises(DataError, match=r"five\.mat has no variable 'x'; found m, one, names, s$"):
        load_variable(version5, "x")


def test_files_of_the_other_kind_are_refused(version5: Path, version73: Path) -> None:
    with pytest.raises(DataError, match=r"seven\.mat is a MATLAB file of version 7\.3; expected"):
        load_variable(version73, "c")
    with (
        pytest.raises(DataError, match=r"five\.mat is not a MATLAB file of version 7\.3"),
        open_hdf5(version5),
    ):
        pass


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mat is missing"):
        load_variable(tmp_path / "gone.mat", "x")
    with pytest.raises(DataError, match=r"gone\.mat is missing"), open_hdf5(tmp_path / "gone.mat"):
        pass


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated_version_5_is_named(version5: Path, share: float) -> None:
    whole = version5.read_bytes()
    version5.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"five\.mat (is truncated or damaged|has no variable 's')"):
        load_variable(version5, "s")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_truncated_version_73_is_named(version73: Path, share: float) -> None:
    whole = version73.read_bytes()
    version73.write_bytes(whole[: int(share * len(whole))])
    with (
        pytest.raises(DataError, match=r"seven\.mat (is truncated or damaged|is not a MATLAB)"),
        open_hdf5(version73) as file,
    ):
        file.variable("c")


def test_overwritten_bytes_show_when_they_are_read(version73: Path) -> None:
    content = bytearray(version73.read_bytes())
    content[1200 : len(content) // 2] = b"\xff" * (len(content) // 2 - 1200)
    version73.write_bytes(content)

    def read_all() -> None:
        with open_hdf5(version73) as file:
            for reference in file.variable("c").ravel():
                file.cell(reference)

    with pytest.raises(DataError, match=r"seven\.mat is truncated or damaged"):
        read_all()


def test_without_h5py_the_extra_is_named(version73: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with (
        pytest.raises(MissingExtra, match=r'reading seven\.mat .* needs h5py: pip install "reidkit\[data\]"'),
        open_hdf5(version73),
    ):
        pass
