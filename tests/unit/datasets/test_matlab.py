"""MATLAB files of both kinds: values and axes, and files that are damaged or of the other kind."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from reidkit.datasets import load_dataset
from reidkit.datasets._matlab import load_variable, open_hdf5
from reidkit.errors import DataError, MissingExtra
from tests import dataset_writers
from tests.dataset_writers import Hdf5Writer, cells, save_mat, structs

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


VALUES: dict[str, Any] = {
    "whole": np.arange(6.0).reshape(2, 3),
    "complex": np.array([[1 + 2j, 3]]),
    "logical": np.array([[True, False]]),
    "empty": np.zeros((0, 3)),
    "three": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "scalar": 7.5,
    "text": "Müller",
    "rows": np.array(["abc", "defg"]),
    "names": cells(["a", "bc", ""]),
    "nested": cells([cells([1, 2]), "é", np.eye(2)]),
    "one": structs([{"x": 1, "y": "u"}]),
    "many": structs([{"x": 1, "y": "u"}, {"x": np.arange(3), "y": "v"}]),
}


def plain(value: Any) -> Any:
    """Nested lists of what an array holds, to compare by ``==``."""
    if isinstance(value, np.ndarray) and value.dtype.names:
        return {name: plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.ravel(order="F")] if value.shape else plain(value.item())
    return value


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", list(VALUES))
def test_values_are_those_that_scipy_reads(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"first": 1, name: VALUES[name], "last": 2}, do_compression=packed)
    expected = scipy.io.loadmat(path, squeeze_me=True)[name]
    found = load_variable(path, name)
    assert plain(found) == plain(expected)
    assert np.shape(found) == np.shape(expected)


def test_real_files_read_as_scipy_reads_them(real_data: Path) -> None:
    for path in sorted((real_data / "meta").rglob("*.mat")):
        for name, _, _ in scipy.io.whosmat(path):
            expected = scipy.io.loadmat(path, variable_names=[name], squeeze_me=True)[name]
            assert plain(load_variable(path, name)) == plain(expected), path


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, overwritten, taken out or put in."""
    content = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\0\0\0\x7f", b"\x0f\0\0\0"])
        elif kind == 2:
            del content[place : place + rng.randint(1, 40)]
        else:
            content[place:place] = rng.randbytes(rng.randint(1, 9))
    return bytes(content)


@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_file_of_version_5_is_told_in_one_line(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, VALUES, do_compression=packed)
    whole = path.read_bytes()
    rng = random.Random(0)
    messages = []
    for _ in range(150):
        path.write_bytes(damaged(whole, rng))
        messages += [message for name in VALUES if (message := refusal(load_variable, path, name))]
    assert len(messages) > 500
    assert not any("\n" in message for message in messages)


def refusal(read: Callable[..., Any], *arguments: Any, **options: Any) -> str | None:
    """What reading says against it; nothing but :class:`DataError` may be raised."""
    try:
        read(*arguments, **options)
    except DataError as error:
        return str(error)
    return None


def test_a_small_file_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidkit.datasets._matlab_elements.MAX_BYTES", 2**16)
    scipy.io.savemat(tmp_path / "x.mat", {"zeros": np.zeros(2**17), "small": 1}, do_compression=True)
    with pytest.raises(DataError, match=r"damaged \(more than 6.,... bytes\)"):
        load_variable(tmp_path / "x.mat", "zeros")
    assert load_variable(tmp_path / "x.mat", "small") == 1


def test_hdf5_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("big", shape=(2**42,), dtype="f8", chunks=(2**16,))
    with (
        open_hdf5(path) as file,
        pytest.raises(DataError, match="big claims 35,184,372,088,832 bytes, of which 0"),
    ):
        file.variable("big")


@pytest.mark.parametrize("layout", ["cars196", "mars", "grid", "ilidsvid", "cuhk03", "cuhksysu"])
def test_layouts_blame_a_file_of_other_values(tmp_path: Path, layout: str) -> None:
    getattr(dataset_writers, layout)(tmp_path)
    for path in sorted(tmp_path.rglob("*.mat")):
        whole = path.read_bytes()
        if b"HDF" in whole[:600]:
            continue
        names = [name for name, _, _ in scipy.io.whosmat(path)]
        for other in ("text", 2.5, np.nan, cells([1, "a"]), np.zeros((0, 0)), structs([{"x": 1}])):
            scipy.io.savemat(path, dict.fromkeys(names, other))
            options = {"protocol": "new"} if layout == "cuhk03" else {}
            message = refusal(load_dataset, layout, tmp_path, **options)
            assert message is None or "\n" not in message
        path.write_bytes(whole)
