"""Where a step of `small-cpu` spends a processor's time, and what would change that.

    python benchmarks/training_step.py [--write]

Random images, one thread. Counted are seconds that the processor worked for this process, which other work on
the machine disturbs far less than seconds that passed. Ways take turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import reidkit as rk
from reidkit import config
from reidkit.training.learner import Learner
from reidkit.training.objective import Objective
from results import processor, write_section

RECIPE, IDENTITIES = "small-cpu", 400
STEPS, ROUNDS = 3, 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    settings = config.load(RECIPE)
    usual = settings.train
    ways = {
        "as the recipe says": usual,
        "images in rows of one channel (`train.channels_last=false`)": replace(usual, channels_last=False),
        "in float32 (`train.precision=float32`)": replace(usual, precision="float32"),
        "in bfloat16 (`train.precision=bfloat16`)": replace(usual, precision="bfloat16"),
        "compiled (`train.compile=true`)": replace(usual, compile=True),
    }
    steps = {name: a_step(replace(settings, train=train)) for name, train in ways.items()}
    worked = {
        name: worked_for(step) for name, step in steps.items()
    }  # first steps, of which compiling is one
    starts = dict(worked)
    for _ in range(ROUNDS):
        worked = {name: min(worked[name], worked_for(step)) for name, step in steps.items()}
    first, *_ = worked.values()
    lines = ["| | images a second | beside the first | first steps, seconds |", "|---|---|---|---|"]
    for name, seconds in worked.items():
        speed = STEPS * batch_size(settings) / seconds
        lines.append(f"| {name} | {speed:.0f} | {first / seconds:.2f} | {starts[name]:.1f} |")
    lines += ["", f"By processor seconds of one thread; {processor()}, shared with other work; "
              f"torch {torch.__version__}."]  # fmt: skip
    table = "\n".join(lines)
    print(table)
    if write:
        write_section("training-step", table)


def batch_size(settings: config.Config) -> int:
    sampler = settings.sampler
    return sampler.identities_per_batch * sampler.images_per_identity


def a_step(settings: config.Config) -> Callable[[], object]:
    """One step of a recipe's network, from random weights, with the recipe's two losses."""
    options = {**settings.model.options, "pretrained": False}
    model = rk.build_model(settings.model.name, **options)
    losses = [
        Objective(rk.losses.IdentityLoss(IDENTITIES, model.features[model.classification_feature])),
        Objective(rk.losses.BatchHardTripletLoss(0.3)),
    ]
    size = (settings.transform.height, settings.transform.width)
    learner = Learner(
        model,
        losses,
        optim=settings.optim,
        train=settings.train,
        device=torch.device("cpu"),
        image_size=size,
    )
    images = torch.randint(0, 256, (batch_size(settings), 3, *size), dtype=torch.uint8)
    labels = torch.arange(batch_size(settings)) // settings.sampler.images_per_identity
    model.train()

    def step() -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        return learner.step(learner.module, images, labels, epoch=0, seed=0, rate=1e-4)

    return step


def worked_for(step: Callable[[], object]) -> float:
    """Processor seconds of some steps."""
    before = time.process_time()
    for _ in range(STEPS):
        step()
    return time.process_time() - before


if __name__ == "__main__":
    main()
