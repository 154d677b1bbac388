"""Files that travel reach registered components only. In a child process, whose imports are watched."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

import reidkit as rk
from reidkit import config, registry, trust
from reidkit.encoders.encoder_file import save_weights
from reidkit.errors import CheckpointError, ConfigError
from reidkit.training.runs import load_data

# Runs commands one after the other; notes who runs code, starts a process or opens a connection meanwhile.
WATCHED = """
    import contextlib, io, json, os, sys
    import reidkit.cli, reidkit.encoders.encoder
    from reidkit import registry
    for kind in registry.FOLDERS:
        registry.names(kind)  # what we import ourselves starts processes
    seen = []
    def note(event, arguments):
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"):
            seen.append(event)
        # importlib.import_module raises no event "import"
        elif event == "exec" and getattr(arguments[0], "co_filename", "").endswith("planted.py"):
            seen.append("planted")
    sys.addaudithook(note)
    results = []
    for words in json.loads(sys.argv[1]):
        seen.clear(), sys.modules.pop("planted", None), os.environ.pop("REIDKIT_ALLOW_CODE", None)
        sys.argv[1:] = words
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                reidkit.cli.main()
            except SystemExit as end:
                code = end.code
        results.append([code, out.getvalue(), error.getvalue().strip(), list(seen)])
    print(json.dumps(results))
"""

PLANTED = """
import pathlib
from subprocess import getoutput
def load(*arguments, **options): pathlib.Path(__file__).with_name("called").touch()
"""


def watched(folder, *commands):
    """Exit code, outputs and what was noted, of each command; ``planted.py`` is where Python finds it."""
    (folder / "planted.py").write_text(PLANTED)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED), json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return rk.build_model("timm:test_resnet")


def encoder_file(path, network, name, **options):
    description = {"model": {"name": name, **options}, "transform": {"height": 48, "width": 24}, "card": {}}
    save_weights(path, network.state_dict(), description)
    return path


@pytest.fixture(scope="module")
def outcomes(model, tmp_path_factory):
    """Of files that name code, in commands that must refuse it, print it, and be allowed to run it."""
    root = tmp_path_factory.mktemp("trust")
    for folder in ("photos", "run", "own"):
        (root / folder).mkdir()
    Image.new("RGB", (24, 48)).save(root / "photos" / "a.png")
    encoder_file(root / "evil.safetensors", model, "planted:getoutput", cmd="touch called")
    encoder_file(root / "run" / "best.safetensors", model, "timm:test_resnet")
    names_code = '[data]\nname = "planted:load"\nroot = "."\n[train]\ntrackers = ["planted:load"]\n'
    (root / "run" / "config.toml").write_text(names_code)
    (root / "mine.toml").write_text('[loss.own]\nkind = "planted:load"\n')
    (root / "other.toml").write_text('[loss.own]\nkind = "planted:getoutput"\n')
    (root / "own" / "study.toml").write_text(
        'title = ""\nbase = "small-cpu"\n[[axis]]\nname = "a"\n'
        '[[axis.cells]]\nlabel = "b"\nset = ["data.name=planted:load"]\n'
    )
    refused = (
        ["index", "evil.safetensors", "photos", "--gallery", "g"],
        ["encode", "evil.safetensors", "photos", "--out", "o.npz"],
        ["evaluate", "run"],
        ["encode", "run", "--out", "o.npz"],
        ["train", "run/config.toml", "--out", "new"],
        ["study", "own/study.toml", "--out", "new"],
    )
    printed = (["config", "run/config.toml"],)
    allowed = (
        ["config", "mine.toml", "--allow-code", "planted"],
        ["--allow-code=planted", "config", "mine.toml"],
        ["config", "small-cpu", "train.trackers=['planted:load']"],
        ["config", "other.toml", "--allow-code", "planted"],
    )
    results = watched(root, *refused, *printed, *allowed)
    return results[: -len(allowed)], {path.name for path in root.iterdir()}, results[-len(allowed) :]


def test_files_that_name_code_are_refused_and_nothing_of_it_is_imported(outcomes):
    *refused, printed = outcomes[0]
    for code, out, error, seen in refused:
        assert (code, out, seen) == (2, "", []), error
        assert "--allow-code planted" in error
        assert "is code of the module 'planted'" in error
    code, out, error, seen = printed
    assert (code, seen) == (0, []), error
    assert 'trackers = ["planted:load"]' in out
    assert "not checked: planted:load" in error
    assert not outcomes[1] & {"called", "new", "g", "o.npz"}


def test_what_the_person_allows_or_types_is_imported(outcomes):
    *allowed, other = outcomes[2]
    for code, _, error, seen in allowed:
        assert (code, error, seen) == (0, "", ["planted"])
    assert other[0] == 2
    assert "is defined in another module, 'subprocess'" in other[2]


OWN_NETWORK = """
import reidkit as rk

class Net(rk.models.SingleBranch):
    def __init__(self, *, width=3):
        from torch import nn
        super().__init__(nn.Conv2d(3, width, 1), width, smallest_side=1)

def not_a_network():
    return 3
