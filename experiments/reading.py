"""Reports and their runs read from files: `experiments.table`. Imports no torch.

A sweep writes its manifest, outputs/reports/<report>/sweep.json, before it trains: which runs, their swept settings,
the facts of the data and the command. A report is built from these runs alone.
"""

from __future__ import annotations

import difflib
import io
import math
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.damage import damage_named
from experiments.evaluate import DEFAULT_FAMILIES, evaluate
from experiments.frame import TEXTS, Report, ReportError, frame_of, own_settings, read_run, setting_columns
from experiments.keys import as_changes, one_per_group
from experiments.store import (
    MANIFEST_VERSION,
    RunFolder,
    all_runs,
    read_json,
    read_recorded,
    reports_dir,
    runs_dir,
    snapshot,
)
from experiments.wording import SETTING
from vae import theory
from vae.metrics import BUILT_IN, METRICS, requested

REFERENCE = Path(__file__).parents[1] / "outputs" / "reference"  # the reports that are shipped
MANIFEST = {"study": dict, "fixed": dict, "datasets": dict, "versions": dict, "command": str, "swept": list}
MANIFEST |= {"runs": list}


def reports(output_dir: str | Path) -> list[str]:
    """The names of the reports that have a manifest."""
    return sorted(path.parent.name for path in reports_dir(output_dir).glob("*/sweep.json"))


def read(name: str, output_dir: str | Path, *, measure: bool = True) -> Report:
    """A report's manifest and its runs; whatever else lies in the folder of the runs is left alone.

    Of the metrics, the runs have those that every report has and those that the experiment asks for, whatever else was
    measured for another experiment.

    Args:
        measure: whether metrics that are missing are computed now.

    Raises:
        ReportError: if there is no such report or its manifest cannot be used.
    """
    folder = reports_dir(output_dir) / name
    if Path(name).name != name or not (folder / "sweep.json").exists():
        known = reports(output_dir)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        there = f"it has {', '.join(known)}" if known else "it has none; a sweep makes one: python run.py -m sweep"
        raise ReportError(f"{name}: no such report in {reports_dir(output_dir)}{hint}; {there}")
    manifest = _manifest(folder / "sweep.json")
    planned = {row["run"]: RunFolder(runs_dir(output_dir) / row["run"]) for row in manifest["runs"]}
    study = manifest["study"]
    own = [name for name in study.get("metrics") or () if name in BUILT_IN]  # the user's own are not imported
    families = list(dict.fromkeys([*DEFAULT_FAMILIES, *requested(study.get("columns") or (), own)]))
    if measure:
        evaluate([*planned.values()], families)
    others = {metric.name for metric in METRICS.values() if metric.family not in families}
    rows = {name: _only(read_run(folder), others, families) for name, folder in planned.items()}
    return _report(folder, manifest, rows)


def recorded(folder: Path) -> Report:
    """A report as its own files have it, sweep.json and runs.csv; the folders of its runs need not be there.

    Raises:
        ReportError: if it has no runs.csv, or a file that cannot be used.
    """
    manifest = _manifest(folder / "sweep.json")
    text = read_recorded(folder / "runs.csv", folder / "summary.json")
    if text is None:
        raise ReportError(f"{folder / 'runs.csv'}: missing or damaged; collect makes it from the runs")
    frame = pd.read_csv(io.BytesIO(text), index_col="run", low_memory=False, dtype={"reason": str}).fillna(
        {"reason": ""}
    )
    own, rows = set(setting_columns(frame)), {}
    for name, row in frame.to_dict("index").items():
        # The manifest has the swept settings with their types; a setting without a value has no part in the run.
        row = {k: v for k, v in row.items() if k not in manifest["swept"] and (k not in own or pd.notna(v))}
        rows[name] = {"run": name, "path": str(folder / "runs" / str(name)), **row}
    if missing := [row["run"] for row in manifest["runs"] if row["run"] not in rows]:
        raise ReportError(f"{folder / 'runs.csv'}: has no row for {missing[0]}; collect makes it from the runs")
    return _report(folder, manifest, rows)


def _manifest(path: Path) -> dict[str, Any]:
    """A report's manifest.

    Raises:
        ReportError: if it cannot be used.
    """
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as e:
        raise ReportError(f"{e}; run the sweep again") from None
    if (version := manifest.get("manifest_version")) != MANIFEST_VERSION:
        raise ReportError(
            f"{path}: has manifest_version {version}, this program reads {MANIFEST_VERSION}; run the sweep again"
        )
    try:
        for key, kind in MANIFEST.items():
            if not isinstance(manifest[key], kind):
                raise TypeError(f"{key} is not a {kind.__name__}")
        for row in manifest["runs"]:
            if Path(row["run"]).name != row["run"]:
                raise ValueError(f"{row['run']} is not the name of a run")
            if not isinstance(row["settings"], dict):
                raise TypeError(f"the settings of {row['run']} are not an object")
        if not _dataset_names(manifest["datasets"]).keys() >= {row["dataset_hash"] for row in manifest["runs"]}:
            raise ValueError("datasets of runs are missing")
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise ReportError(f"{path}: not a usable manifest ({type(e).__name__}: {e}); run the sweep again") from None
    if not manifest["runs"]:
        raise ReportError(f"{path}: names no runs; run the sweep again")
    return manifest


