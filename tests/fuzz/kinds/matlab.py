"""MATLAB files of published data sets: version 5 and HDF5."""

from __future__ import annotations

import shutil
import zlib

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.mutation import damaged, damaged_text

_VERSION_5 = ("grid", "cars196", "mars", "ilidsvid", "cuhksysu")
_LISTS = ("viper", "msmt17", "cub200", "occluded_duke", "veri776", "prid2011")


def _check(name: str) -> Case:
    import h5py  # noqa: F401  # before the case runs

    # Readers of CUHK03 write its images beside the file that holds them.
    return Case(("check", name, "tree"), keeps=("tree",), codes=(0, 1, 2), starts_python=True)


def _recompressed(content: bytes, maker: Maker) -> bytes:
    """Damage inside the compressed elements, so that it passes zlib and reaches the reader."""
    place, pieces = 128, [content[:128]]
    while place + 8 <= len(content):
        kind_, size = (int.from_bytes(content[at : at + 4], "little") for at in (place, place + 4))
        body = content[place + 8 : place + 8 + size]
        if kind_ == 15:
            packed = zlib.compress(damaged(zlib.decompress(body), maker.random))
            pieces.append((15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
        else:
            pieces.append(content[place : place + 8 + size])
        place += 8 + size
    return b"".join(pieces)


@kind("MATLAB 5", weight=40)
def version5(maker: Maker) -> Case:
    name = maker.random.choice(_VERSION_5)
    shutil.copytree(maker.world.dataset(name), maker.folder / "tree")
    file = maker.random.choice(sorted((maker.folder / "tree").rglob("*.mat")))
    content = file.read_bytes()
    hurt = _recompressed(content, maker) if maker.random.random() < 0.7 else damaged(content, maker.random)
    file.write_bytes(hurt)
    return _check(name)


@kind("MATLAB 7.3", weight=25)
def version73(maker: Maker) -> Case:
    shutil.copytree(maker.world.dataset("cuhk03"), maker.folder / "tree")
    file = maker.random.choice(sorted((maker.folder / "tree").rglob("*.mat")))
    file.write_bytes(damaged(file.read_bytes(), maker.random))
    return _check("cuhk03")


@kind("lists of published sets", weight=25)
def lists(maker: Maker) -> Case:
    name = maker.random.choice(_LISTS)
    shutil.copytree(maker.world.dataset(name), maker.folder / "tree")
    texts = [
        path
        for path in (maker.folder / "tree").rglob("*")
        if path.suffix in (".txt", ".json", ".xml", ".list", ".csv")
    ]
    files = sorted(texts) or sorted(path for path in (maker.folder / "tree").rglob("*") if path.is_file())
    file = maker.random.choice(files)
    content = file.read_bytes()
    if texts:
        file.write_bytes(damaged_text(content.decode(), maker.random))
    else:
        file.write_bytes(damaged(content, maker.random))
    return _check(name)
