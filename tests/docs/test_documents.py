"""What the documents say exists, exists."""

import ast
import importlib.util
import re
import unicodedata
from functools import cache

import pytest
from click.testing import CliRunner

from reidkit.cli import cli
from tests.docs.pages import DOCUMENTS, ROOT, links
from tests.docs.pages import name as name_of

GENERATED = ROOT / "docs" / "reference" / "generated"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The pages that are made of the code, as the site has them."""
    found = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("generated")
    module.write(folder)
    return folder


@cache
def anchors(page):
    """Of the headings of a page, as code hosts and the site make them of their text."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)}


def slug(heading):
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    kept = [c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN"]
    return "".join(kept).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document, generated):
    for target in links(document):
        path, _, anchor = target.partition("#")
        page = (document.parent / path).resolve() if path else document
        if page.parent == GENERATED:
            page = generated / page.name
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


LISTS = {"index", "results", "security_roles"}  # they lead everywhere already, or stand beside another page
SHORT = {ROOT / "docs" / folder for folder in ("losses", "datasets")}  # below a README, and of one form


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_a_page_says_what_to_read_next(document):
    if document.parent == ROOT or document.stem in LISTS:
        return
    if document.parent not in SHORT or document.stem in ("README", "labels", "protocols"):
        assert "\nWhat to read next: [" in document.read_text("utf-8")


def test_the_reference_tells_every_command_and_every_key(generated):
    told = (generated / "commands.md").read_text("utf-8")
    for command in cli.list_commands(None):
        assert f"## reid {command}\n" in told
    keys = (generated / "configuration.md").read_text("utf-8")
    for key in ("seed", "data.val_identities", "loss.NAME.schedule", "train.ema_decay"):
        assert f"| `{key}` |" in keys


@pytest.mark.parametrize(
    "name", ["make demo", "make test", "make check", "make test-slow", "make docs", "make release"]
)
def test_make_targets_exist(name):
    assert re.search(rf"^{name.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


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
