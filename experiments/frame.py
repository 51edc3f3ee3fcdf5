"""Runs as a pandas DataFrame, one row per run, and grouped over seeds. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.evaluate import read_metrics
from experiments.keys import mostly_numbers, reference_value, same
from experiments.outcome import JUDGED, judge
from experiments.statistics import Interval, mean_interval, wilson_interval
from experiments.store import RunFolder, read_sound, read_yaml
from experiments.wording import SETTING, described
from vae.config import Config, in_use, settings
from vae.schema import flat

SCHEMA = dict.fromkeys(name for name, *_ in settings(Config()) if not name.startswith("dataset."))
TEXTS = (
    "path", "outcome", "reason", "dataset", "dataset_hash", "dataset_source", "judge", "model_sha256", "kl_estimate",
    "likelihood_of",
)  # fmt: skip


def setting_columns(names: Iterable[Any]) -> list[str]:
    """Which of these columns are settings, in the order of the schema; arguments of classes come last."""
    there = names if isinstance(names, Mapping) else dict.fromkeys(map(str, names))  # no metric has a dot in its name
    return [name for name in SCHEMA if name in there] + [n for n in there if "." in n and n not in SCHEMA]


class ReportError(ValueError):
    """A report that cannot be read or made; the message is one line."""


# ---------------------------------------------------------------------------------------------- runs


def read_run(folder: RunFolder) -> dict[str, Any]:
    """A run as one flat row: outcome and reason, settings in use by dotted name, counts and metrics.

    A run that cannot be used is not an error: its outcome is `failed` or `missing`, with the reason. A list becomes
    text; `kl_per_dim` and other lists of numbers are left out.
    """
    row: dict[str, Any] = {"run": folder.name, "path": str(folder.path), "outcome": "missing", "reason": "not finished"}
    result = folder.result()
    if result is None:
        if (folder.path / "result.json").exists():
            row |= {"outcome": "failed", "reason": "its result or its model is damaged or missing"}
        elif (failure := folder.failure()) is not None:
            row |= {"outcome": "failed", "reason": str(failure.get("reason") or "no reason given")}
        return row | own_settings(_from_yaml(folder.path))
    values, failures = read_metrics(folder)
    row |= own_settings(result["settings"])
    row |= {key: value for key, value in result.items() if key not in ("run", "settings", "schema_version", "files")}
    row |= values
    row["failures"] = failures
    if result["status"] == "ok" and "test_sse" not in values:
        reason = failures.get("reconstruction")
        row |= {"outcome": "failed" if reason else "missing", "reason": reason or "not evaluated"}
    else:
        row["outcome"], row["reason"] = judge(row)
    return {key: value for key, value in row.items() if not isinstance(value, list)}


def own_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in use as columns, without those of the data; lists as text."""
    names = [name for name in setting_columns(given) if not name.startswith("dataset.")]
    own = in_use({name: given[name] for name in names})
    return {name: str(value) if isinstance(value, list) else value for name, value in own.items()}


def _from_yaml(folder: Path) -> dict[str, Any]:
    """The settings of a run without a result, by dotted name; empty where they cannot be read."""
    return dict(flat("", read_yaml(folder / "config.yaml")))


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `read_run` as a DataFrame, indexed by run, with `usable`: whether a run has its final numbers."""
    frame = pd.DataFrame([{"failures": {}, **row} for row in rows])
    if frame.empty:
        return pd.DataFrame(columns=["run", "path", "outcome", "reason", "usable", "seed"]).set_index("run")
    frame["usable"] = frame["outcome"].isin(JUDGED)
    frame = frame.set_index("run")
    others = frame.columns.difference([*setting_columns(frame), *TEXTS, "failures", "usable", "status"])
    mixed = [name for name in others if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in mixed})


# ---------------------------------------------------------------------------------------------- groups of runs


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs that differ only in the seed.

    Attributes:
        settings: the swept settings that they share, by key of the report.
        point: the swept settings by dotted name, also where the report has the one key `setting`.
        runs: all of them by seed, those without usable numbers included.
    """

    settings: dict[str, Any]
    point: dict[str, Any]
    runs: pd.DataFrame

    @property
    def name(self) -> str:
        return described(self.settings) or "the only setting"

    @cached_property
    def usable(self) -> pd.DataFrame:
        return self.runs[self.runs["usable"]]

    def values(self, expression: str) -> pd.Series:
        """The finite values of a column, or an expression of columns, over the usable runs, by seed."""
        try:
            known = expression in self.usable
            found = self.usable[expression] if known else self.usable.eval(expression, engine="python")
        except pd.errors.UndefinedVariableError:
            return pd.Series(dtype=float)
        series = pd.Series(np.asarray(found, dtype=float), index=self.usable["seed"])
        return series[np.isfinite(series)]

    def interval(self, column: str) -> Interval:
        return mean_interval(self.values(column))

    def mean(self, column: str) -> float:
        return float(self.values(column).mean())

    def count(self, *outcomes: str) -> int:
        """How many runs have one of these outcomes."""
        return int(self.runs["outcome"].isin(outcomes).sum())

    def rate(self, *outcomes: str) -> Interval:
        """The share of usable runs with one of these outcomes, with Wilson's interval."""
        return wilson_interval(int(self.usable["outcome"].isin(outcomes).sum()), len(self.usable))

    @property
    def empty(self) -> bool:
        """Whether the closed form keeps no KL, so that collapse is the optimum."""
        return self.mean("train_theory_kl_high") == 0

    @property
    def first(self) -> pd.Series | None:
        """The usable run of the lowest seed."""
        return self.usable.iloc[0] if len(self.usable) else None


