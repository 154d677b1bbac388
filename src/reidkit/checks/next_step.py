"""What to do with photos of one's own once they are checked: train, cut them into parts, or only search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reidkit import config
from reidkit.checks.check import DatasetCheck
from reidkit.config.tables import OWN_DATA

RECIPE = "small-cpu"
_BY_FLAG = {"pattern": "--pattern", "parts": "--parts"}


def next_words(result: DatasetCheck, words: Sequence[str]) -> list[str]:
    """The words of the command to go on with; none for published sets, and where errors come first.

    Args:
        result: the check.
        words: layout, root and options, as they were typed.
    """
    name, place, *typed = words
    options = config.parse_options(typed)
    if result.has_errors or name not in OWN_DATA:
        return []
    if result.num_queries:
        data = [f"data.name={name}", f"data.root={place}", *(f"data.{option}" for option in typed)]
        return ["train", RECIPE, *data, *_small_batch(result), "--out", "runs/mine"]
    if result.why_not_split:
        return ["index", place, *_flags(options, "pattern"), "--gallery", "people.gallery"]
    return ["split", place, *_flags(options, "pattern", "parts"), "--out", "people.csv"]


def _small_batch(result: DatasetCheck) -> list[str]:
    """What lets the recipe train on fewer people than its batches hold."""
    num = result.counts["train"].identities if "train" in result.counts else 0
    most = config.load(RECIPE).sampler.identities_per_batch
    return [f"sampler.identities_per_batch={num}"] if 0 < num < most else []


def _flags(options: Mapping[str, Any], *names: str) -> list[str]:
    """Options of how labels are read, as other commands take them."""
    given = [(_BY_FLAG[name], str(options[name])) for name in names if name in options]
    columns = options.get("column", {})
    given += [("--column", f"{key}={column}") for key, column in columns.items()]
    return [word for pair in given for word in pair]
