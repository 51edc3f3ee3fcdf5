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
from omegaconf import DictConfig

from experiments.launch.compose import Composer


@dataclass
class StackedLauncherConf:
    _target_: str = "hydra_plugins.vae_ablation.plugins.StackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="vae_ablation")


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
        from experiments.launch.job import Job, train_jobs

        jobs = [
            Job(list(overrides), initial_job_idx + i, self.compose.settings(overrides), self.compose)
            for i, overrides in enumerate(job_overrides)
        ]
        return train_jobs(jobs, self.hydra_context.callbacks, self.task_function)
