"""What a shell completes at the press of a key: names of recipes, studies, components, galleries, and keys.

Nothing here imports torch, but for names of networks: a key press waits for no library.
"""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
from click.shell_completion import CompletionItem

from reidkit import registry

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _of(names: Callable[[], Iterable[str]], *, files: bool = False) -> Completion:
    """Completes any of these names, and files where one is taken as well."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(typed)]
        return found or ([CompletionItem(typed, type="file")] if files else [])

    return complete


def recipe_names() -> list[str]:
    from reidkit import config

    return list(config.recipes())


def study_names() -> list[str]:
    from reidkit.studies.study import shipped_studies

    return list(shipped_studies())


def layout_names() -> tuple[str, ...]:
    return registry.names("dataset")


def model_names() -> tuple[str, ...]:
    return registry.names("model")


def loss_names() -> list[str]:
    """Losses by the names of their files, since importing them would take seconds."""
    place = find_spec(registry.FOLDERS["loss"])
    found = pkgutil.iter_modules(place.submodule_search_locations if place else None)
    return [module.name for module in found if not module.name.startswith("_")]


def gallery_names(typed: str = "") -> list[str]:
    """Galleries in the folder that is being typed."""
    parent = Path(typed.rpartition("/")[0])
    return sorted(str(path.parent) for path in parent.glob("*/items.sqlite"))


def galleries(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Galleries, and folders that may hold some."""
    found = [CompletionItem(name) for name in gallery_names(typed) if name.startswith(typed)]
    return found or [CompletionItem(typed, type="dir")]


def keys(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Keys of a configuration; after ``KEY=`` the values, where they can be listed."""
    key, separator, _ = typed.partition("=")
    if separator:
        options = [f"{key}={value}" for value in _values(key)]
    else:
        options = [f"{name}=" for name in config_keys()]
    return [CompletionItem(option) for option in options if option.startswith(typed)]


def config_keys() -> list[str]:
    """Every key but those of losses, whose names are the user's."""
    from reidkit.config.tables import Config

    tables = {name: kind for name, kind in get_type_hints(Config).items() if dataclasses.is_dataclass(kind)}
    found = [f"{table}.{field}" for table, kind in tables.items() for field in get_type_hints(kind)]
    return ["seed", *(key for key in found if not key.endswith(".options"))]


def _values(key: str) -> Iterable[Any]:
    named = {"data.name": layout_names, "model.name": model_names}
    if key in named:
        return named[key]()
    if re.fullmatch(r"loss\.\w+\.kind", key):
        return loss_names()
    from reidkit.config.tables import Config

    table, _, field = key.partition(".")
    kind = get_type_hints(get_type_hints(Config).get(table, object)).get(field)
    return (
        ("true", "false") if kind is bool else [value for value in get_args(kind) if isinstance(value, str)]
    )


recipes = _of(recipe_names, files=True)
studies = _of(study_names, files=True)
layouts = _of(layout_names)
models = _of(model_names)
