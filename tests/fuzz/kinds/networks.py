"""Networks made elsewhere: PyTorch's files, ONNX, OpenVINO."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.hostile import HOSTILE_TEXTS, changed, values
from tests.fuzz.mutation import damaged, damaged_text
from tests.fuzz.world import NETWORK, PREPROCESSING


def _import(maker: Maker, name: str) -> Case:
    size = ("--height", "48", "--width", "24")
    command = ("import-weights", name, "--model", NETWORK, *size, "--out", "out.safetensors")
    return Case(command, writes=("out.safetensors",))


@kind("pth bytes", weight=20)
def pth(maker: Maker) -> Case:
    original = maker.world.pth().read_bytes()
    if maker.random.random() < 0.5:
        maker.write("w.pth", damaged(original, maker.random))
        return _import(maker, "w.pth")
    # The pickle inside, in an archive that is whole again.
    with zipfile.ZipFile(maker.world.pth()) as archive, zipfile.ZipFile(maker.folder / "w.pth", "w") as hurt:
        for name in archive.namelist():
            content = archive.read(name)
            hurt.writestr(name, damaged(content, maker.random) if name.endswith("data.pkl") else content)
    return _import(maker, "w.pth")


class _Runs:
    """Unpickling it would call a function."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        import os

        return (
            (os.system, ("touch ../sentinel/ran",))
            if self.name == "system"
            else (eval, ("__import__('this')",))
        )


def _tensors(random: Any) -> Any:
    """A state dict, or what was saved in place of one."""
    import torch

    one: list[Any] = [
        torch.zeros(3, 3), torch.zeros(0), torch.tensor(1), torch.full((2, 2), float("nan")),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, 2, dtype=torch.int8), torch.zeros(2, dtype=torch.complex64), torch.eye(3).to_sparse(),
        torch.empty(2, 2, device="meta"), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(1).expand(10**9),
        torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8), torch.zeros(2,
        dtype=torch.float8_e4m3fn),
        torch.nested.nested_tensor([torch.zeros(2)]), torch.zeros(4, 4).t(),
        torch.nn.Parameter(torch.zeros(2)),
        None, "text", 3, [torch.zeros(2)], {"x": torch.zeros(2)}, _Runs("system"), _Runs("eval"),
    ]  # fmt: skip
    names = [
        *HOSTILE_TEXTS[:40],
        "conv1.weight",
        "module.x",
        "backbone.network.conv1.weight",
        3,
        None,
        (1, 2),
        1.5,
        b"x",
    ]
    state = {random.choice(names): random.choice(one) for _ in range(random.choice((1, 2, 5)))}
    how = random.randrange(8)
    if how == 0:
        state["state_dict"] = state
    elif how == 1:
        for _ in range(random.choice((3, 500, 3000))):
            state = {random.choice(("state_dict", "model", "net")): state}
    elif how == 2:
        return random.choice(
            (one, [], {}, None, 3, "x", {"state_dict": {}}, {"model": None}, {"state_dict": [1]})
        )
    return state


@kind("pth structure", weight=40)
def state(maker: Maker) -> Case:
    import torch

    content = _tensors(maker.random)
    path = maker.folder / "w.pth"
    try:
        torch.save(content, path, _use_new_zipfile_serialization=maker.random.random() < 0.7)
    except Exception:  # torch does not save everything; plain pickles are met as well
        path.unlink(missing_ok=True)
        try:
            path.write_bytes(pickle.dumps(str(content)))
        except RecursionError:
            path.write_bytes(b"\x80\x04" + b"]" * 10_000 + b".")
    return _import(maker, "w.pth")


