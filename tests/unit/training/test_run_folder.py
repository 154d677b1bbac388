"""Run folders whose files are of another shape than a training leaves them."""

import json
from importlib import metadata

import pytest
import torch

import reidkit as rk
from reidkit import provenance
from reidkit.errors import CheckpointError, ConfigError
from reidkit.files import WriteError
from reidkit.provenance import check_run_folder
from reidkit.training.checkpoint import save_checkpoint
from reidkit.training.run_folder import RunFolder

STATE = {
    "epoch": 1,
    "batch": 0,
    "best": {},
    "num_processes": 1,
    "weights": {"a": torch.zeros(2)},
    "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": []},
    "scaler": {},
}


def stored(path, state):
    save_checkpoint(path / "last.ckpt", state)
    return RunFolder(path).stored_state()


def test_a_state_comes_back(tmp_path):
    assert stored(tmp_path, STATE)["epoch"] == 1
    assert stored(tmp_path, {**STATE, "health": {"more": 1}})["health"] == {"more": 1}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epoch": "1"}, "epoch"),
        ({"epoch": -5}, "epoch"),
        ({"batch": None}, "batch"),
        ({"num_processes": "1"}, "num_processes"),
        ({"weights": [torch.zeros(1)]}, "weights"),
        ({"optimizer": 3}, "optimizer"),
        ({"optimizer": {}}, "optimizer.state"),
        ({"optimizer": {"state": {0: 3}}}, "optimizer.state"),
        ({"optimizer": {"state": {0: {"step": "x"}}}}, "optimizer.state"),
    ],
)
def test_a_state_without_its_parts_is_told(tmp_path, change, named):
    with pytest.raises(CheckpointError, match=f"we can go on from: {named} missing or of another type"):
        stored(tmp_path, {**STATE, **change})


def test_what_does_not_take_its_part_of_a_state_is_told(tmp_path):
    folder = RunFolder(tmp_path)
    for wrong in (
        lambda: {}["seen"],
        lambda: len(3),
        lambda: torch.nn.Linear(1, 1).load_state_dict({"a": 3}),
    ):
        with pytest.raises(CheckpointError, match="does not fit this run") as error, folder.taking_up():
            wrong()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "run",
    ["", "{", "3", "[]", "{}", "\0", "[" * 100_000]
    + [json.dumps({"settings": {}, "resumed_with": value}) for value in (3, [3])],
)
def test_a_run_file_of_another_shape_is_told(tmp_path, run):
    (tmp_path / "run.json").write_text(run)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        check_run_folder(tmp_path, {})


def test_settings_that_differ_are_shown_briefly(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"seed": "x" * 100_000}}))
    with pytest.raises(ConfigError, match="seed: 'xxx") as error:
        check_run_folder(tmp_path, {"seed": 1})
    assert len(str(error.value)) < 500


def test_a_training_that_is_refused_leaves_no_folder(tmp_path):
    path = tmp_path / "runs" / "new"
    with pytest.raises(ConfigError, match="refused"), RunFolder(path).held({}):
        raise ConfigError("refused" if path.is_dir() else "not held")
    assert not path.exists()
    path.mkdir()  # by the user
    with RunFolder(path).held({}):
        pass
    assert path.is_dir()


def test_a_folder_of_events_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"settings": {}}')
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path)
    with (
        pytest.raises(WriteError, match="tensorboard is a link"),
        RunFolder(tmp_path / "run").held({}),
    ):
        pass


def test_a_package_that_came_by_another_way_is_not_known_and_nothing_else(monkeypatch):
    monkeypatch.setattr(
        provenance, "version", lambda package: metadata.version("a package that nobody has of that name")
    )
    found = provenance.versions()
    assert found["reidkit"] == rk.__version__
    assert found["pillow"] == "not known"
