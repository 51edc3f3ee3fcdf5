"""The collector on synthetic run folders: the same files as a sweep leaves, with numbers that are known beforehand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import collect, report, result
from vae import config, linear_theory

SPECTRUM = (4.0 * 0.8 ** np.arange(64)).tolist()  # of 8x8 pictures
WITHIN = (2.5 * 0.8 ** np.arange(64)).tolist()
DATA = {
    "name": "synthetic",
    "source": "no source: made up",
    "n_train": 400,
    "n_test": 100,
    "image_shape": [1, 8, 8],
    "n_classes": 10,
    "sse_zero": {"train": 30.0, "test": 31.0},
    "sse_mean": {"train": 20.0, "test": 21.0},
    "sse_class_means": {"train": 12.5, "test": 13.0},
    "eigenvalues": SPECTRUM,
    "eigenvalues_within": WITHIN,
}
FIXED = {
    "dataset.kind": "mnist_5k",
    "model.kind": "mlp",
    "model.hidden": [400],
    "model.activation": "relu",
    "model.output": "identity",
    "model.init": "uniform",
    "z_dim.kind": "fixed",
    "z_dim.value": 10,
    "beta.kind": "constant",
    "beta.value": 1.0,
    "x_var.kind": "fixed",
    "x_var.value": 0.1,
    "label_placement.kind": "both",
    "label_repeat.kind": "fixed",
    "label_repeat.value": 5,
    "objective.kind": "elbo",
    "trainer.epochs": 3,
    "trainer.batch_size": 128,
    "trainer.lr": 0.001,
    "trainer.lr_schedule": "constant",
    "trainer.tf32": False,
    "seed": 0,
    "training_version": 1,
}
PROVENANCE = {
    "command": "python run.py -m test",
    "versions": {"python": "3.12.1", "torch": "2.9.0"},
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "device": "cpu",
    "device_name": "x86_64",
    "threads": 2,
    "host_system": "Linux",
    "started": "2030-01-02T03:04:05+00:00",
    "finished": "2030-01-02T03:14:05+00:00",
    "train_seconds": 600.0,
    "stack_size": 10,
}


def result_row(run: str, settings: Mapping[str, Any], data: Mapping[str, Any], noise: float = 0.0) -> dict[str, Any]:
    """A result.json whose KL and SSE are the closed form's, SSE one higher and both plus the noise."""
    values = {**{name: v for name, v, meta, _ in config.settings(config.Config()) if meta["affects_result"]}, **FIXED}
    values |= {k: v for k, v in settings.items() if k in values}
    values |= {f"{k}.kind": v for k, v in settings.items() if f"{k}.kind" in values}
    values.pop("training_version")
    input_dim, z_dim = math.prod(data["image_shape"]), values["z_dim.value"]
    t = values["beta.value"] * values["x_var.value"]
    if values["objective.kind"] == "per_dim":
        t = values["beta.value"] * input_dim / (2 * z_dim)
    low, high = linear_theory.prediction(
        data["eigenvalues"], data["eigenvalues_within"], values["label_placement.kind"], t, z_dim
    )
    row = {
        **values,
        "schema_version": result.SCHEMA_VERSION,
        "run": run,
        "status": "ok",
        "diverged_epoch": None,
        "epochs_done": values["trainer.epochs"],
        "dataset": data["name"],
        "dataset_source": data["source"],
        "dataset_hash": "d" * 64,
        "n_train": data["n_train"],
        "n_test": data["n_test"],
        "input_dim": input_dim,
        "z_dim": z_dim,
        "label_repeat_encoder": 5,
        "label_repeat_decoder": 5,
        "n_parameters": 1234,
        "x_var": values["x_var.value"],
        "effective_x_var": t,
        "model_sha256": "0" * 64,
        "theory_kl_low": min(low.kl, high.kl),
        "theory_kl_high": max(low.kl, high.kl),
        "theory_sse_low": min(low.sse, high.sse),
        "theory_sse_high": max(low.sse, high.sse),
    }
    for split, more in (("train", 0.0), ("test", 0.5)):
        kl, sse = max(0.0, high.kl + noise), high.sse + 1 + more + noise
        row |= {f"{split}_baseline_{n}": data[f"sse_{n}"][split] for n in ("zero", "mean", "class_means")}
        row |= {
            f"{split}_{name}": value
            for name, value in {
                "sse": sse,
                "sse_mean": sse - 0.5,
                "kl": kl,
                "kl_per_dim": [kl / z_dim] * z_dim,
                "active_units": high.active_units,
                "loss": sse / 2 + kl,
                "elbo": -sse / 2 - kl,
                "elbo_per_dim": (-sse / 2 - kl) / input_dim,
                "bits_per_dim": 8 + (sse / 2 + kl) / input_dim / math.log(2),
                "kl_offset": kl + z_dim / 2,
                "r_half_sse": sse / 2,
                "kld_loss": 128 * kl / z_dim,
                "r_loss": 128 * sse / input_dim,
            }.items()
        }
    return row


