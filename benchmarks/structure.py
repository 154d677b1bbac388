"""How the package is built: modules at its root, long signatures and files, what a start imports and calls.

    python benchmarks/structure.py                      # of this checkout
    python benchmarks/structure.py --against ../old     # beside another checkout of the project
    python benchmarks/structure.py --against ../old --write

Everything is counted from the source or by running it: start-up times are the least of several fresh
processes in turn, calls are those of functions of the package itself while a command works.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from results import processor, write_section

HERE = Path(__file__).parents[1]
LONG = 400  # lines of a file

# Runs one command and counts the package's own functions: how many are entered, how deep they nest.
COUNT_CALLS = """
import json, os, sys
import reidkit, reidkit.cli
home = os.path.dirname(reidkit.__file__)
entered, depth, deepest = set(), 0, 0
def look(frame, event, _):
    global depth, deepest
    code = frame.f_code
    if not code.co_filename.startswith(home) or code.co_name.startswith("<"):
        return
    if event == "call":
        entered.add((code.co_filename, code.co_qualname))
        depth += 1
        deepest = max(deepest, depth)
    elif event == "return":
        depth -= 1
sys.setprofile(look)
try:
    reidkit.cli.cli.main(sys.argv[1:], standalone_mode=False)
finally:
    sys.setprofile(None)
    print("\\n" + json.dumps([len(entered), deepest]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="another checkout, shown as before")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    checkouts = [*([options.against] if options.against else []), HERE]
    facts = [{**static_facts(root / "src" / "reidkit"), **call_facts(root)} for root in checkouts]
    for name, values in start_facts(checkouts).items():
        for fact, value in zip(facts, values, strict=True):
            fact[name] = value
    text = table(facts)
    print(text)
    if options.write:
        write_section("structure", text)


def static_facts(package: Path) -> dict[str, str]:
    """What the source alone tells."""
    files = sorted(package.rglob("*.py"))
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in files}
    signatures = sorted(_signatures(files), reverse=True)
    return {
        "modules at the root": f"{len(list(package.glob('*.py')))}",
        "modules": f"{len(files)}",
        "lines": f"{sum(lengths.values()):,}",
        f"files of more than {LONG} lines": f"{sum(length > LONG for length in lengths.values())}",
        "longest file": f"{max(lengths.values())}",
        "parameters of the longest signatures": ", ".join(f"{name} {n}" for n, name in signatures[:5]),
        "functions of more than 8 parameters": f"{sum(n > 8 for n, _ in signatures)}",
    }


def _signatures(files: list[Path]) -> list[tuple[int, str]]:
    """Number of parameters of every function outside the command line, whose options are its parameters."""
    found = []
    for file in files:
        if file.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            for function in ast.iter_child_nodes(node):
                if isinstance(function, ast.FunctionDef):
                    arguments = function.args
                    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
                    found.append((len([n for n in names if n not in ("self", "cls")]), owner + function.name))
    return found


def call_facts(root: Path) -> dict[str, str]:
    """Functions of the package that an evaluation and a search pass through, on a few drawn people."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        photos = _draw_people(Path(folder) / "data")
        options = ["data.name=market1501", f"data.root={folder}/data", "train.epochs=1"]
        recipe = Path(folder) / "tiny.toml"
        recipe.write_text(
            '[transform]\nheight = 48\nwidth = 24\n[model]\nname = "timm:test_resnet"\n[loss.trihard]\n'
            "[sampler]\nidentities_per_batch = 4\nimages_per_identity = 2\n[train]\nnum_workers = 0\n"
        )
        _reid(root, "train", str(recipe), *options, "--out", str(run))
        _reid(root, "index", str(run), str(photos), "--gallery", f"{folder}/people.gallery")
        query = str(next(photos.glob("*.jpg")))
        counted = {
            "evaluate": _calls(root, "evaluate", str(run), "--no-report"),
            "search": _calls(root, "search", query, "--gallery", f"{folder}/people.gallery"),
        }
    return {f"functions on the way of {name}": f"{n}, {deep} deep" for name, (n, deep) in counted.items()}


def _draw_people(root: Path) -> Path:
    """Twelve people in Market-1501's tree, each a colour; returns the folder of gallery images."""
    rng = np.random.default_rng(0)
    for identity in range(1, 13):
        colour = rng.integers(30, 226, 3)
        for camera in (1, 2, 3):
            folder = (
                "bounding_box_train" if identity <= 8 else "query" if camera == 1 else "bounding_box_test"
            )
            pixels = np.clip(colour + rng.normal(0, 20, (48, 24, 3)), 0, 255).astype(np.uint8)
            path = root / folder / f"{identity:04}_c{camera}s1_000001_01.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root / "bounding_box_test"


def start_facts(checkouts: list[Path], *, rounds: int = 5) -> dict[str, list[str]]:
    """Seconds of fresh processes, the checkouts in turn so that a busy machine is busy for all."""
    programs = {
        "seconds of `reid --help`": ["-m", "reidkit", "--help"],
        "seconds of `reid search --help`": ["-m", "reidkit", "search", "--help"],
    }
    found: dict[str, list[str]] = {}
    for name, arguments in programs.items():
        times: list[list[float]] = [[] for _ in checkouts]
        for _ in range(rounds):
            for root, seconds in zip(checkouts, times, strict=True):
                begin = time.perf_counter()
                subprocess.run([sys.executable, *arguments], env=_of(root), check=True, capture_output=True)
                seconds.append(time.perf_counter() - begin)
        found[name] = [f"{min(seconds):.2f}" for seconds in times]
    return found


def _reid(root: Path, *words: str) -> None:
    command = [sys.executable, "-m", "reidkit", *words]
    done = subprocess.run(command, env=_of(root), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"reid {' '.join(words)} in {root}: {done.stderr.strip()[-500:]}")


def _calls(root: Path, *words: str) -> tuple[int, int]:
    command = [sys.executable, "-c", COUNT_CALLS, *words]
    done = subprocess.run(command, env=_of(root), capture_output=True, text=True, check=True)
    num, deepest = json.loads(done.stdout.splitlines()[-1])
    return num, deepest


def _of(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root.resolve() / "src")}


def table(facts: list[dict[str, str]]) -> str:
    heads = ["before", "now"][-len(facts) :]
    rows = [["", *heads], *([name, *(fact[name] for fact in facts)] for name in facts[0])]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|" + "---|" * len(heads))
    return "\n".join([*lines, "", f"Times on {processor()}."])


if __name__ == "__main__":
    main()
