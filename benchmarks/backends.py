"""Images a second of the same network in every library, and of reidkit beside the best of them.

    python benchmarks/backends.py [--networks resnet50 osnet_x1_0] [--write]

Weights are random, which changes no speed. Each way embeds the same crops, 256 x 128, in turn; the best
round counts, since other work only ever slows down. All are given crops of the right size. OpenVINO's bare
sessions are those of its documentation: all threads on one batch (latency), or on parts of it (throughput).
reidkit finds the fastest library by itself, as `reid index` does.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from PIL import Image

import reidkit as rk
from reidkit.encoders import backends, openvino_sessions
from reidkit.encoders.devices import has_native_bfloat16
from reidkit.encoders.export import drawn_people, write_encoder
from reidkit.encoders.export_files import FromPixels, onnx_program
from reidkit.encoders.quantise import quantised_programs
from reidkit.encoders.runtimes import num_threads
from reidkit.images.transforms import resized
from results import processor, write_section

HEIGHT, WIDTH = 256, 128
Way = Callable[[np.ndarray], Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["resnet50", "osnet_x1_0"])
    parser.add_argument("--images", type=int, default=16, help="that are embedded at a time")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    arguments = parser.parse_args()
    backends.WORTH_MEASURING = backends.WORTH_OPENING = -1.0  # this is the large index for which it pays
    openvino_sessions.WORTH_COMPILING = 0.0
    columns = [column(network, arguments) for network in arguments.networks]
    table = as_table(arguments, columns)
    print(table)
    if arguments.write:
        write_section("backends", table)


def column(network: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Images a second of each way."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing is known of this machine
        crops = drawn_crops(max(arguments.images, 32))
        ways = all_ways(network, Path(folder), crops)
        return speeds(ways, crops[: arguments.images], arguments.rounds)


def drawn_crops(num: int) -> np.ndarray:
    """Crops of drawn people, (num, 256, 128, 3) uint8."""
    crops = [
        resized(Image.fromarray(person), height=HEIGHT, width=WIDTH) for person in drawn_people(HEIGHT, WIDTH)
    ]
    return np.stack([crops[place % len(crops)] for place in range(num)])


def all_ways(network: str, folder: Path, crops: np.ndarray) -> dict[str, Way]:
    """By name: what embeds (N, H, W, 3) uint8. Names in bold are reidkit."""
    file = rk.Encoder(rk.build_model(network), height=HEIGHT, width=WIDTH).save(folder / "own.safetensors")
    own = rk.load_encoder(file, backend="torch")
    program = onnx_program(own)
    int8 = next(quantised_programs(own, program, list(crops)))
    encoders = {
        "onnx": write_encoder(own, program, folder / "f.onnx", to="onnx"),
        "onnx int8": write_encoder(own, int8, folder / "i.onnx", to="onnx", int8=True),
        "openvino": write_encoder(own, program, folder / "f.xml", to="openvino"),
        "openvino int8": write_encoder(own, int8, folder / "i.xml", to="openvino", int8=True),
    }
    chosen = rk.load_encoder(file)
    chosen.encode(list(crops), batch_size=16)  # finds the fastest
    ways: dict[str, Way] = {
        "PyTorch": bare_torch(own, torch.contiguous_format),
        "PyTorch, channels last": bare_torch(own, torch.channels_last),
        "onnxruntime": bare_onnx(folder / "f.onnx"),
        "onnxruntime, int8": bare_onnx(folder / "i.onnx"),
        "OpenVINO": bare_openvino(folder / "f.xml", "f32"),
        "OpenVINO, throughput": openvino_in_parts(folder / "f.xml"),
        "OpenVINO, int8": bare_openvino(folder / "i.xml", "f32"),
        "OpenVINO, int8, throughput": openvino_in_parts(folder / "i.xml"),
        "**reidkit**, by itself": lambda images: chosen.encode(list(images)),
        "**reidkit**, int8 file, onnxruntime": lambda images: encoders["onnx int8"].encode(list(images)),
        "**reidkit**, int8 file, OpenVINO": lambda images: encoders["openvino int8"].encode(list(images)),
    }
    if has_native_bfloat16(torch.device("cpu")):
        ways["OpenVINO, bfloat16"] = bare_openvino(folder / "f.xml", "bf16")
    return ways


def bare_torch(encoder: rk.Encoder, order: torch.memory_format) -> Way:
    """A loop of PyTorch's own, its weights and images in one order of memory."""
    network = FromPixels(encoder.model).eval().to(memory_format=order)

    @torch.inference_mode()
    def embed(images: np.ndarray) -> torch.Tensor:
        return network(torch.from_numpy(numbers(images)).contiguous(memory_format=order))

    return embed


def bare_onnx(file: Path) -> Way:
    """A session of onnxruntime, as its documentation makes one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": numbers(images)})


def bare_openvino(file: Path, kind: str) -> Way:
    """A compiled model of OpenVINO, multiplying in "f32" or "bf16"."""
    settings = {"INFERENCE_NUM_THREADS": num_threads(), "INFERENCE_PRECISION_HINT": kind}
    model = openvino.Core().compile_model(file, "CPU", settings)
    return lambda images: model({0: numbers(images)})


def openvino_in_parts(file: Path) -> Way:
    """A compiled model of OpenVINO for throughput, each of its requests given as many of the images."""
    settings = {
        "INFERENCE_NUM_THREADS": num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
    }
    requests = openvino.AsyncInferQueue(openvino.Core().compile_model(file, "CPU", settings))

    def embed(images: np.ndarray) -> None:
        for part in np.array_split(numbers(images), len(requests)):
            requests.start_async({0: part}, share_inputs=True)
        requests.wait_all()

    return embed


def numbers(images: np.ndarray) -> np.ndarray:
    """What the files take: float32 (N, 3, H, W), 0..255. It costs next to nothing."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def speeds(ways: dict[str, Way], images: np.ndarray, num_rounds: int) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for number in range(num_rounds + 1):
        for name, embed in list(ways.items())[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            embed(images)
            if number:  # the first warms up
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: len(images) / seconds for name, seconds in best.items()}


def as_table(arguments: argparse.Namespace, columns: list[dict[str, float]]) -> str:
    """Rows of ways; behind each speed of reidkit its share of the same library's without it."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = [f"| | {' | '.join(arguments.networks)} |", f"|---|{'---|' * len(columns)}"]
    for name in names:
        cells = [cell(name, column) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, OpenVINO {short_version()}"
    return "\n".join(
        [
            *lines,
            "",
            f"Images a second, {arguments.images} at a time, best of {arguments.rounds} rounds in turns. "
            f"{num_threads()} threads on {processor()} ({instructions()}), shared with other work; "
            f"{versions}.",
        ]
    )


def cell(name: str, column: dict[str, float]) -> str:
    beside = {
        "**reidkit**, by itself": [
            *("PyTorch", "PyTorch, channels last", "onnxruntime", "OpenVINO", "OpenVINO, throughput")
        ],
        "**reidkit**, int8 file, onnxruntime": ["onnxruntime, int8"],
        "**reidkit**, int8 file, OpenVINO": ["OpenVINO, int8", "OpenVINO, int8, throughput"],
    }
    if name not in beside:
        return f"{column[name]:.1f}"
    return f"{column[name]:.1f} ({100 * column[name] / max(column[other] for other in beside[name]):.0f} %)"


def instructions() -> str:
    """The widest instructions that the processor has for this work."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{capability} with bfloat16" if has_native_bfloat16(torch.device("cpu")) else capability


def short_version() -> str:
    return str(openvino.__version__).partition("-")[0]


if __name__ == "__main__":
    main()
