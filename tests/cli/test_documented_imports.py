"""The commands of docs/weights.md, each with a file of the documented names and shapes."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from reidkit.cli import cli
from tests.published_weights import fastreid, made_up, resnet50, solider, torchreid_osnet, transreid

DOCUMENT = Path(__file__).parents[2] / "docs" / "weights.md"
COMMANDS = re.findall(r"^reid import-weights (.*)$", DOCUMENT.read_text(), re.MULTILINE)
FILES = {
    "osnet_x0_25_market.pth": lambda: torchreid_osnet(16, 64, 96, 128),
    "market_bot_R50.pth": fastreid,
    "market_sbs_R50.pth": lambda: fastreid(with_non_local=True, power=True),
    "market_agw_R50.pth": lambda: fastreid(with_non_local=True),
    "resnet50_market.pth.tar": lambda: {**resnet50(), "classifier.weight": (751, 2048)},
    "deit_transreid_market.pth": lambda: transreid(
        "vit_base_patch16_224", size=(256, 128), grid=(21, 10), cameras=6, jigsaw=True
    ),
    "checkpoint.pth": resnet50,
    "swin_tiny_tea.pth": lambda: solider((2, 2, 6, 2), fine_tuned=False),
}


def test_every_command_has_a_file_here():
    named = {shlex.split(command)[0] for command in COMMANDS}
    assert named == {*FILES, "bninception.pth"}, "BN-Inception's has a section of its own"


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("bninception")])
def test_a_documented_command_imports_all_weights(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(command)
    weights = made_up(FILES[name]())
    nests = {"state_dict": weights, "state_dict_ema": dict(weights)}
    torch.save(nests if name == "checkpoint.pth" else {"model": weights}, name)
    # No image goes through at the documented size; that takes long, and the weights are made up.
    monkeypatch.setattr("reidkit.encoders.foreign_encoder.check_encoder", lambda encoder: None)
    result = CliRunner().invoke(cli, ["import-weights", name, *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    matched = re.search(r"(\d+) of (\d+) backbone weights matched", result.stdout)
    assert matched[1] == matched[2]
    assert "left over" not in result.stdout
    assert "of another shape" not in result.stdout