@dataclass(frozen=True, eq=False)
class Report:
    """A manifest with its runs.

    Attributes:
        name, folder: of the report.
        manifest: the content of sweep.json.
        keys: the swept settings but the seed, by dotted name; SETTING for those of which a sweep changes one at a time.
        runs: one row per run, as `frame_of` gives it, with the columns of `keys`, and `sse_ratio`: training SSE over
            that of the closed form at equal training KL (above 1: reconstruction is worse than PCA's at the same KL).
    """

    name: str
    folder: Path
    manifest: dict[str, Any]
    keys: list[str]
    runs: pd.DataFrame

    @property
    def study(self) -> dict[str, Any]:
        return self.manifest["study"]

    @property
    def title(self) -> str:
        return str(self.study.get("title") or self.study.get("name") or self.name)

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Facts of the data by content hash."""
        return self.manifest["datasets"]

    @property
    def usable(self) -> pd.DataFrame:
        return self.runs[self.runs["usable"]]

    def values(self, key: str) -> list[Any]:
        """The values of a swept setting, in the order in which the sweep names them."""
        return [None if isinstance(v, float) and math.isnan(v) else v for v in self.runs[key].unique()]

    def is_number(self, key: str) -> bool:
        """Whether a swept setting can be put on an axis; a few of its values may be words (`mostly_numbers`)."""
        return mostly_numbers(self.values(key))

    @cached_property
    def cells(self) -> list[Cell]:
        """In the order in which the sweep names the values of its settings."""
        points = {row["run"]: row["settings"] for row in self.manifest["runs"]}
        ranks = [pd.factorize(self.runs[key], use_na_sentinel=False)[0] for key in self.keys]
        return [
            Cell(
                {key: None if pd.isna(v := runs[key].iloc[0]) else v for key in self.keys},
                points[runs.index[0]],
                runs.sort_values("seed", kind="stable"),
            )
            for _, runs in self.runs.groupby(ranks or [0] * len(self.runs))
        ]

    @cached_property
    def main(self) -> str | None:
        """The setting on the x axis: the numeric one with most values, else the one with most values."""
        several = [key for key in self.keys if len(self.values(key)) > 1]
        return max(several, key=lambda key: (self.is_number(key), len(self.values(key))), default=None)

    @cached_property
    def usual(self) -> dict[str, Any]:
        """The reference value of each swept setting; a sweep that changes one thing at a time begins with them."""
        if SETTING in self.keys:
            return self.cells[0].settings
        return {key: reference_value(key, self.values(key)) for key in self.keys}

    @cached_property
    def lines(self) -> list[tuple[dict[str, Any], list[Cell]]]:
        """The cells along the main setting, for each combination of the other settings that vary."""
        groups: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
        for cell in self.cells:
            rest = self.rest(cell, self.main)
            groups.setdefault(repr(rest), (rest, []))[1].append(cell)
        return list(groups.values())

    def rest(self, cell: Cell, key: str | None) -> dict[str, Any]:
        """The settings of a cell that vary in the report, this one apart."""
        return {k: v for k, v in cell.settings.items() if k != key and len(self.values(k)) > 1}

    def setting(self, cell: Cell, key: str) -> Any:
        """A setting of a cell, swept or fixed, by its full or short name; None where it has none."""
        both = {**self.manifest["fixed"], **cell.point}
        return next((both[k] for k in (key, f"{key}.value", f"{key}.kind") if k in both), None)

    @property
    def objectives(self) -> list[str]:
        """The objectives of the runs."""
        found = {self.setting(cell, "objective") for cell in self.cells}
        return [kind for kind in ("elbo", "per_dim") if kind in found]

    @cached_property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """The content of each run's provenance.json, by run; empty where it cannot be read."""
        paths = self.runs["path"].items()
        return {str(name): RunFolder(Path(path)).read("provenance.json") or {} for name, path in paths}

    @property
    def date(self) -> str:
        """The day on which its last run ended; where the runs do not tell, as its summary has it."""
        ends = [p["finished"] for p in self.provenance.values() if "finished" in p]
        return max(ends)[:10] if ends else str((read_sound(self.folder / "summary.json") or {}).get("date", ""))


def changed(cell: Cell, reference: Cell) -> set[str]:
    """The swept settings in which a cell differs from another, the seed apart."""
    return {k for k, v in cell.point.items() if k != "seed" and not same(v, reference.point.get(k))}
