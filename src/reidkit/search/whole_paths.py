"""Conditions on sources: a path from the current folder means the whole one that a gallery keeps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reidkit.galleries import Where, parse_where


def typed_where(texts: Sequence[str]) -> Where | None:
    """Conditions as :func:`reidkit.galleries.parse_where` reads them, of paths as a shell completes them."""
    return with_whole_paths(parse_where(texts))


def with_whole_paths(where: Where | None) -> Where | None:
    """Conditions whose sources may be paths from the current folder, as they are shown there."""
    if not isinstance(where, Mapping) or "source" not in where:
        return where
    wanted = where["source"]
    if isinstance(wanted, Mapping):
        return {**where, "source": {key: _whole_paths(value) for key, value in wanted.items()}}
    return {**where, "source": _whole_paths(wanted)}


def _whole_paths(wanted: Any) -> list[Any]:
    single = isinstance(wanted, str | bytes | os.PathLike) or not isinstance(wanted, Iterable)
    values = [wanted] if single else list(wanted)
    whole = []
    for value in values:
        try:
            whole.append(str(Path(os.fsdecode(value)).resolve()))
        except (TypeError, ValueError, OSError, RuntimeError):  # the gallery says what is wrong with it
            continue
    return [*values, *whole]
