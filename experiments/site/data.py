"""Runs and experiments as the page shows them: values for the templates and for the page's script."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.evaluate import read_metrics
from experiments.frame import SETTINGS, Report, frame_of, read_run
from experiments.report.render import shortened
from experiments.store import RunFolder, all_runs
from experiments.wording import short
from vae import theory
from vae.metrics import METRICS

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
PLACEMENTS = {"both": ("within",), "decoder": ("within", "all")}  # the closed forms to compare with; else only `all`
FIRST_PICTURES = ("samples.png", "reconstructions.png")


@dataclass(frozen=True)
class Entry:
    """A run as the page shows it.

    Attributes:
        row: as `read_run` and the reports' frames give it.
        reports: names of the reports that contain it.
        facts: of its data, as a manifest has them; None where no report has.
    """

    folder: RunFolder
    row: Mapping[str, Any]
    reports: list[str]
    facts: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def reason(self) -> str:
        return shortened(self.row["reason"])

    @functools.cached_property
    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file in its folder, by name."""
        found = [f for f in os.scandir(self.folder.path) if f.is_file() and f.name[0] != "."]
        return {f.name: (f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(found, key=lambda f: f.name)}

    @property
    def pictures(self) -> list[str]:
        """Its PNG files, samples and reconstructions first."""
        found = [name for name in self.files if name.endswith(".png")]
        return sorted(found, key=lambda name: FIRST_PICTURES.index(name) if name in FIRST_PICTURES else 9)

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        return read_object(self.folder.path / "provenance.json")

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The settings in use, by dotted name, the data by their name; empty where nothing tells."""
        known = {key: plain(self.row.get(key)) for key in ("dataset", *SETTINGS)}
        known = {key: v.strip("[]") if isinstance(v, str) else v for key, v in known.items() if v is not None}
        return known if "seed" in known else {}

    def value(self, column: str) -> float | None:
        """A number of the run, to six digits; None where there is none."""
        value = self.row.get(column)
        if column == "train_seconds":
            seconds, stack = (self.provenance.get(key) for key in ("train_seconds", "stack_size"))
            value = seconds / max(1, stack or 1) if isinstance(seconds, int | float) else None
        return rounded(value) if isinstance(value, int | float) else None

    @property
    def curves(self) -> list[tuple[str, str, int]]:
        """The closed forms to compare it with: the data's hash, `within` class or `all`, latent dimensions."""
        if not self.row["usable"] or self.facts is None:
            return []
        kinds = PLACEMENTS.get(self.row["label_placement.kind"], ("all",))
        return [(self.row["dataset_hash"], kind, int(self.row["z_dim"])) for kind in kinds]


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def plain(value: Any) -> Any:
    """A value of a frame as JSON can have it: None for NaN, and a whole number without a decimal point."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float):
        return value
    return None if not np.isfinite(value) else int(value) if value == int(value) else value


def read_entries(reports: Sequence[Report], output_dir: str | Path) -> list[Entry]:
    """Every run that has a folder, by name; the runs of a report are not read again."""
    rows: dict[str, dict[str, Any]] = {}
    used: dict[str, list[str]] = {}
    facts = {key: data for report in reports for key, data in report.datasets.items()}
    for report in reports:
        for row in report.runs.reset_index().to_dict("records"):
            rows[str(row["run"])] = {str(key): value for key, value in row.items()}
            used.setdefault(str(row["run"]), []).append(report.name)
    folders = all_runs(output_dir)
    others = frame_of(read_run(folder) for folder in folders if folder.name not in rows).reset_index()
    rows |= {str(row["run"]): {str(k): v for k, v in row.items()} for row in others.to_dict("records")}
    return [
        Entry(folder, row := rows[folder.name], used.get(folder.name, []), facts.get(str(row.get("dataset_hash"))))
        for folder in folders
    ]


# ---------------------------------------------------------------------------------------------- the table of all runs


def columns(entries: Iterable[Entry]) -> dict[str, tuple[str, str]]:
    """Heading and meaning of each column of numbers that some run has, by name, the main ones first.

    Numbers of training images are on the runs' own pages only.
    """
    named = {name: (metric.heading, meaning(name)) for name, metric in METRICS.items() if not name.startswith("train_")}
    named = {name: named[name] for name in MAIN if name in named} | named | COUNTS
    entries = list(entries)
    return {name: texts for name, texts in named.items() if any(entry.value(name) is not None for entry in entries)}


def meaning(column: str) -> str:
    """What a metric is, with its unit and which values are better."""
    metric = METRICS[column]
    better = f"{metric.direction} is better" if metric.direction else ""
    return ", ".join(filter(None, [metric.meaning, metric.unit and f"in {metric.unit}", better]))


def table_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """All that the page's table, plot and comparison need, for JSON.

    Returns:
        settings: [name, heading] of each; numbers: [column, heading, meaning, whether it is a main one] of each;
        pictures: file names; curves: the closed forms; runs: one object per run, with `settings` (empty where they are
        not known) and `numbers` in the order of these lists, `pictures` and `curves` by index.
    """
    names = ["dataset", *(name for name in SETTINGS if any(name in entry.settings for entry in entries))]
    varied = [name for name in names if len({str(e.settings.get(name)) for e in entries if e.settings}) > 1]
    same = Counter(name for name, _ in {(e.settings.get("dataset"), e.row.get("dataset_hash")) for e in entries})
    numbers = columns(entries)
    pictures = list(dict.fromkeys(file for entry in entries for file in entry.pictures))
    curves = {curve: entry.facts for entry in entries for curve in entry.curves}
    index = {curve: i for i, curve in enumerate(curves)}
    ts = [t for entry in entries if (t := entry.value("effective_x_var"))]
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
            "numbers": [entry.value(column) for column in numbers],
            "pictures": [pictures.index(file) for file in entry.pictures],
            "curves": [index[curve] for curve in entry.curves],
        })  # fmt: skip
    headings = {name: _heading(name, names, varied) for name in names}
    for name, (heading, meaning) in numbers.items():
        if heading in headings.values():  # x_var, which can be learned
            numbers[name] = f"{heading}, measured", meaning
    return {
        "settings": [[name, heading] for name, heading in headings.items()],
        "numbers": [[name, heading, meaning, name in MAIN] for name, (heading, meaning) in numbers.items()],
        "pictures": pictures,
        "curves": [_curve(curve, facts, ts) for curve, facts in curves.items() if facts is not None],
        "runs": rows,
    }


def _heading(name: str, names: Sequence[str], varied: Sequence[str]) -> str:
    """The name in short, unless another setting has the same short name; those that vary count first."""
    same = [other for other in names if short(other) == short(name)]
    return short(name) if ([other for other in same if other in varied] or same) == [name] else name


def _curve(curve: tuple[str, str, int], facts: Mapping[str, Any], ts: Sequence[float]) -> dict[str, Any]:
    """A closed form on held-out images in the rate-distortion plane, over these effective variances and beyond."""
    _, kind, z_dim = curve
    part = "_within" if kind == "within" else ""
    spectrum = facts[f"eigenvalues{part}"]
    over = np.geomspace(min(ts) / 3, max(spectrum[0], *ts), 200)
    kl, sse = theory.held_out_curve(spectrum, facts[f"test_variances{part}"], over, z_dim)
    return {
        "kind": kind,
        "title": f"k = {z_dim}, {facts['name']}",
        "k": z_dim,
        "kl": [rounded(v) for v in kl.tolist()],
        "sse": [rounded(v) for v in sse.tolist()],
    }


# ---------------------------------------------------------------------------------------------- one run


def run_data(entry: Entry) -> dict[str, Any]:
    """What a run's page draws: learning curves, and the training KL of each latent dimension with its closed form."""
    history = _history(entry.folder.path / "history.csv")
    kl = read_metrics(entry.folder)[0].get("train_kl_per_dim") or []
    closed, t = [], entry.value("effective_x_var")
    for _, kind, z_dim in entry.curves if kl else []:
        assert entry.facts is not None
        assert t is not None
        best = theory.optimum(entry.facts["eigenvalues_within" if kind == "within" else "eigenvalues"], t, z_dim)
        closed.append({"kind": kind, "kl": [rounded(v) for v in best.kl_per_dim.tolist()]})
    return {
        "epoch": history.get("epoch", []),
        "history": [[name, title, history[name]] for name, title in HISTORY.items() if name in history],
        "kl_per_dim": [rounded(v) for v in kl],
        "closed_form": closed,
    }


def _history(path: Path) -> dict[str, list[float | None]]:
    """The columns of history.csv; empty where they cannot be read."""
    try:
        columns = pd.read_csv(path, usecols=["epoch", *HISTORY], dtype=float)
    except (OSError, ValueError):
        return {}
    return {str(name): [rounded(v) for v in values] for name, values in columns.items()}
