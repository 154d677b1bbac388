"""Network files whose claims cannot be: refused in one line before a runtime works on them."""

import os
import re
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

import reidkit as rk
import reidkit.encoders.encoder  # now, not within the first test's ten seconds
from reidkit.encoders.runtimes import num_threads
from reidkit.errors import ReidError
from reidkit.images.speed import num_cores

pytestmark = pytest.mark.alone  # OpenVINO is loaded here

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
openvino = pytest.importorskip("openvino", reason="openvino is not installed")

PLAIN = {"color": "rgb", "scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}
FLOAT = onnx.TensorProto.FLOAT


def model(shape=("n", 3, 8, 4), *, seed=0, width=256, output=FLOAT, inputs=(), domain=""):
    """Mean colour times a matrix, large enough to be kept in a file of its own."""
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weights = np.random.default_rng(seed).normal(size=(3, width)).astype(np.float32)
    nodes = [
        node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        node("MatMul", ["colour", "weights"], ["product"], name="product"),
        node("Identity" if output == FLOAT else "Cast", ["product"], ["embedding"], domain=domain,
             **({} if output == FLOAT else {"to": output})),
    ]  # fmt: skip
    constants = [
        onnx.numpy_helper.from_array(np.array([2, 3]), "axes"),
        onnx.numpy_helper.from_array(weights, "weights"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "made-up",
        [value("images", FLOAT, list(shape)), *(value(name, FLOAT, [1]) for name in inputs)],
        [value("embedding", output, None)],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", 18)] + ([onnx.helper.make_opsetid(domain, 1)] if domain else [])
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


def external(path, proto, location="weights.data"):
    """Save with the weights in a second file, as exporters do."""
    onnx.save_model(proto, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def relocated(path, **entries):
    """Let a file with external data say something else on where they are."""
    proto = onnx.load_model(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = str(entries.get(entry.key, entry.value))
    path.write_bytes(proto.SerializeToString())
    return path


def intermediate(path, proto=None):
    onnx_path = path.with_suffix(".source")
    onnx_path.write_bytes((proto or model()).SerializeToString())
    openvino.save_model(openvino.convert_model(onnx_path), path, compress_to_fp16=False)
    return path


def refusal(path, preprocessing=PLAIN):
    began = time.process_time()
    with pytest.raises(ReidError) as refused:
        rk.load_encoder(path, preprocessing=preprocessing)
    assert time.process_time() - began < 10
    for line in getattr(refused.value, "problems", [str(refused.value)]):
        assert "\n" not in line
        assert len(line) < 800, line
    return str(refused.value)


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (lambda: model((10**6, 3, 256, 128)), "takes 1,000,000 x 3 x 256 x 128 values at a time"),
        (lambda: model((1, 3, 10**6, 10**6)), "takes 1 x 3 x 1,000,000 x 1,000,000 values"),
        (lambda: model((2**62, 2**62, 2**62, 2**62)), "values at a time, more than"),
        (lambda: model((1, 3, 0, 4)), "takes images of any height"),
        (lambda: model(output=onnx.TensorProto.STRING), r"output 'embedding' is tensor\(string\)"),
        (lambda: model(output=onnx.TensorProto.INT64), r"output 'embedding' is tensor\(int64\)"),
        (lambda: model(inputs=["camera"]), "has 2 inputs; choose one"),
        (lambda: model(domain="my.operators"), "cannot be run by onnxruntime: .*my.operators"),
    ],
)
def test_what_no_encoder_can_be_is_refused(proto, message, tmp_path):
    (tmp_path / "m.onnx").write_bytes(proto().SerializeToString())
    assert re.search(message, refusal(tmp_path / "m.onnx"))


def test_a_network_that_wants_more_than_images_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(model(inputs=["camera"]).SerializeToString())
    text = refusal(tmp_path / "m.onnx", {**PLAIN, "input": "images"})
    assert "needs 'camera' besides the images; an encoder has images only" in text


def without_outputs():
    proto = model()
    del proto.graph.output[:]
    return proto.SerializeToString()


def with_names_in_latin1():
    return model().SerializeToString().replace(b"images", b"im\xe4ges").replace(b"embedding", b"embeddin\xff")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without_outputs, "no output|cannot be run"),
        (with_names_in_latin1, "damaged or no ONNX file|not UTF-8|cannot be run"),
        (lambda: b"", "holds no graph"),
        (lambda: b"\x08\x09" + bytes(range(256)) * 9, "damaged or no ONNX file"),
        (lambda: b"<html><body>Not found</body></html>", "no m.bin beside it|begins with <html>"),
        (lambda: model().SerializeToString()[:-40], "damaged or no ONNX file"),
        (lambda: b"\x08\x09" + b"\x3a\xff\xff\xff\xff\x07" + b"\x0a" * 999, "damaged or no ONNX file"),
    ],
)
def test_damaged_files_end_in_one_line(content, message, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content())
    assert re.search(message, refusal(tmp_path / "m.onnx"))


def test_sizes_that_the_caller_gives_are_bounded_too(tmp_path):
    (tmp_path / "m.onnx").write_bytes(model(("n", 3, "h", "w")).SerializeToString())
    text = refusal(tmp_path / "m.onnx", {**PLAIN, "height": 10**9, "width": 10**9})
    assert "takes 1 images of 1,000,000,000 x 1,000,000,000 at a time" in text


@pytest.mark.parametrize(
    "location", ["../secret", "../../etc/passwd", "/etc/passwd", "a/../../secret", "..\\secret", "", "a\0b"]
)
def test_weights_outside_the_folder_are_not_read(location, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder / "m.onnx", model())
    (folder / "weights.data").rename(tmp_path / "secret")
    assert "they are read from its own folder only" in refusal(relocated(path, location=location))


