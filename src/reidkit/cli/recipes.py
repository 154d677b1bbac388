"""``reid recipes``: list, show, copy."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from reidkit import config
from reidkit.cli import completion
from reidkit.cli.output import json_option, print_json, print_table, say, tell


@click.group("recipes", invoke_without_command=True)
@json_option
@click.pass_context
def recipes_command(ctx: click.Context, as_json: bool) -> None:
    """List the shipped recipes. A recipe is a complete configuration; copy one to make it yours."""
    if ctx.invoked_subcommand is not None:
        return
    recipes = config.recipes()
    if as_json:
        print_json(recipes)
    else:
        print_table(["recipe", "what it does"], recipes.items(), prose=("what it does",))
        say("\nreid recipes show NAME, reid recipes copy NAME my.toml, reid train NAME --out runs/NAME")


@recipes_command.command("show")
@click.argument("name", shell_complete=completion.recipes)
def show(name: str) -> None:
    """Print a recipe."""
    click.echo(config.recipe_text(name), nl=False)


@recipes_command.command("copy")
@click.argument("name", shell_complete=completion.recipes)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def copy(name: str, path: Path) -> None:
    """Copy a recipe to a file of your own."""
    config.copy_recipe(name, path)
    train = shlex.join(["reid", "train", str(path), "--out", f"runs/{path.stem}"])
    tell(f"{path}: edit it, then `{train}`")
