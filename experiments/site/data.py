"""Runs and experiments as the page shows them: values for the templates and for the page's script."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.evaluate import read_metrics
from experiments.frame import Report, read_run, setting_columns
from experiments.outcome import JUDGED
from experiments.report.closed_form import Curve, curves
from experiments.report.render import shortened
from experiments.report.tables import STUDY_FIGURES
from experiments.store import RunFolder, all_runs
from experiments.wording import short
from vae import theory
from vae.metrics import METRICS
from vae.metrics.registry import SPLITS

MAIN = ("test_kl", "test_sse", "sample_accuracy", "sample_ffd")  # the first columns of the table
COUNTS = {  # numbers of a run that are not metrics: heading and meaning
    "z_dim": ("latent dimensions k", "number of latent dimensions"),
    "n_parameters": ("parameters", "number of trained parameters"),
    "train_seconds": (
        "training time (s)",
        "seconds of training; if several runs are trained together, the run's share",
    ),
}
HISTORY = {
    "train_kl": "training KL (nats per image)",
    "train_sse": "training SSE (squared error per image)",
    "train_loss": "loss per image",
    "beta": "beta",
    "x_var": "x_var (variance of a pixel)",
    "lr": "learning rate",
}
OF_STUDIES = {f"{split}_{name}" for split in SPLITS for name in STUDY_FIGURES}
FIRST_PICTURES = ("samples.png", "reconstructions.png")


@dataclass(frozen=True)
class Entry:
    """A run as the page shows it.

    Attributes:
        row: as `read_run` and the reports' frames give it.
        reports: names of the reports that contain it.
        curves: the closed forms to compare it with, where a report knows its data.
        of_study: whether it is in an experiment of one of the two studies; only there their columns are shown.
    """

    folder: RunFolder
    row: Mapping[str, Any]
    reports: list[str]
    curves: list[Curve]
    of_study: bool

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def reason(self) -> str:
        return shortened(self.row["reason"])

    @functools.cached_property
    def files(self) -> list[str]:
        """The names of the files in its folder."""
        names = (name for name, stamp in self.folder.files().items() if stamp is not None)
        return sorted(name for name in names if "/" not in name and name[0] != ".")

    @property
    def pictures(self) -> list[str]:
        """Its PNG files, samples and reconstructions first."""
        found = [name for name in self.files if name.endswith(".png")]
        return sorted(found, key=lambda name: FIRST_PICTURES.index(name) if name in FIRST_PICTURES else 9)

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        return self.folder.read("provenance.json") or {}

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The settings in use, by dotted name, the data by their name; empty where nothing tells."""
        known = {key: plain(self.row.get(key)) for key in ("dataset", *setting_columns(self.row))}
        known = {key: v.strip("[]") if isinstance(v, str) else v for key, v in known.items() if v is not None}
        return known if "seed" in known else {}

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """The numbers that are shown, by column, to six digits."""
        seconds, stack = (self.provenance.get(key) for key in ("train_seconds", "stack_size"))
        own = {name: value for name, value in self.row.items() if self.of_study or name not in OF_STUDIES}
        if isinstance(seconds, int | float):
            own["train_seconds"] = seconds / max(1, stack or 1)
        return {name: rounded(v) for name, v in own.items() if type(v) in (int, float) and math.isfinite(v)}


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def rounded_all(values: Iterable[float]) -> list[float | None]:
    return [rounded(value) if math.isfinite(value) else None for value in values]


def plain(value: Any) -> Any:
    """A value of a frame as JSON can have it: None for NaN, and a whole number without a decimal point."""
    if not isinstance(value, float):
        return value
    return None if not math.isfinite(value) else int(value) if value == int(value) else value


def read_entries(reports: Sequence[Report], output_dir: str | Path) -> list[Entry]:
    """Every run that has a folder, by name; the runs of a report are not read again."""
    rows: dict[Any, Any] = {}
    names: dict[Any, list[str]] = {}
    for report in reports:
        for run, row in _by_run(report.runs).items():
            rows[run] = {**rows.get(run, {}), **row}  # each report has the metrics that its experiment asks for
            names.setdefault(run, []).append(report.name)
    folders = all_runs(output_dir)
    for folder in folders:
        if folder.name not in rows:
            row = {key: value for key, value in read_run(folder).items() if value is not None}
            rows[folder.name] = row | {"usable": row["outcome"] in JUDGED}
    datasets = {key: data for report in reports for key, data in report.datasets.items()}
    studies = {report.name for report in reports if report.study.get("published")}
    entries = []
    for folder in folders:
        folder.check()
        row = rows[folder.name]
        forms = curves(row, datasets) if row["usable"] else []
        own = names.get(folder.name, [])
        entries.append(Entry(folder, row, own, forms, not studies.isdisjoint(own)))
    return entries


