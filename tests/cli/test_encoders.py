"""``reid encoders``, as a user runs it."""

import json

from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.encoders.ready_made import ready_made


def reid(*words, columns=80):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(cli, ["encoders", *words])


def test_the_list_fits_a_terminal_and_every_name_is_whole():
    result = reid()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["name", *(encoder.name for encoder in ready_made())]
    assert "research only" in result.stderr


def test_one_with_its_command():
    told = reid("fastreid-agw-r50-ibn-market").stdout
    assert "rank-1, mAP market1501 95.1, 88.7 (FastReID's model zoo)" in told
    assert "sha256      not published" in told
    address = "https://github.com/JDAI-CV/fast-reid/releases/download/v0.1.1/market_agw_R50-ibn.pth"
    assert f"command     reid import-weights {address} --model resnet50_ibn_a" in told
    assert "licence     not found: ask the project" in reid("solider-swin-small").stdout


def test_json():
    entries = json.loads(reid("--json").stdout)
    assert len(entries) == len(ready_made())
    one = json.loads(reid("openvino-retail-0288", "--json").stdout)
    assert one in entries
    assert one["scores"] == {"market1501": [86.1, 58.857]}
    assert one["sha256"].keys() == {f"person-reidentification-retail-0288.{kind}" for kind in ("xml", "bin")}
