"""Recipes and overrides."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.hostile import NAMES_OF_CODE, as_toml, changed, texts, toml_document, values
from tests.fuzz.mutation import damaged_text
from tests.fuzz.world import RECIPE

_TREE: dict[str, Any] = tomllib.loads(RECIPE)
_PATHS = (
    "seed", "data", "data.name", "data.root", "data.val_identities", "data.pattern", "model.name", "model",
    "loss",
    "loss.identity", "loss.msml.margin", "loss.x.kind", "loss.*.weight", "loss.identity_*.weight",
    "sampler.kind",
    "sampler.identities_per_batch", "optim.lr", "optim.milestones", "optim.name", "train.epochs",
    "train.trackers",
    "train.init", "train.cache_folder", "transform.height", "transform", "a.b.c.d.e", "", ".", "..",
    "seed.x", "[x]",
    "optim.milestones.0", "loss.'x y'.kind",
)  # fmt: skip
_VALUES = st.one_of(
    values().map(as_toml),
    texts(),
    st.sampled_from(
        (
            "1979-05-27",
            "07:32:00",
            "1979-05-27T07:32:00Z",
            "nan",
            "1_000",
            "0xff",
            "'''",
            "[1,",
            "{a=1}",
            "x\ny = 1",
        )
    ),
    st.sampled_from(NAMES_OF_CODE).map(lambda name: f'"{name}"'),
)
_OVERRIDES = st.lists(
    st.builds(lambda key, value: f"{key}={value}", st.sampled_from(_PATHS), _VALUES), min_size=1, max_size=3
)


@kind("recipe text", weight=40)
def recipe_text(maker: Maker) -> Case:
    maker.write("r.toml", damaged_text(RECIPE, maker.random))
    return Case(("config", "r.toml"))


_TREES = changed(_TREE)


@kind("recipe tree", weight=40)
def recipe_tree(maker: Maker) -> Case:
    maker.write("r.toml", toml_document(maker.draw(_TREES)))
    return Case(("config", "r.toml"))


_GIVEN = _OVERRIDES | texts().map(lambda text: [text])


@kind("overrides", weight=50)
def overrides(maker: Maker) -> Case:
    given = [text.replace("\0", "")[:60_000] for text in maker.draw(_GIVEN)]
    # What is typed at the keyboard may name code, which is then imported.
    safe = [text for text in given if not any(name in text for name in NAMES_OF_CODE if len(name) > 5)]
    maker.write("r.toml", RECIPE)
    return Case(
        ("config", "r.toml", "--", *safe)
        if maker.random.random() < 0.5
        else ("config", "small-cpu", "--", *safe)
    )
