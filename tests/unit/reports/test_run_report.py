"""A run measured and reported from Python, as `reid evaluate` does it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import reidkit as rk
from reidkit.errors import ConfigError, DataError
from reidkit.reports.results_folder import folder_in_runs, made_from


@pytest.fixture(scope="module")
def encoder() -> rk.Encoder:
    torch.manual_seed(0)
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)


@pytest.fixture
def run(encoder: rk.Encoder, tiny_market: Path, tmp_path: Path) -> Path:
    """As training leaves it, as far as a report looks."""
    folder = tmp_path / "run"
    folder.mkdir()
    encoder.save(folder / "best.safetensors")
    (folder / "config.toml").write_text(f"data.root = {str(tiny_market)!r}\n")
    return folder


def test_a_run_is_reported_on_its_own_data(run: Path, tiny_market: Path) -> None:
    seen = []
    page = rk.report(run, rerank=True, tables=True, progress=lambda done, total: seen.append((done, total)))
    assert page == run / "report.html"
    assert seen[-1] == (48, 48)
    assert (run / "tables" / "scores.json").is_file()
    values = json.loads((run / "evaluation.json").read_text())
    data = rk.load_dataset("market1501", tiny_market)
    expected = rk.evaluate(rk.load_encoder(run), data)
    assert values["mAP"] == expected.mean_average_precision
    assert "re-ranked" in values["reranked"]["protocol"]
    assert values["made_from"] == {"network": str(run), "data": str(tiny_market)}
    assert data.root == tiny_market
    assert rk.report(run, data) == page, "the same data, loaded already"


def test_a_page_is_named_by_the_network(encoder: rk.Encoder, tiny_market: Path, tmp_path: Path) -> None:
    file = encoder.save(tmp_path / "mine-0.2.safetensors")
    page = rk.report(file, rk.load_dataset("market1501", tiny_market), out=tmp_path / "results")
    assert "<title>mine-0.2 on market1501" in page.read_text()


def test_an_encoder_in_memory(encoder: rk.Encoder, tiny_market: Path, tmp_path: Path) -> None:
    data = rk.load_dataset("market1501", tiny_market)
    page = rk.report(encoder, data, out=tmp_path / "out", title="In memory", camera_filter="none")
    html = page.read_text()
    assert "<title>In memory" in html
    origin = dict(re.findall(r'<tr><th scope="row">(.+?)</th><td>(.+?)</td></tr>', html))
    assert origin["network"].startswith("timm:test_resnet")
    assert "{" not in "".join(origin.values()), "told in words, not as Python writes a dict"
    assert origin["trained on"] == "unknown: the encoder does not say"
    assert "camera filter none" in json.loads((tmp_path / "out/evaluation.json").read_text())["protocol"]
    with pytest.raises(ConfigError, match="give both data and out"):
        rk.report(encoder, data)


def test_the_module_of_that_name_does_not_hide_the_function() -> None:
    code = "import reidkit as rk; print(callable(rk.report)); import reidkit.reports.page; "
    code += "print(callable(rk.report))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split() == ["True", "True"]


def test_a_page_that_cannot_be_made_is_an_error(encoder: rk.Encoder, tmp_path: Path) -> None:
    rows = ["path,identity,camera,split"]
    for camera, split in ((1, "query"), (2, "gallery")):
        pixels = np.random.default_rng(camera).integers(0, 255, (48, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{camera}.png")
        rows.append(f"{camera}.png,1,{camera},{split}")
    (tmp_path / "one.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match="no report: the protocol keeps no negative pair"):
        rk.report(encoder, rk.load_dataset("table", tmp_path / "one.csv"), out=tmp_path / "out")
    assert (tmp_path / "out/evaluation.json").is_file(), "scores there are"


@pytest.mark.parametrize("content", ["", "[]", '{"mAP": 0.5}', '{"made_from": {"network": "other"}}'])
def test_results_of_another_origin_are_left_alone(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    origin = made_from(network=tmp_path / "a.safetensors", data=Path("people.csv"))
    assert origin["data"] == str(tmp_path / "people.csv")
    assert folder_in_runs("a-people", origin) == Path("runs/a-people")
    for number in ("", "-2"):
        Path(f"runs/a-people{number}").mkdir(parents=True)
    Path("runs/a-people/evaluation.json").write_text(content)
    assert folder_in_runs("a-people", origin) == Path("runs/a-people-2")
    Path("runs/a-people/evaluation.json").write_text(json.dumps({"made_from": origin}))
    assert folder_in_runs("a-people", origin) == Path("runs/a-people")
