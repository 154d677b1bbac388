"""``reid list models``: names, options and costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from reidkit import registry
from reidkit.cli import cli
from reidkit.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run(*words):
    return CliRunner().invoke(cli, ["list", *words])


@pytest.fixture
def three_models(monkeypatch):
    monkeypatch.setattr(registry, "names", lambda kind: ("jlml", "osnet_x0_25", "timm"))


def test_details_as_a_table(three_models):
    lines = run("models", "--details").output.splitlines()
    assert lines[0].split() == ["name", "parameters", "multiply-adds", "embedding", "input"]
    assert lines[1].split() == ["jlml", "7.79", "M", "0.538", "G", "1024", "256", "x", "128"]
    assert lines[2].split() == ["osnet_x0_25", "0.20", "M", "0.082", "G", "512", "256", "x", "128"]
    assert lines[4].startswith("and timm:NAME")


def test_details_as_json_at_another_size(three_models):
    costs = json.loads(run("models", "--details", "--height", "224", "--width", "224", "--json").output)
    assert list(costs) == ["jlml", "osnet_x0_25"]
    assert costs["jlml"] == {
        "parameters": 7_790_624,
        "multiply_adds": 833_019_904,
        "embedding": 1024,
        "height": 224,
        "width": 224,
    }


@pytest.mark.parametrize("size", [("256", "128"), ("224", "224")])
def test_the_documents_tables_are_what_the_command_prints(size, monkeypatch):
    text = (ROOT / "docs" / "models.md").read_text()
    table = text.partition(f"<!-- costs {size[0]} x {size[1]} -->")[2].partition("<!-- end costs -->")[0]
    documented = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.split("\n")[3:-1]]
    assert len(documented) >= 5
    if size == ("224", "224"):  # a table of some models
        monkeypatch.setattr(registry, "names", lambda kind: [name for name, *_ in documented])
    costs = json.loads(run("models", "--details", "--height", size[0], "--width", size[1], "--json").output)
    for name, parameters, multiply_adds, embedding in documented:
        cost = costs.pop(name)
        assert parameters == f"{cost['parameters'] / 1e6:.2f} M"
        assert multiply_adds == f"{cost['multiply_adds'] / 1e9:.3f} G"
        assert embedding == str(cost["embedding"])
    missing = [name for name in costs if not name.startswith("made_up")]  # other tests register those
    assert not missing, "every model stands in the table"


def test_a_size_that_a_model_cannot_take(three_models):
    result = run("models", "--details", "--height", "16")
    assert isinstance(result.exception, ConfigError)
    assert "16 x 128 (height x width), too small for model 'jlml'" in str(result.exception)


@pytest.mark.parametrize(
    "words", [("losses", "--details"), ("models", "--height", "64"), ("models", "--width", "0")]
)
def test_options_that_do_not_go_together(words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Error" in result.output


def test_options_are_listed_without_details():
    options = json.loads(run("models", "--json").output)
    assert options["jlml"]["options"] == {
        "stripes": 4,
        "branches": "both",
        "shared": True,
        "uniloss": False,
    }
    assert options["osnet_x1_0"]["what"].startswith("OSNet (Zhou et al. 2019")
