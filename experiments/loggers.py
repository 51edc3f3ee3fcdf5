"""Runs in TensorBoard, MLflow or Weights & Biases: settings, curves, final numbers and pictures, from their folders.

A logger has no state of its own and no part in the training. It brings its store up to date with the run's folder: at
each checkpoint, so that a long run can be watched, when training ends, and once more with the numbers when the run is
evaluated. A run that was killed continues in the same record, with no point twice. A run that was finished before the
logger was asked for is recorded from its folder and not trained again.
"""

from __future__ import annotations

import csv
import datetime
import fcntl
import logging
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.plan import Run
from experiments.settings import result_settings
from experiments.store import RunFolder, read_json, write_atomic, write_json
from vae.config import in_use

PICTURES = ("samples", "reconstructions")
COMPARED = ("test_sse", "test_kl", "test_bits_per_dim", "sample_ffd")  # columns of TensorBoard's table of settings
EVENTS = "events.out.tfevents."  # how TensorBoard knows its files, which it reads in the order of their names
EXPERIMENT = "vae-ablation"  # what MLflow and Weights & Biases call all runs of a store together
MLFLOW_BATCH = 1000  # numbers that MLflow takes at once


def record(run: Run, note: Callable[[str], None], metrics: Mapping[str, Any] | None = None) -> None:
    """Brings the run's record up to date with its folder. What is recorded already stays as it is.

    Args:
        note: told in one line why the run cannot be recorded; nothing is raised.
        metrics: what the evaluation found, by column. With them the record of a run is complete.
    """
    config = run.config.logger
    if config.store is None:  # csv
        return
    store = Path(config.store).absolute()
    try:
        with _locked(store):
            {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}[config.kind](store, run, metrics)
    except Exception as e:
        reason = " ".join(f"{type(e).__name__}: {e}".split())
        note(f"logger={config.kind}: cannot record {run.folder.name}: {reason}")


_threads = threading.Lock()  # flock is between processes on some network disks


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Holds a store for this thread: MLflow's database does not support several writers, nor does the making of it."""
    store.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store, os.O_RDONLY)
    try:
        with _threads:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
    finally:
        os.close(descriptor)


# --- what a folder says


def settings(run: Run) -> dict[str, int | float | str]:
    """The settings that have a part in the run, by dotted name; a list as text."""
    used = in_use(result_settings(run.config))
    return {k: v if isinstance(v, int | float | str) else str(v) for k, v in used.items()}


def curves(folder: RunFolder) -> list[dict[str, float]]:
    """The rows of history.csv; none while there is no checkpoint."""
    try:
        text = (folder.path / "history.csv").read_text()
    except FileNotFoundError:
        return []
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(text.splitlines())]


def final_numbers(result: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """The finite numbers of how training ended and of the evaluation."""
    found = {**result, **(metrics or {})}
    found.pop("schema_version", None)
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}


def is_complete(result: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None) -> bool:
    """Whether nothing can be added: the run is evaluated, or diverged and has no model to evaluate."""
    return result is not None and (metrics is not None or result["status"] == "diverged")


def _milliseconds(run: Run, moment: str) -> int | None:
    """When the run `started` or `finished`, since 1970; None where provenance.json does not say."""
    text = (run.folder.read("provenance.json") or {}).get(moment)
    return text and round(1000 * datetime.datetime.fromisoformat(text).timestamp())


# --- TensorBoard


