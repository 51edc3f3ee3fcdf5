"""What Hydra calls: one job for its own launchers, all jobs of a sweep at once for the launcher `stacked`."""

from __future__ import annotations

import copy
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml
from hydra._internal.callbacks import Callbacks
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf._utils import OmegaConfDumper

from experiments import loggers
from experiments.evaluate import evaluate, read_metrics
from experiments.launch.cli import FAILURE, USAGE, Folders, Stop, SweepFailed, begin, typed
from experiments.launch.compose import Composer
from experiments.plan import Run, plan
from experiments.progress import Display, Progress
from experiments.report.render import render
from experiments.runner import execute
from experiments.settings import Settings
from experiments.training import Outcome
from vae.config import ConfigError
from vae.metrics import requested


class _Dumper(yaml.CDumper):
    """OmegaConf's way of writing YAML, ten times as fast."""


_Dumper.add_representer(str, OmegaConfDumper.str_representer)  # type: ignore[arg-type]


def hydra_files(own: dict[str, Any], hydra: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """The files of a run's `.hydra/`, as Hydra itself writes them."""
    contents = {"config.yaml": own, "hydra.yaml": hydra, "overrides.yaml": list(overrides)}
    return {
        name: yaml.dump(content, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_Dumper)
        for name, content in contents.items()
    }


def measure(runs: Sequence[Run]) -> None:
    """Computes the metrics that trained runs lack, and completes the records of the runs' loggers."""
    study, shown = runs[0].config.study, not any(run.config.quiet for run in runs)
    # What was just trained runs no other code than it has run already.
    evaluate([run.folder for run in runs], requested(study.columns, study.metrics), progress=shown, trust=True)
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


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        number: its place in the sweep.
        config: the settings, checked.
    """

    overrides: list[str]
    number: int
    config: Settings
    composer: Composer

    @cached_property
    def cfg(self) -> DictConfig:
        """The config as Hydra itself composes it, which takes long."""
        cfg = copy.deepcopy(self.composer(self.overrides))
        with open_dict(cfg):
            cfg.hydra.job.id, cfg.hydra.job.num = str(self.number), self.number
        return cfg

    def files(self) -> dict[str, str]:
        """The files of its `.hydra/`."""
        own, hydra = self.composer.plain(self.overrides)
        hydra["hydra"]["job"] |= {"id": str(self.number), "num": self.number}
        return hydra_files(own, hydra, hydra["hydra"]["overrides"]["task"])


class _Files(Mapping[str, str]):
    """The files of a job's `.hydra/`, made when they are written: a run that is trained needs none."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def content(self) -> dict[str, str]:
        return self.job.files()

    def __getitem__(self, name: str) -> str:
        return self.content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


def train_jobs(jobs: Sequence[Job], callbacks: Callbacks, task_function: TaskFunction) -> list[JobReturn]:
    """Trains the jobs of a sweep in stacks and measures them; a failed one is a failed return, not an exception.

    Only callbacks are given the config of each job, which takes Hydra long to compose.

    Raises:
        ConfigError: for the first setting that cannot be used.
    """
    runs = plan([job.config for job in jobs])
    listened = any(not isinstance(callback, Folders) for callback in callbacks.callbacks)
    returns = []
    for job in jobs:
        returns.append(JobReturn(overrides=job.overrides, working_dir=os.getcwd()))
        if listened:
            returns[-1].cfg = OmegaConf.masked_copy(job.cfg, [str(k) for k in job.cfg if k != "hydra"])
            returns[-1].hydra_cfg = OmegaConf.masked_copy(job.cfg, "hydra")
            returns[-1].task_name = job.cfg.hydra.job.name
            callbacks.on_job_start(config=job.cfg, task_function=task_function)
    outcomes = execute(runs, progress(runs), [_Files(job) for job in jobs])
    measure(runs)
    for made, job, outcome in zip(returns, jobs, outcomes, strict=True):
        try:
            made.return_value = returned(outcome)
            made.status = JobStatus.COMPLETED
        except SweepFailed as e:
            made.return_value = e
            made.status = JobStatus.FAILED
        if listened:
            callbacks.on_job_end(config=job.cfg, job_return=made)
    return returns


def train_job(cfg: DictConfig) -> dict[str, Any]:
    """Trains and measures one run, as far as that is not done yet, and says where it is.

    Raises:
        ConfigError: for a setting that cannot be used.
        SweepFailed: if the run failed or diverged.
    """
    begin()
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
    own: Any = OmegaConf.to_container(cfg, enum_to_str=True)
    hydra: Any = OmegaConf.to_container(OmegaConf.create({"hydra": hydra_cfg}), enum_to_str=True)
    files = hydra_files(own, hydra, list(hydra_cfg.overrides.task))
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
        print(render("run_ending.md.j2", **result), end="", file=sys.stderr)
    return result
