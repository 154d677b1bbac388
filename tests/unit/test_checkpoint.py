import pickle

import pytest
import torch

from reidkit.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from reidkit.errors import CheckpointError


def test_a_checkpoint_comes_back_and_the_one_before_stays(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1, "weights": {"a": torch.arange(3.0)}})
    save_checkpoint(path, {"epoch": 2, "weights": {"a": torch.arange(4.0)}})
    state, problem = load_checkpoint(path)
    assert problem is None
    assert state["epoch"] == 2
    assert torch.equal(state["weights"]["a"], torch.arange(4.0))
    assert load_checkpoint(tmp_path / "last.ckpt.previous")[0]["epoch"] == 1


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    save_checkpoint(path, {"epoch": 2, "weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:700])
    state, problem = load_checkpoint(path)
    assert state["epoch"] == 1
    assert "cannot be read" in problem
    assert "the checkpoint before it" in problem


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_two_broken_checkpoints_are_an_error_and_code_is_never_run(tmp_path):
    path = tmp_path / "last.ckpt"
    marker = tmp_path / "was_here"

    class Malicious:
        def __reduce__(self):
            return (marker.touch, ())

    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(CheckpointError, match="there is no earlier one"):
        load_checkpoint(path)
    assert not marker.exists()


def test_weights_travel_with_their_description(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.arange(6.0).view(2, 3).T}, {"model": {"name": "x"}})
    tensors, description = load_weights(path)
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3).T)
    assert description == {"model": {"name": "x"}}


def test_bad_weights_files_are_told_apart(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(path)
    save_weights(path, {"a": torch.zeros(100)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        load_weights(path)
    save_weights(path, {"a": torch.tensor([1.0, float("nan")])}, {})
    with pytest.raises(CheckpointError, match="weight 'a' is not finite everywhere"):
        load_weights(path)
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="was not saved by reidkit"):
        load_weights(path)
