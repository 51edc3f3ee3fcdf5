"""What Hydra calls: one job for its own launchers, all jobs of a sweep at once for the launcher `stacked`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments import loggers
from experiments.evaluate import evaluate, read_metrics
from experiments.launch.cli import FAILURE, USAGE, Stop, SweepFailed, typed
from experiments.plan import Run, plan
from experiments.progress import Display, Progress
from experiments.runner import execute
from experiments.training import Outcome
from vae.config import ConfigError


def hydra_files(cfg: DictConfig, hydra_cfg: DictConfig, overrides: Sequence[str]) -> dict[str, str]:
    """The files of a run's `.hydra/`, as Hydra itself writes them."""
    return {
        "config.yaml": OmegaConf.to_yaml(cfg),
        "hydra.yaml": OmegaConf.to_yaml(hydra_cfg),
        "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(list(overrides))),
    }


def measure(runs: Sequence[Run]) -> None:
    """Computes the metrics that trained runs lack, and completes the records of the runs' loggers."""
    evaluate([run.folder for run in runs], progress=not any(run.config.quiet for run in runs))
    for run in {run.folder.name: run for run in runs}.values():
        loggers.record(run, Display().note, read_metrics(run.folder)[0] or None)


def progress(runs: Sequence[Run]) -> Progress:
    """The display of the training of some runs; it shows nothing if they are to be quiet."""
    unique = {run.folder.name: run for run in runs}
    stream = io.StringIO() if any(run.config.quiet for run in runs) else None
    return Progress(len(unique), sum(run.images_left() for run in unique.values()), stream)


def returned(outcome: Outcome) -> dict[str, Any]:
    """What a job gives back to Hydra: the run's folder, how training ended, and the metrics.

    Raises:
        SweepFailed: if the run has no usable result.
    """
    if not outcome.ok:
        raise SweepFailed(f"{outcome.run.folder.name}: {outcome.reason}")
    assert outcome.result is not None
    return {"folder": str(outcome.run.folder.path), **outcome.result, **read_metrics(outcome.run.folder)[0]}


def train_jobs(jobs: Sequence[DictConfig], callbacks: Any, task_function: Any) -> list[JobReturn]:
    """Trains the jobs of a sweep in stacks and measures them; a failed one is a failed return, not an exception.

    Raises:
        ConfigError: for the first setting that cannot be used.
    """
    runs = plan([typed(cfg) for cfg in jobs])
    returns, files = [], []
    for cfg in jobs:
        own = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
        hydra_cfg = OmegaConf.masked_copy(cfg, "hydra")
        overrides = [str(o) for o in cfg.hydra.overrides.task]
        files.append(hydra_files(own, hydra_cfg, overrides))
        returns.append(JobReturn(overrides=overrides, cfg=own, hydra_cfg=hydra_cfg, working_dir=os.getcwd()))
        callbacks.on_job_start(config=cfg, task_function=task_function)
    outcomes = execute(runs, progress(runs), files)
    measure(runs)
    for job, cfg, outcome in zip(returns, jobs, outcomes, strict=True):
        job.task_name = cfg.hydra.job.name
        try:
            job.return_value = returned(outcome)
            job.status = JobStatus.COMPLETED
        except SweepFailed as e:
            job.return_value = e
            job.status = JobStatus.FAILED
        callbacks.on_job_end(config=cfg, job_return=job)
    return returns


def train_job(cfg: DictConfig) -> dict[str, Any]:
    """Trains and measures one run, as far as that is not done yet, and says where it is.

    Raises:
        ConfigError: for a setting that cannot be used.
        SweepFailed: if the run failed or diverged.
    """
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.RUN:
        try:
            return _train_job(cfg, hydra_cfg)
        except ConfigError as e:
            raise Stop(str(e), USAGE) from e
        except SweepFailed as e:
            raise Stop(str(e), FAILURE) from e
    return _train_job(cfg, hydra_cfg)


def _train_job(cfg: DictConfig, hydra_cfg: HydraConf) -> dict[str, Any]:
    config = typed(cfg)
    files = hydra_files(cfg, OmegaConf.create({"hydra": hydra_cfg}), list(hydra_cfg.overrides.task))
    runs = plan([config])
    known = runs[0].folder.result() is not None
    outcome = execute(runs, progress(runs), [files])[0]
    measure(runs)
    result = returned(outcome)
    print(f"{'already trained' if known else 'trained'}: {outcome.run.folder.path}", file=sys.stderr)
    failures = read_metrics(outcome.run.folder)[1]
    for family, reason in failures.items():
        print(f"{family} could not be computed: {reason}", file=sys.stderr)
    if not failures:
        print(
            f"held-out images: SSE {result['test_sse']:.2f} and KL {result['test_kl']:.2f} nats per image, "
            f"{result['test_active_units']} of {result['z_dim']} latent dimensions active, "
            f"{result['test_bits_per_dim']:.3f} bits per dimension; see samples.png and reconstructions.png",
            file=sys.stderr,
        )
    return result