def test_weights_are_not_read_through_links(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder / "m.onnx", model())
    (folder / "weights.data").rename(tmp_path / "secret")
    (folder / "weights.data").symlink_to(tmp_path / "secret")
    assert "not through links" in refusal(path)


@pytest.mark.parametrize("entries", [{"offset": 10**12}, {"length": 10**15}, {"offset": -1}, {"offset": "x"}])
def test_weights_beyond_the_end_are_told(entries, tmp_path):
    path = relocated(external(tmp_path / "m.onnx", model()), **entries)
    assert "beyond the end of that file" in refusal(path)
    (tmp_path / "weights.data").unlink()
    assert "'weights.data', which is missing beside it" in refusal(path)
    (tmp_path / "weights.data").mkdir()
    assert "'weights.data', which is no regular file" in refusal(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda xml, bin: (xml, bin[:-1]), "weights up to byte .* has only .*belongs to another network"),
        (lambda xml, bin: (xml, b""), "belongs to another network"),
        (lambda xml, bin: (xml[: len(xml) // 2], bin), "damaged or no OpenVINO network"),
        (lambda xml, bin: (b"<html></html>", bin), "begins with <html>"),
        (lambda xml, bin: (b"<net>" * 10**5, bin), "its elements lie 200 deep"),
        (lambda xml, bin: (bomb(), bin), "DOCTYPE"),
        (lambda xml, bin: (xml.replace(b",3,8,4", b",3,800000000,4"), bin), "values at a time"),
        (lambda xml, bin: (b"<net name='n' version='11'></net>", bin), "has no input"),
    ],
)
def test_openvino_files_that_cannot_be_are_refused(change, message, tmp_path):
    path = intermediate(tmp_path / "m.xml")
    xml, weights = change(path.read_bytes(), path.with_suffix(".bin").read_bytes())
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)
    assert re.search(message, refusal(path))


def bomb():
    """Entities that expand to 10 ** 25 times three letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    entities = [f'<!ENTITY {now} "{f"&{before};" * 10}">' for before, now in pairwise(letters)]
    return f"<!DOCTYPE net [<!ENTITY a 'lol'>{''.join(entities)}]><net>&z;</net>".encode()


@pytest.mark.parametrize("name", ["M.ONNX", "network.bin", "network"])
def test_onnx_is_found_by_content(name, tmp_path):
    (tmp_path / name).write_bytes(model().SerializeToString())
    assert rk.load_encoder(tmp_path / name, preprocessing=PLAIN).dim == 256


def test_openvino_is_found_by_content(tmp_path):
    path = intermediate(tmp_path / "m.xml")
    path.rename(tmp_path / "M.XML")
    path.with_suffix(".bin").rename(tmp_path / "M.BIN")
    assert rk.load_encoder(tmp_path / "M.XML", preprocessing=PLAIN).dim == 256


@pytest.mark.parametrize(
    "text",
    ["x = " + "9" * 5000, "x = " + "[" * 10**5, "\x00", 'color = "rgb"\nscale = ' + "9" * 300],
)
def test_preprocessing_that_nobody_would_write(text, tmp_path):
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "m.toml").write_text(text)
    refusal(tmp_path / "m.onnx", None)
    (tmp_path / "m.toml").write_bytes(text.encode("utf-16"))
    refusal(tmp_path / "m.onnx", None)


@pytest.mark.parametrize(
    "text", ["3", "null", "[" * 10**5, "9" * 5000, '{"color": {"a": []}}', f'"{"x" * 10**5}"']
)
def test_metadata_that_nobody_would_write(text, tmp_path):
    proto = model()
    onnx.helper.set_model_props(proto, {"reidkit": text})
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    refusal(tmp_path / "m.onnx", None)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("1,4", 1), ("2", 2), ("0", None), ("many", None)])
def test_the_environment_limits_threads(text, number, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert num_threads() == (number or num_cores())
    monkeypatch.setenv("OMP_NUM_THREADS", "9" * 30)
    assert num_threads() <= 2 * num_cores()


def test_importing_a_runtime_tells_nobody(tmp_path):
    """OpenVINO would send word of each import, by a process of its own, and count them in the home folder."""
    program = """
import sys
from pathlib import Path
from reidkit.encoders.runtimes import import_runtime
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in ("os.fork", "socket.connect") else None)
import_runtime("openvino", Path("x.xml")).Core()
print(seen, "openvino_telemetry" in sys.modules)
"""
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=home, capture_output=True, text=True)
    assert done.stdout.strip() == "[] False", done.stderr
    assert not list(tmp_path.iterdir())


def test_a_forked_process_uses_the_network_of_its_parent(tmp_path):
    """As workers of a server or of a data loader may. In its own process, whose threads may be lost."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    intermediate(tmp_path / "m.xml")
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    program = """
import multiprocessing, sys
import numpy as np
import reidkit as rk
images = list(np.random.default_rng(0).integers(0, 256, (9, 16, 8, 3), np.uint8))
preprocessing = {"color": "rgb", "scale": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
encoders = [rk.load_encoder(path, preprocessing=preprocessing) for path in sys.argv[1:]]
expected = [encoder.encode(images) for encoder in encoders]
def check():
    for encoder, embeddings in zip(encoders, expected):
        np.testing.assert_array_equal(encoder.encode(images), embeddings)
worker = multiprocessing.get_context("fork").Process(target=check)
worker.start()
worker.join(60)
print("ended with", worker.exitcode)
worker.kill()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "m.xml"), str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.stdout.strip() == "ended with 0", done.stderr
