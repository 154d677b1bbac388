"""The typed configuration tree: one TOML file, ``key=value`` overrides, every fault reported at once.

A configuration is complete by itself: no inheritance, no includes, no interpolation. Three tables
describe components, ``[data]``, ``[model]`` and each ``[loss.NAME]``: the keys named here are read by
reidkit, all others are options of the component and are checked against its constructor when it is built.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reidkit import registry, trust
from reidkit.errors import ConfigError, UnknownName, did_you_mean, listed_names, shortened, shown
from reidkit.files import write_atomically
from reidkit.printable import is_plain
from reidkit.text_files import is_too_deep, odd_values, parse_toml, read_text

_CLOSED = ConfigDict(extra="forbid")
Table = dict[str, Any]

PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=registry.LARGEST)]
Side = Annotated[int, Field(ge=1, le=4096)]
Shift = Annotated[int, Field(ge=0, le=4096)]
NumProcesses = Annotated[int, Field(ge=0, le=1024)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
LayerDecay = Annotated[float, Field(gt=0, le=1)]
AverageDecay = Annotated[float, Field(ge=0, lt=1)]


def _key(default: Any, comment: str) -> Any:
    """A configuration key: its default and what changing it does (written beside it by :func:`dump`)."""
    if isinstance(default, (dict, list)):
        return Field(default_factory=default.copy, description=comment)
    return Field(default=default, description=comment)


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class DataConfig:
    """Which images to learn from. Further keys are options of the data set's layout."""

    name: str = _key("market1501", "layout of the data set; `reid list datasets` shows them")
    root: str = _key("data", "folder (or table file) that holds it")
    val_identities: NonNegativeInt = _key(0, "training identities held out to choose the best epoch by")
    train_identities: NonNegativeInt = _key(0, "train on so many identities, drawn by the seed; 0 is all")
    corrupt_labels: Probability = _key(0.0, "share of training images given another identity, for studies")
    options: Table = _key({}, "")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class TransformConfig:
    """What an image goes through before the network. The first two keys hold in training and use alike."""

    height: Side = _key(256, "pixels; images are resized to height x width")
    width: Side = _key(128, "pixels")
    flip: Probability = _key(0.5, "probability of a left-right flip")
    shift: Shift = _key(10, "pixels of padding before a random crop back to the same size")
    zoom: Probability = _key(0.0, "largest random change of size, a share; 0.1 is 90 to 110 %")
    blur: Probability = _key(0.0, "probability of a Gaussian blur of random strength")
    jitter: NonNegativeFloat = _key(0.0, "strength of random changes of colour; 0.2 is mild")
    grayscale: Probability = _key(0.0, "probability of taking all colour away")
    autoaugment: Probability = _key(0.0, "probability of one of AutoAugment's ImageNet policies")
    erasing: Probability = _key(0.0, "probability of covering a random rectangle with the mean colour")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class ModelConfig:
    """The network. Further keys are options of the model, for example last_stride, pooling, neck."""

    name: str = _key("resnet50", "`reid list models` shows them; timm:NAME is any backbone of timm")
    options: Table = _key({}, "")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class LossConfig:
    """One term of the objective. Further keys are options of the loss, for example margin."""

    kind: str = _key("", "registered name or module:Class; the table's own name if left out")
    weight: NonNegativeFloat = _key(1.0, "factor of this term in the sum")
    feature: str | None = _key(
        None, "feature of the model it reads, its usual one if left out; or the weights, for sparsity"
    )
    from_epoch: NonNegativeInt = _key(0, "first epoch (from 0) in which it counts")
    until_epoch: PositiveInt | None = _key(None, "first epoch in which it counts no longer")
    options: Table = _key({}, "")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class SamplerConfig:
    """How batches are drawn."""

    kind: Literal["identity", "random"] = _key(
        "identity", "identity: P identities x K images, for metric losses; random: plain shuffling"
    )
    identities_per_batch: PositiveInt = _key(32, "P; the batch is P x K images, over all processes together")
    images_per_identity: PositiveInt = _key(4, "K; an identity with fewer images repeats some")
    spread_cameras: bool = _key(False, "identity: take the K images from as many cameras as there are")
    balance_sets: bool = _key(False, "identity: as many identities of each united data set in every batch")
    frames: Literal["all", "random", "evenly"] = _key(
        "all", "of a tracklet, an epoch takes all, some anew each time, or evenly spaced ones"
    )
    frames_per_tracklet: PositiveInt = _key(4, "how many, where not all")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class OptimConfig:
    """The optimiser and how its learning rate moves."""

    name: Literal["adam", "adamw", "sgd"] = _key("adam", "adamw keeps weight decay apart from the gradient")
    lr: PositiveFloat = _key(3.5e-4, "highest learning rate")
    weight_decay: NonNegativeFloat = _key(5e-4, "not applied to biases and normalisation layers")
    momentum: Probability = _key(0.9, "sgd's momentum, or Adam's first beta")
    schedule: Literal["constant", "multistep", "exponential", "cosine", "onecycle"] = _key(
        "multistep", "how the rate falls; onecycle rises for 30 % of all steps first"
    )
    warmup_epochs: NonNegativeFloat = _key(
        10.0, "epochs of linear rise from a tenth of the rate (not onecycle)"
    )
    milestones: list[PositiveInt] = _key(
        [40, 70], "multistep: epochs at which gamma multiplies the rate; exponential: the one it falls from"
    )
    gamma: PositiveFloat = _key(0.1, "multistep: the factor; exponential: share of the rate left at the end")
    clip_norm: PositiveFloat | None = _key(None, "gradients of a longer norm are scaled down to it")
    freeze_epochs: NonNegativeInt = _key(0, "first epochs in which only neck and losses learn")
    layer_decay: LayerDecay = _key(1.0, "factor of the rate a backbone layer down; 0.65 to 0.9 for ViTs")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class TrainConfig:
    """The loop."""

    epochs: PositiveInt = _key(120, "passes over the training images")
    init: str = _key("", "run folder or .safetensors file whose weights to start from, where they fit")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _key(
        "auto", "auto: bfloat16 where the hardware multiplies it natively, else float32"
    )
    compile: bool = _key(False, "torch.compile the network: faster steps, slow to start, needs a compiler")
    accumulate: PositiveInt = _key(
        1, "embed the batch in so many pieces, to save memory; losses still see the whole batch"
    )
    batch_norm: Literal["local", "synchronised", "frozen"] = _key(
        "local", "statistics of each process's images, of the batch of all processes, or those it starts with"
    )
    ema_decay: AverageDecay = _key(0.0, "validate and keep the weights' moving average, say 0.999; 0 is off")
    channels_last: bool = _key(True, "memory order of images; faster for convolutions on most hardware")
    num_workers: NumProcesses = _key(2, "processes that read and transform images")
    unreadable: Literal["stop", "skip"] = _key(
        "stop", "an image that cannot be read: stop, or take another of the same identity and count it"
    )
    cache: Literal["none", "ram", "disk"] = _key("none", "keep decoded, resized images; results are the same")
    cache_gb: PositiveFloat = _key(4.0, "limit of the cache (of each process's, in ram)")
    cache_folder: str | None = _key(None, "of the disk cache; $REIDKIT_CACHE or ~/.cache/reidkit if left out")
    validate_every: PositiveInt = _key(5, "epochs between validations (if val_identities > 0)")
    checkpoint_minutes: PositiveFloat = _key(10.0, "save at least this often, besides after every epoch")
    log_every: PositiveInt = _key(20, "steps between lines of metrics.jsonl")
    trackers: list[str] = _key([], "module:function of more places where numbers go; see docs/training.md")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Config:
    """Everything that decides a run. Two runs of the same tree on the same data are the same run."""

    seed: Seed = _key(0, "of weights, batches and augmentation")
    data: DataConfig = Field(default_factory=DataConfig)
    transform: TransformConfig = Field(default_factory=TransformConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: dict[str, LossConfig] = Field(default_factory=lambda: {"identity": LossConfig(kind="identity")})
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)


