"""``reid config``: what a recipe and its overrides come to."""

from __future__ import annotations

from collections.abc import Sequence

import click

from reidkit import config, trust
from reidkit.cli import completion
from reidkit.cli.output import json_option, print_json, say


@click.command("config")
@click.argument("recipe", shell_complete=completion.recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.keys)
@json_option
def config_command(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the configuration that RECIPE (a name or a file) and the overrides come to, checked.

    Components that are code of your own are not checked, since that would run it, unless --allow-code names
    their module.
    """
    trust.allow_typed(*config.texts_of(overrides))
    resolved = config.load(recipe, overrides)
    unchecked = config.code_not_allowed(resolved)
    config.check_components(resolved, skip=unchecked)
    print_unchecked(unchecked)
    if as_json:
        print_json(config.as_tree(resolved))
    else:
        click.echo(config.dump(resolved), nl=False)


def print_unchecked(names: Sequence[str]) -> None:
    for name in names:
        module = name.partition(":")[0]
        say(f"not checked: {name} is code of your own, which that would run; --allow-code {module} allows it")
