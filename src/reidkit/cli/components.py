"""``reid list``: registered components, their options, and what networks cost."""

from __future__ import annotations

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
@click.option("--details", is_flag=True, help="Models: parameters, multiply-adds, width of the embedding.")
@click.option("--height", type=click.IntRange(min=1), help="Pixels, for --details.  [default: 256]")
@click.option("--width", type=click.IntRange(min=1), help="Pixels, for --details.  [default: 128]")
@json_option
def list_command(kind: str, details: bool, height: int | None, width: int | None, as_json: bool) -> None:
    """List components of a KIND with what they are and their options."""
    if details and kind != "models":
        raise click.UsageError(f"--details goes with `reid list models`, not with {kind}")
    if (height or width) and not details:
        raise click.UsageError("--height and --width go with --details")
    if details:
        print_costs(height or 256, width or 128, as_json)
    else:
        print_options(_KINDS[kind], as_json)
    if kind == "models" and not as_json:
        say("\nand timm:NAME for any backbone of timm, for example timm:convnext_tiny")


def print_options(kind: registry.Kind, as_json: bool) -> None:
    """Every component of a kind with what it is and its options."""
    components = {name: registry.get(kind, name) for name in registry.names(kind)}
    if as_json:
        print_json(
            {
                name: {"what": registry.summary(component), "options": registry.defaults(component)}
                for name, component in components.items()
            }
        )
        return
    rows = [
        (
            name,
            registry.summary(component),
            ", ".join(f"{k}={v!r}" for k, v in registry.defaults(component).items()),
        )
        for name, component in components.items()
    ]
    print_table(["name", "what", "options"], rows, prose=("what", "options"))


def print_costs(height: int, width: int, as_json: bool) -> None:
    """What every network costs with its default options."""
    from reidkit.models._cost import cost_of

    names = [name for name in registry.names("model") if name != "timm"]
    costs = {name: cost_of(name, height=height, width=width) for name in names}
    if as_json:
        print_json(costs)
        return
    columns = ["name", "parameters", "multiply-adds", "embedding", "input"]
    rows = [
        (
            name,
            f"{cost['parameters'] / 1e6:.2f} M",
            f"{cost['multiply_adds'] / 1e9:.3f} G",
            cost["embedding"],
            f"{height} x {width}",
        )
        for name, cost in costs.items()
    ]
    print_table(columns, rows, right=columns[1:])
