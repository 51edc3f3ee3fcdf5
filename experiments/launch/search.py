"""The Hydra sweeper `optuna`: settings that are searched for instead of listed, and a report of the best.

Hydra's own hydra-optuna-sweeper asks for an Optuna before version 3 and asks for one job's result after the other; this
one works with today's Optuna, asks for a batch of trials, which the launcher trains in stacks, and tells their results.
A trial is a run like any other: found by its fingerprint, so that none is trained twice. Imports neither torch nor
Optuna: Hydra loads this module for every command, --help included.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiments.evaluate import read_metrics
from experiments.identity import fingerprint
from experiments.launch.cli import SweepFailed, begin
from experiments.launch.grid import GridSweeper, as_override, key_of, plain_text, supersedes, values_of
from experiments.settings import Settings
from vae.config import ConfigError, settings
from vae.metrics import METRICS

if TYPE_CHECKING:
    import optuna

    from experiments.plan import Run

Space = dict[str, Any]  # Optuna's distributions by the key of their setting
SAMPLERS = ("tpe", "nsga2")
DIGITS = 4  # of a number that is searched for, so that the best can be typed again
VALIDATION = "val_"  # how the columns that may decide begin: held-out images are only reported
NO_NUMBERS = ("val_kl_per_dim",)
CONTINUES = ("sweeper.n_trials=", "sweeper.batch_size=")  # options that may change while a search goes on


@dataclass
class OptunaSweeperConf:
    _target_: str = "hydra_plugins.vae_ablation.plugins.OptunaSweeper"
    params: dict[str, str] | None = field(default_factory=dict)
    objectives: list[str] = field(default_factory=lambda: ["minimize val_sample_ffd"])
    constraints: list[str] = field(default_factory=list)
    n_trials: int = 24
    batch_size: int = 8
    sampler: str = "tpe"
    seed: int = 0


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="vae_ablation")


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric.

    Attributes:
        sign: <= or >=.
    """

    column: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.limit:g}"

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Reads "r_loss <= 2.5".

        Raises:
            ConfigError: for anything else.
        """
        m = re.fullmatch(r"\s*(\w+)\s*([<>]=)\s*(\S+)\s*", text)
        try:
            if m and math.isfinite(limit := float(m[3])):
                return cls(column(m[1], "constraints"), m[2], limit)
        except ValueError as e:
            if isinstance(e, ConfigError):
                raise
        raise ConfigError(f"hydra.sweeper.constraints={text}: cannot be read; allowed: a metric <= or >= a number")

    def violation(self, value: float) -> float:
        """By how much a value breaks it; zero or less where it holds."""
        return value - self.limit if self.sign == "<=" else self.limit - value


def objective(text: str) -> tuple[str, str]:
    """Reads "minimize val_sample_ffd" as its column and what is to be done to it.

    Raises:
        ConfigError: for anything else.
    """
    way, _, name = text.strip().partition(" ")
    if way not in ("minimize", "maximize"):
        raise ConfigError(f"hydra.sweeper.objectives={text}: cannot be read; allowed: minimize or maximize a metric")
    return column(name.strip(), "objectives"), way


def column(name: str, option: str) -> str:
    """The metric that is meant, on validation images: `r_loss` is `val_r_loss`.

    Raises:
        ConfigError: if there is none, or it is not a number, or measured on other images.
    """
    known = [metric for metric in METRICS if metric.startswith(VALIDATION) and metric not in NO_NUMBERS]
    for full in (name, f"{VALIDATION}{name}"):
        if full in known:
            return full
    given = f"hydra.sweeper.{option}={name}"
    if name in METRICS:
        raise ConfigError(f"{given}: a search must not choose by it; allowed: {', '.join(known)}")
    near = difflib.get_close_matches(name, [*known, *(k.removeprefix(VALIDATION) for k in known)], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"{given}: no such metric{hint}; allowed: {', '.join(known)}")


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """What Optuna is to draw a setting from.

    An interval of a setting that takes whole numbers is one of whole numbers; tag(log, ...) makes it logarithmic.

    Raises:
        ConfigError: for an interval without length, or a logarithmic one that begins at 0.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, value = key_of(override), override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        log = "log" in value.tags
        types = {name: meta["type"] for name, _, meta, _ in settings(Settings())}
        whole = types.get(key, "").startswith("int")
        if whole and math.isfinite(low) and math.isfinite(high):
            low, high = math.ceil(low), math.floor(high)
        if not (low < high and math.isfinite(high - low)) or (log and low <= 0):
            rule = "0 < the first < the second" if log else "the first below the second"
            rule += ", with two whole numbers between them" * whole
            raise ConfigError(f"{override.input_line}: no interval to search; allowed: two numbers, {rule}")
        if whole:
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(float(low), float(high), log=log)
    values = values_of(override)
    if isinstance(value, RangeSweep) and len(values) > 1:
        kind = IntDistribution if all(isinstance(v, int) for v in values) else FloatDistribution
        return kind(min(values), max(values), step=abs(values[1] - values[0]))
    return CategoricalDistribution([v if isinstance(v, int | float | str) else as_override(v) for v in values])


