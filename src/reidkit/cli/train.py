"""``reid train``: a configuration becomes a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit import config, trust
from reidkit.cli import completion
from reidkit.cli.output import say

if TYPE_CHECKING:
    from reidkit.types import Dataset


@click.command("train")
@click.argument("recipe", shell_complete=completion.recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.keys)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Run folder.")
@click.option("--init", help="Run folder or weights file to start from; short for train.init=...")
def train_command(recipe: str, overrides: tuple[str, ...], out: Path, init: str | None) -> None:
    """Train RECIPE (a name from `reid recipes`, or a TOML file) into the folder --out.

    Any value can be changed on the line: data.root=photos optim.lr=3e-4 loss.msml.margin=0.5.
    With --init, training starts from another run's weights; classifiers start anew.
    Run the same command again to go on where it stopped, for whatever reason.
    """
    if init is not None:
        overrides = (*overrides, f"train.init={json.dumps(init)}")
    trust.allow_typed(*config.texts_of(overrides))
    resolved = config.load(recipe, overrides)
    data = train(resolved, out)
    if data is not None:
        print_next(out, resolved, data)


def print_next(out: Path, resolved: config.Config, data: Dataset) -> None:
    """The command to go on with: to measure, where there is something to measure on."""
    from reidkit.training.runs import way_to_a_test_part

    if way := way_to_a_test_part(resolved, data):
        say(f"{data.name} has no test part, so that this run cannot be measured; {way}")
        return
    # A run folder is a file like any other, and may name code only if allowed.
    modules = dict.fromkeys(name.partition(":")[0] for name in config.own_code(resolved))
    allowed = "".join(f" --allow-code {module}" for module in modules)
    say(f"next: reid evaluate {out}{allowed}")


def train(resolved: config.Config, out: Path) -> Dataset | None:
    """Build everything that a configuration names, and train; returns the data in the process that talks."""
    config.check_components(resolved)  # a misspelt option is told before torch is imported
    from reidkit.cli.progress import TrainingProgress
    from reidkit.training import distributed
    from reidkit.training.kept_memory import keep_freed_memory
    from reidkit.training.runs import build_trainer

    keep_freed_memory()
    distributed.initialise()
    main = distributed.is_main()
    with TrainingProgress(num_epochs=resolved.train.epochs, quiet=not main) as progress:
        trainer = build_trainer(resolved, out, trackers=[progress])
        trainer.fit()
    if main:
        say(f"run folder: {out} (configuration, metrics.jsonl, weights)")
    distributed.shutdown()
    return trainer.data if main else None
