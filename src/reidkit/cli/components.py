"""``reid list``: registered components and their options."""

from __future__ import annotations

import inspect

import click

from reidkit import registry
from reidkit.cli.output import json_option, print_json, print_table, say

_KINDS: dict[str, registry.Kind] = {
    "losses": "loss",
    "models": "model",
    "datasets": "dataset",
    "galleries": "gallery",
}


@click.command("list")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@json_option
def list_command(kind: str, as_json: bool) -> None:
    """List components of a KIND with what they are and their options."""
    components = {name: registry.get(_KINDS[kind], name) for name in registry.names(_KINDS[kind])}
    if as_json:
        print_json(
            {name: {"what": _summary(c), "options": registry.defaults(c)} for name, c in components.items()}
        )
        return
    rows = [
        (name, _summary(component), ", ".join(f"{k}={v!r}" for k, v in registry.defaults(component).items()))
        for name, component in components.items()
    ]
    print_table(["name", "what", "options"], rows)
    if kind == "models":
        say("\nand timm:NAME for any backbone of timm, for example timm:convnext_tiny")


def _summary(component: object) -> str:
    """First line of its docstring."""
    text = inspect.getdoc(getattr(component, "func", component)) or ""
    return text.split("\n", 1)[0]