def _tensorboard(store: Path, run: Run, metrics: Mapping[str, Any] | None) -> None:
    """One folder per run; each event file holds the epochs since the one before and is named by its last epoch.

    A file is written whole, and no earlier one is touched, because an open TensorBoard has read it already.
    """
    result, rows = run.folder.result(), curves(run.folder)
    complete = is_complete(result, metrics)
    there = sorted((store / run.folder.name).glob(f"{EVENTS}*"))
    if there and there[-1].name == f"{EVENTS}finished":
        return
    recorded = int(there[-1].name.removeprefix(EVENTS)) if there else -1
    last = int(rows[-1]["epoch"]) if rows else 0
    if last <= recorded and not complete:
        return
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    with tempfile.TemporaryDirectory() as folder:
        writer = SummaryWriter(folder)
        if not there:
            for summary in hparams(settings(run), dict.fromkeys((f"result/{k}" for k in COMPARED), 0.0)):
                writer.file_writer.add_summary(summary, 0)  # pyright: ignore[reportOptionalMemberAccess]
        for row in rows:
            if row["epoch"] > recorded:
                for name in row.keys() - {"epoch"}:
                    writer.add_scalar(f"history/{name}", row[name], int(row["epoch"]))
        for name, value in (final_numbers(result or {}, metrics) if complete else {}).items():
            writer.add_scalar(f"result/{name}", value, last)
        for name in PICTURES if complete else ():
            if (path := run.folder.path / f"{name}.png").exists():
                with Image.open(path) as picture:
                    writer.add_image(name, np.asarray(picture.convert("RGB")), last, dataformats="HWC")
        writer.close()
        (written,) = Path(folder).iterdir()
        (store / run.folder.name).mkdir(exist_ok=True)
        name = f"{EVENTS}{'finished' if complete else f'{last:08}'}"
        write_atomic(store / run.folder.name / name, written.read_bytes())


# --- MLflow


def _mlflow(store: Path, run: Run, metrics: Mapping[str, Any] | None) -> None:
    """One MLflow run per run, found again by its tag `run`; its end is written last."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a new database would announce itself in ten lines
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    result, folder = run.folder.result(), run.folder
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT, str(store / "artifacts"))
    found = client.search_runs([experiment], f"tags.run = '{folder.name}'")
    if found and found[0].info.status in ("FINISHED", "FAILED"):
        return
    own = found[0] if found else client.create_run(
        experiment, start_time=_milliseconds(run, "started"), tags={"run": folder.name}, run_name=folder.name
    )  # fmt: skip
    run_id, done = own.info.run_id, own.data.metrics
    if not own.data.params:
        client.log_batch(run_id, params=[Param(k, str(v)) for k, v in settings(run).items()])
    rows = [row for row in curves(folder) if row["epoch"] > done.get("history/epoch", 0)]
    now = _milliseconds(run, "finished") or round(1000 * datetime.datetime.now().timestamp())
    points = [Metric(f"history/{k}", v, now, int(row["epoch"])) for row in rows for k, v in row.items()]
    size = MLFLOW_BATCH // max(len(rows[0]), 1) * len(rows[0]) if rows else 1  # whole epochs, each there or not
    for start in range(0, len(points), size):
        client.log_batch(run_id, points[start : start + size])
    if result is None or not is_complete(result, metrics):
        return
    final = {f"result/{k}": v for k, v in final_numbers(result, metrics).items() if f"result/{k}" not in done}
    client.log_batch(run_id, [Metric(k, v, now, result["epochs_done"]) for k, v in final.items()])
    for name in PICTURES:
        if (path := folder.path / f"{name}.png").exists():
            client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED" if result["status"] == "ok" else "FAILED", end_time=now)


# --- Weights & Biases


def _wandb(store: Path, run: Run, metrics: Mapping[str, Any] | None) -> None:
    """One run per run, with its fingerprint as id; <store>/<run>.json says how far it is recorded.

    Offline, each call leaves a folder of its own; `wandb sync --append` joins those of one id.
    """
    folder, result, rows = run.folder, run.folder.result(), curves(run.folder)
    complete = is_complete(result, metrics)
    mark = store / f"{folder.name}.json"
    done = read_json(mark) if mark.exists() else {"epoch": 0, "finished": False}
    new = [row for row in rows if row["epoch"] > done["epoch"]]
    if done["finished"] or not (new or complete):
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    last = int(rows[-1]["epoch"]) if rows else 0
    own = wandb.init(
        project=EXPERIMENT, id=folder.name.rpartition("-")[2], name=folder.name, config=settings(run), dir=str(store),
        resume="allow", reinit="create_new",
    )  # fmt: skip
    for row in new:
        own.log({f"history/{k}": v for k, v in row.items()}, step=int(row["epoch"]))
    if complete:
        own.log({name: wandb.Image(str(path)) for name in PICTURES if (path := folder.path / f"{name}.png").exists()})
        own.summary.update({f"result/{k}": v for k, v in final_numbers(result or {}, metrics).items()})
    own.finish(exit_code=int(complete and (result or {})["status"] != "ok"))
    write_json(mark, {"epoch": last, "finished": complete})