"""


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_network"
    sys.modules.pop("own_network", None)


def test_a_network_of_ones_own_is_given_saved_and_allowed(own_network, tmp_path):
    model = rk.build_model("own_network:Net", width=4)  # the caller's own word
    file = rk.Encoder(model, height=8, width=8).save(tmp_path / "own.safetensors")
    del sys.modules[own_network]
    with pytest.raises(trust.CodeRefused, match="add --allow-code own_network to the command"):
        rk.load_encoder(file)
    assert own_network not in sys.modules
    assert rk.load_encoder(file, allow_code=["own_network"]).dim == 4
    with pytest.raises(trust.CodeRefused):
        rk.load_encoder(file)  # allowed once is not allowed for ever
    with trust.allow_code("own_network:Net"):
        assert rk.load_encoder(file).dim == 4
    with pytest.raises(ConfigError, match="gives a int; a model is a"):
        rk.build_model("own_network:not_a_network")
    encoder_file(file, model, "own_network:not_a_network")
    with pytest.raises(CheckpointError, match="a model is a reidkit"):
        rk.load_encoder(file, allow_code=["own_network"])


def test_names_inside_of_a_files_options_are_refused_too(tmp_path):
    with pytest.raises(trust.CodeRefused, match="--allow-code planted"):
        rk.load_dataset("union", tmp_path, sets=[{"layout": "planted:load"}])
    run = {"data": {"name": "union", "root": str(tmp_path), "sets": [{"layout": "planted:load"}]}}
    with pytest.raises(trust.CodeRefused, match="--allow-code planted"):
        load_data(config.parse(run))


def test_a_name_is_given_by_the_caller_only_where_no_file_gave_it():
    with trust.from_file(), pytest.raises(trust.CodeRefused):
        rk.build_model("own_network:Net")


@pytest.mark.parametrize(
    "name",
    [
        "timm:hf-hub:x/y",
        "timm:local-dir:/etc",
        "timm:test_resnet.http://x",
        "timm:test_resnet.nobody",
        "timm:",
    ],
)
def test_timm_is_asked_for_its_own_names_only(model, tmp_path, name):
    """Others would reach the network or files."""
    file = encoder_file(tmp_path / "e.safetensors", model, name)
    with pytest.raises(CheckpointError, match="names a network that cannot be built"):
        rk.load_encoder(file)


def test_only_those_that_take_an_argument_get_one():
    assert registry.get("model", "timm:test_resnet").args == ("test_resnet",)
    for kind, name in (
        ("model", "jlml:x"),
        ("model", "resnet50:x"),
        ("dataset", "market1501:x"),
        ("loss", "msml:x"),
    ):
        with pytest.raises(ConfigError, match="takes nothing behind a colon"):
            registry.get(kind, name)
    with pytest.raises(ConfigError, match="unknown model 'not a module:x'; code of your own is named"):
        registry.get("model", "not a module:x")


def test_allowing_reaches_what_lies_below_and_nothing_beside(monkeypatch):
    monkeypatch.setenv(trust.ENVIRONMENT, "outer.inner")
    assert trust.is_allowed("outer.inner:X")
    assert trust.is_allowed("outer.inner.below:X")
    assert not trust.is_allowed("outer:X")
    assert not trust.is_allowed("outer.inner2:X")
    with trust.allow_code("other:X"):
        assert trust.is_allowed("other:X")
        assert not trust.is_allowed("other:Y")
    assert not trust.is_allowed("other:X")
    for name in ("", "a b", "a;b", "../x", "a:b:c"):
        with pytest.raises(ConfigError, match="cannot be the name of a module"), trust.allow_code(name):
            pass


def test_processes_that_are_started_inherit_what_is_allowed(monkeypatch):
    monkeypatch.setenv(trust.ENVIRONMENT, "before")
    trust.allow_typed("small-cpu", "data/x.toml", "package.module:Thing", "C:\\x")
    probe = "from reidkit import trust; print(*map(trust.is_allowed, ['package.module:Thing', 'before:x']))"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).split() == ["True", "True"]
    assert sorted(os.environ[trust.ENVIRONMENT].split(",")) == ["before", "package.module:Thing"]


# Who calls functions that take a name as their caller's own word. A person has typed it, or it stands there.
TYPED = {
    "checks/proposal",
    "cli/check",
    "cli/demo",
    "models/_cost",
    "encoders/foreign_encoder",
    "datasets/_splits",
    "web/demo",
}
# It is read from a file, which they say with trust.from_file().
READ = {"encoders/encoder_file", "training/runs", "studies/data_check", "reports/chosen_data"}


def test_whoever_passes_on_a_name_from_a_file_says_so():
    source = Path(rk.__file__).parent
    callers = set()
    for path in source.rglob("*.py"):
        calls = [
            node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)
        ]
        if any(isinstance(call, ast.Name) and call.id in ("load_dataset", "build_model") for call in calls):
            callers.add(path.relative_to(source).with_suffix("").as_posix())
    assert callers == TYPED | READ
    assert all("trust.from_file()" in (source / f"{name}.py").read_text("utf-8") for name in READ)
