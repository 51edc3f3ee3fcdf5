"""What the report of a search says: the best setting, or the Pareto front of two objectives, and how to confirm it.

All of it comes from the runs and the search's part of the manifest, and needs no Optuna.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from experiments import figures
from experiments.advice import pareto_front
from experiments.figures import COLOURS, DPI, STYLE, WIDTH, Drawn
from experiments.report import SETTING, Report, Run, described, short
from experiments.tables import Table, number
from vae.config import Config, settings

LISTED = 10  # settings of the table of the best
CONFIRMING_SEEDS = 5


@dataclass(frozen=True)
class Trial:
    """A run as the search sees it.

    Attributes:
        number: of the trial that first proposed it, from 1.
        values: of the objectives; NaN where the run has none.
        violations: by how much it breaks each constraint, zero or less where it holds.
    """

    number: int
    run: Run
    values: tuple[float, ...]
    violations: tuple[float, ...]

    @property
    def usable(self) -> bool:
        return all(map(math.isfinite, (*self.values, *self.violations)))

    @property
    def allowed(self) -> bool:
        """Whether it keeps all constraints."""
        return self.usable and all(v <= 0 for v in self.violations)


@dataclass(frozen=True)
class Search:
    """The trials of a report's search."""

    report: Report

    @property
    def manifest(self) -> dict[str, Any]:
        return self.report.manifest["search"]

    @property
    def objectives(self) -> dict[str, str]:
        """Columns, each with minimize or maximize."""
        return self.manifest["objectives"]

    @cached_property
    def trials(self) -> list[Trial]:
        """A trial for each run, in the order in which they were proposed."""
        found = []
        for run in self.report.runs:
            violations = []
            for c in self.manifest["constraints"]:
                over = run.value(c["column"]) - c["limit"]
                violations.append(over if c["sign"] == "<=" else -over)
            values = tuple(run.value(name) for name in self.objectives)
            usable = values if run.usable else (math.nan,) * len(values)
            number = self.manifest["trials"].index(run.name) + 1
            found.append(Trial(number, run, usable, tuple(violations)))
        return sorted(found, key=lambda trial: trial.number)

    @property
    def allowed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.allowed]

    def losses(self, trials: Sequence[Trial]) -> np.ndarray:
        """The objectives so that less is better, (trials, objectives)."""
        signs = [1.0 if way == "minimize" else -1.0 for way in self.objectives.values()]
        return np.array([trial.values for trial in trials]).reshape(-1, len(signs)) * signs

    @cached_property
    def best(self) -> list[Trial]:
        """The best trial of one objective, the Pareto front of two; none if no trial keeps the constraints."""
        losses = self.losses(self.allowed)
        if not len(losses):
            return []
        if losses.shape[1] == 2:
            return [self.allowed[i] for i in pareto_front(losses)]
        return [self.allowed[int(losses[:, 0].argmin())]]

    @property
    def listed(self) -> list[Trial]:
        """The rows of the table of the best: the front, or the first few in order of the objective."""
        if len(self.objectives) == 2:
            return self.best
        return [self.allowed[i] for i in self.losses(self.allowed)[:, 0].argsort(kind="stable")[:LISTED]]

    @property
    def shown(self) -> Report:
        """A report of the best runs alone, for their pictures: a list, not the table of all values of each setting."""
        runs = [replace(trial.run, settings={SETTING: described(trial.run.settings)}) for trial in self.best]
        return replace(self.report, runs=runs, keys=[SETTING])

    @property
    def conditions(self) -> str:
        """The constraints in words: "with test_r_loss <= 2"."""
        texts = [f"{c['column']} {c['sign']} {c['limit']:g}" for c in self.manifest["constraints"]]
        return f" with {' and '.join(texts)}" if texts else ""

    @property
    def aim(self) -> str:
        """The objectives in words: "the least sample_ffd"."""
        return " and ".join(f"the {'least' if way == 'minimize' else 'most'} {n}" for n, way in self.objectives.items())


def findings(search: Search) -> list[str]:
    """What came of the search, in sentences."""
    n, usable = len(search.trials), sum(trial.usable for trial in search.trials)
    said = f"{n} settings tried for {search.aim}{search.conditions}: {usable} have numbers"
    said += f", {len(search.allowed)} keep the constraints." if search.conditions else "."
    if not search.best:
        return [f"No setting found: {said}"]
    if len(search.objectives) == 2:
        ends = [search.best[0], search.best[-1]]
        spans = [
            f"{name} {number(a)} to {number(b)}"
            for name, a, b in zip(search.objectives, *(t.values for t in ends), strict=True)
        ]
        return [f"The Pareto front has {len(search.best)} settings, {', '.join(spans)}.", said]
    (best,) = search.best
    (name,) = search.objectives
    return [f"The best setting found is {described(best.run.settings)}: {name} {number(best.values[0])}.", said]


