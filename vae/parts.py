"""Parts of your own: finds, checks and calls the classes and functions that a config names by `_target_`.

    encoder: {_target_: parts.Encoder, width: 64}

names the class Encoder in the module `parts`, and one argument. The module is found through PYTHONPATH or in the
working directory.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vae.config import ConfigError

Spec = Mapping[str, Any]  # `_target_` and arguments


def targets(value: Any) -> Iterator[str]:
    """All values of `_target_` in a nested setting."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield str(value["_target_"])
        for own in value.values():
            yield from targets(own)


def locate(target: str) -> Any:
    """The class, function or object that a `_target_` names.

    Raises:
        ConfigError: if there is none; the message is one line that says what failed.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"_target_={target}: names no module; allowed: module.Class")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # anything that the user's module raises on import
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"_target_={target}: cannot import {module_name} ({reason})") from error
    found = getattr(module, name, None)
    if found is None:
        raise ConfigError(f"_target_={target}: the module {module_name} has no {name}")
    return found


def make(setting: str, spec: Spec, **given: Any) -> Any:
    """Calls a part's class or function with its own arguments and those that the program adds.

    Args:
        setting: name of the setting that holds the spec, for messages.
        given: keyword arguments from the program, such as `image_shape`.

    Raises:
        ConfigError: if there is no such part, or it does not take these arguments.
        Exception: anything that the part itself raises.
    """
    own = arguments(spec)
    if both := sorted(own.keys() & given.keys()):
        raise ConfigError(
            f"{setting}.{both[0]}={own[both[0]]}: the program sets this argument of {spec['_target_']} itself"
        )
    return _takes(setting, spec, **given, **own)(**given, **own)


def partial(setting: str, spec: Spec, *called_with: Any) -> Callable[..., Any]:
    """A function of the user's own with its arguments filled in; it keeps its attributes.

    Args:
        called_with: examples of what the program will call it with.

    Raises:
        ConfigError: if there is no such function, or it does not take these arguments.
    """
    function = _takes(setting, spec, *called_with, **arguments(spec))
    filled = functools.partial(function, **arguments(spec))
    filled.__dict__.update(vars(function))
    return filled


def arguments(spec: Spec) -> dict[str, Any]:
    """A part's own arguments."""
    return {str(key): value for key, value in spec.items() if key != "_target_"}


def _takes(setting: str, spec: Spec, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """The part's class or function, if it takes these arguments."""
    function = locate(str(spec["_target_"]))
    if not callable(function):
        raise ConfigError(f"{setting}: {spec['_target_']} is not a class or function")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in without a signature
        return function
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        fault = f"does not take the arguments {', '.join(kwargs)}" if kwargs else "needs arguments"
        raise ConfigError(f"{setting}: {spec['_target_']} {fault} ({error})") from None
    return function


def sources(value: Any) -> dict[str, str]:
    """The SHA-256 of the source file of each target in a nested setting."""
    return {target: _source(locate(target)) for target in sorted(set(targets(value)))}


def _source(found: Callable[..., Any]) -> str:
    try:
        path = inspect.getsourcefile(inspect.unwrap(found))
    except TypeError:  # built in
        path = None
    if path is None:
        return ""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