def _only(row: dict[str, Any], others: Collection[str], families: Collection[str]) -> dict[str, Any]:
    """A run's row without the metrics of other families."""
    row = {key: value for key, value in row.items() if key not in others}
    failures = {family: why for family, why in row.get("failures", {}).items() if family in families}
    return row | {"failures": failures}


def _report(folder: Path, manifest: dict[str, Any], rows: Mapping[str, dict[str, Any]]) -> Report:
    """A report of these runs, by name."""
    named = _dataset_names(manifest["datasets"])
    keys = [key for key in manifest["swept"] if key != "seed"]
    if len(named) > 1 and "dataset" not in keys:
        keys.append("dataset")
    made = []
    for planned in manifest["runs"]:
        point, content = {**manifest["fixed"], **planned["settings"]}, planned["dataset_hash"]
        row = {**own_settings(point), **rows[planned["run"]]}
        row |= {key: row.get(key, point.get(key)) for key in (*keys, "seed")}
        row |= {"dataset": named[content], "dataset_hash": content}
        made.append(row | {"sse_ratio": _against_theory(row, manifest["datasets"][content])})
    frame = frame_of(made)
    if "search" not in manifest:
        keys = as_changes(frame, one_per_group(frame, keys), [row["settings"] for row in manifest["runs"]])
    return Report(folder.name, folder, manifest, keys, frame)


def _dataset_names(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The name of each dataset by content hash, with a part of the hash where two have one name."""
    names = Counter(data["name"] for data in datasets.values())
    return {h: data["name"] if names[data["name"]] == 1 else f"{data['name']} {h[:6]}" for h, data in datasets.items()}


def _against_theory(row: Mapping[str, Any], data: Mapping[str, Any]) -> float:
    """A run's training SSE over that of the closed form at the same training KL; NaN without either.

    For label_placement `decoder`, which has no simple form, the unconditional curve, the one with more error.
    """
    kl, sse = row.get("train_kl", math.nan), row.get("train_sse", math.nan)
    if kl is None or sse is None or not math.isfinite(kl + sse):
        return math.nan
    spectrum = data["eigenvalues_within" if row["label_placement.kind"] == "both" else "eigenvalues"]
    # The measured KL of a posterior that equals the prior can lie below 0 by rounding.
    bound = theory.distortion(spectrum, max(0.0, kl), int(row["z_dim"]))
    return sse / bound if bound > 0 else math.nan


def _shipped(name: str, output_dir: str | Path) -> Report | None:
    """The reference report of that name, where no run of such a report is trained; None if one is."""
    if not (REFERENCE / name / "runs.csv").exists():
        return None
    if (reports_dir(output_dir) / name / "sweep.json").exists() and read(name, output_dir).runs["usable"].any():
        return None
    report, path = recorded(REFERENCE / name), REFERENCE / name / "runs.csv"
    print(f"{name}: none of its runs is in {runs_dir(output_dir)}; these are the numbers of {path}", file=sys.stderr)
    return report


def table(name: str | None = None, output_dir: str | Path = "outputs") -> pd.DataFrame:
    """The runs of an experiment, or all runs, one row each. What is missing of their metrics is computed first.

    Args:
        name: of the experiment's report, a folder in outputs/reports; None: every run in outputs/runs.
        output_dir: folder that holds runs/ and reports/.

    Damaged files are named on stderr, in one line each.

    Returns:
        Indexed by the run's folder. Columns: `dataset` where the data differ; the settings that differ between the
        runs, by dotted name (`x_var.value`; missing where a setting plays no part in a run; lists as text); `seed`;
        `outcome` and `reason` (experiments/outcome.py); then every count and metric that is a number, NaN where a run
        has none. docs and outputs/README.md say what each means.

    If none of the runs is trained here, the numbers are those of the reference report of that name; a line on stderr
    says so.

    Raises:
        ReportError: for a name without a report.
    """
    with damage_named("experiments.table"), snapshot(output_dir):
        if name is None:
            folders = all_runs(output_dir)
            evaluate(folders)
            frame = frame_of(read_run(folder) for folder in folders)
        elif (shipped := _shipped(name, output_dir)) is not None:
            folders, frame = [], shipped.runs
        else:
            frame = read(name, output_dir).runs
            folders = [RunFolder(Path(path)) for path in frame["path"]]
        for folder in folders:
            folder.check()
    own = setting_columns(frame)
    varied = [key for key in own if key != "seed" and frame[key].nunique(dropna=False) > 1]
    if "dataset" in frame and frame["dataset"].nunique() > 1:
        varied.insert(0, "dataset")
    left = frame.drop(columns=[c for c in (*own, *TEXTS, SETTING, "failures", "usable", "status") if c in frame])
    numbers = left.select_dtypes("number")
    return pd.concat([frame[[*varied, "seed", "outcome", "reason"]], numbers], axis=1)
