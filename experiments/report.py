"""Which runs a report is made from, and when it is made.

A sweep writes its manifest, outputs/reports/<report>/sweep.json, before it trains: the very runs, their swept settings,
the data's facts and the command. The collector makes the report from these runs alone.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.cli import SweepFailed
from experiments.store import RunFolder, runs_dir, write_json
from vae import config as vae_config

MANIFEST_VERSION = 1
LONGEST_NAME = 100


def reports_dir(output_dir: str | Path) -> Path:
    return Path(output_dir) / "reports"


def slug(key: str, values: Sequence[Any], job: DictConfig) -> str | None:
    """What one override adds to a report's name; None for settings that change no number."""
    if key == "dataset":
        words = [Path(job.dataset.root).resolve().name if v == "image_folder" else str(v) for v in values]
        return _plain(",".join(words))
    known = {name: meta for name, _, meta, _ in vae_config.settings(vae_config.Config())}
    if key in known and not known[key]["affects_result"]:
        return None
    short = key.removesuffix(".value").removeprefix("trainer.")
    shown = ",".join(str(v) for v in values)
    if len(values) > 4 and all(isinstance(v, int) for v in values):
        shown = f"{values[0]}..{values[-1]}"
    return _plain(f"{short}={shown}")


def _plain(text: str) -> str:
    return re.sub(r"[^\w.,=+-]", "", text)


def manifest(runs: Sequence[Any], swept: Sequence[str], name: str, job: DictConfig) -> dict[str, Any]:
    """All that the collector needs beside the runs' results.

    Args:
        runs: what experiments.sweep.plan gave.
        swept: keys of the settings that differ between the runs.
        name: of the report.
        job: any of the sweep's composed configs.
    """
    from experiments.result import facts_json
    from experiments.sweep import command, git_state, versions

    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    rows, datasets = {}, {}
    for run in runs:
        values = {key: value for key, value, _, _ in vae_config.settings(run.config)}
        settings = {key: values.get(key, values.get(f"{key}.kind")) for key in swept}
        if "dataset" in settings:
            settings["dataset"] = run.data.name
        rows[run.folder.name] = {"run": run.folder.name, "settings": settings, "dataset_hash": run.data.content_hash}
        datasets[run.data.content_hash] = {
            "name": run.data.name,
            "source": run.data.source,
            "n_train": len(run.data.train_x),
            "n_test": len(run.data.test_x),
            "image_shape": list(run.data.image_shape),
            "n_classes": run.data.n_classes,
            **facts_json(run.facts),
        }
    fixed = {
        key: value
        for key, value, meta, _ in vae_config.settings(runs[0].config)
        if meta["affects_result"] and value is not None and not any(key == s or key == f"{s}.kind" for s in swept)
    }
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": name,
        "study": OmegaConf.to_container(job.study, resolve=True),
        "command": command(),
        "versions": versions(),
        **git_state(),
        "swept": list(swept),
        "fixed": fixed,
        "datasets": datasets,
        "runs": list(rows.values()),
    }


def write_manifest(content: dict[str, Any], output_dir: str | Path) -> None:
    from experiments.sweep import prepare_output

    prepare_output(output_dir)
    folder = reports_dir(output_dir) / content["name"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", content)


def conclude(content: dict[str, Any], output_dir: str | Path) -> None:
    """Makes the report and says where it is."""
    from experiments.collect import collect

    path = collect(content["name"], output_dir)
    print(f"report: {path}", file=sys.stderr)


def check_complete(content: dict[str, Any], output_dir: str | Path) -> None:
    """Raises SweepFailed, in one line, if a run has no usable result."""
    bad = []
    for row in content["runs"]:
        result = RunFolder(runs_dir(output_dir) / row["run"]).result()
        if result is None or result["status"] != "ok":
            bad.append(row["run"])
    if bad:
        n = len(content["runs"])
        path = reports_dir(output_dir) / content["name"] / "report.md"
        raise SweepFailed(
            f"{len(bad)} of {n} runs have no usable result, the first {bad[0]}; {path} lists them, "
            "and the same command tries again those that can be"
        )