def tables(search: Search) -> dict[str, Table]:
    """The best trials, and all of them."""
    extra = dict.fromkeys((*(c["column"] for c in search.manifest["constraints"]), "test_sse", "test_kl", "sample_ffd"))
    columns = [*search.objectives, *(name for name in extra if name not in search.objectives)]
    heads = [("trial", "trial"), *((key, short(key)) for key in search.report.keys), *((c, c) for c in columns)]
    heads.append(("health", "health"))

    def row(trial: Trial) -> list[Any]:
        values = [trial.run.value(c) for c in columns]
        own = [trial.run.settings[key] for key in search.report.keys]
        return [trial.number, *own, *(v if math.isfinite(v) else None for v in values), trial.run.health]

    title = "Pareto front" if len(search.objectives) == 2 else "The best settings"
    best = [row(t) for t in search.listed]
    found = {"best": Table("best", f"{title}{search.conditions}", heads, best)} if best else {}
    every = [[*row(t), "yes" if t.allowed else "no"] for t in search.trials]
    heads = [*heads, ("allowed", "keeps the constraints")]
    return {**found, "trials": Table("trials", "All trials", heads, every)}


def advised(search: Search, output_dir: str | Path) -> list[str]:
    """How much the result is worth, and the command that confirms it."""
    if not search.best:
        return ["## How to go on", "Widen the space, loosen the constraints, or train for longer."]
    several = len(search.best) > 1
    return [
        "## How to confirm it",
        f"Each setting was trained with one seed, and the {'front' if several else 'best'} is picked among "
        f"{len(search.allowed)} settings by the very images that measure it. So luck is part of it, its numbers "
        "are better than is to be expected, and a single seed is no confirmation. Other seeds take their part of "
        "the luck away (that of the held-out images stays), and the report of this command has intervals:",
        f"```sh\n{confirmation(search, output_dir)}\n```",
    ]


def confirmation(search: Search, output_dir: str | Path) -> str:
    """The command that trains the best settings with seeds that the search has not seen."""
    runs = [trial.run for trial in search.best]
    result = runs[0].result or {}
    swept = [name for key in search.report.keys for name in (key, f"{key}.kind")]
    root = runs[0].provenance.get("dataset_root")
    own = {**result, "dataset.root": root or "data", "output_dir": str(output_dir)}
    words = []
    for name, default, _, _ in settings(Config()):
        value = own.get(name)
        if name in own and name != "seed" and value is not None and value != default and name not in swept:
            words.append(f"{name.removesuffix('.kind')}={_override(value)}")
    points = [{key: value for key, value in run.settings.items() if value is not None} for run in runs]
    if len(points) == 1:
        words += [f"{key}={_override(value)}" for key, value in points[0].items()]
    else:
        rows = (",".join(f"{key}:{_override(value)}" for key, value in point.items()) for point in points)
        words.append(f"hydra.sweeper.points=[{','.join(f'{{{row}}}' for row in rows)}]")
    first = result["seed"] + 1
    seeds = f"seed=range({first},{first + CONFIRMING_SEEDS})"
    name = f"study.name={search.report.manifest['study']['name'] or 'search'}-confirmed"
    return shlex.join(["python", "run.py", "-m", name, *words, seeds])


def _override(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_override, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---------------------------------------------------------------------------------------------- figures


def drawn(search: Search) -> dict[str, Drawn]:
    """The trials, and samples of the best, by file name."""
    found = {"search.png": objectives(search), "samples.png": figures.samples(search.shown) if search.best else None}
    return {file: figure for file, figure in found.items() if figure is not None}


def objectives(search: Search) -> Drawn | None:
    """The two objectives against each other with the front, or one against the trial with the best so far."""
    usable = [trial for trial in search.trials if trial.usable]
    if not usable:
        return None
    names = [*search.objectives] if len(search.objectives) == 2 else ["trial", *search.objectives]

    def columns(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        return [t.values[0] if "trial" not in names else t.number for t in trials], [t.values[-1] for t in trials]

    broken = [trial for trial in usable if not trial.allowed]
    dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "0.35", "label": "trial"}
    hollow = {**dots, "markerfacecolor": "white", "color": "0.6", "label": "breaks a constraint"}
    front: dict[str, Any] = {"color": COLOURS[1], "marker": "o", "label": "Pareto front"}
    so_far: dict[str, Any] = {"color": COLOURS[1], "label": "best so far"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), dpi=DPI, layout="constrained")
        ax = figure.subplots()
        handles = [*ax.plot(*columns(search.allowed), **dots)]
        if broken:
            handles += ax.plot(*columns(broken), **hollow)
        if "trial" not in names:
            handles += ax.plot(*columns(search.best), **front)
        elif search.allowed:
            numbers, values = columns(search.allowed)
            least = list(search.objectives.values()) == ["minimize"]
            best = (np.minimum if least else np.maximum).accumulate(values)
            handles += ax.step([*numbers, usable[-1].number], [*best, best[-1]], where="post", **so_far)
        for axis, name, numbers in zip(("x", "y"), names, columns(usable), strict=True):
            if name != "trial" and min(numbers) > 0 and max(numbers) / min(numbers) > 10:
                ax.set(**{f"{axis}scale": "log"})
                getattr(ax, f"{axis}axis").set_major_formatter(StrMethodFormatter("{x:g}"))
                getattr(ax, f"{axis}axis").set_minor_formatter(StrMethodFormatter("{x:g}"))
            ax.set(**{f"{axis}label": name})
        figures._legend(figure, handles)
        what = "Each trial in its order" if "trial" in names else "No allowed trial beats one on the front in both"
        return Drawn(figures._png(figure), f"{what}: {search.aim}{search.conditions}. Each is one run with one seed.")
