import io
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from reidkit.errors import CheckpointError
from reidkit.training.checkpoint import (
    _seal,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)


def test_a_checkpoint_comes_back_and_the_one_before_stays(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1, "weights": {"a": torch.arange(3.0)}})
    save_checkpoint(path, {"epoch": 2, "weights": {"a": torch.arange(4.0)}})
    state, problem = load_checkpoint(path)
    assert problem is None
    assert state["epoch"] == 2
    assert torch.equal(state["weights"]["a"], torch.arange(4.0))
    assert load_checkpoint(tmp_path / "previous.ckpt")[0]["epoch"] == 1


def cut(content):
    return content[:700]


def without_end(content):
    return content[:-1]


def one_bit_changed(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "what"),
    [(cut, "breaks off"), (without_end, "breaks off"), (one_bit_changed, "checksum is wrong")],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage, what):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    save_checkpoint(path, {"epoch": 2, "weights": torch.zeros(1000)})
    path.write_bytes(damage(path.read_bytes()))
    state, problem = load_checkpoint(path)
    assert state["epoch"] == 1
    assert what in problem
    assert "the checkpoint before it" in problem
    save_checkpoint(path, {"epoch": 3})
    assert load_checkpoint(tmp_path / "previous.ckpt")[0]["epoch"] == 1, "not the damaged one"


def test_a_missing_last_checkpoint_leaves_the_one_before(tmp_path):
    """As after a crash on a file system without links."""
    path = tmp_path / "last.ckpt"
    assert not has_checkpoint(path)
    save_checkpoint(path, {"epoch": 1})
    save_checkpoint(path, {"epoch": 2})
    path.unlink()
    assert has_checkpoint(path)
    assert load_checkpoint(path)[0]["epoch"] == 1


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


def test_a_sealed_checkpoint_runs_no_code_either(tmp_path):
    path, marker = tmp_path / "last.ckpt", tmp_path / "was_here"

    class Malicious:
        def __reduce__(self):
            return (marker.touch, ())

    save_checkpoint(path, {"state": Malicious()})  # by whoever made the file
    with pytest.raises(CheckpointError, match="is not read, as that might run code"):
        load_checkpoint(path)
    assert not marker.exists()


def test_a_disk_that_cannot_be_read_changes_nothing(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    save_checkpoint(path, {"epoch": 2})
    path.unlink()
    path.symlink_to(path)  # as a network disk that went away, it can be seen and not be read
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read now: .*Too many levels"):
        load_checkpoint(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert path.is_symlink()


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory as Linux can")
def test_too_little_memory_changes_nothing(tmp_path):
    import resource

    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    save_checkpoint(path, {"epoch": 2})
    with path.open("r+b") as file:
        file.truncate(8 << 30)  # without taking room on the disk
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot be read now: out of memory"):
            load_checkpoint(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"x", pickle.dumps(print)])
def test_sealed_content_of_others_is_told_apart_from_damage(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content + _seal(memoryview(content)))
    with pytest.raises(CheckpointError, match="was not written by a training"):
        load_checkpoint(path)
    assert path.exists()


def packed(path, state, how):
    """A whole checkpoint whose archive is written anew, compressed or not."""
    plain, other = io.BytesIO(), io.BytesIO()
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as there, zipfile.ZipFile(other, "w", how) as here:
        for name in there.namelist():
            here.writestr(name, there.read(name))
    path.write_bytes(other.getvalue() + _seal(other.getbuffer()))
    return path


def test_a_state_that_takes_more_memory_than_its_file_has_bytes_is_no_trainings(tmp_path):
    file = tmp_path / "last.ckpt"
    zeros = {"weights": {"a": torch.zeros(100_000)}}
    assert load_checkpoint(packed(file, zeros, zipfile.ZIP_STORED))[1] is None
    repeated = {"weights": {"a": torch.zeros(1).expand(10**12)}}
    for state, how in ((zeros, zipfile.ZIP_DEFLATED), (repeated, zipfile.ZIP_STORED)):
        with pytest.raises(CheckpointError, match="was not written by a training"):
            load_checkpoint(packed(file, state, how))


def test_a_checkpoint_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "last.ckpt")
    save_checkpoint(tmp_path / "other.ckpt", {"epoch": 1})
    (tmp_path / "other.ckpt").rename(tmp_path / "previous.ckpt")
    state, problem = load_checkpoint(tmp_path / "last.ckpt")
    assert state == {"epoch": 1}
    assert "it is no regular file" in problem
