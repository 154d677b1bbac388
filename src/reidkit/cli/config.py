"""``reid config``: what a recipe and its overrides come to."""

from __future__ import annotations

import click

from reidkit import config
from reidkit.cli.output import json_option, print_json


@click.command("config")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@json_option
def config_command(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the configuration that RECIPE (a name or a file) and the overrides come to, checked."""
    resolved = config.load(recipe, overrides)
    config.check_components(resolved)
    if as_json:
        print_json(config.as_tree(resolved))
    else:
        click.echo(config.dump(resolved), nl=False)
