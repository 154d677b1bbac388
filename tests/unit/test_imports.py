"""What a command, or a module, imports: seconds of waiting, and what must be installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reidkit as rk

NOT_FOR_EMBEDDING = {
    *("torchvision", "timm", "scipy", "matplotlib", "pandas", "sklearn", "pyarrow", "h5py", "jinja2"),
    *("sympy", "torch._dynamo", "torch._inductor", "torch.distributed.fsdp"),
}
COMMANDS = """
import json, sys
from reidkit.cli import cli
for words in json.loads(sys.argv[1]):
    cli.main(words, standalone_mode=False)
"""
TO_OPENVINO = """
import openvino
openvino.save_model(openvino.Core().read_model("net.onnx"), "net.xml", compress_to_fp16=False)
"""
WITHOUT_TORCH = (
    *(
        "types",
        "config",
        "labels",
        "arrays",
        "files",
        "galleries",
        "galleries.embedded",
        "search.searcher",
        "encoders.encoder",
        "encoders.loading",
    ),
    *(
        "encoders.network_file",
        "images.reading",
        "images.transforms",
        "evaluation.features",
        "evaluation.feature_files",
        "evaluation.feature_tables",
        "evaluation.evaluation",
    ),
    *(
        "evaluation.protocols",
        "evaluation.ranks",
        "evaluation.distance_ranks",
        "reranking",
        "evaluation.metric_learning",
        "evaluation.multi_query",
        "analysis.feature_comparison",
    ),
    *(
        "evaluation.split_average",
        "analysis.breakdown",
        "analysis.roc",
        "analysis.calibration",
        "analysis.bootstrap",
        "analysis.variances",
        "analysis.projection",
    ),
    *("reports.charts", "reports.breakdown_charts"),
)


def imported_by(program: str, *arguments: str, folder: Path | None = None) -> set[str]:
    """Names of all modules that a program has imported at its end."""
    program += "\nimport sys; print('', *sys.modules, sep='\\n')"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, 48, 24, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return folder


def commands(encoder: str) -> str:
    """Each command that embeds, in the folder of the photos."""
    return json.dumps(
        [
            ["index", encoder, "photos", "--gallery", "people.gallery"],
            ["search", "photos/0.jpg", "--gallery", "people.gallery", "--encoder", encoder],
            ["encode", encoder, "photos", "--out", "photos.npz"],
        ]
    )


def test_embedding_imports_neither_torchvision_nor_timm_nor_training(photos: Path) -> None:
    encoder = rk.Encoder(rk.build_model("resnet18"), height=48, width=24)
    encoder.save(photos.parent / "net.safetensors")
    found = imported_by(COMMANDS, commands("net.safetensors"), folder=photos.parent)
    assert "torch" in found
    assert found & NOT_FOR_EMBEDDING == set()
    assert not [name for name in found if name.startswith("reidkit.training")]


@pytest.mark.parametrize("name", ["timm:test_resnet", "jlml"])
def test_an_encoder_is_loaded_first_of_all(name: str, tmp_path: Path) -> None:
    """What networks are made of is then imported while one of them is built without memory."""
    encoder = rk.Encoder(rk.build_model(name), height=48, width=24)
    file = encoder.save(tmp_path / "net.safetensors")
    program = "import sys, reidkit; print(reidkit.load_encoder(sys.argv[1]).fingerprint)"
    assert encoder.fingerprint in imported_by(program, str(file))


@pytest.mark.parametrize("file", ["net.onnx", "net.xml"])
def test_a_networks_file_is_used_without_torch(file: str, photos: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    make_onnx(photos.parent / "net.onnx")
    program = COMMANDS
    if file == "net.xml":
        pytest.importorskip("openvino", reason="openvino is not installed")
        program = TO_OPENVINO + COMMANDS
    found = imported_by(program, commands(file), folder=photos.parent)
    assert f"reidkit.encoders.{'openvino' if file == 'net.xml' else 'onnx'}" in found
    assert found & {"torch", *NOT_FOR_EMBEDDING} == set()
    assert not [name for name in found if name.startswith("reidkit.training")]


def make_onnx(path: Path) -> None:
    """A network that embeds an image by its mean colour, with what it expects in its metadata."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["images", "axes"], ["embedding"], keepdims=0)],
        "mean colour",
        [value("images", onnx.TensorProto.FLOAT, ["batch", 3, 48, 24])],
        [value("embedding", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    path.with_suffix(".toml").write_text(
        'color = "rgb"\nscale = 1\nmean = [0.4, 0.5, 0.6]\nstd = [1, 1, 1]\n'
    )


def test_measuring_and_galleries_need_no_torch() -> None:
    imports = "\n".join(f"import reidkit.{name}" for name in WITHOUT_TORCH)
    assert imported_by(imports) & {"torch", "torchvision", "timm"} == set()


def test_what_is_in_the_package_can_be_reached_from_it() -> None:
    program = "import reidkit as rk; print(rk.evaluation.evaluate.__name__, rk.reranking.rerank.__name__); "
    program += "print(rk.losses.TripletLoss.__name__, rk.search.Searcher.__name__, callable(rk.export))"
    assert {"evaluate rerank", "TripletLoss Searcher True"} <= imported_by(program)
    with pytest.raises(AttributeError, match="no attribute 'trainings'"):
        rk.trainings  # noqa: B018
    assert not hasattr(rk, "evaluation.ranks")
    assert {"evaluate", "evaluation", "losses"} <= set(dir(rk))
