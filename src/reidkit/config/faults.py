"""What pydantic finds wrong with a configuration, as sentences for its writer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from pydantic import ValidationError

from reidkit.errors import ConfigError, did_you_mean, listed_names, shortened, shown

T = TypeVar("T")


def explained(table: type[T]) -> type[T]:
    """Let a table that is made in Python tell all its faults in a :class:`ConfigError`."""
    validated = table.__init__

    @wraps(validated)
    def __init__(self: T, **values: Any) -> None:
        try:
            validated(self, **values)
        except ValidationError as error:
            known = [field.name for field in dataclasses.fields(table)]  # type: ignore[arg-type]
            faults = [explain(fault, lambda path: [] if path else known) for fault in error.errors()]
            raise ConfigError([f"{table.__name__}: {fault}" for fault in faults]) from None

    table.__init__ = __init__  # type: ignore[method-assign, assignment]
    return table


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
