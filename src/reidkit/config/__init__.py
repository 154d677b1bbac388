"""The typed configuration tree: one TOML file, ``key=value`` overrides, every fault reported at once.

A configuration is complete by itself: no inheritance, no includes, no interpolation. Three tables
describe components, ``[data]``, ``[model]`` and each ``[loss.NAME]``: the keys named here are read by
reidkit, all others are options of the component and are checked against its constructor when it is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reidkit import logs, registry, signatures, trust
from reidkit.config.faults import explain
from reidkit.config.overrides import Table, apply_overrides, is_given, parse_options, texts_of
from reidkit.config.replaced import leave_out_options_of_others
from reidkit.config.tables import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    TransformConfig,
)
from reidkit.config.toml import dump_key, dump_table
from reidkit.errors import ConfigError, UnknownName, shortened
from reidkit.files import write_atomically
from reidkit.texts.files import is_bare_name, is_there, is_too_deep, odd_values, parse_toml, read_text

__all__ = [
    "Config",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "SamplerConfig",
    "Table",
    "TrainConfig",
    "TransformConfig",
    "apply_overrides",
    "as_tree",
    "check_components",
    "code_not_allowed",
    "copy_recipe",
    "dump",
    "explain",
    "load",
    "own_code",
    "parse",
    "parse_options",
    "recipe_text",
    "recipes",
    "schedule_problems",
    "texts_of",
]

logger = logs.get_logger(__name__)

_TABLES: dict[str, type] = {
    "data": DataConfig,
    "transform": TransformConfig,
    "model": ModelConfig,
    "loss": LossConfig,
    "sampler": SamplerConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}
_COMPONENT_TABLES = {"data": DataConfig, "model": ModelConfig, "loss": LossConfig}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file (or the recipe of that name), apply ``key=value`` overrides, validate.

    Args:
        path: a file, or the name of a recipe that the package ships (see :func:`recipes`).
        overrides: ``"optim.lr=3e-4"``; the value is parsed as TOML, and taken as text where it is not TOML.
            ``"loss.sparsity_*.weight=0"`` sets it in every table whose name fits.

    Raises:
        ConfigError: with every fault found, each naming its key.

    Where an override names another model or loss than the file, those options of the file that it does not
    have are left out, and a message says which; another says what a loss keeps that is not its own default.
    """
    path, text = _find(path)
    tree = parse_toml(text, path)
    before = deepcopy(tree)
    apply_overrides(tree, overrides)
    for sentence in leave_out_options_of_others(tree, before, overrides):
        logger.info(sentence)
    return parse(tree, source=str(path), given=overrides)


def parse(tree: Mapping[str, Any], *, source: str = "configuration", given: Sequence[str] = ()) -> Config:
    """Validate a tree of plain values.

    Args:
        tree: the values.
        source: is named in errors, as where a faulty key is from.
        given: overrides that were applied to the tree; their keys are not the source's.

    Raises:
        ConfigError: with every fault found; where there is one, those that :func:`check_components` finds in
            the other keys are told as well.
    """
    if is_too_deep(tree):
        raise ConfigError(f"{source}: nested too deeply; no key is more than a few levels down")
    if problems := [f"{source}: {problem}" for problem in odd_values(tree)]:
        raise ConfigError(problems)
    adapter, gathered = TypeAdapter(Config), _gather_options(tree)
    try:
        return adapter.validate_python(gathered)
    except ValidationError as error:
        faults = error.errors()
    for fault in faults:
        gathered = _without(gathered, fault["loc"])
    problems = [
        f"{'' if is_given(fault['loc'], given) else f'{source}: '}{explain(fault, _known_keys)}"
        for fault in faults
    ]
    raise ConfigError(problems + _component_problems(adapter.validate_python(gathered)))


def check_components(config: Config, *, skip: Collection[str] = ()) -> None:
    """Hold the component tables against the constructors they will be given to, keys against each other.

    Args:
        config: the configuration.
        skip: names of components not to look at.

    Raises:
        ConfigError: with every unknown component, all code that :mod:`reidkit.trust` does not let through,
            every unknown or missing option, and a schedule that does not go with the number of epochs.
    """
    if problems := _component_problems(config, skip) + schedule_problems(config.optim, config.train.epochs):
        raise ConfigError(problems)


def schedule_problems(optim: OptimConfig, num_epochs: int) -> list[str]:
    """What keeps the learning rate's schedule from so many epochs, as sentences; most often nothing."""
    milestones = optim.milestones
    if optim.schedule != "exponential" or (len(milestones) == 1 and milestones[0] < num_epochs):
        return []
    remedy = (
        f"optim.milestones=[{num_epochs // 2}], for example, and optim.gamma to the share left at the end"
        if num_epochs > 1
        else "optim.schedule=constant for a single epoch"
    )
    return [
        f"optim.milestones = {milestones}, but optim.schedule = 'exponential' takes one epoch, from which "
        f"the rate falls, below train.epochs = {num_epochs}; set {remedy}"
    ]


def code_not_allowed(config: Config) -> list[str]:
    """Names of components, ``module:object``, that would have to be allowed before they can be used."""
    return [name for name in own_code(config) if not trust.is_allowed(name)]


def own_code(config: Config) -> list[str]:
    """Names of components, ``module:object``, that are code from outside of reidkit."""
    return list(
        dict.fromkeys(name for kind, _, name, _, _ in _components(config) if registry.is_code(kind, name))
    )


