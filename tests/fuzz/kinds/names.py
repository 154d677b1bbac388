"""Names of files and folders: markup, escapes, other directions, no Unicode, as long as the system takes."""

from __future__ import annotations

import os
import shutil

from tests.fuzz.cases import Case, Maker, kind

_PARTS = (
    b"[/]", b"[red]x[/red]", b"[copy]", b"\x1b[31mred", b"\x1b]0;title\x07", b"\xc2\x9b31m", b"a\nb",
    b"a\rb", b"\x7f",
    "\u202egpj.exe".encode(), "\u2066x\u2069".encode(), "\u2028".encode(), b"\xff\xfe", b"caf\xe9",
    "é".encode(),
    "e\u0301".encode(), "李".encode(), "\U0001f600".encode(), b"$\\frac{1", b"<b>x</b>", b"&amp;", b"%s%n",
    b"{0}",
    b" lead", b"trail ", b"-x", b"--help", b"=", b"a=b", b"@x", b"a,b", b"'q'", b'"q"', b"\\", b"*", b"?",
    b"~", b"#2",
    b"x" * 200, "é".encode() * 100, b"0001", b"1.0", b"NaN", b"con", b"..x", b"train", b"query", b"-1",
    b":", b"a:b", b"://",
)  # fmt: skip


def _name(maker: Maker) -> str:
    parts = maker.random.sample(_PARTS, maker.random.choice((1, 1, 2)))
    return os.fsdecode(b"".join(parts)[:200])


@kind("names of files", weight=70)
def names(maker: Maker) -> Case:
    photo = maker.world.photo(".jpg")
    for number in range(maker.random.choice((1, 2, 3))):
        folder = _name(maker) if maker.random.random() < 0.7 else str(number)
        suffix = maker.random.choice((".jpg", ".jpg", ".JPG", ".jpeg", ".txt", ""))
        file = maker.folder / "photos" / folder / (_name(maker) + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            shutil.copyfile(photo, file)
    encoder = str(maker.world.encoder())
    relative, parent = (str(path.relative_to(maker.folder)) for path in (file, file.parent))
    commands: list[tuple[str, ...]] = [
        ("check", "folder", "photos"),
        ("check", "folder", "photos", "pattern={identity}/*.*"),
        ("split", "photos", "--out", "o.csv"),
        ("encode", encoder, "--out", "o.npz", "--", relative),
        ("encode", encoder, "--out", "o.parquet", "photos"),
        ("index", encoder, "photos", "--gallery", "g"),
        ("index", encoder, "photos", "--gallery", "g", "--pattern", "{identity}/*.*"),
        ("search", "--gallery", "g2", "--picture", "o.png", "--", relative),
        ("check", "table", parent),
        ("config", relative),
        ("evaluate", relative),
        ("runs", parent),
    ]
    command = maker.random.choice(commands)
    if "g2" in command:
        shutil.copytree(maker.world.gallery(), maker.folder / "g2")
    writes = ("o.csv", "o.npz", "o.parquet", "g", "o.png")
    return Case(command, writes=writes, keeps=("g2",), codes=(0, 1, 2))


@kind("names given", weight=30)
def given(maker: Maker) -> Case:
    """Names of things that are not there, in every place that takes one."""
    name = _name(maker).lstrip("-")
    encoder = str(maker.world.encoder())
    shutil.copy(maker.world.photo(".jpg"), maker.folder / "p.jpg")
    long = maker.random.choice((name, name * 100, "/".join(["x" * 100] * 60)))[:20_000]
    commands: list[tuple[str, ...]] = [
        ("check", "folder", long), ("check", long, "."), ("config", long), ("train", long, "--out", "o"),
        ("evaluate", long), ("evaluate", encoder, "--data", long, "--root", "."), ("encode", long, "p.jpg",
        "--out", "o.npz"),
        ("encode", encoder, long, "--out", "o.npz"), ("encode", encoder, "p.jpg", "--out", long),
        ("index", encoder, long, "--gallery", "o"), ("search", "p.jpg", "--gallery", long),
        ("import-weights", long, "--model", "timm:test_resnet"), ("import-weights", encoder, "--model", long),
        ("recipes", "show", long), ("recipes", "copy", long, "o"), ("list", long), ("runs", long),
        ("compare", long, long),
        ("split", long, "--out", "o.csv"), (long,), ("study", long, "--out", "o"), ("config", "small-cpu",
        f"{long}=1"),
        ("index", encoder, "p.jpg", "--gallery", "o", "--camera", long), ("runs", ".", "--sort", long),
        ("evaluate", encoder, "--feature", long, "--data", "folder", "--root", "."),
    ]  # fmt: skip
    return Case(
        maker.random.choice(commands), writes=("o", "o.npz", "o.csv", long.partition("/")[0]), codes=(0, 1, 2)
    )
