"""The Hydra sweeper `grid`: the product of `params`, crossed with `points` that are no product, and a report.

Imports no torch: Hydra loads this module for every command, --help included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.launcher import Composer, StackedLauncher
from vae.config import ConfigError


@dataclass
class GridSweeperConf:
    _target_: str = "hydra_plugins.vae_ablation.plugins.GridSweeper"
    params: dict[str, str] | None = field(default_factory=dict)
    points: list[dict[str, Any]] | None = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="vae_ablation")


def setting_of(key: str) -> str:
    """The setting that an override's key sets: `x_var` (the option) and `x_var.value` both belong to group x_var."""
    return key.lstrip("+").split("@")[0]


def supersedes(given: str, swept: str) -> bool:
    """Whether an override on the command line takes the place of one that the experiment sweeps.

    `x_var.value=0.3` takes the place of `x_var.value`; `x_var=learned` of every `x_var...`.
    """
    given, swept = setting_of(given), setting_of(swept)
    return given == swept or ("." not in given and swept.startswith(given + "."))


class GridSweeper(Sweeper):
    """Grids and lists of points.

    Args:
        params: override strings by key, as Hydra's own sweeper has them: {"x_var.value": "1,0.1", "seed": "range(3)"}.
        points: rows of settings that go together: [{"z_dim.value": 10, "beta.value": 0.1}, ...].
    """

    def __init__(self, params: DictConfig | None = None, points: Sequence[dict[str, Any]] | None = None) -> None:
        self.params = {str(k): str(v) for k, v in (params or {}).items()}
        self.points = [dict(p) for p in points or []]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.compose = (
            self.launcher.compose if isinstance(self.launcher, StackedLauncher) else Composer(hydra_context, config)
        )

    def batch(self, arguments: Sequence[str]) -> tuple[list[list[str]], list[str]]:
        """The overrides of each job, and the keys that are swept; the command line supersedes the experiment.

        Raises:
            ConfigError: for a sweep without end, such as interval(0, 1).
        """
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides(list(arguments))
        keys = [o.get_key_element() for o in given]
        params = {k: v for k, v in self.params.items() if not any(supersedes(g, k) for g in keys)}
        for o in given:
            if o.is_sweep_override() and not o.is_discrete_sweep():
                raise ConfigError(
                    f"{o.input_line}: an interval has no end to sweep; allowed: a list of values or range()"
                )
        overrides = [*parser.parse_overrides([f"{k}={v}" for k, v in params.items()]), *given]
        points: list[dict[str, Any]] = []
        for point in self.points:
            kept = {k: v for k, v in point.items() if not any(supersedes(g, k) for g in keys)}
            if kept not in points:  # a setting fixed on the command line can make two points one
                points.append(kept)
        grid = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
        rows = [[*(f"{k}={v}" for k, v in point.items()), *row] for point in points or [{}] for row in grid]
        swept = [*(points[0] if points else {}), *(o.get_key_element() for o in overrides if _is_swept(o))]
        return rows, list(dict.fromkeys(swept))

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Checks every job, trains them all, and writes the report, also when some failed.

        Raises:
            ConfigError: if any job has a setting that cannot be used; nothing was trained or written then.
            SweepFailed: if a run has no usable result; the others have, and the report says which has none.
        """
        rows, swept = self.batch(arguments)
        from experiments import report
        from experiments.job import planned

        jobs = [self.compose(row) for row in rows]
        runs = planned(jobs)
        manifest = report.manifest(runs, swept, self.report_name(arguments, jobs[0]), jobs[0])
        report.write_manifest(manifest, jobs[0].output_dir)
        try:
            returns = self.launcher.launch(rows, initial_job_idx=0)
        finally:
            report.conclude(manifest, jobs[0].output_dir)
        report.check_complete(manifest, jobs[0].output_dir)
        return [returns]

    def report_name(self, arguments: Sequence[str], job: DictConfig) -> str:
        """The folder of the report: the experiment's name, and what the command line changed in it.

        So a trial on other data or with fewer seeds never overwrites the full report.
        """
        from experiments.report import slug

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [o for o in parser.parse_overrides(list(arguments)) if o.get_key_element().lstrip("+") != "experiment"]
        plain = self.compose([a for a in arguments if a.lstrip("+").startswith("experiment=")])
        parts = []
        for o in given:
            key = o.get_key_element().lstrip("+")
            value = list(o.sweep_iterator()) if o.is_sweep_override() else [o.value()]
            if not self._changes(key, value, plain, o):
                continue
            parts.append(slug(key, value, job))
        return "-".join(dict.fromkeys([str(job.study.name or "multirun"), *filter(None, parts)]))

    def _changes(self, key: str, value: list[Any], plain: DictConfig, override: Override) -> bool:
        """Whether an override differs from what the experiment has without it."""
        if key in self.params:
            parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
            own = parser.parse_overrides([f"{key}={self.params[key]}"])[0]
            return (list(own.sweep_iterator()) if own.is_sweep_override() else [own.value()]) != value
        if override.is_sweep_override():
            return True
        choices = plain.hydra.runtime.choices
        if key in choices:
            return choices[key] != value[0]
        return OmegaConf.select(plain, key) != value[0]


def _is_swept(override: Override) -> bool:
    return override.is_sweep_override() and len(list(override.sweep_iterator())) > 1
