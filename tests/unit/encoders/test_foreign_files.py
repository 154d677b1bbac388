"""Files of weights by many writers, whole, odd and hostile: read, or refused in one line that knows why."""

import io
import json
import os
import pickle
import re
import tarfile
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch

from reidkit.encoders.foreign_files import WHOLE, read_weights, read_weights_file
from reidkit.errors import CheckpointError

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refusal(path, **options):
    began = time.process_time()
    with pytest.raises(CheckpointError) as refused:
        read_weights_file(path, **options)
    assert time.process_time() - began < 10
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 900
    return text


# Whole files, whatever wrote and packed them.


@pytest.mark.parametrize("name", ["w.pth", "W.PTH", "pytorch_model.bin", "w", "model.pth.tar-60"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_kind_is_found_by_content(name, zipped, tmp_path):
    path = saved(tmp_path / name, WEIGHTS, _use_new_zipfile_serialization=zipped)
    assert list(read_weights(path)) == list(WEIGHTS)


@pytest.mark.parametrize("name", ["w.safetensors", "W.SAFETENSORS", "weights.bin"])
def test_safetensors_are_found_by_content(name, tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / name, metadata={"format": "pt", "epoch": "3"})
    assert torch.equal(read_weights(tmp_path / name)["conv.weight"], WEIGHTS["conv.weight"])


def test_an_archive_that_was_packed_anew_is_read(tmp_path):
    """By a zip program, which compresses its entries."""
    path = saved(tmp_path / "w.pth", WEIGHTS)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.pth", "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert list(read_weights(tmp_path / "new.pth")) == list(WEIGHTS)


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "model.model.",
        "model.module.",
    ],
)
def test_what_wrappers_put_in_front_is_taken_away(wrapped, tmp_path):
    content = {"state_dict": {wrapped + name: value for name, value in WEIGHTS.items()}}
    assert list(read_weights(saved(tmp_path / "w.pth", content))) == list(WEIGHTS)


def test_a_part_that_was_compiled_is_named_as_without(tmp_path):
    content = {f"backbone._orig_mod.{name}": value for name, value in WEIGHTS.items()}
    assert list(read_weights(saved(tmp_path / "w.pth", content))) == [f"backbone.{name}" for name in WEIGHTS]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read(kind, tmp_path):
    path = saved(tmp_path / "w.pth", {name: value.to(kind) for name, value in WEIGHTS.items()})
    assert read_weights(path)["conv.bias"].dtype == kind


def other(factor=2):
    return {name: factor * value for name, value in WEIGHTS.items()}


@pytest.mark.parametrize("second", ["state_dict_ema", "model_ema", "ema", "averaged"])
def test_of_a_network_and_its_average_the_network_is_taken_and_either_can_be_chosen(second, tmp_path):
    path = saved(
        tmp_path / "w.pth", {"epoch": 3, second: other(), "state_dict": WEIGHTS, "args": {"lr": 0.1}}
    )
    file = read_weights_file(path)
    assert (file.key, file.others) == ("state_dict", (second,))
    assert torch.equal(file.tensors["conv.weight"], WEIGHTS["conv.weight"])
    chosen = read_weights_file(path, key=second)
    assert torch.equal(chosen.tensors["conv.weight"], 2 * WEIGHTS["conv.weight"])
    text = refusal(path, key=second[:-1])
    assert f"did you mean {second!r}" in text


@pytest.mark.parametrize("roles", [("student", "teacher"), ("encoder_q", "encoder_k")])
@pytest.mark.parametrize("nested", [True, False])
def test_of_networks_side_by_side_one_must_be_chosen(roles, nested, tmp_path):
    first, second = roles
    if nested:
        content = {first: WEIGHTS, second: other()}
    else:
        content = {f"module.{first}.{name}": value for name, value in WEIGHTS.items()}
        content |= {f"module.{second}.module.{name}": value for name, value in other().items()}
        content |= {"module.queue": torch.zeros(4)}
    path = saved(tmp_path / "w.pth", content)
    assert "holds 2 sets of weights; choose one with --weights KEY" in refusal(path)
    assert torch.equal(read_weights(path, key=second)["conv.bias"], 2 * WEIGHTS["conv.bias"])
    assert list(read_weights(path, key=first)) == list(WEIGHTS)


