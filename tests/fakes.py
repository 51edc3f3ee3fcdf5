"""Run folders and manifests as a sweep and its evaluation leave them, with numbers that are known beforehand."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluate import DEFAULT_FAMILIES
from experiments.seal import sealed_json
from experiments.store import MANIFEST_VERSION, read_json
from vae import theory

SPECTRUM = (4.0 * 0.8 ** np.arange(64)).tolist()  # of 8x8 pictures
WITHIN = (2.5 * 0.8 ** np.arange(64)).tolist()
DATA: dict[str, Any] = {
    "name": "synthetic",
    "source": "no source: made up",
    "n_train": 400,
    "n_val": 0,
    "n_test": 100,
    "image_shape": [1, 8, 8],
    "n_classes": 10,
    "sse_zero": {"train": 30.0, "test": 31.0},
    "sse_mean": {"train": 20.0, "test": 21.0},
    "sse_class_means": {"train": 12.5, "test": 13.0},
    "eigenvalues": SPECTRUM,
    "eigenvalues_within": WITHIN,
    "test_variances": [1.05 * v for v in SPECTRUM],
    "test_variances_within": [1.05 * v for v in WITHIN],
}
FIXED: dict[str, Any] = {
    "dataset": "synthetic",
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
    "trainer.precision": "float32",
    "seed": 0,
    "training_version": 3,
}
PROVENANCE: dict[str, Any] = {
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
MODEL = b"no model"
MODEL_SHA256 = hashlib.sha256(MODEL).hexdigest()
Change = Callable[[dict[str, Any], dict[str, Any]], "dict[str, Any] | str | None"]


def record(family: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a family's file."""
    from vae.metrics import FAMILIES

    return {"family": family, "version": FAMILIES[family].version, "model_sha256": MODEL_SHA256, "values": values}


def family_of(column: str) -> str:
    """The family whose file holds a column."""
    from vae.metrics import METRICS

    return METRICS[column].family


def has_arrays(family: str) -> bool:
    from vae.metrics import FAMILIES

    return bool(FAMILIES[family].arrays)


def row_of(settings: Mapping[str, Any], data: Mapping[str, Any], noise: float = 0.0) -> dict[str, Any]:
    """The numbers of a run whose KL and SSE are the closed form's plus the noise, SSE one more (held out 1.5)."""
    input_dim, z_dim = math.prod(data["image_shape"]), settings["z_dim.value"]
    t = settings["beta.value"] * settings["x_var.value"]
    if settings["objective.kind"] == "per_dim":
        t = settings["beta.value"] * input_dim / (2 * z_dim)
    placement = settings["label_placement.kind"]
    low, high = theory.prediction(data["eigenvalues"], data["eigenvalues_within"], placement, t, z_dim)
    row: dict[str, Any] = {
        "status": "ok",
        "diverged_epoch": None,
        "x_var": settings["x_var.value"],
        "effective_x_var": t,
        "label_repeat_encoder": 5 if placement in ("both", "encoder") else 0,
        "label_repeat_decoder": 5 if placement in ("both", "decoder") else 0,
    }
    for split, more in (("train", 0.0), ("test", 0.5)):
        row |= {
            f"{split}_theory_kl_low": min(low.kl, high.kl),
            f"{split}_theory_kl_high": max(low.kl, high.kl),
            f"{split}_theory_sse_low": min(low.sse, high.sse) + more,
            f"{split}_theory_sse_high": max(low.sse, high.sse) + more,
        }
        kl, sse = max(0.0, high.kl + noise), high.sse + 1 + more + noise
        row |= {f"{split}_baseline_{n}": data[f"sse_{n}"][split] for n in ("zero", "mean", "class_means")}
        row |= {
            f"{split}_sse": sse,
            f"{split}_sse_mean": sse - 0.5,
            f"{split}_kl": kl,
            f"{split}_kl_per_dim": [kl / z_dim] * z_dim,
            f"{split}_active_units": high.active_units,
            f"{split}_loss": sse / 2 + kl,
            f"{split}_elbo": -sse / 2 - kl,
            f"{split}_elbo_per_dim": (-sse / 2 - kl) / input_dim,
            f"{split}_bits_per_dim": 8 + (sse / 2 + kl) / input_dim / math.log(2),
            f"{split}_kl_offset": kl + z_dim / 2,
            f"{split}_r_half_sse": sse / 2,
            f"{split}_kld_loss": 128 * kl / z_dim,
            f"{split}_r_loss": 128 * sse / input_dim,
        }
    return row


