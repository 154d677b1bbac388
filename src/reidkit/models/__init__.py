"""Networks: ``model(images) -> dict of named features``, ``model.embed(images) -> unit embeddings``."""

from __future__ import annotations

from typing import Any

from reidkit import registry, trust
from reidkit.errors import ConfigError, shown
from reidkit.models._embedder import Embedder, Penalty, SingleBranch

__all__ = ["Embedder", "Penalty", "SingleBranch", "build_model"]


def build_model(name: str, **options: Any) -> Embedder:
    """Build a network by its registered name, or any timm backbone as ``timm:NAME``.

    The model remembers ``name`` and ``options`` as ``model.description``: they are all that is needed,
    besides the weights, to build it again.

    Raises:
        UnknownName: no such model.
        ConfigError: an option the model does not have; or code of your own that gives no :class:`Embedder`.
    """
    with trust.given(name):
        usual = registry.defaults(registry.get("model", name))
        model = registry.build("model", name, options)
    if not isinstance(model, Embedder):
        raise ConfigError(
            f"model {shown(name)} gives a {type(model).__name__}; a model is a reidkit.models.Embedder"
        )
    model.description = {"name": name, **options}
    if model.beyond_weights is None:
        given = {key: value for key, value in options.items() if key != "pretrained"}
        model.beyond_weights = {
            "name": name,
            **{key: value for key, value in given.items() if key not in usual or usual[key] != value},
        }
    return model