def test_what_an_optimiser_keeps_is_no_set_of_weights(tmp_path):
    state = {0: {"exp_avg": torch.ones(2, 3)}, 1: {"exp_avg": torch.ones(2)}}
    content = {"optimizer_states": [{"state": state}], "optimizer": {"state": state, "param_groups": []}}
    file = read_weights_file(saved(tmp_path / "w.ckpt", {**content, "state_dict": OrderedDict(WEIGHTS)}))
    assert (file.key, file.others) == ("state_dict", ())


def test_weights_in_no_nest_have_a_name_too(tmp_path):
    assert read_weights_file(saved(tmp_path / "w.pth", WEIGHTS)).key == WHOLE


# Files that are whole and cannot be used: what they are is said.


def plain_pickle(path):
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in WEIGHTS.items()}))


def script(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def packed(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("w.pth"), io.BytesIO())


def packed_anew(path, compression):
    torch.save(WEIGHTS, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def of_type(path, dtype, size):
    length = int(8 * size)
    head = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, length]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(length))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (plain_pickle, "it is a plain pickle, not a file of torch.save.*convert it there: python -c"),
        (script, r"TorchScript archive, that is, code.*torch.jit.load\(sys.argv\[1\]"),
        (
            lambda p: torch.save(WEIGHTS, p, pickle_protocol=4),
            "pickled by protocol 3 or later.*convert it there",
        ),
        (
            lambda p: torch.save(torch.nn.Linear(2, 2), p),
            "holds 'torch.nn.modules.linear.Linear'.*convert it",
        ),
        (packed, "is a tar archive: unpack it"),
        (lambda p: np.savez(p.open("wb"), a=np.ones(2)), "a zip archive, but not of PyTorch: it holds a.npy"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file"),
        (lambda p: p.write_text("<!DOCTYPE html><html>"), "a web page or XML"),
        (lambda p: p.write_text("Not Found"), r"is no file of weights: it begins with b'Not Found'"),
        (lambda p: p.write_text('{"error": "not found"}'), "is no file of weights: it begins with"),
        (lambda p: p.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(99)), "compressed by Zstandard; unpack it"),
        (lambda p: p.write_bytes(b"\xfd7zXZ\0" + bytes(99)), "compressed by xz; unpack it"),
        (lambda p: p.write_bytes(b"BZh91AY" + bytes(99)), "compressed by bzip2; unpack it"),
        (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(99)), "is no file of weights: it begins"),
        (lambda p: p.write_bytes(b"\n\x08ResNet50" + bytes(99)), "is no file of weights: it begins with"),
        (lambda p: packed_anew(p, zipfile.ZIP_LZMA), "packed in a way that PyTorch does not read"),
        (lambda p: of_type(p, "F4", 0.5), "'a' is of 4-bit floats"),
        (lambda p: of_type(p, "F6_E2M3", 0.75), "numbers of the type F6_E2M3, which are not read"),
        (lambda p: of_type(p, "I4", 0.5), "numbers of the type I4, which are not read"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
        (lambda p: p.write_bytes(b""), "it is empty"),
        (lambda p: torch.save({}, p), "no named weights but nothing"),
        (lambda p: torch.save({"a": 1, "b": "x" * 10**5}, p), "no named weights but a, b;"),
        (lambda p: torch.save({"x" * 10**5: 1}, p), "no named weights but xxx"),
        (lambda p: torch.save({0: torch.ones(2), 1: torch.ones(2)}, p), r"its tensors by int \(0, ...\)"),
        (lambda p: torch.save({"a": torch.ones(2, device="meta")}, p), "'a' is on the meta device"),
        (lambda p: torch.save({"a": torch.eye(2).to_sparse()}, p), "'a' is kept as sparse_coo"),
        (lambda p: torch.save({"a": torch.ones(2, dtype=torch.complex64)}, p), "'a' is of complex numbers"),
        (lambda p: torch.save({"a": torch.ones(2).to(torch.float8_e4m3fn)}, p), "'a' is of 8-bit floats"),
        (
            lambda p: torch.save({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, p),
            "'a' is quantised",
        ),
        (
            lambda p: torch.save({"a": torch.full((2,), torch.nan, dtype=torch.float16)}, p),
            "'a' is not finite",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_whole_file_that_cannot_be_used_is_called_what_it_is(write, message, tmp_path):
    write(tmp_path / "w.pth")
    text = refusal(tmp_path / "w.pth")
    assert "damaged" not in text or "empty" in text

    assert re.search(message, text), text


def test_a_kind_is_found_by_content_whatever_the_name_says(tmp_path):
    assert len(read_weights(saved(tmp_path / "w.safetensors", WEIGHTS))) == len(WEIGHTS)
    (tmp_path / "zeros.pth").write_bytes(bytes(9999))
    assert "damaged or no PyTorch file: it begins with zeros" in refusal(tmp_path / "zeros.pth")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_weights_in_several_files_are_put_into_one_by_the_command(ending, tmp_path, monkeypatch):
    names = {}
    for number, (name, tensor) in enumerate(WEIGHTS.items()):
        names[name] = f"model-{number}.{ending}"
        write = safetensors.torch.save_file if ending == "safetensors" else torch.save
        write({name: tensor}, tmp_path / names[name])
    index = tmp_path / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": names}, indent=2))
    text = refusal(index)
    assert "is the index of weights kept in several files" in text
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["-c", str(index)])
    exec(text.partition('python -c "')[2].partition('" ')[0], {})
    assert read_weights(tmp_path / "weights.pth").keys() == WEIGHTS.keys()


def arrays(path):
    torch.save({"state_dict": {name: value.numpy() for name, value in WEIGHTS.items()}}, path)


def test_the_commands_that_convert_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (plain_pickle, script, arrays):
        write(tmp_path / "w.pth")
        code = refusal(tmp_path / "w.pth").partition('python -c "')[2].partition('" ')[0]
        monkeypatch.setattr("sys.argv", ["-c", "w.pth"])
        exec(code, {})
        assert len(read_weights(tmp_path / "weights.pth")) == 2


# Hostile files: bounded before anything is computed of them.


def test_a_file_that_holds_itself_is_read_once(tmp_path):
    content = {}
    content["state_dict"] = {"model": content, "net": {"net": content}}
    assert "no named weights but state_dict" in refusal(saved(tmp_path / "w.pth", content))
    content["state_dict"]["model"] = {**WEIGHTS, "model": content}
    assert list(read_weights(saved(tmp_path / "w.pth", content))) == list(WEIGHTS)


def test_nests_without_end_are_left_alone(tmp_path):
    content = {"a": torch.ones(1)}
    for _ in range(300):  # what torch.save itself can write
        content = {"model": content}
    assert "no named weights" in refusal(saved(tmp_path / "w.pth", content))
    shared = {}
    for _ in range(60):
        shared = {"model": shared, "net": shared}
    assert "no named weights" in refusal(saved(tmp_path / "w.pth", shared))


def test_values_without_end_are_refused(tmp_path):
    path = saved(tmp_path / "w.pth", {"a": torch.zeros(()).expand(10**6, 10**6)})
    assert "its tensors claim 4,000 GB" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_memory_is_not_reserved_for_the_asking(zipped, tmp_path):
    class Reserving:
        def __reduce__(self):
            return bytearray, (10**11,)

    path = saved(
        tmp_path / "w.pth", {"a": torch.ones(1), "b": Reserving()}, _use_new_zipfile_serialization=zipped
    )
    assert "holds a bytearray" in refusal(path)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path):
    path = saved(tmp_path / "w.pth", WEIGHTS)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data/9", bytes(2**27))
    assert "unpacks to far more" in refusal(path)


def test_a_folder_or_a_pipe_is_no_file(tmp_path):

    os.mkfifo(tmp_path / "pipe.pth")
    assert "it is no file" in refusal(tmp_path / "pipe.pth")
    assert "it is no file; give the file of weights itself" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "nowhere")
