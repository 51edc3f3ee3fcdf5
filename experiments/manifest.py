"""The manifest of a report: which runs it is made from, written before any is trained.

outputs/reports/<report>/sweep.json names the very runs, their swept settings, the data's facts and the command. The
report is built from these runs alone. Reading it is in reading.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.plan import Run
from experiments.provenance import command, git_state, versions
from experiments.settings import result_settings
from experiments.store import MANIFEST_VERSION, prepare_output, reports_dir, write_json
from vae.config import in_use
from vae.data import Facts

LONGEST_NAME = 100  # characters of a report's folder


def manifest(runs: Sequence[Run], swept: Sequence[str], name: str) -> dict[str, Any]:
    """All that a report needs besides the folders of its runs.

    Args:
        runs: of `plan`.
        swept: keys on the command line whose values differ between the runs.
        name: of the report; shortened where it is too long for a folder.
    """
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    given = [result_settings(run.config) for run in runs]
    used = [in_use(values) for values in given]
    names = _setting_names(swept, set[str]().union(*given))
    rows, datasets = {}, {}
    for run, values in zip(runs, used, strict=True):
        values = {**values, "dataset": run.data.name}
        settings = {key: values.get(key) for key in names}  # null: the setting has no part in this run
        row = {"run": run.folder.name, "settings": settings, "dataset_hash": run.data.content_hash}
        rows[repr(row)] = row  # a run may be listed with several settings, of which one has no part in it
        if run.data.content_hash not in datasets:
            datasets[run.data.content_hash] = _dataset(run)
    first, *others = used
    fixed = {k: v for k, v in first.items() if all(other.get(k) == v for other in others) and k not in names}
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": name,
        "study": dataclasses.asdict(runs[0].config.study),
        "command": command(),
        "versions": versions(),
        **git_state(),
        "swept": names,
        "fixed": fixed,
        "datasets": datasets,
        "runs": [*rows.values()],
    }


def write_manifest(content: dict[str, Any], output_dir: str | Path) -> None:
    """Writes a manifest into its report's folder.

    Raises:
        ConfigError: if nothing can be written to the output folder.
    """
    prepare_output(output_dir)
    folder = reports_dir(output_dir) / content["name"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", content)


def _setting_names(keys: Sequence[str], known: set[str]) -> list[str]:
    """The dotted names of the keys of a sweep, without those that change no numbers; `dataset` for the data's name."""
    names = []
    for key in keys:
        name = key.lstrip("+")
        if name in ("dataset", "dataset.kind", "dataset.name", "dataset.root"):
            names.append("dataset")
        elif f"{name}.kind" in known:
            names.append(f"{name}.kind")
        elif name in known:
            names.append(name)
    return list(dict.fromkeys(names))


def _dataset(run: Run) -> dict[str, Any]:
    data = run.data
    return {
        "name": data.name,
        "source": data.source,
        "n_train": len(data.train_x),
        "n_val": len(data.val_x),
        "n_test": len(data.test_x),
        "image_shape": list(data.image_shape),
        "n_classes": data.n_classes,
        **_facts(run.facts),
    }


def _facts(facts: Facts) -> dict[str, Any]:
    """The facts as JSON has them, spectra to six digits, which is more than any figure shows."""
    return {
        key: [float(f"{v:.6g}") for v in value] if hasattr(value, "tolist") else value
        for key, value in ((f.name, getattr(facts, f.name)) for f in dataclasses.fields(facts))
    }