def _by_run(runs: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """The rows of a frame as `to_dict("index")` gives them, several times as fast."""
    names = [str(name) for name in runs]
    rows = zip(*(runs[name].tolist() for name in names), strict=True)
    return {run: dict(zip(names, row, strict=True)) for run, row in zip(runs.index, rows, strict=True)}


# ---------------------------------------------------------------------------------------------- the table of all runs


def columns(entries: Iterable[Entry]) -> dict[str, tuple[str, str]]:
    """Heading and meaning of each column of numbers that some run has, by name, the main ones first.

    Numbers of training images are on the runs' own pages only.
    """
    there = set[str]().union(*(entry.numbers for entry in entries))
    shown = [name for name in METRICS if not name.startswith("train_")]
    names = dict.fromkeys(name for name in (*MAIN, *shown, *COUNTS) if name in there)
    return {name: heading(name) for name in names}


def main_columns(entry: Entry) -> dict[str, tuple[str, str]]:
    """Heading and meaning of the main numbers of a run."""
    return {name: heading(name) for name in MAIN if name in entry.numbers}


def heading(column: str) -> tuple[str, str]:
    """Heading and meaning of a column of numbers."""
    return COUNTS.get(column) or (METRICS[column].heading, meaning(column))


@functools.cache
def meaning(column: str) -> str:
    """What a metric is, with its unit and which values are better."""
    metric = METRICS[column]
    better = f"{metric.direction} is better" if metric.direction else ""
    return ", ".join(filter(None, [metric.meaning, metric.unit and f"in {metric.unit}", better]))


def table_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """All that the page's table, plot and comparison need, for JSON.

    Returns:
        settings: key and heading of each; numbers: key, heading, title and whether it is a main one of each; curves:
        the closed forms; runs: one object per run, with `settings` (empty where they are not known) and `numbers` in
        the order of these lists, and `curves` by index.
    """
    names = ["dataset", *setting_columns(dict.fromkeys(name for entry in entries for name in entry.settings))]
    varied = [name for name in names if len({str(e.settings.get(name)) for e in entries if e.settings}) > 1]
    headings = {name: _heading(name, names, varied) for name in names}
    same = Counter(name for name, _ in {(e.settings.get("dataset"), e.row.get("dataset_hash")) for e in entries})
    numbers = columns(entries)
    drawn = list(dict.fromkeys(curve for entry in entries for curve in entry.curves))
    ts = [t for entry in entries if (t := entry.numbers.get("effective_x_var"))]
    rows = []
    for entry in entries:
        own = [entry.settings.get(name) for name in names] if entry.settings else []
        if own and same[own[0]] > 1:
            own[0] = f"{own[0]} {str(entry.row.get('dataset_hash'))[:6]}"
        rows.append({
            "run": entry.name,
            "outcome": entry.row["outcome"],
            "reason": entry.reason,
            "reports": entry.reports,
            "settings": own,
            "numbers": [entry.numbers.get(column) for column in numbers],
            "pictures": entry.pictures,
            "curves": [drawn.index(curve) for curve in entry.curves],
        })  # fmt: skip
    for name, (heading, meaning) in numbers.items():
        if heading in headings.values():  # x_var, which can be learned
            numbers[name] = f"{heading}, measured", meaning
    return {
        "settings": [{"key": name, "heading": heading} for name, heading in headings.items()],
        "numbers": [
            {"key": name, "heading": heading, "title": meaning, "main": name in MAIN}
            for name, (heading, meaning) in numbers.items()
        ],
        "curves": [_curve(curve, ts) for curve in drawn],
        "runs": rows,
    }


def _heading(name: str, names: Sequence[str], varied: Sequence[str]) -> str:
    """The name in short, unless another setting has the same short name; those that vary count first."""
    same = [other for other in names if short(other) == short(name)]
    return short(name) if ([other for other in same if other in varied] or same) == [name] else name


def _curve(curve: Curve, ts: Sequence[float]) -> dict[str, Any]:
    """A closed form on held-out images in the rate-distortion plane, over these effective variances and beyond."""
    points = curve.at(np.geomspace(min(ts) / 3, max(curve.eigenvalues[0], *ts), 200))
    title = f"k = {curve.z_dim}, {curve.datasets[curve.dataset_hash]['name']}"
    own = {"kind": curve.kind, "title": title, "k": curve.z_dim}
    return own | {name: rounded_all(values) for name, values in points.items()}


# ---------------------------------------------------------------------------------------------- one run


def run_data(entry: Entry) -> dict[str, Any]:
    """What the script of a run's page shows: its metrics, learning curves, and the training KL of each dimension."""
    history = entry.folder.history()
    drawn = [name for name in HISTORY if name in history and (name[:6] == "train_" or len(set(history[name])) > 1)]
    kl = np.array(read_metrics(entry.folder, ["reconstruction"])[0].get("train_kl_per_dim") or [], dtype=float)
    order, t = np.argsort(-kl), entry.row.get("effective_x_var", math.nan)
    best = {c.kind: theory.optimum(c.eigenvalues, t, c.z_dim) for c in (entry.curves if len(kl) else ())}
    return {
        "numbers": {name: value for name, value in entry.numbers.items() if name in METRICS},
        "epoch": rounded_all(history.get("epoch", [])),
        "history": [[HISTORY[name], rounded_all(history[name])] for name in drawn],
        "dimension": order.tolist(),
        "rank": list(range(1, len(kl) + 1)),
        "kl_per_dim": rounded_all(kl[order]),
        "closed_form": [{"kind": kind, "kl": rounded_all(form.kl_per_dim)} for kind, form in best.items()],
    }
