"""Every code block of every page runs, as printed, in a folder of drawn photos and small networks."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reidkit import config, registry, trust
from reidkit.cli import allowed_anywhere, cli
from tests.docs.pages import DOCUMENTS, ROOT, Block, blocks, name
from tests.docs.world import PHOTOS, World, photos, places, with_small_networks_and_one_step

pytestmark = pytest.mark.alone  # OpenVINO is loaded here

FEW = {PHOTOS: ("few photos", lambda _, root: photos(root, identities=16))}
OWN = {
    "docs/first_hour.md": {PHOTOS: ("places", lambda _, root: places(root))},
    "docs/reidkit_small.md": FEW,  # a real network looks at them
    "docs/start/photos.md": FEW,
    "docs/start/other-network.md": FEW,
}
PAGES = [
    page
    for page in DOCUMENTS
    if blocks(page) and not (page.parent.name == "losses" and page.stem != "README")
]
"""All but the pages of losses, which have tests of their own."""

reported: list[str] = []
NOT_READ = ("text", "html", "json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        with_small_networks_and_one_step(patch)
        yield World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_run_as_printed(
    page: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [block for block in blocks(page) if block.file or block.language not in NOT_READ]
    run = [block for block in found if not block.not_run]
    layout = page.stem if page.parent.name == "datasets" and page.stem in registry.names("dataset") else ""
    world.give_data(tmp_path, layout)
    text = "\n".join(block.text for block in run if not block.file)
    world.give(tmp_path, text, made_by(text), OWN.get(name(page)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REIDKIT_DATA", str(world.published_data))
    monkeypatch.setenv(trust.ENVIRONMENT, "")  # what a page allows holds for that page
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_afterwards(monkeypatch)
    names: dict[str, Any] = {"__name__": "page"}
    for block in found:
        try:
            check(block) if block.not_run else follow(block, names)
        except BaseException as error:
            error.add_note(f"{name(page)}, line {block.line}:\n{block.text}")
            raise


def forget_afterwards(patch: pytest.MonkeyPatch) -> None:
    """Components that a page registers are gone with it."""
    for kind in registry.FOLDERS:
        registry.names(kind)  # all of them are found first
    patch.setattr(
        registry, "_components", {kind: dict(known) for kind, known in registry._components.items()}
    )


def made_by(text: str) -> set[str]:
    """What a page's own commands and calls write before anything reads it, which therefore is not given."""
    made = re.findall(r"""(?:--out |out=")([\w./-]+)""", text)
    return {*made, *re.findall(r"""(?:index .*--gallery |gallery import |open_gallery\(")([\w.-]+)""", text)}


def follow(block: Block, names: dict[str, Any]) -> None:
    if block.file:
        Path(block.file).write_text(block.text, "utf-8")
        sys.modules.pop(Path(block.file).stem, None)  # another page's of that name
    elif block.language == "python":
        exec(compile(block.text, "page", "exec"), names)  # the page is ours
    elif block.language == "toml":
        tree = tomllib.loads(block.text)
        with trust.allow_code("pytorch_metric_learning"):
            config.check_components(config.parse(tree))
    else:
        assert block.is_shell, f"a block of {block.language}: mark it as text, or give it a runner"
        for command in block.commands:
            follow_command(command)


def follow_command(command: str) -> None:
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[0] != "reid":
        check_command(command)
        return
    anywhere, others = allowed_anywhere([expanded(word) for word in words[1:]])
    if others[0] == "evaluate" and reported:
        others.append("--no-report")  # the first report of all is enough: drawing one takes seconds
    result = CliRunner().invoke(cli, [*anywhere, *others], standalone_mode=False, input="y\n")
    assert result.exception is None, f"{command}\n{result.output}"
    assert result.return_value in (None, 0), f"{command}\n{result.output}"
    if others[0] == "evaluate":
        reported.append(command)


def expanded(word: str) -> str:
    return os.path.expandvars(word)


def check(block: Block) -> None:
    """That a block which does not run here is at least Python, TOML, or commands with options that exist."""
    if block.language == "python":
        compile(block.text, "page", "exec")
    elif block.language == "toml":
        tomllib.loads(block.text)
    else:
        for command in block.commands:
            check_command(command)


def check_command(command: str) -> None:
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    if program == "reid":
        check_options(rest)
    elif program == "torchrun":
        check_options(rest[rest.index("reidkit") + 1 :])
    elif program == "pip":
        check_extras(command)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    elif program == "python":
        assert rest[0] == "-m" or (ROOT / rest[0]).exists(), command
    else:
        assert program in ("git", "cd", "docker", "curl", "source", "."), f"what is {program}?"


def check_options(words: list[str]) -> None:
    command_name, *rest = allowed_anywhere(words)[1]
    known = cli.get_command(None, command_name)  # type: ignore[arg-type]
    assert known is not None, command_name
    known.make_context(command_name, rest, resilient_parsing=False)


def check_extras(command: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for listed in re.findall(r"reidkit\[([\w,]+)\]", command):
        assert set(listed.split(",")) <= set(extras), command


def test_what_is_not_run_says_why() -> None:
    for page in DOCUMENTS:
        for block in blocks(page):
            assert not block.not_run or len(block.not_run) > 10, (name(page), block.line)
