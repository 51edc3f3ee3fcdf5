"""All metrics, by family. Importing this package imports no torch."""

import importlib
import pkgutil

from vae.metrics.registry import FAMILIES, METRICS, Family, Metric, Result, Subject, compute

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

DEFAULT_FAMILIES = tuple(name for name, family in FAMILIES.items() if not family.on_request)

__all__ = ["DEFAULT_FAMILIES", "FAMILIES", "METRICS", "Family", "Metric", "Result", "Subject", "compute"]
