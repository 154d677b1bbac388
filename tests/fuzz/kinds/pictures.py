"""Image files of every format, damaged, and other things with an image's name."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from pathlib import Path

from tests.fuzz.cases import Answer, Case, Maker, kind
from tests.fuzz.mutation import damaged, flipped
from tests.fuzz.world import World

_SUFFIXES = (".jpg", ".png", ".bmp", ".webp", ".tif", ".gif", ".ppm")


@kind("pictures", weight=60)
def formats(maker: Maker) -> Case:
    suffix = maker.random.choice(_SUFFIXES)
    hurt = damaged(maker.world.photo(suffix).read_bytes(), maker.random)
    name = f"p{maker.random.choice((suffix, suffix, suffix.upper(), '.jpg', ''))}"
    maker.write(f"photos/1/{name}", hurt)
    shutil.copy(maker.world.photo(".jpg"), maker.folder / "photos/1/whole.jpg")
    if maker.random.random() < 0.6:
        return Case(("check", "folder", "photos"), codes=(0, 1, 2))
    encoder = str(maker.world.encoder())
    return Case(("encode", encoder, f"photos/1/{name}", "--out", "out.npz"), writes=("out.npz",))


def _same_picture(world: World, suffix: str) -> Answer:
    def right(stdout: str) -> str | None:
        from reidkit.images.reading import load_image

        whole = load_image(world.photo(suffix))
        return (
            None
            if stdout.strip() == str(hash_of(whole.tobytes()))
            else f"other pixels from a damaged {suffix}"
        )

    return right


def hash_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


@kind("bits of a PNG", weight=20)
def png_bits(maker: Maker) -> Case:
    """PNG has a checksum over every chunk: one flipped bit is found, or changes nothing that is seen."""
    maker.write("p.png", flipped(maker.world.photo(".png").read_bytes(), maker.random))

    def call() -> str:
        from reidkit.images.reading import load_image

        return hash_of(load_image("p.png").tobytes())

    return Case(call, right=_same_picture(maker.world, ".png"))


@kind("pictures that claim much", weight=20)
def sizes(maker: Maker) -> Case:
    """Headers of huge, empty or impossible pictures."""
    width, height = (maker.random.choice((0, 1, 24, 65535, 2**31 - 1, 2**32 - 1)) for _ in range(2))
    random = maker.random
    content = {
        ".png": lambda: _resized_png(maker, width, height),
        ".bmp": lambda: _patched(
            maker.world.photo(".bmp").read_bytes(), 18, struct.pack("<II", width, height)
        ),
        ".gif": lambda: _patched(
            maker.world.photo(".gif").read_bytes(), 6, struct.pack("<HH", width % 65536, height % 65536)
        ),
        ".ppm": lambda: (
            f"P6\n{width} {height}\n{random.choice((255, 65535, 0, 10**30))}\n".encode() + b"x" * 99
        ),
        ".pgm": lambda: b"P5 " + b"#" * 100_000 + b"\n1 1\n255\nx",
        ".tif": lambda: _patched(
            maker.world.photo(".tif").read_bytes(), random.randrange(8, 200), struct.pack("<I", width)
        ),
    }
    suffix = random.choice(sorted(content))
    maker.write(f"photos/1/p{suffix}", content[suffix]())
    shutil.copy(maker.world.photo(".jpg"), maker.folder / "photos/1/whole.jpg")
    return Case(("check", "folder", "photos"), codes=(0, 1, 2))


def _resized_png(maker: Maker, width: int, height: int) -> bytes:
    import zlib

    content = maker.world.photo(".png").read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def _patched(content: bytes, place: int, patch: bytes) -> bytes:
    return content[:place] + patch + content[place + len(patch) :]


@kind("no file at all", weight=30)
def special(maker: Maker) -> Case:
    """A FIFO, a socket, a device, links in a circle, a folder: with a file's name."""
    what = maker.random.choice(
        ("fifo", "socket", "device", "circle", "broken", "folder", "link to fifo", "deep", "empty")
    )
    name = maker.random.choice(
        ("photos/1/p.jpg", "t.csv", "r.toml", "e.safetensors", "f.npz", "net.onnx", "w.pth", "net.xml",
        "t.parquet",
         "run/config.toml", "run/run.json", "g/items.sqlite", "f/embeddings.npy", "e.pth")
    )  # fmt: skip
    path = maker.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    _make_special(what, path)
    shutil.copy(maker.world.photo(".jpg"), maker.folder / "p.jpg")
    encoder = str(maker.world.encoder())
    commands: dict[str, tuple[tuple[str, ...], ...]] = {
        "photos/1/p.jpg": (("check", "folder", "photos"), ("encode", encoder, name, "--out", "o.npz"),
                           ("index", encoder, "photos", "--gallery", "new")),
        "t.csv": (("check", "table", name), ("split", name, "--out", "o.csv"), ("index", encoder, name,
        "--gallery", "new")),
        "t.parquet": (("check", "table", name),),
        "r.toml": (("config", name), ("train", name, "--out", "new")),
        "e.safetensors": (("encode", name, "p.jpg", "--out", "o.npz"),),
        "f.npz": (("evaluate", name, "--no-report", "--out", "out"),),
        "f/embeddings.npy": (("evaluate", "f", "--no-report", "--out", "out"),),
        "net.onnx": (("encode", name, "p.jpg", "--out", "o.npz"),),
        "net.xml": (("encode", name, "p.jpg", "--out", "o.npz"),),
        "w.pth": (("import-weights", name, "--model", "timm:test_resnet", "--out", "o.safetensors"),),
        "e.pth": (("encode", name, "p.jpg", "--out", "o.npz"),),
        "run/config.toml": (("evaluate", "run", "--no-report"), ("config", name)),
        "run/run.json": (("runs", "."),),
        "g/items.sqlite": (("search", "p.jpg", "--gallery", "g"), ("index", encoder, "p.jpg", "--gallery",
        "g")),
    }  # fmt: skip
    return Case(maker.random.choice(commands[name]), writes=("o.npz", "out", "new", "g"), codes=(0, 1, 2))


def _make_special(what: str, path: Path) -> None:
    if what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name must be short
        socket.socket(socket.AF_UNIX).bind(path.name)
        os.chdir(here)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "circle":
        path.symlink_to(path.name)
    elif what == "broken":
        path.symlink_to("nowhere")
    elif what == "folder":
        path.mkdir()
    elif what == "link to fifo":
        os.mkfifo(path.with_suffix(".pipe"))
        path.symlink_to(path.with_suffix(".pipe"))
    elif what == "deep":
        path.joinpath(*("d" * 50 for _ in range(30))).mkdir(parents=True)
    else:
        path.touch()