_COMPONENT_TABLES = {"data": DataConfig, "model": ModelConfig, "loss": LossConfig}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file (or the recipe of that name), apply ``key=value`` overrides, validate.

    Args:
        path: a file, or the name of a recipe that the package ships (see :func:`recipes`).
        overrides: ``"optim.lr=3e-4"``; the value is parsed as TOML, and taken as text where it is not TOML.
            ``"loss.sparsity_*.weight=0"`` sets it in every table whose name fits.

    Raises:
        ConfigError: with every fault found, each naming its key.
    """
    path, text = _find(path)
    tree = parse_toml(text, path)
    apply_overrides(tree, overrides)
    return parse(tree, source=str(path))


def parse(tree: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """Validate a tree of plain values. ``source`` is named in errors.

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
    problems = [f"{source}: {explain(fault, _known_keys)}" for fault in faults]
    raise ConfigError(problems + _component_problems(adapter.validate_python(gathered)))


def parse_options(overrides: Sequence[str]) -> Table:
    """``key=value`` texts as a table, values parsed as TOML.

    Raises:
        ConfigError: with every text that is not of that form.
    """
    tree: Table = {}
    apply_overrides(tree, overrides)
    return tree


def texts_of(overrides: Sequence[str]) -> list[str]:
    """All texts among the values of ``key=value`` texts, those in lists and tables as well."""
    found, values = [], [_value(override.partition("=")[2]) for override in overrides]
    while values:
        value = values.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
    return found


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
    components = _components(config)
    return list(dict.fromkeys(name for kind, _, name, _, _ in components if registry.is_code(kind, name)))


