"""The settings by which the runs of a report are told apart. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.wording import SETTING, described
from vae.config import Config, settings

REFERENCE = "the reference"  # the setting that the others change
DEFAULTS = {name: value for name, value, _, _ in settings(Config())}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def mostly_numbers(values: Sequence[Any]) -> bool:
    """Whether the values of a setting are numbers, but for some words: `1, 0.1, 0.01, learned`."""
    words = [v for v in values if not is_number(v)]
    return not words or (all(isinstance(v, str) for v in words) and len(values) > 2 * len(words))


def same(a: Any, b: Any) -> bool:
    """Whether two values of a setting are the same."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def reference_value(key: str, values: Sequence[Any]) -> Any:
    """The default of a setting if it is among the values, else the first value."""
    return next((v for v in values if same(v, DEFAULTS.get(key))), values[0])


def one_per_group(runs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Makes `x_var=learned` one more value of x_var where a sweep has it next to several numbers.

    The column x_var.value then holds the word instead of the number that x_var was learned from, and x_var.kind is no
    key. A grid of kinds and values, such as two schedules of beta with the same final values, keeps both.
    """
    kept = list(keys)
    for key in keys:
        kind = f"{key.removesuffix('.value')}.kind"
        if kind not in keys or kind == f"{key}.kind":
            continue
        several = runs.groupby(kind)[key].nunique() > 1
        if several.sum() == 1:
            runs[key] = runs[key].where(runs[kind].map(several), runs[kind])
            kept.remove(kind)
    return kept


def as_changes(runs: pd.DataFrame, keys: Sequence[str], points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names the settings of a sweep that is no grid by what they change of the first, in the column SETTING.

    A grid may have gaps: it is one as long as it has half of the cells. A setting of which every value is combined with
    all of the others stays a key of its own.

    Args:
        points: the settings of each run, by dotted name.
    """
    unique = runs[list(keys)].drop_duplicates()
    if len(keys) < 2 or len(unique) >= math.prod(runs[key].nunique(dropna=False) for key in keys) / 2:
        return list(keys)
    crossed = [
        key
        for key in keys
        if len(unique) == unique[key].nunique(dropna=False) * len(unique.drop(columns=key).drop_duplicates())
    ]
    first = points[0]
    changes = [
        {k: v for k, v in point.items() if k not in ("seed", *crossed) and v is not None and not same(v, first.get(k))}
        for point in points
    ]
    runs[SETTING] = [described(own) or REFERENCE for own in changes]
    return [*crossed, SETTING]