def _components(config: Config) -> list[tuple[registry.Kind, str, str, Table, int]]:
    """Kind, table, name and options of each component, and how many arguments it gets besides."""
    losses = [
        (f"loss.{name}", kind, options)
        for name, loss in config.loss.items()
        for kind, options in ((loss.kind, loss.options), *registry.parts(loss.options))
    ]
    return [
        ("dataset", "data", config.data.name, config.data.options, 1),  # 1: the root folder
        ("model", "model", config.model.name, config.model.options, 0),
        *(("loss", table, kind, options, 0) for table, kind, options in losses),
        *(("tracker", "train", name, {}, 1) for name in config.train.trackers),  # 1: the run folder
    ]


def _component_problems(config: Config, skip: Collection[str] = ()) -> list[str]:
    problems: list[str] = []
    for kind, table, name, options, num_positional in _components(config):
        if name in skip:
            continue
        own = [field.name for field in dataclasses.fields(_TABLES[table.partition(".")[0]])]
        try:
            factory = registry.get(kind, name)
        except ConfigError as error:
            problems += [f"[{table}] {problem}" for problem in error.problems]
            continue
        problems += registry.option_problems(
            factory,
            options,
            num_positional=num_positional,
            where=f"[{table}]",
            also_known=own,
            filled_in=signatures.sizes_wanted(factory) if kind == "loss" else (),
        )
    return problems


def recipes() -> dict[str, str]:
    """Names of the shipped recipes with their first comment line."""
    folder = resources.files("reidkit") / "recipes"
    texts = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".toml")}
    return {name.removesuffix(".toml"): texts[name].split("\n", 1)[0].lstrip("# ") for name in sorted(texts)}


def copy_recipe(name: str, path: Path) -> Path:
    """Write a shipped recipe to a file of one's own, which must not be there yet."""
    text = recipe_text(name)
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another name or delete it first")
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path.parent}: no such folder; make it first or choose another place for {path.name}"
        )
    return write_atomically(path, text)


def recipe_text(name: str) -> str:
    """The text of a shipped recipe."""
    if name not in recipes():
        raise UnknownName("recipe", name, recipes())
    return (resources.files("reidkit") / "recipes" / f"{name}.toml").read_text("utf-8")


def as_tree(config: Config) -> Table:
    """The configuration as plain nested values, component options beside reidkit's own keys."""
    tree = dataclasses.asdict(config)
    for table in (tree["data"], tree["model"], *tree["loss"].values()):
        table.update(table.pop("options"))
    return tree


def dump(config: Config, *, comments: bool = True) -> str:
    """The configuration as TOML that :func:`load` reads back to an equal tree.

    Every key is written, with a comment that says what it changes; ``None`` is written as a comment.
    """
    tree = as_tree(config)
    blocks = [dump_table("", {"seed": tree["seed"]}, _comments(Config, comments))]
    for name, table in tree.items():
        if name == "loss":
            beside = _comments(LossConfig, comments)
            blocks += [dump_table(f"loss.{dump_key(key)}", value, beside) for key, value in table.items()]
        elif isinstance(table, dict):
            blocks.append(dump_table(name, table, _comments(_TABLES[name], comments)))
    return "\n".join(blocks)


def _comments(table: type, wanted: bool) -> dict[str, str]:
    """What each key of a table changes, as it was declared with :func:`_key`."""
    fields = dataclasses.fields(table) if wanted else ()
    return {field.name: getattr(field.default, "description", "") for field in fields}


def _find(path: str | Path) -> tuple[str, str]:
    """The file's name and text; a bare name may be a recipe's."""
    file = Path(path)
    if is_bare_name(file):
        return str(path), recipe_text(str(path))
    if not is_there(file):
        raise ConfigError(
            f"{shortened(str(path), 200)}: no such file; `reid recipes` lists what can be used by name"
        )
    return str(file), read_text(file)


def _gather_options(tree: Mapping[str, Any]) -> Table:
    """Move keys that are not reidkit's own into ``options`` of their component table."""

    def gather(table: Any, own: type) -> Any:
        if not isinstance(table, dict):
            return table
        known = {field.name for field in dataclasses.fields(own)} - {"options"}
        return {k: v for k, v in table.items() if k in known} | {
            "options": {k: v for k, v in table.items() if k not in known}
        }

    gathered = dict(tree)
    for name, own in _COMPONENT_TABLES.items():
        if name == "loss" and isinstance(gathered.get("loss"), dict):
            gathered["loss"] = {k: _with_kind(k, gather(v, own)) for k, v in gathered["loss"].items()}
        elif name in gathered:
            gathered[name] = gather(gathered[name], own)
    return gathered


def _without(tree: Table, path: Sequence[Any]) -> Table:
    """The tree less the key at a path; less the whole table where the key says which options it has."""
    key, *below = path
    if not below or below[0] in ("name", "kind") or not isinstance(tree.get(key), dict):
        return {name: value for name, value in tree.items() if name != key}
    return {**tree, key: _without(tree[key], below)}


def _with_kind(name: str, table: Any) -> Any:
    return {"kind": name, **table} if isinstance(table, dict) else table


def _known_keys(path: Iterable[Any]) -> list[str]:
    table: Any = Config
    for part in path:
        fields = {field.name: field.type for field in dataclasses.fields(table)}
        table = _TABLES.get(str(part)) if str(part) in fields else None
        if table is None:
            return []
    return [field.name for field in dataclasses.fields(table)]
