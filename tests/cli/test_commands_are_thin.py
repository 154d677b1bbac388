"""Commands parse, call and print; what they do lies in the library, where a service finds it too.

Held by the syntax of `cli/`, file by file:

- nothing but the library, the standard library, click and rich is imported: no arrays, images, networks;
- of the library, only what is named here by the command: workflows, and what reads and explains options;
- no file is written, opened, made or removed;
- loops and comprehensions stand in functions that print, whose names begin with ``print_``, and in those that
  write a line of a table, ``_row`` and ``_text``; the six files about the terminal itself are free of this;
- no function has more than 25 statements.

It does not hold that a function that prints computes nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CLI = Path(__file__).parents[2] / "src" / "reidkit" / "cli"
FILES = sorted(CLI.glob("*.py"))
OF_THE_TERMINAL = ("__init__", "completion", "options", "output", "progress", "endings")

EVERYWHERE = {
    "config",
    "errors",
    "logs",
    "texts.printable",
    "texts.addresses",
    "progress",
    "trust",
    "training.trackers",
}
WORKFLOWS = {
    "__init__": {"__version__"},
    "check": {
        "checks.check",
        "checks.next_step",
        "checks.proposal",
        "datasets",
        "datasets.folder",
        "datasets.synthetic.dataset",
        "images.speed",
        "video.boxes",
        "video.check",
    },
    "cluster": {
        "clustering.cluster",
        "clustering.proposals",
        "galleries",
        "reports.people_page",
        "search.searcher",
        "search.whole_paths",
    },
    "compare": {"reports.chosen_data", "reports.run_comparison"},
    "completion": {"config.tables", "registry", "studies.study"},
    "components": {"models._cost", "registry"},
    "demo": {
        "checks.check",
        "datasets",
        "datasets.synthetic.dataset",
        "datasets.synthetic.demo",
        "encoders.loading",
        "reports.run_report",
        "search.searcher",
        "reports.search_picture",
    },
    "encode": {
        "reports.chosen_data",
        "encoders.encoding",
        "encoders.loading",
        "evaluation.evaluation",
        "evaluation.feature_files",
        "datasets._given_images",
    },
    "encoders": {"encoders.ready_made"},
    "evaluate": {
        "reports.chosen_data",
        "training.distributed",
        "encoders.encoder",
        "encoders.loading",
        "encoders.network_file",
        "evaluation.feature_files",
        "reranking",
        "reports.results_folder",
        "reports.run_report",
        "training.embed_validation",
    },
    "export": {"datasets._given_images", "encoders.export"},
    "gallery": {"galleries", "search.nothing_found", "search.whole_paths"},
    "import_weights": {"encoders.foreign_encoder"},
    "index": {"checks.labels", "datasets._given_images", "encoders.at_hand", "search.filling"},
    "options": {"encoders.own"},
    "review": {"galleries", "search.whole_paths"},
    "runs": {"training.runs"},
    "search": {
        "galleries",
        "datasets._given_images",
        "search.people",
        "search.pictures",
        "search.searcher",
        "reports.search_picture",
    },
    "serve": {
        "labels",
        "web",
        "web.audit",
        "web.demo",
        "web.roles",
        "web.serving",
        "web.settings",
        "web.user_rows",
        "web.users",
    },
    "split": {"checks.labels", "datasets._splits"},
    "study": {"studies.study", "studies.workers", "training.kept_memory"},
    "track": {
        "video",
        "video.boxes",
        "video.detecting",
        "video.following",
        "video.outputs",
        "video.tracking",
    },
    "timeline": {
        "galleries",
        "labels",
        "reports.timeline_page",
        "search.transitions",
        "search.visits",
    },
    "train": {"training.distributed", "training.kept_memory", "training.runs"},
}
WRITING = {
    "write_atomically",
    "open",
    "write_text",
    "write_bytes",
    "mkdir",
    "unlink",
    "rename",
    "touch",
}
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MOST_STATEMENTS = 25


def problems(name: str, source: str) -> list[str]:
    """What a file of the command line does that it should leave to the library."""
    tree = ast.parse(source)
    found = [f"imports {module}" for module in imported(tree) if not may_import(name, module)]
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        verb = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if verb in WRITING:
            found.append(f"calls {verb}()")
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        num = sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1
        if num > MOST_STATEMENTS:
            found.append(f"{function.name} has {num} statements")
    if name not in OF_THE_TERMINAL:
        found += [f"loops in {function}" for function in looping(tree) if not prints(function)]
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules that are imported when the file, or a function of it, runs; not those for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)
            elif isinstance(inner, ast.ImportFrom):
                yield from (whole_name(inner.module or "", alias.name) for alias in inner.names)


def whole_name(module: str, name: str) -> str:
    """The module that ``from module import name`` imports."""
    folder = CLI.parent.joinpath(*module.split(".")[1:])
    is_module = module.startswith("reidkit") and folder.is_dir()
    return f"{module}.{name}" if is_module and (module == "reidkit" or is_file(folder, name)) else module


def is_file(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def may_import(name: str, module: str) -> bool:
    package, _, rest = module.partition(".")
    if package != "reidkit":
        return (
            package in ("click", "rich")
            or package in sys.stdlib_module_names - {"subprocess", "csv", "io"}
            or (name == "__init__" and package == "io")
        )
    return rest.startswith("cli.") or rest in EVERYWHERE | WORKFLOWS.get(name, set())


def looping(tree: ast.Module) -> Iterator[str]:
    """Names of the functions with loops; "the file" for loops outside of all."""
    for node in tree.body:
        if any(isinstance(inner, LOOPS) for inner in ast.walk(node)):
            yield node.name if isinstance(node, ast.FunctionDef) else "the file"


def prints(function: str) -> bool:
    return function.startswith("print_") or function in ("_row", "_text")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_command_parses_calls_and_prints(file: Path) -> None:
    assert problems(file.stem, file.read_text()) == []


def test_every_file_that_is_named_is_there() -> None:
    assert {*WORKFLOWS, *OF_THE_TERMINAL} <= {file.stem for file in FILES}


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import numpy as np", "imports numpy"),
        ("def f():\n    from PIL import Image", "imports PIL"),
        (
            "def f():\n    from reidkit.evaluation.features import pool_tracklets",
            "imports reidkit.evaluation.features",
        ),
        ("def f(out):\n    write_atomically(out, '')", "calls write_atomically()"),
        ("def f(out):\n    out.mkdir()", "calls mkdir()"),
        ("def f(data):\n    return [sample.path for sample in data.query]", "loops in f"),
        ("def f():\n" + "    g()\n" * 26, "f has 26 statements"),
    ],
)
def test_work_in_a_command_is_found(source: str, problem: str) -> None:
    assert problems("search", source) == [problem]
