"""Runs in TensorBoard or MLflow: settings, curves, final numbers and pictures, copied from the run's folder.

A logger has no state of its own and no part in the training. It brings the store up to what the run's folder says, at
each checkpoint, so that the curves of a long run can be watched, and once when the run is finished. So a run that was
killed goes on in the same record without a point twice, and one that was finished before the logger was asked for is
recorded as it is, not trained again.
"""

from __future__ import annotations

import csv
import datetime
import fcntl
import importlib.util
import json
import logging
import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.result import COLUMNS
from experiments.store import write_atomic
from vae.config import Config, ConfigError, identity

if TYPE_CHECKING:
    from experiments.store import RunFolder
    from experiments.sweep import Run

PICTURES = ("samples", "reconstructions")
COMPARED = ("test_sse", "test_kl", "test_bits_per_dim", "sample_ffd")  # columns of TensorBoard's table of settings
EVENTS = "events.out.tfevents."  # how TensorBoard knows its files, which it reads in the order of their names
EXPERIMENT = "vae-ablation"  # what MLflow calls all runs of a store together
MLFLOW_BATCH = 1000  # numbers that MLflow takes at once


def check(config: Config) -> None:
    """Raises ConfigError if the logger's package is not installed."""
    kind = config.logger.kind
    if kind != "csv" and importlib.util.find_spec(kind) is None:
        raise ConfigError(
            f"logger={kind}: its package is not installed (pip install -e '.[{kind}]'); allowed without it: csv"
        )


def record(run: Run) -> None:
    """Brings the run's record up to its folder; what is there already is left as it is."""
    config = run.config.logger
    if config.store is None:  # csv
        return
    store = Path(config.store).absolute()
    with _locked(store):
        {"tensorboard": _tensorboard, "mlflow": _mlflow}[config.kind](store, run)


_threads = threading.Lock()  # flock is between processes on some network disks


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Holds a store for this thread: neither MLflow's database nor the making of its tables is for several at once."""
    store.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store, os.O_RDONLY)
    try:
        with _threads:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------------------------------- what a folder says


def settings(run: Run) -> dict[str, int | float | str]:
    """What the run's numbers depend on, by dotted name; a list as text."""
    return {k: v if isinstance(v, int | float | str) else str(v) for k, v in identity(run.config).items()}


def curves(folder: RunFolder) -> list[dict[str, float]]:
    """The rows of history.csv; none while there is no checkpoint."""
    try:
        text = (folder.path / "history.csv").read_text()
    except FileNotFoundError:
        return []
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(text.splitlines())]


def final_numbers(result: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of result.json that are no settings."""
    found = {k: result.get(k) for k in COLUMNS}
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}


def _milliseconds(run: Run, moment: str) -> int | None:
    """When the run `started` or `finished`, since 1970; a run that diverged has no end."""
    text = json.loads((run.folder.path / "provenance.json").read_text()).get(moment)
    return text and round(1000 * datetime.datetime.fromisoformat(text).timestamp())


# ---------------------------------------------------------------------------------------------- TensorBoard


def _tensorboard(store: Path, run: Run) -> None:
    """A folder for each run; an event file for the epochs since the last, named by its own last, written whole.

    Nothing is written or removed behind the file that an open TensorBoard has come to.
    """
    result, rows = run.folder.result(), curves(run.folder)
    there = sorted((store / run.folder.name).glob(f"{EVENTS}*"))
    if there and there[-1].name == f"{EVENTS}finished":
        return
    recorded = int(there[-1].name.removeprefix(EVENTS)) if there else -1
    last = int(rows[-1]["epoch"]) if rows else 0
    if last <= recorded and not result:
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
        for name, value in final_numbers(result or {}).items():
            writer.add_scalar(f"result/{name}", value, last)
        for name in PICTURES if result else ():
            if (path := run.folder.path / f"{name}.png").exists():
                with Image.open(path) as picture:
                    writer.add_image(name, np.asarray(picture.convert("RGB")), last, dataformats="HWC")
        writer.close()
        (written,) = Path(folder).iterdir()
        (store / run.folder.name).mkdir(exist_ok=True)
        name = f"{EVENTS}{'finished' if result else f'{last:08}'}"
        write_atomic(store / run.folder.name / name, written.read_bytes())


# ---------------------------------------------------------------------------------------------- MLflow


def _mlflow(store: Path, run: Run) -> None:
    """One MLflow run for each run, found again by its tag `run`; FINISHED is the last that is written of it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody asked for reports to its makers
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a new database is told of in ten lines
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
    metrics = [Metric(f"history/{k}", v, now, int(row["epoch"])) for row in rows for k, v in row.items()]
    size = MLFLOW_BATCH // max(len(rows[0]), 1) * len(rows[0]) if rows else 1  # whole epochs, each there or not
    for start in range(0, len(metrics), size):
        client.log_batch(run_id, metrics[start : start + size])
    if result is None:
        return
    final = {f"result/{k}": v for k, v in final_numbers(result).items() if f"result/{k}" not in done}
    client.log_batch(run_id, [Metric(k, v, now, result["epochs_done"]) for k, v in final.items()])
    for name in PICTURES:
        if (path := folder.path / f"{name}.png").exists():
            client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED" if result["status"] == "ok" else "FAILED", end_time=now)
