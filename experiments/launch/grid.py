"""The Hydra sweeper `grid`: the product of `params`, crossed with `points`, which need not form a grid.

Imports no torch: Hydra loads this module for every command, --help included.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.launch.cli import OPEN, begin
from experiments.launch.compose import Composer
from experiments.launch.launcher import StackedLauncher
from experiments.settings import Settings, result_settings
from vae.config import ConfigError, Dataset, settings


@dataclass
class GridSweeperConf:
    _target_: str = "hydra_plugins.vae_ablation.plugins.GridSweeper"
    params: dict[str, str] | None = field(default_factory=dict)
    points: list[dict[str, Any]] | None = field(default_factory=list)


MAX_RUNS = 100_000  # of a sweep

ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="vae_ablation")


def supersedes(given: str, swept: str) -> bool:
    """Whether a key on the command line takes the place of one that the experiment sweeps.

    `x_var.value` takes the place of `x_var.value`; the option `x_var` of every `x_var...`.
    """
    return given == swept or ("." not in given and swept.startswith(f"{given}."))


class GridSweeper(Sweeper):
    """Grids and lists of points.

    Args:
        params: override strings by key, as Hydra's own sweeper has them: {"x_var.value": "1,0.1", "seed": "range(3)"}.
        points: rows of settings that go together: [{"z_dim.value": 10, "beta.value": 0.1}, ...].
    """

    hydra_context: HydraContext
    launcher: Launcher
    config: DictConfig

    def __init__(self, params: DictConfig | None = None, points: Sequence[dict[str, Any]] | None = None) -> None:
        self.params = {str(k): str(v) for k, v in (params or {}).items()}
        self.points = [{str(k): as_override(v) for k, v in point.items()} for point in points or []]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.compose = (
            self.launcher.compose if isinstance(self.launcher, StackedLauncher) else Composer(hydra_context, config)
        )

    def parse(self, overrides: Iterable[str]) -> list[Override]:
        """The overrides as Hydra reads them.

        Raises:
            ConfigError: for one that sets nothing, or too much.
        """
        parsed = self.compose.parse(list(overrides))
        for override in parsed:
            if not 1 <= (n := n_values(override)) <= MAX_RUNS:
                raise ConfigError(f"{override.input_line}: {n:,} values; allowed: 1 to {MAX_RUNS:,}")
        return parsed

    def batch(self, arguments: Sequence[str]) -> tuple[list[list[str]], list[str]]:
        """The overrides of each job, and the keys that are swept; the command line supersedes the experiment.

        Raises:
            ConfigError: for a sweep without end, such as interval(0, 1).
        """
        given = self.parse(arguments)
        for o in given:
            if o.is_interval_sweep():
                raise ConfigError(
                    f"{o.input_line}: an interval has no end to sweep; allowed: a list of values or range()"
                )
        keys = [key_of(o) for o in given]

        def kept(own: dict[str, str]) -> dict[str, str]:
            return {k: v for k, v in own.items() if not any(supersedes(key, k) for key in keys)}

        grid = [*self.parse(f"{written(k)}={v}" for k, v in kept(self.params).items()), *given]
        points = [kept(point) for point in self.points] or [{}]
        n_runs = len(points) * math.prod(n_values(o) for o in grid)
        if n_runs > MAX_RUNS:
            raise ConfigError(f"{' '.join(arguments)}: a sweep of {n_runs:,} runs; allowed: at most {MAX_RUNS:,}")
        rows = [
            (*(f"{written(k)}={v}" for k, v in point.items()), *row)
            for point in points
            for row in BasicSweeper.split_arguments(grid, max_batch_size=None)[0]
        ]
        swept = [k for point in points for k in point] + [key_of(o) for o in grid if len(values_of(o)) > 1]
        # A setting fixed on the command line can make two points one.
        return [[*row, *self.undone(row, arguments)] for row in dict.fromkeys(rows)], list(dict.fromkeys(swept))

    def plain(self, arguments: Sequence[str]) -> DictConfig:
        """The experiment's fixed settings, without what else the command line says."""
        return self.compose([a for a in arguments if a.lstrip("+").startswith("experiment=")])

    def undone(self, row: Sequence[str], arguments: Sequence[str]) -> list[str]:
        """Overrides for what the experiment fixes and a row's option does not use: `z_dim=pca` undoes `z_dim.value`."""
        given = [override.lstrip("+").split("=", 1) for override in row if "=" in override]
        chosen = {key: value for key, value in given if not value.startswith("{")}  # not settings of a group
        foreign = [
            name
            for name, _, meta, _ in settings(Settings())
            if name not in chosen
            and meta["kinds"]
            and chosen.get(name.split(".")[0], meta["kinds"][0]) not in (*meta["kinds"], *meta["optional"])
        ]
        return [f"{name}=null" for name in foreign if OmegaConf.select(self.plain(arguments), name) is not None]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Checks every job, trains them all, and builds the report, also when some failed.

        Raises:
            ConfigError: if any job has a setting that cannot be used; nothing was trained or written then.
            SweepFailed: if a run has no usable result; the others have, and the report says which has none.
        """
        rows, swept = self.batch(arguments)
        configs = [self.compose.settings(row) for row in rows]
        name, output_dir = self.report_name(arguments, configs), configs[0].output_dir
        from experiments.launch.conclude import check_complete, conclude  # these import torch, which takes seconds
        from experiments.manifest import manifest, write_manifest
        from experiments.plan import plan

        begin()
        runs = plan(configs)
        content = manifest(runs, swept, name)
        write_manifest(content, output_dir)
        try:
            returns = self.launcher.launch(rows, initial_job_idx=0)
        except Exception:
            conclude(content, runs, output_dir)
            raise
        conclude(content, runs, output_dir)  # not after Ctrl-C: to measure what is trained can take long
        check_complete(content, output_dir)
        return [returns]

    def report_name(self, arguments: Sequence[str], configs: Sequence[Settings]) -> str:
        """The folder of the report: the experiment's name, and what the command line changed in it.

        So a trial on other data or with fewer seeds never overwrites the full report. Settings that change no number do
        not show. However the settings were written, and in whatever order, the name is the same.
        """
        plain = self.plain(arguments)
        runs = [result_settings(config) for config in configs]
        keys = {key_of(o) for o in self.parse(arguments)}

        def own(name: str) -> list[Any]:
            """The values that a setting has in the experiment as it stands."""
            keys = {name, name.removesuffix(".kind")}
            swept = [f"{written(k)}={v}" for row in (self.params, *self.points) for k, v in row.items() if k in keys]
            values = [v for o in self.parse(swept) for v in values_of(o)]
            everywhere = keys & self.params.keys() or (
                self.points and all(keys & point.keys() for point in self.points)
            )
            return values if everywhere else [*values, OmegaConf.select(plain, name)]

        parts, chosen = [], set()
        for name in dict.fromkeys(name for run in runs for name in run):  # in the schema's order
            group = name.partition(".")[0]
            if name not in keys and (group not in keys or group in chosen):
                continue  # not on the command line, or it comes with the group's option
            values = [run.get(name) for run in runs]
            if unordered(values) != unordered(own(name)):
                parts.append(spelled(name, values, configs))
                if name.endswith(".kind"):
                    chosen.add(group)
        return "-".join([configs[0].study.name or "multirun", *dict.fromkeys(parts)])


def as_override(value: Any) -> str:
    """A value as Hydra reads it on a command line: JSON writes null, true and lists in the same way."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return plain if isinstance(plain, str) else json.dumps(plain)


