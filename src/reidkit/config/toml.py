"""Plain values as TOML, a comment beside each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from reidkit.texts.printable import is_plain


def dump_table(name: str, table: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """A table with its heading, if it has a name; ``None`` is written as a comment."""
    lines = [f"[{name}]"] if name else []
    for key, value in table.items():
        line = f"{dump_key(key)} = {_value(value)}" if value is not None else f"# {key} = (not set)"
        comment = comments.get(key)
        lines.append(f"{line:<35} # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def dump_key(key: str) -> str:
    """A name as TOML, in quotes only where it must be."""
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _text(key)


def _value(value: Any) -> str:
    """A plain value as TOML. JSON's strings and numbers are TOML's too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{dump_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """A text as TOML: as JSON, with what would not show itself as escapes of code points."""
    return "".join(c if is_plain(c) else _character(c) for c in json.dumps(text, ensure_ascii=False))


def _character(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