Change = Callable[[dict[str, Any], dict[str, Any]], "dict[str, Any] | str | None"]


def write_sweep(
    output_dir: Path,
    name: str = "trial",
    params: Mapping[str, Sequence[Any]] | None = None,
    points: Sequence[Mapping[str, Any]] = ({},),
    *,
    study: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] = DATA,
    change: Change | None = None,
    history: bool = True,
) -> list[Path]:
    """Leaves behind what a sweep over params, crossed with points, leaves: a manifest and run folders.

    Args:
        change: of (settings, result row) makes the row that is written; a word for the reason of a failure, None for a
            run that is missing.

    Returns:
        The run folders.
    """
    params = params or {}
    rows, folders = [], []
    rng = np.random.default_rng(0)
    fixed = {**FIXED, **(fixed or {})}
    for point in points:
        for values in itertools.product(*params.values()):
            settings = {**point, **dict(zip(params, values, strict=True))}
            run = f"{name}-" + "-".join(f"{k.split('.')[0]}{v}" for k, v in settings.items()).replace("/", "_")
            folder = output_dir / "runs" / run
            folder.mkdir(parents=True)
            row = result_row(run, {**fixed, **settings}, data, noise=0.2 * rng.standard_normal())
            content = change(settings, row) if change else row
            if isinstance(content, dict):
                (folder / "result.json").write_text(json.dumps(content))
            elif content is not None:
                (folder / "failed.json").write_text(json.dumps({"reason": content}))
            provenance = PROVENANCE | {"seed": settings.get("seed", 0)}
            (folder / "provenance.json").write_text(json.dumps(provenance))
            if history and isinstance(content, dict) and content["status"] == "ok":
                lines = [
                    f"{e},{row['train_sse'] + 9 / e},{row['train_kl'] * (1 - 0.5 / e)},1,1,1,0.001" for e in (1, 2, 3)
                ]
                head = "epoch,train_sse,train_kl,train_loss,beta,x_var,lr"
                (folder / "history.csv").write_text("\n".join([head, *lines]) + "\n")
            rows.append({"run": run, "settings": settings, "dataset_hash": "d" * 64})
            folders.append(folder)
    swept = list(dict.fromkeys([*points[0], *params]))
    manifest = {
        "manifest_version": report.MANIFEST_VERSION,
        "name": name,
        "study": {
            "name": "trial",
            "title": "A trial",
            "question": None,
            "published": [],
            "source": None,
            **(study or {}),
        },
        "command": "python run.py -m test",
        "versions": PROVENANCE["versions"],
        "git_commit": PROVENANCE["git_commit"],
        "git_dirty": False,
        "swept": swept,
        "fixed": {k: v for k, v in fixed.items() if not any(k in (s, f"{s}.kind") for s in swept)},
        "datasets": {"d" * 64: dict(data)},
        "runs": rows,
    }
    folder = output_dir / "reports" / name
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(manifest))
    return folders