class OptunaSweeper(GridSweeper):
    """Searches for the settings that are best in one number, or for the Pareto front of two.

    The study is kept in outputs/search.db, under a name that its definition decides: a search that was stopped
    goes on where it was, and one that is defined otherwise is another study. What Optuna proposes next depends on the
    trials so far and on `seed` alone, so that a search that was stopped proposes what an unbroken one does.

    Args:
        params: the search space, override strings by key: {"x_var.value": "tag(log, interval(0.01, 1))", "z_dim.value":
            "choice(10, 20, 50)"}. A single value is a setting that is the same in all trials.
        objectives: one or two, "minimize val_sample_ffd": a metric on validation images to minimize or maximize.
        constraints: "val_r_loss <= 2.5": a trial that breaks one is worse than any that breaks none.
        n_trials: in all, those of earlier calls, failed and diverged ones included.
        batch_size: trials proposed at once and trained together.
        sampler: tpe, the tree-structured Parzen estimator, also for two objectives (Watanabe 2023; Ozaki et al. 2022),
            or nsga2 (Deb et al. 2002), whose generation is a batch.
        seed: of the sampler.
    """

    def __init__(
        self,
        params: DictConfig | None = None,
        objectives: Sequence[str] = ("minimize val_sample_ffd",),
        constraints: Sequence[str] = (),
        n_trials: int = 24,
        batch_size: int = 8,
        sampler: str = "tpe",
        seed: int = 0,
    ) -> None:
        super().__init__(params)
        self.given = [str(text) for text in objectives], [str(text) for text in constraints]
        self.n_trials, self.batch_size, self.sampler, self.seed = n_trials, batch_size, sampler, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Reads the options: not in the constructor, whose errors Hydra wraps in its own.

        Raises:
            ConfigError: for one that cannot be used.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        objectives, constraints = self.given
        self.objectives = dict(objective(text) for text in objectives)
        self.constraints = [Constraint.parse(text) for text in constraints]
        if not 1 <= len(self.objectives) <= 2:
            given = ", ".join(objectives)
            raise ConfigError(f"hydra.sweeper.objectives=[{given}]: {len(self.objectives)} columns; allowed: 1 or 2")
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"hydra.sweeper.sampler={self.sampler}: not an option; allowed: {', '.join(SAMPLERS)}")
        for name, least in (("n_trials", 1), ("batch_size", 2 if self.sampler == "nsga2" else 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"hydra.sweeper.{name}={value}: out of range; allowed: a whole number >= {least}")

    def space(self, arguments: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """What is searched for, and what is the same in all trials; the command line supersedes the experiment.

        Raises:
            ConfigError: if nothing is searched for, or the seed is.
        """
        given = self.parse(arguments)
        own = [f"{k}={v}" for k, v in self.params.items() if not any(supersedes(key_of(o), k) for o in given)]
        overrides = [*self.parse(own), *given]
        searched = [o for o in overrides if o.is_sweep_override()]
        for o in searched:
            if key_of(o) == "seed":
                raise ConfigError(f"{o.input_line}: the best seed is luck, not a setting; allowed: one seed")
        if not searched:
            raise ConfigError("hydra.sweeper.params: nothing to search for; allowed: x_var.value: interval(0.01, 1)")
        return searched, [o for o in overrides if not o.is_sweep_override()]

    def report_name(self, arguments: Sequence[str], configs: Sequence[Settings]) -> str:
        """The folder of the report: as that of a grid, and what the command line changed in the search."""
        given = self.parse(arguments)
        own = [o for o in given if o.is_sweep_override() or any(supersedes(key_of(o), k) for k in self.params)]
        name = super().report_name([o.input_line or "" for o in given if o not in own], configs)
        options = [str(o).lstrip("+").removeprefix("hydra.") for o in self.config.hydra.overrides.hydra]
        changed = [o for o in options if o.startswith("sweeper.") and not o.startswith(CONTINUES)]
        head = configs[0].study.name or "multirun"
        if "search" not in head:
            name = f"{head}-search{name.removeprefix(head)}"
        return "-".join(
            [name, *(plain_text(text) for text in (*sorted(o.input_line or "" for o in own), *sorted(changed)))]
        )

    def row(self, params: dict[str, Any], fixed: Sequence[Override], arguments: Sequence[str]) -> list[str]:
        """The overrides of a trial."""
        chosen = [f"{k}={f'{v:.{DIGITS}g}' if isinstance(v, float) else as_override(v)}" for k, v in params.items()]
        overrides = [*(o.input_line or "" for o in fixed), *chosen]
        return [*overrides, *self.undone(overrides, arguments)]

    def study(self, first: Run, space: Space, output_dir: Path) -> optuna.Study:
        """The study of this definition, new or from an earlier call.

        Raises:
            ConfigError: if the database cannot be used.
        """
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        definition = {
            "space": {k: optuna.distributions.distribution_to_json(d) for k, d in space.items()},
            "objectives": self.objectives,
            "constraints": [vars(c) for c in self.constraints],
            "sampler": [self.sampler, self.seed],
            "run": fingerprint(first.config, first.data.content_hash),
        }
        digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:10]
        database = output_dir / "search.db"
        try:
            return optuna.create_study(
                storage=f"sqlite:///{database}",
                study_name=f"{first.config.study.name or 'multirun'}-{digest}",
                directions=[optuna.study.StudyDirection[way.upper()] for way in self.objectives.values()],
                load_if_exists=True,
            )
        except (SQLAlchemyError, RuntimeError, AssertionError, ValueError) as e:
            raise damaged_database(database, e) from e

    def ask(self, study: optuna.Study, space: Space) -> list[optuna.Trial]:
        """The next batch: what an earlier call asked for and could not tell any more, filled up with new trials."""
        import numpy as np
        from optuna import Trial
        from optuna.samplers import NSGAIISampler, TPESampler
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        open_trials = [trial for trial in trials if trial.state == TrialState.RUNNING]
        begin = open_trials[0].number if open_trials else len(trials)
        batch = []
        for trial in open_trials:
            if trial.params.keys() == space.keys():
                batch.append(Trial(study, trial._trial_id))
            else:  # killed between two of its settings
                study.tell(trial.number, state=TrialState.FAIL)
        # A batch ends at a multiple of its size, and each trial has its own seed: no matter where a search was stopped.
        for number in range(len(trials), min(self.n_trials, (begin // self.batch_size + 1) * self.batch_size)):
            seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
            if self.sampler == "tpe":
                study.sampler = TPESampler(n_startup_trials=self.batch_size, seed=seed)
            else:
                study.sampler = NSGAIISampler(population_size=self.batch_size, seed=seed)
            batch.append(study.ask(space))
        return batch

    def tell(self, study: optuna.Study, trial: optuna.Trial, found: dict[str, Any]) -> None:
        """Tells a trial's metrics; without those that count it is failed."""
        from optuna.trial import TrialState

        bounds = {c: found.get(c.column, math.nan) for c in self.constraints}
        values = [found.get(name, math.nan) for name in self.objectives]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in (*values, *bounds.values())):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            return
        for c, value in bounds.items():
            if str(c) not in trial.constraints:  # told by a call that was killed before it told the rest
                trial.set_constraint(str(c), c.violation(value))
        study.tell(trial.number, values, skip_if_finished=True)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Asks, trains and tells until there are `n_trials`, and builds the report, also when it is stopped.

        Raises:
            ConfigError: if the space or an end of it cannot be used; nothing was trained or written then.
            SweepFailed: if no trial has a usable result.
        """
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError(
                "hydra/sweeper=optuna: its package is not installed (pip install -e '.[optuna]'); "
                "allowed without it: grid"
            )
        searched, fixed = self.space(arguments)
        space = {key_of(o): distribution(o) for o in searched}
        job = self.compose.settings(self.row(corners(space)[0], fixed, arguments))
        if not job.dataset.validation:
            raise ConfigError(
                "dataset.validation=0: a search chooses by validation images; allowed: a share > 0 and <= 0.5"
            )
        from experiments.launch.conclude import conclude  # these import torch, which a bad setting need not wait for
        from experiments.manifest import manifest, write_manifest
        from experiments.plan import plan
        from experiments.store import prepare_output

        begin()
        planned: dict[tuple[str, ...], Run] = {}

        def prepared(trials: Sequence[dict[str, Any]]) -> tuple[list[list[str]], list[Run]]:
            """The overrides of some trials, and their runs, checked and each planned once."""
            rows = [self.row(params, fixed, arguments) for params in trials]
            new = [row for row in rows if tuple(row) not in planned]
            planned.update(zip(map(tuple, new), plan([self.compose.settings(row) for row in new]), strict=True))
            return rows, [planned[tuple(row)] for row in rows]

        ends = prepared(corners(space))[1]
        name = self.report_name(arguments, [job])
        prepare_output(job.output_dir)
        study = self.study(ends[0], space, Path(job.output_dir))

        def trials_so_far() -> tuple[dict[str, Any], list[Run]]:
            """The manifest of all trials, written before they are trained, and their runs."""
            every = [t for t in study.get_trials(deepcopy=False) if t.params.keys() == space.keys()]
            runs = prepared([t.params for t in every])[1]
            search = {
                "objectives": self.objectives,
                "constraints": [vars(c) for c in self.constraints],
                "space": {key_of(o): str(o.input_line).partition("=")[2] for o in searched},
                "sampler": self.sampler,
                "seed": self.seed,
                "study": study.study_name,
                "trials": [run.folder.name for run in runs],
            }
            content = manifest(runs, list(space), name) | {"search": search}
            write_manifest(content, job.output_dir)
            return content, runs

        returns = []
        batch = self.ask(study, space)
        content, every = trials_so_far()
        try:
            while batch:
                rows, runs = prepared([trial.params for trial in batch])
                returns.append(self.launcher.launch(rows, initial_job_idx=batch[0].number))
                for trial, run in zip(batch, runs, strict=True):
                    self.tell(study, trial, read_metrics(run.folder)[0])
                batch = self.ask(study, space)
                content, every = trials_so_far()
        except Exception:
            conclude(content, every, job.output_dir)
            raise
        conclude(content, every, job.output_dir)  # not after Ctrl-C: to measure what is trained can take long
        if all(trial.values is None for trial in study.get_trials(deepcopy=False)):
            raise SweepFailed(f"none of the {len(study.trials)} trials has a usable result; the report says why")
        return returns


def damaged_database(path: Path, error: Exception) -> ConfigError:
    """What to do about a search.db that cannot be used."""
    reason = " ".join(str(error).split("\n")[0].split())
    return ConfigError(
        f"{path}: cannot be used ({type(error).__name__}: {reason}); move it away and run the same command again: "
        "the search starts again with the same trials, and no run is trained twice"
    )


def corners(space: Space) -> list[dict[str, Any]]:
    """Trials that between them have each end of each setting, and each choice: what is allowed there is throughout."""

    def ends(d: Any) -> list[Any]:
        return list(d.choices) if hasattr(d, "choices") else [d.low, d.high]

    first = {key: ends(d)[0] for key, d in space.items()}
    return [first, *({**first, key: value} for key, d in space.items() for value in ends(d)[1:])]
