"""Values that nobody expects, as Hypothesis strategies, and how they are numbered."""

from __future__ import annotations

import datetime
import json
from functools import lru_cache
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_BLOCK = 50

CANARY = "fuzz_canary"
"""A module that tells on whoever imports it."""

NAMES_OF_CODE = (
    "subprocess:getoutput", "runpy:run_path", "os:system", "builtins:eval", "importlib:import_module",
    "antigravity:fly", "this:s", "turtledemo:__doc__", "idlelib.idle:main", "webbrowser:open",
    f"{CANARY}:call", f"{CANARY}:Net", f"{CANARY}", "timm:hf-hub:nobody/nothing",
    "timm:hf_hub:nobody/nothing", "timm:local-dir:/etc", "hf-hub:nobody/nothing", "https://127.0.0.1:9/net",
    "timm:", ":", "a:", "torch.hub:load", "pathlib:Path", "shutil:rmtree",
)  # fmt: skip

HOSTILE_TEXTS = (
    "", " ", "\0", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\r\n", "\u202egpj.exe",
    "\u2066x\u2069", "\u2028",
    "[/]", "[red]x", "[link=file:///etc/passwd]x[/link]", "[/bold", "../../sentinel/victim",
    "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/mem", "~", "$HOME", "%s%n%x", "{0.__class__}", "{}",
    "$\\frac{1", "<script>alert(1)</script>", "'; DROP TABLE items; --", "NaN", "-1", "1e999", "0001", "1.0",
    "é", "e\u0301", "李", "\ufeff", "\U0010ffff", "a" * 300, "x/" * 200, "con", "..", ".", "-x", "--help",
    "9" * 5000, "[" * 3000, "a" * 100_000,
)  # fmt: skip

_SMALL = (0, 1, -1, 2, 3, 7, 255, 65536, 10**6, 10**9)
_NUMBERS = (*_SMALL, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30)
_FLOATS = (0.0, -0.0, 0.5, 1e-300, 1e300, -1.0, float("nan"), float("inf"), float("-inf"), 1e9)


def texts() -> SearchStrategy[str]:
    return st.one_of(st.sampled_from(HOSTILE_TEXTS + NAMES_OF_CODE), st.text(max_size=12))


def scalars() -> SearchStrategy[Any]:
    """What JSON and TOML can hold."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(_NUMBERS),
        st.sampled_from(_FLOATS),
        st.integers(-5, 300),
        texts(),
    )


def values() -> SearchStrategy[Any]:
    """Scalars, lists and tables of them."""
    nested = st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4),
        max_leaves=8,
    )
    return nested | st.integers(1, 3).map(lambda power: deep(10**power))


def deep(levels: int, leaf: Any = 1) -> Any:
    value = leaf
    for _ in range(levels):
        value = [value]
    return value


def changed(
    tree: dict[str, Any], keys: list[tuple[str, ...]] | None = None
) -> SearchStrategy[dict[str, Any]]:
    """A tree of plain values with one to three places changed, taken away or added."""
    places = keys or _places(tree)
    change = st.tuples(
        st.sampled_from(places), st.sampled_from(("set", "set", "set", "drop", "add")), values(), texts()
    )
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: _apply(tree, changes))


def _places(tree: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in tree.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += _places(value, (*prefix, key))
    return found


def _apply(tree: dict[str, Any], changes: list[tuple[tuple[str, ...], str, Any, str]]) -> dict[str, Any]:
    result = json.loads(json.dumps(tree))
    for place, what, value, name in changes:
        parent: Any = result
        for key in place[:-1]:
            parent = parent.get(key) if isinstance(parent, dict) else None
        if not isinstance(parent, dict):
            continue
        if what == "drop":
            parent.pop(place[-1], None)
        else:
            parent[place[-1] if what == "set" else name] = value
    return result


def as_toml(value: Any) -> str:
    """A value as TOML writes it; what TOML has not becomes a text. Nothing is checked."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, list):
        depth, inner = 0, value
        while isinstance(inner, list) and len(inner) == 1:
            depth, inner = depth + 1, inner[0]
        if depth > 50:
            return "[" * depth + as_toml(inner) + "]" * depth
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(str(value))


def toml_document(tree: dict[str, Any]) -> str:
    """A tree as a TOML file."""
    lines = [f"{_key(key)} = {as_toml(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"[{_key(key)}]", *(f"{_key(name)} = {as_toml(item)}" for name, item in value.items())]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else json.dumps(key)


def drawn(strategy: SearchStrategy[Any], *, seed: int, number: int) -> Any:
    """The value number NUMBER of a strategy: equal for equal seeds, in every process.

    Strategies are known by themselves, so that one made anew for each case would be drawn from fifty times.
    """
    block = _draw_block(strategy, seed, number // _BLOCK)
    return block[number % len(block)]


@lru_cache(maxsize=8)
def _draw_block(strategy: SearchStrategy[Any], seed: int, block: int) -> list[Any]:
    found: list[Any] = []

    @hypothesis.seed(seed + block)
    @settings(
        max_examples=_BLOCK,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found
