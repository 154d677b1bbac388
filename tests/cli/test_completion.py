"""What the tab key gives: names and keys, quickly, and files where a file will do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete

import reidkit as rk
from reidkit import config, registry
from reidkit.cli import cli, completion


def completed(*words: str) -> list[str]:
    """What is offered for the last word."""
    found = ShellComplete(cli, {}, "reid", "_REID_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tra"], ["train", "track"]),
        (["train", "small-c"], ["small-cpu"]),
        (["recipes", "show", "sn-"], ["sn-resnet50-market1501"]),
        (["study", "jlml-ab"], ["jlml-ablations"]),
        (["check", "cuhk0"], ["cuhk01", "cuhk03"]),
        (["evaluate", "runs/mine", "--data", "veri"], ["veri776"]),
        (["train", "small-cpu", "train.prec"], ["train.precision="]),
        (["train", "small-cpu", "train.precision=b"], ["train.precision=bfloat16"]),
        (["train", "small-cpu", "train.compile="], ["train.compile=true", "train.compile=false"]),
        (["train", "small-cpu", "loss.metric.kind=hap"], ["loss.metric.kind=hap2s"]),
        (["import-weights", "w.pth", "--model", "osnet_x0_2"], ["osnet_x0_25"]),
    ],
)
def test_names_and_keys_are_completed(words: list[str], expected: list[str]) -> None:
    assert completed(*words) == expected


def test_galleries_of_the_folder_that_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("people.gallery", "shop/door.gallery"):
        with rk.open_gallery(tmp_path / place) as gallery:
            gallery.add(np.eye(2, dtype=np.float32))
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert completed("search", "query.jpg", "--gallery", "p") == ["people.gallery"]
    assert completed("gallery", "info", "shop/") == ["shop/door.gallery"]


def test_losses_are_known_without_importing_them() -> None:
    assert completion.loss_names() == list(registry.names("loss"))


def test_every_key_is_one_that_a_recipe_takes() -> None:
    tree = config.as_tree(config.load("small-cpu"))
    for key in completion.config_keys():
        table, _, field = key.partition(".")
        if table not in ("seed", "loss"):
            assert field in tree[table] or field == "cache_folder", key


def test_a_key_press_imports_no_network() -> None:
    code = (
        "import sys; from click.shell_completion import ShellComplete; from reidkit.cli import cli;"
        "complete = ShellComplete(cli, {}, 'reid', '_REID_COMPLETE').get_completions;"
        "complete(['train'], 'sm'); complete(['train', 'small-cpu'], 'loss.a.kind=');"
        "complete(['search', 'a.jpg', '--gallery'], ''); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