def _components(config: Config) -> list[tuple[registry.Kind, str, str, Table, int]]:
    """Kind, table, name and options of each component, and how many arguments it gets besides."""
    return [
        ("dataset", "data", config.data.name, config.data.options, 1),  # 1: the root folder
        ("model", "model", config.model.name, config.model.options, 0),
        *(("loss", f"loss.{name}", loss.kind, loss.options, 0) for name, loss in config.loss.items()),
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
            factory, options, num_positional=num_positional, where=f"[{table}]", also_known=own
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
    blocks = [_dump_table("", {"seed": tree["seed"]}, Config, comments)]
    for name, table in tree.items():
        if name == "loss":
            blocks += [_dump_table(f"loss.{_dump_key(k)}", v, LossConfig, comments) for k, v in table.items()]
        elif isinstance(table, dict):
            blocks.append(_dump_table(name, table, type(getattr(config, name)), comments))
    return "\n".join(blocks)


def _find(path: str | Path) -> tuple[str, str]:
    """The file's name and text; a bare name may be a recipe's."""
    file = Path(path)
    try:
        there, is_folder = file.exists(), file.is_dir()
    except OSError:
        there, is_folder = True, False  # reading it says what is wrong with it
    if file.suffix == "" and len(file.parts) == 1 and (is_folder or not there):
        return str(path), recipe_text(str(path))
    if not there:
        raise ConfigError(
            f"{shortened(str(path), 200)}: no such file; `reid recipes` lists what can be used by name"
        )
    return str(file), read_text(file)


def apply_overrides(tree: Table, overrides: Sequence[str]) -> None:
    """Set ``key=value`` texts in a tree, in place.

    Raises:
        ConfigError: with every text that is not of that form or fits nowhere.
    """
    problems = [problem for override in overrides if (problem := _apply(tree, override))]
    if problems:
        raise ConfigError(problems)


def _apply(tree: Table, override: str) -> str | None:
    """Set one ``a.b.c=value`` in the tree; returns a sentence where that cannot be done."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        return f"override {shown(override)} is not of the form key=value, for example optim.lr=3e-4"
    value = _value(text)
    tables = [tree]
    for part in parts[:-1]:
        tables = [below for table in tables for below in _below(table, part)]
        if not tables:
            return f"override {shown(override)}: no table fits {shown(part)}"
        if not all(isinstance(table, dict) for table in tables):
            return f"override {shown(override)}: {shown(part)} is a value, not a table"
    for table in tables:
        table[parts[-1]] = value
    return None


def _value(text: str) -> Any:
    """A TOML value; the text itself where it is none."""
    try:
        table = parse_toml(f"value = {text}", "override")
    except ConfigError:
        return text.strip()
    return table["value"] if len(table) == 1 else text.strip()


def _below(table: Table, part: str) -> list[Any]:
    """The table of that name, made where there is none; with a ``*`` in it, all whose names fit."""
    if "*" in part:
        return [table[name] for name in table if fnmatchcase(name, part)]
    return [table.setdefault(part, {})]


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


def explain(fault: Any, known_keys: Callable[[Sequence[Any]], list[str]]) -> str:
    """One pydantic fault as a sentence that names the key, the value seen and what is allowed.

    ``known_keys`` gives the keys of the table at a path.
    """
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = known_keys(fault["loc"][:-1])
        name = str(fault["loc"][-1])
        return f"unknown key {shown(where)};{did_you_mean(name, known)} {listed_names(name, known)}"
    if fault["type"] == "missing":
        return f"{shortened(where)} is missing"
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{shortened(where)}: {shortened(message, 200)}, not {shown(fault['input'])}"


def _known_keys(path: Iterable[Any]) -> list[str]:
    table: Any = Config
    for part in path:
        fields = {field.name: field.type for field in dataclasses.fields(table)}
        table = _TABLES.get(str(part)) if str(part) in fields else None
        if table is None:
            return []
    return [field.name for field in dataclasses.fields(table)]


_TABLES: dict[str, type] = {
    "data": DataConfig,
    "transform": TransformConfig,
    "model": ModelConfig,
    "loss": LossConfig,
    "sampler": SamplerConfig,
    "optim": OptimConfig,
    "train": TrainConfig,
}


def _dump_table(name: str, table: Table, kind: type, comments: bool) -> str:
    described = {field.name: getattr(field.default, "description", "") for field in dataclasses.fields(kind)}
    lines = [f"[{name}]"] if name else []
    for key, value in table.items():
        line = f"{_dump_key(key)} = {_dump_value(value)}" if value is not None else f"# {key} = (not set)"
        comment = described.get(key, "") if comments else ""
        lines.append(f"{line:<36}# {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def _dump_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _dump_text(key)


def _dump_value(value: Any) -> str:
    """A plain value as TOML. JSON's strings and numbers are TOML's too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_dump_key(k)} = {_dump_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_dump_value(item) for item in value) + "]"
    return _dump_text(value) if isinstance(value, str) else json.dumps(value)


def _dump_text(text: str) -> str:
    """A text as TOML: as JSON, with what would not show itself as escapes of code points."""
    return "".join(c if is_plain(c) else _dump_character(c) for c in json.dumps(text, ensure_ascii=False))


def _dump_character(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
