"""Names to components: losses, data sets, models, gallery engines, trackers.

A component registers itself with a decorator in a file of its folder. The folder is imported when a
name of that kind is first asked for; installed packages add theirs through the entry-point group
``reidkit``; code that is not installed is reached by a dotted path, ``my_package.losses:MyLoss``, where
:mod:`reidkit.trust` lets it.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reidkit import signatures, trust
from reidkit.errors import ConfigError, ReidError, UnknownName, did_you_mean, listed_names, shortened, shown

Kind = Literal["loss", "dataset", "model", "gallery", "tracker"]
Factory = TypeVar("Factory", bound=Callable[..., Any])

FOLDERS: dict[str, str] = {
    "loss": "reidkit.losses",
    "dataset": "reidkit.datasets",
    "model": "reidkit.models",
    "gallery": "reidkit.galleries",
}

LARGEST = 2**63
"""Integers are less: what comes after us counts in 64 bits."""

# Trackers have no folder: those that there are belong to others.
_components: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in (*FOLDERS, "tracker")}
_scanned: set[str] = set()

_ODD_PATH = re.compile(r"[:./\\]")  # in a name that was meant to be one of code

_GIVEN = {"dataset": 1, "tracker": 1, "gallery": 1}  # arguments that reidkit gives: root, run folder, address


def register(kind: Kind, name: str) -> Callable[[Factory], Factory]:
    """Decorator: make a class or function known as ``name``.

    Raises ``ValueError`` where another component has that name already.
    """

    def add(factory: Factory) -> Factory:
        known = _of_kind(kind).setdefault(name, factory)
        if _address(known) != _address(factory):
            raise ValueError(f"{kind} {name!r} is already registered by {_address(known)}")
        _components[kind][name] = factory
        return factory

    return add


def names(kind: Kind) -> tuple[str, ...]:
    """All registered names of a kind, sorted."""
    _scan_folder(kind)
    _load_entry_points()
    return tuple(sorted(_of_kind(kind)))


def get(kind: Kind, name: str) -> Callable[..., Any]:
    """The component called ``name``, or the object at the dotted path ``package.module:object``.

    ``component:argument`` is a registered component with its first argument given, ``timm:convnext_tiny``.

    Raises:
        UnknownName: no such component.
        CodeRefused: a dotted path that :mod:`reidkit.trust` does not let through.
        ConfigError: a dotted path at which nothing is, or an argument for a component that takes none.
    """
    if not isinstance(name, str):
        raise ConfigError(f"{kind} {shown(name)} is no name; give a text")
    components = _of_kind(kind)
    first, colon, argument = name.partition(":")
    _scan_folder(kind)
    if first not in components:
        _load_entry_points()
    if colon and first in components:
        return _with_argument(kind, components[first], name, argument)
    if trust.is_code(name):
        return _from_dotted_path(kind, name)
    if name not in components and _ODD_PATH.search(name):
        raise ConfigError(
            f"unknown {kind} {shown(name)}; code of your own is named module:object, the module as Python "
            "imports it: my_package.parts:Mine; `reid list` shows what is registered"
        )
    if name not in components:
        raise UnknownName(kind, name, components)
    return components[name]


def is_code(kind: Kind, name: str) -> bool:
    """Whether a name is that of code outside of what is registered; ``timm:convnext_tiny`` is not."""
    return trust.is_code(name) and name.partition(":")[0] not in names(kind)


def _with_argument(kind: str, factory: Callable[..., Any], name: str, argument: str) -> Callable[..., Any]:
    parameters = signatures.parameters_of(factory)
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    if len(positional) <= _GIVEN.get(kind, 0) or not argument:
        raise ConfigError(
            f"{kind} {shown(name)}: "
            + ("nothing stands behind the colon" if not argument else "this one takes nothing behind a colon")
        )
    return partial(factory, argument)


def build(kind: Kind, name: str, options: Mapping[str, Any] | None = None, /, *args: Any) -> Any:
    """Construct a component from its name and options, after checking the options against its signature.

    An option of a loss may itself be built, or be a list of what is built: of tables with a registered name
    or a dotted path as ``kind``, and the options beside it.
    """
    factory = get(kind, name)
    options = dict(options or {})
    problems = option_problems(factory, options, num_positional=len(args), where=f"{kind} {name!r}")
    if problems:
        raise ConfigError(problems)
    if kind == "loss":
        options = {option: _with_parts_built(value) for option, value in options.items()}
    try:
        return signatures.call(factory, args, options)
    except ReidError:
        raise
    except Exception as error:  # whatever the code of others does with options that it does not like
        if not is_code(kind, name):
            raise
        known = signatures.names_of(signatures.parameters_of(factory)[len(args) :])
        raise ConfigError(
            f"{kind} {name!r} cannot be built with the options {', '.join(options) or 'none'} "
            f"({_what(error)}); its options: {', '.join(known) or 'none'}"
        ) from error


def parts(options: Any) -> list[tuple[str, dict[str, Any]]]:
    """Name and options of everything that options of a loss are built of, at any depth."""
    if not isinstance(options, Mapping):
        return [part for value in options for part in parts(value)] if _is_list(options) else []
    own = [_name_and_options(options)] if _is_part(options) else []
    return own + [part for value in options.values() for part in parts(value)]


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("kind"), str)


def _name_and_options(part: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return part["kind"], {name: value for name, value in part.items() if name != "kind"}


def _with_parts_built(value: Any) -> Any:
    if _is_part(value):
        return build("loss", *_name_and_options(value))
    return [_with_parts_built(item) for item in value] if _is_list(value) else value


def option_problems(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    num_positional: int = 0,
    where: str,
    also_known: Iterable[str] = (),
    filled_in: Collection[str] = (),
) -> list[str]:
    """Every unknown or missing option, as a sentence; an empty list where all is well.

    The first ``num_positional`` parameters are given by the caller and are not options. ``also_known``
    are names to suggest besides the component's own, ``filled_in`` those that will be given later on.
    """
    parameters = signatures.parameters_of(factory)[num_positional:]
    known = signatures.names_of(parameters)
    problems = [
        f"{where} has no option {shown(name)};{did_you_mean(name, [*known, *also_known])} "
        + (listed_names(name, known).replace("Known:", "Options:") if known else "It takes none")
        for name in options
        if name not in known and not signatures.takes_anything(parameters)
    ]
    required = [name for name in signatures.required_names(parameters) if name not in filled_in]
    problems += [f"{where} needs the option {name!r}" for name in required if name not in options]
    problems += _type_problems(factory, parameters, options, where)
    return problems


def lacks_option(factory: Callable[..., Any], name: str, *, num_positional: int = 0) -> bool:
    """Whether a component has no option of that name; one that takes any lacks none."""
    parameters = signatures.parameters_of(factory)[num_positional:]
    return not signatures.takes_anything(parameters) and name not in signatures.names_of(parameters)


def _type_problems(
    factory: Callable[..., Any], parameters: list[inspect.Parameter], options: Mapping[str, Any], where: str
) -> list[str]:
    """Options whose value is of a type that the annotation rules out, as sentences."""
    problems = []
    for parameter in parameters:
        if parameter.name not in options:
            continue
        value, annotation = options[parameter.name], _resolved(factory, parameter)
        if not fits(value, annotation):
            problems.append(f"{where}: {parameter.name} is {shown(value)}; expected {in_words(annotation)}")
    return problems


def _resolved(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """A parameter's annotation as a type; ``Any`` where it cannot be found out."""
    function = getattr(factory, "func", factory)
    owners = function.__mro__ if isinstance(function, type) else (function,)
    for owner in owners:
        target = owner.__dict__.get("__init__") if isinstance(owner, type) else owner
        if target is None or parameter.name not in getattr(target, "__annotations__", {}):
            continue
        try:
            return get_type_hints(target).get(parameter.name, Any)
        except (NameError, TypeError):  # a name that is imported for type checkers only
            return Any
    return Any


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value (number, text, list, table, None) can be meant by an annotation.

    True where the annotation is none of plain types: the component itself then has to say.
    """
    if annotation is Any or annotation is inspect.Parameter.empty:
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin is Literal:
        if len(arguments) > 1 and all(isinstance(choice, str) for choice in arguments):
            return isinstance(value, str)  # a choice among names: the component tells the nearest one
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in arguments)
    if annotation in (None, type(None)):
        return value is None
    if annotation is bool or annotation is str:
        return isinstance(value, annotation)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != math.inf
    if origin in (list, tuple, Sequence, Iterable):
        elements = [choice for choice in arguments if choice is not Ellipsis]
        if origin is tuple and Ellipsis not in arguments:
            return _is_list(value) and len(value) == len(elements) and all(map(fits, value, elements))
        return _is_list(value) and all(fits(item, elements[0]) for item in value if elements)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


_WORDS = {
    type(None): "none",
    bool: "true or false",
    str: "a text",
    int: "a whole number of at most 64 bits",
    float: "a finite number",
}


def in_words(annotation: Any) -> str:
    """What :func:`fits` takes for an annotation, in words.

    >>> in_words(float | None), in_words(tuple[float, str]), in_words(Literal["cosine", "l1"])
    ('a finite number or none', 'a list of 2: a finite number, a text', "'cosine' or 'l1'")
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(map(in_words, arguments))}"
    if origin in (list, tuple, Sequence, Iterable):
        return f"a list, each {in_words(arguments[0])}" if arguments else "a list"
    if origin in (dict, Mapping):
        return "a table"
    return _WORDS.get(annotation, str(annotation))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def summary(component: object) -> str:
    """First line of its docstring."""
    text = inspect.getdoc(getattr(component, "func", component)) or ""
    return text.split("\n", 1)[0]


def defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Options of a component with their default values, for help texts and tables."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _of_kind(kind: str) -> dict[str, Callable[..., Any]]:
    if kind not in _components:
        raise UnknownName("kind of component", kind, _components)
    return _components[kind]


def _scan_folder(kind: str) -> None:
    """Import our own components of a kind."""
    if kind in FOLDERS and kind not in _scanned:
        folder = importlib.import_module(FOLDERS[kind])
        for module in pkgutil.iter_modules(folder.__path__):
            if not module.name.startswith("_"):  # helpers of their neighbours
                importlib.import_module(f"{folder.__name__}.{module.name}")
        _scanned.add(kind)


def _load_entry_points() -> None:
    """Import what other packages offer; their decorators do the registering.

    Finding them means to look at every package that is installed, which takes 0.1 s: longer than opening a
    gallery. So a component of ours is built without that.
    """
    if "entry points" not in _scanned:
        _scanned.add("entry points")
        for entry_point in entry_points(group="reidkit"):
            try:
                entry_point.load()
            except Exception as error:  # whatever a package does while it is imported
                package = entry_point.dist.name if entry_point.dist is not None else entry_point.value
                raise ConfigError(
                    f"the installed package {shown(package)} offers {shown(entry_point.value)} to reidkit, "
                    f"which cannot be imported ({_what(error)}); mend it, or uninstall that package"
                ) from error


def _from_dotted_path(kind: str, path: str) -> Callable[..., Any]:
    trust.check_code(kind, path)
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module does while it is imported
        here = Path(*module_name.split(".")[:1])
        is_here = here.is_dir() or here.with_suffix(".py").is_file()
        raise ConfigError(
            f"{kind} {path!r}: cannot import {module_name!r} ({_what(error)}); the part before the colon "
            "must be a module on PYTHONPATH"
            + ("; for one in the current folder put PYTHONPATH=. before the command" if is_here else "")
        ) from error
    component: Callable[..., Any] | None = getattr(module, attribute, None)
    if component is None or not callable(component):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{kind} {path!r}: {module_name!r} has no class or function {attribute!r};"
            f"{did_you_mean(attribute, known)} {listed_names(attribute, known)}"
        )
    trust.check_origin(kind, path, component)
    return component


def _what(error: Exception) -> str:
    """What an import failed of."""
    text = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    return shortened(" ".join(text.split()), 200)


def _address(component: Callable[..., Any]) -> str:
    function = getattr(component, "func", component)  # what a functools.partial wraps
    return f"{function.__module__}.{function.__qualname__}"
