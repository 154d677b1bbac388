"""What the documents say exists, exists."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import reidkit
from reidkit.cli import allowed_anywhere, cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def commands():
    for document in DOCUMENTS:
        for block in blocks(document):
            for line in block.splitlines():
                if line.startswith("reid "):
                    yield line.partition(" #")[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_and_their_options_exist(command):
    name, *words = allowed_anywhere(shlex.split(command)[1:])[1]
    known = cli.get_command(None, name)
    assert known is not None, name
    known.make_context(name, words, resilient_parsing=False)


@pytest.mark.parametrize("name", ["make demo", "make test", "make check", "make test-slow"])
def test_make_targets_exist(name):
    assert re.search(rf"^{name.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_python_in_the_readme_uses_what_there_is():
    for block in blocks(ROOT / "README.md", "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rk":
                assert hasattr(reidkit, node.attr), node.attr


def test_every_command_has_help():
    for name in cli.list_commands(None):
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 5


def layers():
    """Layer of each module, as the table of architecture.md gives it."""
    text = (ROOT / "docs" / "explain" / "architecture.md").read_text()
    found = {}
    for layer, modules in re.findall(r"^\| (\d) \|[^|]*\| (.*) \|$", text, re.MULTILINE):
        for name in re.findall(r"`([a-z0-9_/*]+)`", modules):
            pattern = f"{name}**/*.py" if name.endswith("/") else f"{name}.py"
            files = list((ROOT / "src" / "reidkit").glob(pattern))
            assert files, f"the architecture names {name}, which does not exist"
            found |= {".".join(f.relative_to(ROOT / "src").with_suffix("").parts): int(layer) for f in files}
    return {name.removesuffix(".__init__"): layer for name, layer in found.items()}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "reidkit":
            yield from (f"reidkit.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reidkit."):
            yield node.module


def test_every_module_has_a_layer_and_imports_point_down():
    layer_of = layers()
    components = {f"reidkit.{folder}" for folder in ("losses", "datasets", "models", "galleries")}
    for file in (ROOT / "src" / "reidkit").rglob("*.py"):
        name = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        if name in ("reidkit", "reidkit.__main__"):
            continue
        assert name in layer_of, f"{name} is missing in the table of architecture.md"
        for imported in imports(file):
            target = imported if imported in layer_of else imported.rpartition(".")[0]
            if target == "reidkit":  # the version
                continue
            assert layer_of[target] <= layer_of[name], f"{name} imports {imported}, which is above it"
            own, other = (".".join(module.split(".")[:2]) for module in (name, target))
            if {own, other} <= components:
                assert own == other, f"{name} imports {imported}: components do not know each other's kinds"
