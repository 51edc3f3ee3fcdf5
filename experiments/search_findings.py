"""What came of a search, as values: the best setting, or the Pareto front of two objectives, and how to confirm it.

All of it comes from the runs and the search's part of the manifest, and needs no Optuna.
"""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.advice import pareto_front
from experiments.frame import Report
from experiments.wording import described
from vae.config import Config, settings

LISTED = 10  # settings of the table of the best
CONFIRMING_SEEDS = 5


@dataclass(frozen=True, eq=False)
class Trial:
    """A run as the search sees it.

    Attributes:
        number: of the trial that first proposed it, from 1.
        run: its row of the report's runs.
        settings: those that are searched, by key.
        values: of the objectives; NaN where the run has none.
        violations: by how much it breaks each constraint, zero or less where it holds.
    """

    number: int
    run: pd.Series
    settings: dict[str, Any]
    values: tuple[float, ...]
    violations: tuple[float, ...]

    @property
    def name(self) -> str:
        return described(self.settings)

    @property
    def usable(self) -> bool:
        return all(map(math.isfinite, (*self.values, *self.violations)))

    @property
    def allowed(self) -> bool:
        """Whether it keeps all constraints."""
        return self.usable and all(v <= 0 for v in self.violations)


@dataclass(frozen=True, eq=False)
class Search:
    """The trials of a report's search. Only trials that keep the constraints can be the best."""

    report: Report

    @property
    def manifest(self) -> dict[str, Any]:
        return self.report.manifest["search"]

    @property
    def objectives(self) -> dict[str, str]:
        """Columns, each with minimize or maximize; those of validation images where the runs have them."""
        return {self.column(name): way for name, way in self.manifest["objectives"].items()}

    @property
    def constraints(self) -> list[dict[str, Any]]:
        """Column, sign (<= or >=) and limit of each; validation images where the runs have them."""
        return [{**c, "column": self.column(c["column"])} for c in self.manifest["constraints"]]

    @property
    def on_validation(self) -> bool:
        """Whether other images chose than those that measure."""
        return all(name.startswith("val_") for name in self.objectives)

    def column(self, name: str) -> str:
        own = f"val_{name.removeprefix('test_')}"
        runs = self.report.usable
        return own if own in runs and runs[own].notna().any() else name

    @cached_property
    def trials(self) -> list[Trial]:
        """A trial for each run, in the order in which they were proposed."""
        numbers = {name: i for i, name in reversed(list(enumerate(self.manifest["trials"], start=1)))}
        found = []
        for name, run in self.report.runs.iterrows():
            values = [float(run.get(column, math.nan)) if run["usable"] else math.nan for column in self.objectives]
            over = [
                (float(run.get(c["column"], math.nan)) - c["limit"]) * (1 if c["sign"] == "<=" else -1)
                for c in self.constraints
            ]
            own = {key: run[key] for key in self.report.keys if pd.notna(run[key])}
            found.append(Trial(numbers[str(name)], run, own, tuple(values), tuple(over)))
        return sorted(found, key=lambda trial: trial.number)

    @property
    def allowed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.allowed]

    @cached_property
    def best(self) -> list[Trial]:
        """The best trial of one objective, the Pareto front of two; none if no trial keeps the constraints."""
        return self.ranked[: 1 if len(self.objectives) == 1 else None]

    @cached_property
    def ranked(self) -> list[Trial]:
        """The rows of the table of the best: the front, or the first few in order of the objective."""
        signs = [1.0 if way == "minimize" else -1.0 for way in self.objectives.values()]
        losses = np.array([t.values for t in self.allowed]).reshape(-1, len(signs)) * signs  # (trials, objectives)
        two = len(signs) == 2 and len(losses) > 0
        order = pareto_front(losses) if two else losses[:, 0].argsort(kind="stable")[:LISTED]
        return [self.allowed[i] for i in order]


def confirmation(search: Search, output_dir: str | Path) -> str:
    """The command that trains the best settings with seeds that the search has not seen.

    Its paths are relative to the working directory: reports abbreviate absolute ones.
    """
    report, best = search.report, search.best
    swept = {name for key in report.keys for name in (key, f"{key}.kind")}
    root = report.provenance[str(best[0].run.name)].get("dataset_root")
    own = {**report.manifest["fixed"], "dataset.root": root and os.path.relpath(root)}
    given = {
        name.removesuffix(".kind"): own[name]
        for name, default, _, _ in settings(Config())
        if name != "seed" and name not in swept and own.get(name) not in (None, default)
    }
    if (folder := os.path.relpath(output_dir)) != "outputs":
        given["output_dir"] = folder
    points = [{key.removesuffix(".kind"): v for key, v in trial.settings.items()} for trial in best]
    words = [f"{key}={_override(value)}" for key, value in (given | (points[0] if len(points) == 1 else {})).items()]
    if len(points) > 1:
        rows = (",".join(f"{key}:{_override(value)}" for key, value in point.items()) for point in points)
        words.append(f"hydra.sweeper.points=[{','.join(f'{{{row}}}' for row in rows)}]")
    first = int(best[0].run["seed"]) + 1
    name = f"study.name={report.study.get('name') or 'search'}-confirmed"
    return shlex.join(["python", "run.py", "-m", name, *words, f"seed=range({first},{first + CONFIRMING_SEEDS})"])


def _override(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_override, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
