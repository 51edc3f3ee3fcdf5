"""How a setting is declared: type, unit, default, range and meaning; and the checks that follow from that.

Imports neither torch nor Hydra, so that help texts and messages about bad settings appear at once. A setting that
belongs to one kind only (`beta.cycles` to `beta=cyclical`) is None under the other kinds. Giving it there is an error.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line that names the setting, its value and what is allowed."""


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
    kinds: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its documentation and range.

    Args:
        doc: one sentence for docs/settings.md and the help.
        unit: of the value, for example "nats" or "images".
        choices: the words allowed, where the value is a word.
        gt, ge, le: bounds of a number, or of each number of a list.
        kinds: the kinds of its group that use this setting. It must be None under the others. Empty: all kinds.
        optional: more kinds that use it, under which it may be None.
    """
    meta = {"doc": doc, "unit": unit, "choices": choices, "gt": gt, "ge": ge, "le": le}
    meta |= {"kinds": kinds, "optional": optional}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=meta)
    return field(default=default, metadata=meta)


LARGEST_INT = 2**31 - 1  # where no bound is given
LARGEST_FLOAT = 1e30  # its square and its inverse are numbers in float64, and itself and its inverse in float32

TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
TYPES |= {"list[int]": "a list of whole numbers, each"}


def allowed(meta: Mapping[str, Any]) -> str:
    """What a setting may be, in words: "a number > 0" or "one of a, b"."""
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    bounds = [
        f"{sign} {meta[key]:.4g}" for key, sign in (("gt", ">"), ("ge", ">="), ("le", "<=")) if meta[key] is not None
    ]
    kind = TYPES.get(meta["type"].removesuffix(" | None"), "see docs/settings.md")
    return " ".join([kind, " and ".join(bounds)]).strip()


def settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any], Any]]:
    """All settings as (dotted name, value, metadata and its type, the group that it belongs to).

    A setting that holds arguments, such as `optimizer`, gives one entry for each of them.
    """
    for field_name, meta in _declared(type(config)):
        value = getattr(config, field_name)
        if meta is None:
            yield from settings(value, f"{field_name}.")
        elif isinstance(value, Mapping):
            for name, own in flat(prefix + field_name, value):
                yield name, own, meta, config
        else:
            yield prefix + field_name, value, meta, config


@functools.cache  # a sweep of 2,000 runs asks for 4 million settings
def _declared(kind: type) -> list[tuple[str, Mapping[str, Any] | None]]:
    """The names of a class's settings with their metadata and type; None for a group."""
    return [(f.name, None if is_dataclass(f.default_factory) else {**f.metadata, "type": f.type}) for f in fields(kind)]


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A setting, or each entry of one that holds arguments: `optimizer.weight_decay`, `model.encoder.width`."""
    if isinstance(value, Mapping):
        for key, own in value.items():
            yield from flat(f"{name}.{key}" if name else str(key), own)
    else:
        yield name, value


def check(name: str, value: Any, meta: Mapping[str, Any], group: Any) -> None:
    """Checks one entry of `settings`.

    Raises:
        ConfigError: if it is out of range, missing, or not used by the chosen kind of its group.
    """
    shown = name.removesuffix(".kind")
    kind = getattr(group, "kind", None)
    users = (*meta["kinds"], *meta["optional"])
    if users and kind not in users:
        if value is not None:
            group_name = name.split(".")[0]
            users = " or ".join(f"{group_name}={k}" for k in users)
            raise ConfigError(f"{name}={value}: {group_name}={kind} does not use it; allowed: with {users} only")
        return
    if value is None:
        if kind in meta["kinds"]:
            raise ConfigError(f"{name}: must be given; allowed: {allowed(meta)}")
        return
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{shown}={value}: not an option; allowed: {allowed(meta)}")
    numbers = value if isinstance(value, list) else [value]
    if meta["type"].startswith("list[int]") and not all(type(x) is int for x in numbers):
        raise ConfigError(f"{name}={value}: wrong type; allowed: {allowed(meta)}")
    for x in numbers:
        if isinstance(x, bool) or not isinstance(x, int | float):
            continue
        good = (
            math.isfinite(x)
            and (meta["gt"] is None or x > meta["gt"])
            and (meta["ge"] is None or x >= meta["ge"])
            and (meta["le"] is None or x <= meta["le"])
        )
        most = meta["le"] or (LARGEST_INT if isinstance(x, int) else LARGEST_FLOAT)
        if not good or abs(x) > most or 0 < abs(x) < 1 / LARGEST_FLOAT:
            bounds = "" if meta["le"] or not good else f", at most {most:.4g}"
            bounds = f", at least {1 / LARGEST_FLOAT:.4g}" if good and abs(x) < 1 else bounds
            raise ConfigError(f"{name}={value}: out of range; allowed: {allowed(meta)}{bounds}")
    if isinstance(value, list) and not value and meta["kinds"]:
        raise ConfigError(f"{name}=[]: empty; allowed: {allowed(meta)}")
