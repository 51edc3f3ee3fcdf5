"""The Hydra launcher `stacked`: all jobs of a sweep in one process, those of one shape trained as one program.

Imports no torch: Hydra loads this module for every command, --help included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class StackedLauncherConf:
    _target_: str = "hydra_plugins.vae_ablation.plugins.StackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="vae_ablation")


class Composer:
    """Composes the jobs of one sweep, each once; the sweeper checks what the launcher runs."""

    def __init__(self, hydra_context: HydraContext, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        key = tuple(overrides)
        if key not in self.composed:
            self.composed[key] = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        return self.composed[key]


class StackedLauncher(Launcher):
    """Checks all jobs, then trains them in stacks (experiments/sweep.py); each run's folder is as if it ran alone."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function = hydra_context, task_function
        self.compose = Composer(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Trains the jobs that are not finished yet.

        Raises:
            ConfigError: if any job has a setting that cannot be used; nothing was trained or written then.
        """
        from experiments.launch.job import train_jobs

        composed = []
        for i, overrides in enumerate(job_overrides):
            cfg = self.compose(overrides)
            with open_dict(cfg):
                cfg.hydra.job.id = str(initial_job_idx + i)
                cfg.hydra.job.num = initial_job_idx + i
            composed.append(cfg)
        return train_jobs(composed, self.hydra_context.callbacks, self.task_function)
