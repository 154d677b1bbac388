"""Every option there is: the tables of a configuration, with what each key changes.

From here they are read by the command line, by recipes, by the documentation and by :class:`reidkit.Trainer`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from reidkit.config.faults import explained
from reidkit.config.overrides import Table
from reidkit.errors import ConfigError, did_you_mean, listed_names, shown
from reidkit.registry import LARGEST

_CLOSED = ConfigDict(extra="forbid")

PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=LARGEST)]
Side = Annotated[int, Field(ge=1, le=4096)]
Shift = Annotated[int, Field(ge=0, le=4096)]
NumProcesses = Annotated[int, Field(ge=0, le=1024)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
LayerDecay = Annotated[float, Field(gt=0, le=1)]
AverageDecay = Annotated[float, Field(ge=0, lt=1)]
Place = Annotated[str, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, PurePath) else v)]


def _key(default: Any, comment: str) -> Any:
    """A configuration key: its default and what changing it does (written beside it by :func:`dump`)."""
    if isinstance(default, (dict, list)):
        return Field(default_factory=default.copy, description=comment)
    return Field(default=default, description=comment)


OWN_DATA = ("folder", "table")
"""Layouts of data of one's own, whose name does not say which data it is."""


@explained
@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class DataConfig:
    """Which images to learn from. Further keys are options of the data set's layout."""

    name: str = _key("market1501", "layout of the data set; `reid list datasets` shows them")
    root: Place = _key("data", "folder (or table file) that holds it")
    val_identities: NonNegativeInt = _key(0, "training identities held out to choose the best epoch by")
    train_identities: NonNegativeInt = _key(0, "train on so many identities, drawn by the seed; 0 is all")
    corrupt_labels: Probability = _key(0.0, "share of training images given another identity, for studies")
    options: Table = _key({}, "")


@explained
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


@explained
@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class ModelConfig:
    """The network. Further keys are options of the model, for example last_stride, pooling, neck."""

    name: str = _key("resnet50", "`reid list models` shows them; timm:NAME is any backbone of timm")
    options: Table = _key({}, "")


@explained
@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class LossConfig:
    """One term of the objective. Further keys are options of the loss, for example margin."""

    kind: str = _key("", "registered name or module:Class; the table's own name if left out")
    weight: NonNegativeFloat = _key(1.0, "factor of this term in the sum")
    schedule: list[tuple[NonNegativeInt, NonNegativeFloat]] = _key(
        [], "[[epoch, factor], ...] of the weight, linear between epochs; [] leaves it as it is"
    )
    feature: str | None = _key(
        None, "feature of the model it reads, its usual one if left out; or the weights, for sparsity"
    )
    from_epoch: NonNegativeInt = _key(0, "first epoch (from 0) in which it counts")
    until_epoch: PositiveInt | None = _key(None, "first epoch in which it counts no longer")
    memory: PositiveInt | None = _key(None, "embeddings of past batches that it compares with, too, say 1024")
    memory_from_epoch: NonNegativeInt | None = _key(None, "first epoch in which it does; 0 if left out")
    options: Table = _key({}, "")


@explained
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


@explained
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
    freeze_until: dict[str, NonNegativeInt] | None = _key(
        None, "parts of the network by name and the first epoch in which they learn: {layer1 = 5}"
    )
    layer_decay: LayerDecay = _key(1.0, "factor of the rate a backbone layer down; 0.65 to 0.9 for ViTs")


@explained
@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class TrainConfig:
    """The loop."""

    epochs: PositiveInt = _key(120, "passes over the training images")
    init: Place = _key("", "run folder or .safetensors file whose weights to start from, where they fit")
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
    cache_folder: Place | None = _key(
        None, "of the disk cache; $REIDKIT_CACHE or ~/.cache/reidkit if left out"
    )
    validate_every: PositiveInt = _key(5, "epochs between validations (if val_identities > 0)")
    checkpoint_minutes: PositiveFloat = _key(10.0, "save at least this often, besides after every epoch")
    log_every: PositiveInt = _key(20, "steps between lines of metrics.jsonl")
    gradients_every: NonNegativeInt = _key(
        0, "steps between records of each loss's gradient: its norm, the cosines of two; 0 is never"
    )
    trackers: list[str] = _key([], "module:function of more places where numbers go; see docs/training.md")


@explained
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


Table_ = TypeVar("Table_", TransformConfig, SamplerConfig, OptimConfig, TrainConfig)


def table_given(name: str, given: Table_ | None, kind: type[Table_]) -> Table_:
    """A table that was given under a name in Python, that of all defaults where none was.

    Raises :class:`ConfigError` where it is something else.
    """
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise ConfigError(
            f"{name} = {shown(given)} is no {kind.__name__}; give {name}={kind.__name__}(...) with its keys"
        )
    return given


def with_keys(
    sampler: SamplerConfig, train: TrainConfig, keys: Mapping[str, Any]
) -> tuple[SamplerConfig, TrainConfig]:
    """Both tables, with single keys of either changed.

    Raises:
        ConfigError: a key that neither has, or a value that it does not take.
    """
    of_sampler, of_train = ([field.name for field in fields(table)] for table in (sampler, train))
    known = [*of_sampler, *of_train]
    unknown = [_why_unknown(name, known) for name in keys if name not in known]
    if unknown:
        raise ConfigError(unknown)
    return (
        replace(sampler, **{name: value for name, value in keys.items() if name in of_sampler}),
        replace(train, **{name: value for name, value in keys.items() if name in of_train}),
    )


def _why_unknown(name: str, known: Sequence[str]) -> str:
    if name == "say":
        return "say is no option any more: training tells its progress to logging.getLogger('reidkit')"
    for table, kind in (("transform", TransformConfig), ("optim", OptimConfig)):
        if name in (field.name for field in fields(kind)):
            return f"{name} is a key of {table}; give {table}={kind.__name__}({name}=...)"
    return f"unknown option {shown(name)};{did_you_mean(name, known)} {listed_names(name, known)}"