@kind("pth with changed weights", weight=25)
def weights(maker: Maker) -> Case:
    """A whole state dict in which one to three weights are of another kind."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[Any, Any] = dict(load_file(maker.world.encoder()))
    for _ in range(maker.random.choice((1, 2, 3))):
        name = maker.random.choice([name for name in tensors if isinstance(name, str)])
        value = tensors[name]
        way = maker.random.randrange(9)
        if way == 0:
            del tensors[name]
        elif way == 1:
            tensors[maker.random.choice(HOSTILE_TEXTS)] = value
        elif isinstance(value, torch.Tensor):
            changes: list[Any] = [
                value.to(torch.int8) if value.is_floating_point() else value, value.unsqueeze(0),
                value.flatten(),
                torch.full_like(value, float("nan")) if value.is_floating_point() else value,
                value.to(torch.float64),
                value.to(torch.complex64), value.to_sparse() if value.dim() else value,
                torch.zeros_like(value),
            ]  # fmt: skip
            tensors[name] = maker.random.choice(changes)
    torch.save({"state_dict": tensors}, maker.folder / "w.pth")
    return _import(maker, "w.pth")


_OPTIONS = st.lists(st.tuples(
        st.sampled_from(("model.neck", "model.pooling", "model.stripes", "model.dim", "model.last_stride",
        "model", "x",
                         "model.name", "model.pretrained", "model.features_only", "model.x.y")),
        st.sampled_from(("10**9", "1000000000", "-1", "0", "nan", "true", '"x"', "[]", "{}",
        "9223372036854775808", "x")),
    ), min_size=1, max_size=2)  # fmt: skip


@kind("import-weights options", weight=20)
def options(maker: Maker) -> Case:
    drawn = maker.draw(_OPTIONS)
    model = maker.random.choice(
        (
            NETWORK,
            "osnet_x1_0",
            "resnet50x",
            "jlml",
            "nothing",
            "timm:resnet",
            "timm:test_vit",
            "a" * 100_000,
            "timm:",
            "bninception",
        )
    )
    shutil.copy(maker.world.pth(), maker.folder / "w.pth")
    given = [f"{key}={value}" for key, value in drawn]
    return Case(
        ("import-weights", "w.pth", "--model", model, "--out", "out.safetensors", "--", *given),
        writes=("out.safetensors",),
    )


def _encode(maker: Maker, name: str) -> Case:
    import onnxruntime  # noqa: F401  # before the case runs
    import openvino  # noqa: F401

    shutil.copy(maker.world.photo(".png"), maker.folder / "p.png")
    return Case(("encode", name, "p.png", "--out", "out.npz"), writes=("out.npz",))


@kind("ONNX bytes", weight=40)
def onnx_bytes(maker: Maker) -> Case:
    maker.write("net.onnx", damaged(maker.world.onnx().read_bytes(), maker.random))
    return _encode(maker, "net.onnx")


@kind("ONNX structure", weight=30)
def onnx_structure(maker: Maker) -> Case:
    import onnx

    model = onnx.load(maker.world.onnx())
    graph, random = model.graph, maker.random
    way = random.randrange(12)
    if way == 0:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = random.choice((10**6, 2**31, 2**62, -1, 0))
    elif way == 1:
        graph.input[0].type.tensor_type.shape.dim[random.choice((1, 2, 3))].dim_value = random.choice(
            (0, 1, 10**5, 2**40)
        )
    elif way == 2:
        graph.input[0].name = random.choice([text for text in HOSTILE_TEXTS if len(text) < 9000])
    elif way == 3:
        graph.output[0].name = random.choice(("", "images", "weights", "x\x1b[31m"))
    elif way == 4:
        del graph.output[:]
    elif way == 5:
        tensor = graph.initializer[1]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = (
            "location",
            random.choice(("../sentinel/victim", "/etc/passwd", "/dev/zero", "none", "")),
        )
        tensor.ClearField("raw_data")
    elif way == 6:
        del tensor_dims(graph.initializer[1])[:]
        tensor_dims(graph.initializer[1]).extend(random.choice(((2**40, 5), (-3, 5), (0, 5), (5, 3), (3, 0))))
    elif way == 7:
        graph.node[0].op_type = random.choice(
            ("Loop", "NoSuchOp", "Identity", "ReduceSum", "StringNormalizer", "")
        )
    elif way == 8:
        graph.node[1].domain = random.choice(("com.microsoft", "ai.onnx.contrib", "x"))
    elif way == 9:
        model.opset_import[0].version = random.choice((0, 1, 99, 2**40, -1))
    elif way == 10:
        graph.node[0].input[0] = graph.node[1].output[0]  # a circle
    else:
        shape = onnx.helper.make_node("ConstantOfShape", ["big"], ["filled"])
        graph.node.append(shape)
        import numpy as np

        graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([2 ** random.choice((20, 33, 40))]), "big")
        )
        graph.node.append(onnx.helper.make_node("ReduceSum", ["filled"], ["total"]))
        graph.output.append(onnx.helper.make_tensor_value_info("total", onnx.TensorProto.FLOAT, None))
    onnx.save(model, maker.folder / "net.onnx")
    return _encode(maker, "net.onnx")


def tensor_dims(tensor: Any) -> Any:
    return tensor.dims


_TABLES = changed({**PREPROCESSING, "height": 8, "width": 4, "interpolation": "area", "dim": 5}) | values()


@kind("network's preprocessing", weight=40)
def preprocessing(maker: Maker) -> Case:
    table = maker.draw(_TABLES)
    if maker.random.random() < 0.5:
        from tests.fuzz.hostile import as_toml, toml_document

        text = toml_document(table) if isinstance(table, dict) else as_toml(table)
        shutil.copy(maker.world.onnx(), maker.folder / "net.onnx")
        maker.write("net.toml", damaged_text(text, maker.random) if maker.random.random() < 0.3 else text)
    else:
        import onnx

        model = onnx.load(maker.world.onnx())
        try:
            text = json.dumps(table)
        except RecursionError:
            text = "[" * 100_000
        onnx.helper.set_model_props(model, {"reidkit": text})
        onnx.save(model, maker.folder / "net.onnx")
    return _encode(maker, "net.onnx")


_BILLION_LAUGHS = (
    '<!DOCTYPE x [<!ENTITY e0 "ha">'
    + "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 10))
    + "]><net>&e9;</net>"
)


@kind("OpenVINO", weight=15)
def openvino(maker: Maker) -> Case:
    for name in ("net.xml", "net.bin"):
        shutil.copy(maker.world.openvino() / name, maker.folder / name)
    file = maker.folder / maker.random.choice(("net.xml", "net.xml", "net.xml", "net.bin"))
    if file.suffix == ".xml" and maker.random.random() < 0.6:
        file.write_bytes(damaged_text(file.read_text(), maker.random))
    elif maker.random.random() < 0.1:
        file.write_text(_BILLION_LAUGHS)
    else:
        file.write_bytes(damaged(file.read_bytes(), maker.random))
    return _encode(maker, "net.xml")
