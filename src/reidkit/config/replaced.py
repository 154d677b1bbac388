"""Options that are left over where an override names another component than the file that it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from reidkit import registry, signatures
from reidkit.config.overrides import Table, is_given
from reidkit.config.tables import DataConfig, LossConfig, ModelConfig
from reidkit.errors import ReidError, shown


def leave_out_options_of_others(tree: Table, before: Table, given: Sequence[str]) -> list[str]:
    """Remove from a tree, in place, what only the components take that were named before.

    Args:
        tree: with overrides applied.
        before: without.
        given: the overrides; what they set themselves stays, and is a fault where it fits nothing.

    Returns:
        A sentence for each table, on what was removed; and one for each loss, on what it keeps that is not as
        it has it by itself. The scale of a margin or a temperature is that of the loss it was chosen for.
    """
    told = []
    for kind, path, key, own, num_positional in _components(tree):
        name, former = _at(tree, path).get(key, path[-1]), _at(before, path).get(key, path[-1])
        if name == former or not _at(before, path):
            continue
        try:
            factory = registry.get(kind, name)
        except (ReidError, TypeError, AttributeError):  # no name, or of nothing: told where it is checked
            continue
        left_over = [
            option
            for option in _at(before, path)
            if option not in own and option in _at(tree, path) and not is_given((*path, option), given)
        ]
        foreign = [
            option
            for option in left_over
            if registry.lacks_option(factory, option, num_positional=num_positional)
        ]
        for option in foreign:
            del _at(tree, path)[option]
        where = f"[{'.'.join(path)}]"
        if foreign:
            told.append(
                f"{where} {', '.join(foreign)} left out: of {shown(former)}, and {shown(name)} has none"
            )
        if kind == "loss":
            kept = {option: _at(tree, path)[option] for option in left_over if option not in foreign}
            told += [f"{where} {what}" for what in _chosen_for(former, kept, name, factory)]
    return told


def _chosen_for(former: str, options: Table, name: str, factory: Callable[..., Any]) -> list[str]:
    """Which options have another value than the component's own."""
    usual = {
        parameter.name: parameter.default
        for parameter in signatures.parameters_of(factory)
        if parameter.default not in (parameter.empty, signatures.LEFT_TO_PARENT)
    }
    return [
        f"{option} stays {shown(value)}, as chosen for {shown(former)}; {shown(name)} has "
        f"{shown(usual[option])} by itself"
        for option, value in options.items()
        if option in usual and usual[option] != value
    ]


def _components(tree: Table) -> Iterator[tuple[registry.Kind, tuple[str, ...], str, set[str], int]]:
    """Kind, place, key of the name, keys that are no options, and number of arguments besides these."""
    losses = tree.get("loss")
    yield "model", ("model",), "name", _names(ModelConfig), 0
    yield "dataset", ("data",), "name", _names(DataConfig), 1
    for loss in losses if isinstance(losses, dict) else ():
        yield "loss", ("loss", loss), "kind", _names(LossConfig), 0


def _names(table: Any) -> set[str]:
    return {field.name for field in fields(table)}


def _at(tree: Table, path: Sequence[str]) -> Table:
    """The table at a path; an empty one where there is none."""
    for part in path:
        below = tree.get(part)
        if not isinstance(below, dict):
            return {}
        tree = below
    return tree