def written(key: str) -> str:
    """A setting's name as Hydra takes it: with ++ if it is an argument of a class, which Hydra does not know."""
    return f"++{key}" if OPEN.match(key) else key


def n_values(override: Override) -> int:
    """How many values an override sets, one after the other, without making them.

    Raises:
        ConfigError: for a range without an end.
    """
    value = override.value()
    if isinstance(value, RangeSweep):
        start, stop, step = (float(x) if x is not None else math.nan for x in (value.start, value.stop, value.step))
        if not all(map(math.isfinite, (start, stop, step))) or step == 0:
            raise ConfigError(f"{override.input_line}: not a range; allowed: range(start, stop, step) of numbers")
        return max(0, math.ceil(round((stop - start) / step, 6)))
    if isinstance(value, IntervalSweep) or not override.is_sweep_override():
        return 1
    return sum(1 for _ in override.sweep_iterator())


def key_of(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def values_of(override: Override) -> list[Any]:
    """What an override sets, one after the other, as plain Python."""
    if not override.is_sweep_override():
        return [override.value()]
    return [v.text if isinstance(v, QuotedString) else v for v in override.sweep_iterator()]


def unordered(values: Iterable[Any]) -> set[Any]:
    return {tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for v in values}


def dataset_name(dataset: Dataset) -> str:
    """As the loaded data will be called."""
    path = Path(dataset.root or "")
    own = {"image_folder": path.resolve().name, "npz": path.stem, "torchvision": dataset.name}
    return own.get(dataset.kind) or dataset.kind


def spelled(name: str, values: Sequence[Any], configs: Sequence[Settings]) -> str:
    """A setting's values as a part of a folder's name: "x_var=0.1,1", "seed=0..9", "fashion_mnist"."""
    if name in ("dataset.kind", "dataset.name"):
        return plain_text(",".join(sorted({dataset_name(config.dataset) for config in configs})))
    different = sorted(unordered(values), key=lambda v: (isinstance(v, str), v is not None, v))
    if (
        len(different) > 2
        and all(isinstance(v, int) for v in different)
        and different == list(range(different[0], different[-1] + 1))
    ):
        shown = f"{different[0]}..{different[-1]}"
    else:
        shown = ",".join("x".join(map(str, v)) if isinstance(v, tuple) else shortest(v) for v in different)
    return plain_text(f"{name.removesuffix('.kind').removesuffix('.value').removeprefix('trainer.')}={shown}")


def shortest(value: Any) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def plain_text(text: str) -> str:
    return re.sub(r"[^\w.,=+-]", "", text)
