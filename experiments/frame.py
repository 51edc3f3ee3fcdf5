"""Runs as a pandas DataFrame, for one's own questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.report import Run, read, read_run
from experiments.store import all_runs
from vae.config import Config, in_use, settings

NAMES = [name for name, _, meta, _ in settings(Config()) if meta["affects_result"]]
DATASET = ("dataset.kind", "dataset.name")  # `dataset` says more: the name of the data themselves
TEXTS = ("status", "health")


def table(name: str | None = None, output_dir: str | Path = "outputs") -> pd.DataFrame:
    """The runs of an experiment, or all runs, a row each.

    Args:
        name: of the experiment's report, a folder in outputs/reports; None: every run in outputs/runs.
        output_dir: folder that holds runs/ and reports/.

    Returns:
        Indexed by the run's folder. Columns: `dataset` where the data differ; the settings that differ between the
        runs, by dotted name (`x_var.value`, `label_placement.kind`; missing where one has no part in a run; lists as
        text); `seed`; `status` (ok, diverged, failed, missing, unreadable) and `health` (ok, dead, collapsed, hole);
        then every column of result.json that is a number, NaN where a run has none. outputs/README.md says what each
        means.

    Raises:
        ReportError: for a name without a report.
    """
    if name is None:
        runs = [read_run(run.path, {}, "") for run in all_runs(output_dir)]
        rows = [_row(run, {}) for run in runs]
    else:
        report = read(name, output_dir)
        names = {content: data["name"] for content, data in report.datasets.items()}
        points = [{**report.manifest["fixed"], **row["settings"]} for row in report.manifest["runs"]]
        rows = [
            _row(run, {**point, "dataset": names[run.dataset_hash]})
            for run, point in zip(report.runs, points, strict=True)
        ]
    known = [row for row in rows if "model.kind" in row]  # a run that never began tells nothing
    varied = [key for key in NAMES if key != "seed" and len({row.get(key) for row in known}) > 1]
    if len({row["dataset"] for row in rows} - {None}) > 1:
        varied.insert(0, "dataset")
    numbers = dict.fromkeys(key for row in rows for key in row if key not in ("run", "dataset", *TEXTS, *NAMES))
    frame = pd.DataFrame(rows, columns=["run", *varied, "seed", *TEXTS, *numbers]).set_index("run")
    return frame.astype(dict.fromkeys(numbers, float))


def _row(run: Run, known: dict[str, Any]) -> dict[str, Any]:
    """A run's settings in use, by dotted name, and its numbers.

    Args:
        known: settings, where its folder tells none.
    """
    result = run.result or {}
    given = result or {**known, **{f"{key}.kind": value for key, value in known.items()}, **_from_yaml(run.path)}
    own = in_use({key: given.get(key) for key in NAMES if key not in DATASET})
    own = {key: str(value) if isinstance(value, list) else value for key, value in own.items()}
    numbers = {
        key: value
        for key, value in result.items()
        if key not in (*NAMES, "schema_version") and isinstance(value, int | float)
    }
    dataset = result.get("dataset", known.get("dataset"))
    return {"run": run.name, "dataset": dataset, **own, "status": run.status, "health": run.health, **numbers}


def _from_yaml(folder: Path) -> dict[str, Any]:
    """The settings of a run without result.json, by dotted name; empty where they cannot be read."""
    try:
        groups = yaml.safe_load((folder / "config.yaml").read_text())
        flat = {f"{group}.{key}": v for group, own in groups.items() if isinstance(own, dict) for key, v in own.items()}
        return {**groups, **flat}
    except (OSError, yaml.YAMLError, AttributeError):
        return {}
