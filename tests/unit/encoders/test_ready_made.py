"""The table of ready-made encoders: each command, on a made-up file of the documented names and shapes."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import reidkit as rk
from reidkit.cli.import_weights import _model_options, import_weights_command
from reidkit.encoders.foreign_weights import import_weights
from reidkit.encoders.own import OWN
from reidkit.encoders.ready_made import find_ready_made, ready_made
from reidkit.errors import UnknownName
from tests import published_weights as published

OSNETS = {
    "osnet_x1_0": published.torchreid_osnet(64, 256, 384, 512),
    "osnet_x0_75": published.torchreid_osnet(48, 192, 288, 384),
    "osnet_x0_5": published.torchreid_osnet(32, 128, 192, 256),
    "osnet_x0_25": published.torchreid_osnet(16, 64, 96, 128),
    "osnet_ibn_x1_0": published.torchreid_osnet(64, 256, 384, 512, ibn=True),
    "osnet_ain_x1_0": published.torchreid_osnet_ain(),
}
CLASSIFIER = {"classifier.weight": (751, 2048), "classifier.bias": (751,)}
FC512 = {"fc.0.weight": (512, 2048), "fc.0.bias": (512,), **published.batch_norm("fc.1", 512)}


def documented(name):
    """Files, (names to shapes), that an entry stands for."""
    if name.startswith("torchreid-osnet"):
        return [OSNETS[name.split("-")[1]]]
    if name.startswith("torchreid-resnet50_fc512"):
        return [{**published.resnet50(), **FC512, "classifier.weight": (751, 512), "classifier.bias": (751,)}]
    if name.startswith("torchreid-resnet50"):
        return [{**published.resnet50(), **CLASSIFIER}]
    if name.startswith("fastreid"):
        kind = name.split("-")[1]
        body = published.resnet50_ibn_a if "-ibn-" in name else published.resnet50
        extra = published.fastreid(with_non_local=kind in ("agw", "sbs"), power=kind != "bot")
        own = published.resnet50("backbone.").keys()
        return [body("backbone.") | {key: shape for key, shape in extra.items() if key not in own}]
    if name.startswith("transreid"):
        overlapping = "stride12" in name
        grid = (21, 10) if overlapping else (16, 8)
        parts = {"jigsaw": True, "cameras": 6} if overlapping else {}
        return [published.transreid("vit_base_patch16_224", size=(256, 128), grid=grid, **parts)]
    depths = (2, 2, 18, 2) if name.endswith("small") else (2, 2, 6, 2)
    return [published.solider(depths, fine_tuned=fine_tuned) for fine_tuned in (False, True)]


def cases():
    """One of each command that differs by more than the files it reads and writes."""
    seen = {}
    for entry in ready_made():
        if entry.command.startswith("reid import-weights"):
            words = shlex.split(entry.command)
            seen.setdefault(" ".join(words[3:-2]) + entry.name.split("-")[0], entry)
    return [pytest.param(entry, id=entry.name) for entry in seen.values()]


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
@pytest.mark.parametrize("entry", cases())
def test_each_command_imports_a_file_of_the_documented_names_and_shapes(entry, tmp_path):
    reid, command, *words = shlex.split(entry.command)
    assert (reid, command) == ("reid", "import-weights")
    given = import_weights_command.make_context("import-weights", words).params
    with torch.device("meta"):  # names and shapes are all that is looked at
        model = rk.build_model(given["name"], **_model_options(given["options"]))
        files = documented(entry.name)
    model.check_image_size(given["height"], given["width"])
    # Without a neck that of the file is left over: its authors score the feature before it.
    neck = {f"bottleneck.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    for shapes in files:
        torch.save(published.made_up(shapes), tmp_path / "file.pth")
        report = import_weights(model, tmp_path / "file.pth", drop=given["drop"])
        assert report.untrained == ()
        assert report.wrong_shape == {}
        assert set(report.left_over) == (neck & set(shapes) if "model.neck=plain" in entry.command else set())
        assert "model." not in "".join(report.notes)


def test_entries_are_complete():
    entries = ready_made()
    assert len({entry.name for entry in entries}) == len(entries)
    [own] = [entry for entry in entries if entry.name == OWN]
    assert (Path(__file__).parents[3] / own.page).is_file()
    for entry in entries:
        if entry is own:  # nobody published its scores; its page tells them
            continue
        assert entry.scores
        assert all(0 < ap < rank1 < 100 for rank1, ap in entry.scores.values())
        assert entry.page.startswith("https://")
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in entry.sha256.values())
        assert ("FILE" in entry.command) == (not entry.file and not entry.sha256)
        assert entry.file in entry.command
        assert all(name.partition(".")[0] in entry.command for name in entry.sha256)


def test_an_unknown_one():
    with pytest.raises(UnknownName, match="did you mean 'solider-swin-tiny'"):
        find_ready_made("solider-swin-tini")
