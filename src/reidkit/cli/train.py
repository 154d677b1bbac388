"""``reid train``: a configuration becomes a run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from reidkit import config
from reidkit.cli.output import say


@click.command("train")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Run folder.")
def train_command(recipe: str, overrides: tuple[str, ...], out: Path) -> None:
    """Train RECIPE (a name from `reid recipes`, or a TOML file) into the folder --out.

    Any value can be changed on the line: data.root=photos optim.lr=3e-4 loss.msml.margin=0.5.
    Run the same command again to go on where it stopped, for whatever reason.
    """
    train(config.load(recipe, overrides), out)
    say(f"next: reid evaluate {out}")


def train(resolved: config.Config, out: Path) -> None:
    """Build everything that a configuration names, and train."""
    config.check_components(resolved)
    import torch

    from reidkit import distributed, registry
    from reidkit.cli.progress import TrainingProgress
    from reidkit.datasets import load_dataset
    from reidkit.models import build_model
    from reidkit.objectives import Objective
    from reidkit.trainer import Trainer

    distributed.initialise()
    data = load_dataset(
        resolved.data.name,
        resolved.data.root,
        val_identities=resolved.data.val_identities,
        seed=resolved.seed,
        **resolved.data.options,
    )
    torch.manual_seed(resolved.seed)
    model = build_model(resolved.model.name, **resolved.model.options)
    objectives = [
        Objective(
            registry.build("loss", loss.kind, loss.options),
            weight=loss.weight,
            feature=loss.feature,
            from_epoch=loss.from_epoch,
            until_epoch=loss.until_epoch,
            name=name,
        )
        for name, loss in resolved.loss.items()
    ]
    sampler = dataclasses.asdict(resolved.sampler)
    main = distributed.is_main()
    with TrainingProgress(num_epochs=resolved.train.epochs, quiet=not main) as progress:
        trainer = Trainer(
            model,
            data,
            objectives,
            out=out,
            seed=resolved.seed,
            sampler=sampler.pop("kind"),
            **sampler,
            transform=resolved.transform,
            optim=resolved.optim,
            **dataclasses.asdict(resolved.train),
            trackers=[progress],
            say=progress.say,
            configuration=config.dump(resolved),
        )
        trainer.fit()
    if main:
        say(f"run folder: {out} (configuration, metrics.jsonl, weights)")
    distributed.shutdown()
