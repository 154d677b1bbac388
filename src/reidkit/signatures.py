"""What a component's constructor takes, what its parents take through it included.

Many constructors hand on what they do not name: ``def __init__(self, *args, margin=0.35, **kwargs)``. An
option of a parent is then an option of the component, unless its constructor gives it by itself.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import Parameter
from itertools import pairwise
from typing import Any

_CLASSES = "(class(es)?|cls|categories|labels?|identities|ids|pids|persons?|people|speakers?)"

NUMBER_OF_CLASSES = re.compile(
    rf"(n|nb|no|num|number)(of)?(train)?{_CLASSES}|{_CLASSES}(num|number|count)|classes|outfeat(ure)?s"
)
"""What constructors of classifier-like losses call the number of identities, without underscores."""

WIDTH = re.compile(
    r"(embeddings?|embed|emb|features?|feats?|descriptors?|inputs?|inp|in)"
    r"(size|dims?|length|len|width|features|feats|channels)|dim|(num|n)(features|feats)"
)
"""What they call the width of an embedding, without underscores."""


class _LeftToParent:
    """Default of what a parent requires: the class may give it by itself, or want it handed on."""

    def __repr__(self) -> str:
        return "required by a parent"


LEFT_TO_PARENT = _LeftToParent()


def parameters_of(factory: Callable[..., Any]) -> list[Parameter]:
    """Parameters of a factory; of a class, with those that it hands on to its parents.

    A parameter that is reached only through ``*args`` counts as one without a name (positional only). One
    that a parent requires, where it may come through ``**kwargs``, has the default :data:`LEFT_TO_PARENT`.
    """
    if isinstance(factory, partial):
        return _without_given(parameters_of(factory.func), factory)
    parameters = _signature(factory)
    for child, parent in _constructors_above(factory):
        by_position, by_name = (
            _has(parameters, Parameter.VAR_POSITIONAL),
            _has(parameters, Parameter.VAR_KEYWORD),
        )
        if not (by_position or by_name):
            break
        own = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        theirs = _signature(parent)
        named = {p.name for p in own} | _given_by(child)
        parameters = own + [
            reached
            for p in theirs
            if p.name not in named
            if (reached := _reached(p, by_position=by_position, by_name=by_name)) is not None
        ]
    return parameters


def names_of(parameters: list[Parameter]) -> list[str]:
    """Those that can be given, one each: not ``*args`` and ``**kwargs``."""
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def takes_anything(parameters: list[Parameter]) -> bool:
    """Whether names beyond the known ones may be options, too."""
    return _has(parameters, Parameter.VAR_KEYWORD)


def required_names(parameters: list[Parameter]) -> list[str]:
    """Those that must be given."""
    return [p.name for p in parameters if p.default is p.empty and p.name in names_of(parameters)]


def call(factory: Callable[..., Any], given: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """``factory(*given, **options)``, where options without a name of their own are given by position."""
    parameters = parameters_of(factory)[len(given) :]
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    while by_position and (
        by_position[-1].kind is not Parameter.POSITIONAL_ONLY or by_position[-1].name not in options
    ):
        by_position.pop()  # what follows the last one without a name is given by name, or not at all
    placed = {p.name: options.get(p.name, p.default) for p in by_position}
    return factory(*given, *placed.values(), **{n: v for n, v in options.items() if n not in placed})


def sizes_wanted(factory: Callable[..., Any]) -> dict[str, str]:
    """Parameters that are sizes of a training set, by name: "classes" or "width".

    Those that are required; in a classifier, which asks for a number of classes, also those whose default is
    a number: it is that of somebody else's data.
    """
    parameters = parameters_of(factory)
    meanings = {p.name: meaning for p in parameters if (meaning := _meaning(p.name)) is not None}
    sizes = [p for p in parameters if p.name in meanings]
    required = [p.name for p in sizes if p.default in (p.empty, LEFT_TO_PARENT)]
    of_other_data = [p.name for p in sizes if type(p.default) is int]
    wanted = {name: meanings[name] for name in (*required, *of_other_data)}
    return wanted if "classes" in wanted.values() else {name: meanings[name] for name in required}


def _meaning(name: str) -> str | None:
    """Of which size a parameter speaks."""
    plain = name.replace("_", "").lower()
    if NUMBER_OF_CLASSES.fullmatch(plain):
        return "classes"
    return "width" if WIDTH.fullmatch(plain) else None


def is_classifier(factory: Callable[..., Any]) -> bool:
    """Whether a constructor asks for a number of classes, or has been given it by a ``functools.partial``."""
    while isinstance(factory, partial):
        factory = factory.func
    return "classes" in sizes_wanted(factory).values()


def _signature(factory: Callable[..., Any]) -> list[Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except ValueError:  # some written in C tell nothing
        return [Parameter("options", Parameter.VAR_KEYWORD)]


def _constructors_above(factory: Callable[..., Any]) -> Iterator[tuple[type, type]]:
    """Those with a constructor of their own, each with the one above it, up to those of PyTorch."""
    if not isinstance(factory, type):
        return
    of_its_own = [owner for owner in factory.__mro__ if "__init__" in vars(owner)]
    for child, parent in pairwise(of_its_own):
        if parent is object or parent.__module__.partition(".")[0] == "torch":
            return
        yield child, parent


def _given_by(owner: type) -> set[str]:
    """Keywords that a constructor writes beside ``**kwargs`` where it hands these on.

    Not those that it also names as texts, as in ``kwargs.pop("num_classes")``: it wants them from its caller.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(vars(owner)["__init__"])))
    except (OSError, TypeError, SyntaxError):  # its source is not there
        return set()
    nodes = list(ast.walk(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    handing_on = [call.keywords for call in calls if any(keyword.arg is None for keyword in call.keywords)]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {keyword.arg for keywords in handing_on for keyword in keywords if keyword.arg} - texts


def _reached(parameter: Parameter, *, by_position: bool, by_name: bool) -> Parameter | None:
    """A parent's parameter as it is reached through ``*args`` or ``**kwargs``; None where it is not."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return parameter if by_name else None
    if parameter.kind is parameter.VAR_POSITIONAL:
        return parameter if by_position else None
    if by_name and parameter.kind is not parameter.POSITIONAL_ONLY:
        left = parameter.default is parameter.empty and not by_position
        default = LEFT_TO_PARENT if left else parameter.default
        return parameter.replace(kind=parameter.KEYWORD_ONLY, default=default)
    if by_position and parameter.kind is not parameter.KEYWORD_ONLY:
        return parameter.replace(kind=parameter.POSITIONAL_ONLY)
    return None


def _without_given(parameters: list[Parameter], factory: partial[Any]) -> list[Parameter]:
    """What a ``functools.partial`` leaves open."""
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    given = set(by_position[: len(factory.args)])
    keywords = factory.keywords
    return [
        p.replace(kind=p.KEYWORD_ONLY, default=keywords[p.name]) if p.name in keywords else p
        for p in parameters
        if p.name not in given
    ]


def _has(parameters: list[Parameter], kind: Any) -> bool:
    return any(p.kind is kind for p in parameters)
