"""Losses from elsewhere: the sizes that they ask for, what they read, and what they may return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from reidkit import registry, signatures
from reidkit.encoders.devices import tells_of_full_memory
from reidkit.errors import ConfigError, ReidError, shortened
from reidkit.models import Embedder


def build_loss(
    kind: str, options: Mapping[str, Any], *, model: Embedder, feature: str | None, num_identities: int
) -> nn.Module:
    """A loss by its name, with the sizes filled in that it requires and that the options leave out.

    Args:
        kind: registered name or dotted path.
        options: of its constructor.
        model: whose feature it will read.
        feature: the one that is asked for; None is the usual one for this kind of loss.
        num_identities: of the training images.
    """

    def filled(kind: str, options: Mapping[str, Any], usual: str) -> dict[str, Any]:
        factory = registry.get("loss", kind)
        if _is_classifier(kind):
            usual = model.classification_feature
        width = model.features.get(feature or usual, model.embedding_dim)
        sizes = {"classes": num_identities, "width": width}
        given = {name: sizes[size] for name, size in signatures.sizes_wanted(factory).items()}
        return given | {name: with_parts(value, usual) for name, value in options.items()}

    def with_parts(value: Any, usual: str) -> Any:
        if isinstance(value, list):
            return [with_parts(item, usual) for item in value]
        if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
            return filled(value["kind"], value, usual)
        return value

    options = filled(kind, options, model.metric_feature)
    loss: nn.Module = registry.build("loss", kind, options)
    kinds = [kind, *(part for part, _ in registry.parts(options))]
    if not hasattr(loss, "reads") and any(map(_is_classifier, kinds)):
        vars(loss)["reads"] = (
            "classification"  # what a function made does not show what the function was asked for
        )
    return loss


def _is_classifier(kind: str) -> bool:
    return signatures.is_classifier(registry.get("loss", kind))


def reads(loss: nn.Module) -> str:
    """What a loss reads: "classification", "metric" or "weight".

    One from elsewhere that does not say so reads what a classifier does where it, or a loss inside of it,
    does so or asks for a number of classes.
    """
    if (own := getattr(loss, "reads", None)) is not None:
        return str(own)
    inside = any(
        getattr(module, "reads", None) == "classification" or signatures.is_classifier(type(module))
        for module in loss.modules()
        if not _is_layer(module)
    )
    return "classification" if inside else "metric"


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's, such as a linear layer, which has a number of outputs."""
    return type(module).__module__.partition(".")[0] == "torch"


def checked(name: str, loss: Callable[..., Any], embeddings: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch.

    Raises :class:`ConfigError` where a loss from elsewhere cannot work with a batch, or gives no scalar.
    """
    is_ours = type(loss).__module__.partition(".")[0] == "reidkit"
    try:
        value = loss(embeddings, labels)
    except Exception as error:
        if is_ours or isinstance(error, ReidError) or tells_of_full_memory(error):
            raise
        what = shortened(" ".join(f"{type(error).__name__}: {error}".split()), 200)
        raise ConfigError(
            f"loss {name!r} failed with embeddings {tuple(embeddings.shape)} and labels "
            f"{tuple(labels.shape)} ({what}); expected one that is called with these two and gives a number"
        ) from error
    if not isinstance(value, Tensor) or value.ndim:
        found = (
            f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        )
        raise ConfigError(
            f"loss {name!r} gives {found}; expected a scalar tensor (a miner is an option of a loss, not one)"
        )
    return value
