"""What the Trainer, NCCL, encoding, evaluation and export do on a GPU, beside bare loops.

    python benchmarks/gpu.py $REIDKIT_DATA/market1501-500 [--steps 20] [--rounds 3] [--write]
    python benchmarks/gpu.py --curves RUN_ON_CPU RUN_ON_GPU [--write]

Some four minutes on an H200, two of them compiling. ResNet50 at 256 x 128, batches of 32 x 4, random
weights. A bare loop and the Trainer take turns, as in ``training.py``; one row is a group of one process that
talks over NCCL, beside a bare loop without a group.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import reidkit as rk
from reidkit.encoders.encoder import Encoder
from reidkit.encoders.export import export_encoder
from reidkit.evaluation import evaluate_features
from reidkit.training import distributed
from reidkit.training.trackers import peak_memory, read_metrics
from results import device, rows_before, write_section
from training import bare_rounds, make, synchronise, trainer_rounds

# Name of a row: precision, whether it is compiled, whether a process group is joined first.
ROWS = {
    "float32": ("float32", False, False),
    "bfloat16": ("bfloat16", False, False),
    "float16": ("float16", False, False),
    "bfloat16, NCCL": ("bfloat16", False, True),
    "bfloat16, compiled": ("bfloat16", True, False),
    "float16, compiled": ("float16", True, False),
}
NUM_PIXELS = 256  # images of a batch that is embedded
SETTINGS = (
    *("model.name=resnet50", "model.pretrained=false", "transform.height=256", "transform.width=128"),
    *("sampler.identities_per_batch=32", "sampler.images_per_identity=4", "train.num_workers=6"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder in Market-1501's layout")
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*ROWS, "encoder"], help="some of the rows; 'encoder'")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/results.md")
    parser.add_argument(
        "--curves", type=Path, nargs=2, help="compare what two trainings of the same settings wrote; no more"
    )
    options = parser.parse_args()
    if options.curves:
        tell("gpu-curves", curves_table(*options.curves), write=options.write)
        return
    if options.data is None:
        parser.error("give the folder of images, or --curves")
    if "encoder" in options.only:
        tell("gpu-encoder", encoder_table(options), write=options.write)
    rows = rows_before("gpu-training")
    for name in ROWS:
        if name in options.only:
            rows[name] = training_row(name, options)
            tell("gpu-training", training_table(rows, options), write=options.write)


def tell(section: str, table: str, *, write: bool) -> None:
    print(table, end="\n\n", flush=True)
    if write:
        write_section(section, table, script="gpu")


def training_row(name: str, options: argparse.Namespace) -> str:
    precision, compiled, grouped = ROWS[name]
    arguments = argparse.Namespace(
        data="market1501", root=options.data, recipe="small-cpu", precision=precision, compile=compiled,
        steps=options.steps, overrides=SETTINGS,
    )  # fmt: skip
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(arguments, Path(folder) / "bare")
        bare = bare_rounds(trainer, options.steps)
        began = time.perf_counter()
        next(bare)
        first = time.perf_counter() - began
        alone = [next(bare) for _ in range(options.rounds)] if grouped else []
        if grouped:
            join_a_group_of_one()
        times, waiting = [], []
        for seconds, record in trainer_rounds(arguments, options.rounds):
            times.append(seconds)
            waiting.append(record["waiting_for_data"])
            if not grouped:
                alone.append(next(bare))
    if grouped:
        distributed.shutdown()
    images = options.steps * trainer.sampler.batch_size
    memory = peak_memory().get("gpu_memory_gb", float("nan"))
    return (
        f"| {name} | {images / min(alone):.0f} | {images / min(times):.0f} | "
        f"{100 * min(alone) / min(times):.0f} % | {100 * min(waiting):.1f} % | {first:.0f} | {memory:.1f} |"
    )


def join_a_group_of_one() -> None:
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
    distributed.initialise()


def training_table(rows: dict[str, str], options: argparse.Namespace) -> str:
    head = "| precision | bare loop | Trainer | share | waiting for data | first steps, s | peak memory, GB |"
    return "\n".join(
        [
            head,
            "|---|---|---|---|---|---|---|",
            *[rows[name] for name in ROWS if name in rows],
            "",
            f"Images/s of the fastest of {options.rounds} rounds of {options.steps} steps of 128 images; the "
            f"first steps are those of the bare loop, compiling among them; {device()}, "
            f"torch {torch.__version__}.",
        ]
    )


def curves_table(on_cpu: Path, on_gpu: Path) -> str:
    """The losses of two trainings with the same seed and settings, step by step."""
    configurations = [(run / "config.toml").read_text() for run in (on_cpu, on_gpu)]
    changed = [
        lines for lines in zip(*map(str.splitlines, configurations), strict=True) if len(set(lines)) > 1
    ]
    if any(not line.startswith("root = ") for line, _ in changed):
        raise SystemExit(f"{on_cpu} and {on_gpu} are not the same training: {changed}")
    steps = [
        {record["step"]: record for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "step"}
        for run in (on_cpu, on_gpu)
    ]
    names = [key for key in next(iter(steps[0].values())) if key.startswith("loss/")]
    shown = [name.removeprefix("loss/") for name in names]
    rows = [
        f"| step | {' | '.join(f'{name}, CPU | GPU' for name in shown)} |",
        f"|---|{'---|---|' * len(names)}",
    ]
    for step in sorted(steps[0].keys() & steps[1].keys()):
        pairs = [f"{found[step][name]:.4f}" for name in names for found in steps]
        rows.append(f"| {step} | {' | '.join(pairs)} |")
    return "\n".join(rows)


def encoder_table(options: argparse.Namespace) -> str:
    """Embedding real images, ranking them, and writing the network for another runtime."""
    torch.manual_seed(0)
    model = rk.build_model("resnet50", pretrained=False)
    data = rk.load_dataset("market1501", options.data)
    part = data.gallery
    pixels = torch.rand(NUM_PIXELS, 3, 256, 128)
    lines = ["| what | result |", "|---|---|"]
    for bfloat16 in (False, True):
        encoder = Encoder(model, height=256, width=128, bfloat16=bfloat16)
        network = encoder.network.model
        inputs = pixels.to(encoder.network.device)

        def bare(network=network, inputs=inputs, bfloat16=bfloat16) -> None:
            with torch.inference_mode(), torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
                for _ in range(8):
                    network.eval()(inputs)

        fastest, whole = (
            8 * NUM_PIXELS / best_of(3, bare),
            len(part) / best_of(2, lambda e=encoder: e.features(part)),
        )
        kind = "bfloat16" if bfloat16 else "float32"
        lines.append(f"| images/s, {kind}: the network alone, on pixels that are there | {fastest:.0f} |")
        lines.append(f"| images/s, {kind}: from files to embeddings | {whole:.0f} |")
    encoder = Encoder(model, height=256, width=128)
    query, gallery = encoder.features(data.query), encoder.features(part)
    on_cpu = Encoder(model.cpu(), height=256, width=128, device="cpu").features(data.query[:64])
    apart = abs(on_cpu.embeddings - query.embeddings[:64]).max()
    lines.append(f"| furthest that a value of 64 embeddings is from the CPU's | {apart:.1e} |")
    seconds = best_of(3, lambda: evaluate_features(query, gallery))
    lines.append(
        f"| ranking and scoring {len(query.embeddings):,} x {len(gallery.embeddings):,}, s | {seconds:.2f} |"
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, ending in (("onnx", "onnx"), ("torchscript", "pt")):
            began = time.perf_counter()
            file = Path(folder) / f"net.{ending}"
            export_encoder(encoder, file, to=kind)
            lines.append(
                f"| export to {kind}, its embeddings compared, s | {time.perf_counter() - began:.1f} |"
            )
    return "\n".join([*lines, "", f"ResNet50 at 256 x 128; {device()}, torch {torch.__version__}."])


def best_of(number: int, action: Callable[[], object]) -> float:
    """Seconds, after one that warms up."""
    action()
    times = []
    for _ in range(number):
        synchronise()
        began = time.perf_counter()
        action()
        synchronise()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
