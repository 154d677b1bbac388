"""The boundary between data and code: what a name in a file may reach.

Files travel: encoders, run folders, galleries, recipes, exports. They name components, and ``my_package:Net``
is a name that imports a module, which runs it. So a name in a file reaches what is registered, by reidkit or
by an installed package, and nothing else, unless the person at the keyboard allows it: by what they type
(``reid --allow-code my_package ...``, an override ``loss.kind=my_package:MyLoss``, an option ``--data``), or
in Python by :func:`allow_code` and by the names that they give to functions themselves.

Code is imported by name in one place, :mod:`reidkit.registry`, which asks :func:`check_code` first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from reidkit.errors import ConfigError, shown

ENVIRONMENT = "REIDKIT_ALLOW_CODE"
"""What is allowed in this process and those that it starts, as names with commas between them."""

_MODULE = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_DOTTED_PATH = re.compile(rf"(?P<module>{_MODULE}):[^\W\d]\w*")
_CODE = re.compile(rf"{_MODULE}(?::[^\W\d]\w*)?")

_here: ContextVar[frozenset[str]] = ContextVar("allowed code", default=frozenset())
_from_file: ContextVar[bool] = ContextVar("names come from a file", default=False)


class CodeRefused(ConfigError):
    """A file names code that nobody allowed it to reach."""


@contextmanager
def allow_code(*names: str) -> Iterator[None]:
    """Let files name code while inside, in this thread.

    Args:
        names: modules, ``my_package.models``, with which go those below them; or single objects,
            ``my_package.models:Net``. Allow what you would run: a file chooses freely among what is defined
            in a module, and calls it.

    Raises:
        ConfigError: a name that cannot be one of a module.
    """
    before = _here.set(_here.get() | _checked(names))
    try:
        yield
    finally:
        _here.reset(before)


def allow_code_everywhere(*names: str) -> None:
    """Let files name code from now on, in this process and those that it starts; as :func:`allow_code`."""
    if names:
        os.environ[ENVIRONMENT] = ",".join(sorted(_allowed() | _checked(names)))


def allow_typed(*texts: str) -> None:
    """Allow those of some texts that name code: a person has typed them."""
    allow_code_everywhere(*filter(is_code, texts))


def given(name: str) -> AbstractContextManager[None]:
    """While inside, ``name`` may be one of code: the caller gives it. Not so inside :func:`from_file`."""
    return allow_code(name) if is_code(name) and not _from_file.get() else nullcontext()


@contextmanager
def from_file() -> Iterator[None]:
    """While inside, names come from a file, whatever function they are given to."""
    before = _from_file.set(True)
    try:
        yield
    finally:
        _from_file.reset(before)


def is_code(name: str) -> bool:
    """Whether a name has the form ``module:object``."""
    return _DOTTED_PATH.fullmatch(name) is not None


def is_allowed(path: str) -> bool:
    """Whether ``module:object`` may be imported."""
    module = path.partition(":")[0]
    allowed = _allowed()
    return path in allowed or _is_within(module, allowed)


def check_code(kind: str, path: str) -> None:
    """Raise :class:`CodeRefused` where ``module:object`` may not be imported."""
    if not is_allowed(path):
        module = path.partition(":")[0]
        raise CodeRefused(
            f"{kind} {shown(path)} is code of the module {shown(module)}, which a file may name only where "
            f"you allow it; if you trust both, add --allow-code {module} to the command (in Python, see "
            "reidkit.trust)"
        )


def check_origin(kind: str, path: str, component: Callable[..., Any]) -> None:
    """Raise :class:`CodeRefused` where an allowed module has a component only because it imported it."""
    origin = str(getattr(getattr(component, "func", component), "__module__", ""))
    allowed = _allowed()
    if path not in allowed and not _is_within(origin, allowed):
        raise CodeRefused(
            f"{kind} {shown(path)} is defined in another module, {shown(origin)}, which is not allowed; if "
            f"a file shall name it, allow that: `reid --allow-code {path} ...`, in Python allow_code"
        )


def _allowed() -> frozenset[str]:
    return _here.get() | frozenset(filter(None, os.environ.get(ENVIRONMENT, "").split(",")))


def _is_within(module: str, allowed: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def _checked(names: Iterable[str]) -> frozenset[str]:
    for name in names:
        if not _CODE.fullmatch(name):
            raise ConfigError(
                f"allowing code: {shown(name)} cannot be the name of a module; give one as Python imports "
                "it, my_package.models, or one object of it, my_package.models:Net"
            )
    return frozenset(names)
