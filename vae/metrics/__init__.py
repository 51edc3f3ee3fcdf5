"""All metrics, by family. Importing this package imports no torch."""

import importlib
import pkgutil
from collections.abc import Sequence

from vae.config import ConfigError
from vae.metrics.registry import FAMILIES, METRICS, Family, Metric, Result, Subject, compute
from vae.parts import locate

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

BUILT_IN = frozenset(FAMILIES)  # any other is the user's own
DEFAULT_FAMILIES = tuple(name for name, family in FAMILIES.items() if not family.on_request)


def requested(columns: Sequence[str], families: Sequence[str] = ()) -> list[str]:
    """The families that an experiment asks for: the default ones, those of its columns, and those it names.

    Args:
        columns: names of metrics; unknown ones are left out.
        families: names of families, and the user's own Family objects by module.name.

    Raises:
        ConfigError: for an unknown name, or if one of the user's own cannot be imported.
    """
    asked = [METRICS[name].family for name in columns if name in METRICS]
    found = []
    for name in families:
        if name not in BUILT_IN and "." not in name:
            raise ConfigError(f"study.metrics={name}: no such family; allowed: {', '.join(FAMILIES)}, or module.name")
        family = FAMILIES[name] if name in BUILT_IN else locate(name)
        if not isinstance(family, Family):
            raise ConfigError(f"study.metrics={name}: is a {type(family).__name__}; allowed: a vae.metrics.Family")
        found.append(family.name)
    return list(dict.fromkeys([*DEFAULT_FAMILIES, *asked, *found]))


__all__ = [
    "BUILT_IN",
    "DEFAULT_FAMILIES",
    "FAMILIES",
    "METRICS",
    "Family",
    "Metric",
    "Result",
    "Subject",
    "compute",
    "requested",
]
