"""The newcomer's path, whole: `reid demo`."""

import json
import os
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
def test_the_demo_goes_from_nothing_to_a_searched_gallery(tmp_path):
    started = time.monotonic()
    command = [sys.executable, "-m", "reidkit", "demo"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    first_took = time.monotonic() - started
    assert first.returncode == 0, first.stderr
    demo = tmp_path / "runs" / "demo"
    scores = json.loads((demo / "evaluation.json").read_text())
    assert scores["mAP"] > 0.75
    for name in ("report.html", "search.png", "people.gallery", "run/last.safetensors", "people/query"):
        assert (demo / name).exists(), name
    assert "Try next" in first.stderr
    search = next(line for line in first.stdout.splitlines() if " search " in line and "--where" in line)
    words = search[search.index(" search ") :].split()
    again = subprocess.run(
        [sys.executable, "-m", "reidkit", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert again.returncode == 0, "the command the demo advises works"

    started = time.monotonic()
    second = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=os.environ
    )
    assert second.returncode == 0, second.stderr
    assert "training is complete" in second.stderr
    assert time.monotonic() - started < first_took / 2, "what is done is not done twice"
