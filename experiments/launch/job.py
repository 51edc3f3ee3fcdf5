"""What Hydra calls: one job for its own launchers, all jobs of a sweep at once for the launcher `stacked`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.launch.cli import FAILURE, USAGE, Stop, SweepFailed, typed
from experiments.progress import Progress
from experiments.sweep import Outcome, execute, plan
from vae.config import ConfigError


def hydra_files(cfg: DictConfig, hydra_cfg: DictConfig, overrides: Sequence[str]) -> dict[str, str]:
    """The files of a run's `.hydra/`, as Hydra itself writes them."""
    return {
        "config.yaml": OmegaConf.to_yaml(cfg),
        "hydra.yaml": OmegaConf.to_yaml(hydra_cfg),
        "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(list(overrides))),
    }


def returned(outcome: Outcome) -> dict[str, Any]:
    """What a job gives back to Hydra.

    Raises:
        SweepFailed: if the run has no usable result.
    """
    if not outcome.ok:
        raise SweepFailed(f"{outcome.run.folder.name}: {outcome.reason}")
    assert outcome.result is not None
    return {"folder": str(outcome.run.folder.path), **outcome.result}


def train_jobs(jobs: Sequence[DictConfig], callbacks: Any, task_function: Any) -> list[JobReturn]:
    """Trains the jobs of a sweep in stacks; a failed one is a failed return, not an exception.

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
    unique = {run.folder.name: run for run in runs}
    progress = Progress(len(unique), sum(run.images_left() for run in unique.values()))
    for job, cfg, outcome in zip(returns, jobs, execute(runs, progress, files), strict=True):
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
    """Trains one run, unless it is finished already, and says where it is.

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
    progress = Progress(1, runs[0].images_left())
    outcome = execute(runs, progress, [files])[0]
    result = returned(outcome)
    where = outcome.run.folder.path
    print(f"{'was trained before' if known else 'trained'}: {where}", file=sys.stderr)
    print(
        f"held-out images: SSE {result['test_sse']:.2f} and KL {result['test_kl']:.2f} nats per image, "
        f"{result['test_active_units']} of {result['z_dim']} latent dimensions active, "
        f"{result['test_bits_per_dim']:.3f} bits per dimension; see samples.png and reconstructions.png",
        file=sys.stderr,
    )
    return result
