"""What the Trainer costs beside a bare PyTorch loop: the same model, batches and precision, in turns.

    python benchmarks/training.py --root data/ [--recipe small-cpu] [--steps 20] [--rounds 5] [KEY=VALUE]
    python benchmarks/training.py --recipe msml-resnet50-market1501 --precision bfloat16 --compile

Rounds of the bare loop and of the Trainer alternate; the figure is the ratio of the fastest of each, since
whatever else runs on a machine only ever slows down. Waiting for data is measured in the Trainer's rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import queue
import tempfile
import threading
import time
from pathlib import Path

import torch

from reidkit import config
from reidkit.images.transforms import normalize
from reidkit.training.loader import batches
from reidkit.training.objective import name_of
from reidkit.training.runs import build_trainer
from reidkit.training.trackers import peak_memory
from results import device, write_section


class EndOfRound(Exception):
    """Enough steps were timed."""


def make(arguments: argparse.Namespace, out: Path):
    overrides = [f"data.name={arguments.data}", f"data.root={arguments.root}", "train.checkpoint_minutes=1e6"]
    overrides += [f"train.precision={arguments.precision}", f"train.compile={str(arguments.compile).lower()}"]
    overrides += [f"train.log_every={arguments.steps}", "data.val_identities=0", *arguments.overrides]
    return build_trainer(config.load(arguments.recipe, overrides), out)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def endless(trainer):
    for epoch in itertools.count():
        trainer.sampler.start(epoch)
        yield from batches(trainer.loader)


def bare_rounds(trainer, num_steps: int):
    """Seconds of each round of a loop that does nothing but learn."""
    model, step, optimizer = trainer.model, trainer.learner.module, trainer.learner.optimizer
    losses = [(objective.weight, name_of(objective)) for objective in trainer.objectives]
    drawn = endless(trainer)
    model.train()
    while True:
        synchronise()
        began = time.perf_counter()
        for _ in range(num_steps):
            images, indices, _ = next(drawn)
            inputs = normalize(images.to(trainer.device), model.mean, model.std)
            labels = trainer.labels[indices].to(trainer.device)
            with trainer.learner.precision.autocast():
                terms, _ = step(inputs.contiguous(memory_format=trainer.learner.memory_format), labels, 0)
            optimizer.zero_grad(set_to_none=True)
            sum(weight * terms[name] for weight, name in losses if name in terms).backward()
            optimizer.step()
        synchronise()
        yield time.perf_counter() - began


def trainer_rounds(arguments: argparse.Namespace, num_rounds: int):
    """Figures of each round of the Trainer, whose loop is held between two rounds."""
    turn, done = threading.Semaphore(0), queue.Queue()

    def track(record) -> None:
        if record["kind"] == "step":
            synchronise()
            done.put(record)
            turn.acquire()
            if record["step"] >= arguments.steps * (num_rounds + 1):
                raise EndOfRound

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = make(arguments, Path(folder) / "run")
            trainer.trackers = [track]
            with contextlib.suppress(EndOfRound):
                trainer.fit()
            done.put(None)  # it ended early

    threading.Thread(target=run, daemon=True).start()
    done.get()  # the first round warms up
    for _ in range(num_rounds):
        began = time.perf_counter()
        turn.release()
        record = done.get()
        yield time.perf_counter() - began, record
    turn.release()
    done.get()  # its end


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="market1501")
    parser.add_argument("--root", default="data")
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        bare_trainer = make(arguments, Path(folder) / "bare")
        bare = bare_rounds(bare_trainer, arguments.steps)
        next(bare)  # warms up
        times = {"bare loop": [], "Trainer": []}
        waiting = []
        for seconds, record in trainer_rounds(arguments, arguments.rounds):
            times["Trainer"].append(seconds)
            waiting.append(record["waiting_for_data"])
            times["bare loop"].append(next(bare))

    images = arguments.steps * bare_trainer.sampler.batch_size
    rates = {
        name: f"{images / min(seconds):.0f} ({images / max(seconds):.0f})" for name, seconds in times.items()
    }
    share = min(times["bare loop"]) / min(times["Trainer"])
    memory = ", ".join(f"{value:.1f}" for value in peak_memory().values())
    table = "\n".join(
        [
            "| recipe | precision | bare loop | Trainer | share | waiting for data | memory, GB |",
            "|---|---|---|---|---|---|---|",
            f"| {arguments.recipe}{', compiled' * arguments.compile} | "
            f"{bare_trainer.learner.precision.name} | {rates['bare loop']} | {rates['Trainer']} | "
            f"{100 * share:.0f} % | {100 * min(waiting):.1f} to {100 * max(waiting):.1f} % | {memory} |",
            "",
            f"Images/s of the fastest of {arguments.rounds} rounds of {arguments.steps} steps (the slowest); "
            f"{' '.join(arguments.overrides)}; {torch.get_num_threads()} threads, {device()}, "
            f"torch {torch.__version__}.",
        ]
    )
    print(table)
    if arguments.write:
        write_section("training", table)


if __name__ == "__main__":
    main()