def fake_report(
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
    pictures: bool = True,
) -> list[Path]:
    """Leaves behind what a sweep over params, crossed with points, and its evaluation leave.

    Args:
        params, points: by full dotted names (`label_placement.kind`).
        change: of (settings, row of numbers) makes the row that is written; a text is the reason of a failure, None a
            run that is missing. A value None in the row is written as null.
        pictures: whether each run has pictures.npz, of random pixels.

    Returns:
        The run folders.
    """
    params = params or {}
    rows, folders = [], []
    rng = np.random.default_rng(0)
    fixed = {**FIXED, **(fixed or {})}
    for point in points:
        for values in itertools.product(*params.values()):
            own = {**point, **dict(zip(params, values, strict=True))}
            run = f"{name}-" + "-".join(f"{k.split('.')[0]}{v}" for k, v in own.items()).replace("/", "_")
            settings = {**fixed, **own}
            row = row_of(settings, data, noise=0.2 * rng.standard_normal())
            content = change(own, row) if change else row
            fake_run(output_dir / "runs" / run, settings, content, data, history=history, pictures=pictures)
            rows.append({"run": run, "settings": own, "dataset_hash": "d" * 64})
            folders.append(output_dir / "runs" / run)
    swept = list(dict.fromkeys([*points[0], *params]))
    manifest = {
        "manifest_version": MANIFEST_VERSION,
        "name": name,
        "study": {"name": "trial", "title": "A trial", "question": None, "published": [], "source": None, "pick": True}
        | {"columns": []}
        | dict(study or {}),
        "command": "python run.py -m test",
        "versions": PROVENANCE["versions"],
        "git_commit": PROVENANCE["git_commit"],
        "git_dirty": False,
        "swept": swept,
        "fixed": {k: v for k, v in fixed.items() if k not in swept},
        "datasets": {"d" * 64: dict(data)},
        "runs": rows,
    }
    folder = output_dir / "reports" / name
    folder.mkdir(parents=True)
    put(folder / "sweep.json", manifest)
    return folders


def fake_run(
    folder: Path,
    settings: Mapping[str, Any],
    content: dict[str, Any] | str | None,
    data: Mapping[str, Any] = DATA,
    *,
    history: bool = True,
    pictures: bool = True,
) -> None:
    """Writes one run folder."""
    folder.mkdir(parents=True)
    put(folder / "provenance.json", PROVENANCE | {"seed": settings["seed"]})
    if isinstance(content, str):
        put(folder / "failed.json", {"reason": content})
    if not isinstance(content, dict):
        return
    ended = ("status", "diverged_epoch", "label_repeat_encoder", "label_repeat_decoder")
    result = {
        "schema_version": 2,
        "run": folder.name,
        "epochs_done": settings["trainer.epochs"],
        "settings": {k: v for k, v in settings.items() if "." in k or k == "seed"},
        "dataset": data["name"],
        "dataset_source": data["source"],
        "dataset_hash": "d" * 64,
        **{key: data[key] for key in ("n_train", "n_val", "n_test", "image_shape", "n_classes")},
        "input_dim": math.prod(data["image_shape"]),
        "z_dim": settings["z_dim.value"],
        "n_parameters": 1234,
        "model_sha256": MODEL_SHA256,
        **{key: content[key] for key in ended},
    }
    (folder / "model.safetensors").write_bytes(MODEL)
    sse, kl = (float(content.get(key) or 0) for key in ("train_sse", "train_kl"))
    lines = [f"{e},{sse + 9 / e},{kl * (1 - 0.5 / e)},1,1,1,0.001" for e in (1, 2, 3)] if history else []
    fake_history(folder, ["epoch,train_sse,train_kl,train_loss,beta,x_var,lr", *lines], result)
    if content["status"] != "ok":
        return
    (folder / "metrics").mkdir()
    for family in dict.fromkeys([*DEFAULT_FAMILIES, *(family_of(k) for k in content if k not in ended)]):
        values = {k: v for k, v in content.items() if k not in ended and family_of(k) == family}
        if family != "pictures" and has_arrays(family):
            fake_arrays(folder, family, {}, **values)
        else:
            put(folder / "metrics" / f"{family}.json", record(family, values))
    if pictures:
        fake_pictures(folder, data)


def put(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file with its checksum, without waiting for the disk."""
    path.write_bytes(sealed_json(content))


def change(path: Path, **entries: Any) -> None:
    """Changes entries of a JSON file, and its checksum with them."""
    put(path, read_json(path) | entries)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fake_history(folder: Path, lines: Sequence[str], result: Mapping[str, Any] | None = None) -> None:
    """Writes a run's history.csv, and the result.json that tells of it: as it is, or this one."""
    path = folder / "history.csv"
    path.write_text("\n".join(lines) + "\n")
    put(folder / "result.json", {**(result or read_json(folder / "result.json")), "files": {path.name: sha256(path)}})


def fake_pictures(folder: Path, data: Mapping[str, Any] = DATA, labels: Sequence[str] | None = None) -> None:
    """Writes a run's pictures.npz of random pixels, and the metrics/pictures.json that tells of it."""
    names = list(labels or map(str, range(data["n_classes"])))
    rng, shape = np.random.default_rng(0), tuple(data["image_shape"])
    some = rng.integers(0, 256, (20, *shape), dtype=np.uint8)
    samples = rng.integers(0, 256, (len(names), 10, *shape), dtype=np.uint8)
    own = {"samples": samples, "sample_labels": np.array(names), "inputs": some, "reconstructions": some[::-1]}
    fake_arrays(folder, "pictures", own)


def fake_arrays(folder: Path, family: str, arrays: Mapping[str, np.ndarray], **values: Any) -> None:
    """Writes a family's npz, and the file of its numbers that tells of it."""
    path = folder / f"{family}.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    put(folder / "metrics" / f"{family}.json", record(family, values) | {"files": {path.name: sha256(path)}})
