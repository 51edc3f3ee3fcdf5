"""The jobs of a sweep against Hydra's own composition."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.launch import cli
from experiments.launch.compose import Composer
from experiments.launch.grid import GridSweeper
from experiments.launch.job import Job
from tests.conftest import composed

EXPERIMENTS = [name for name in cli.options("experiment") if name != "search"]
COMMANDS = [
    "x_var=1,0.1 seed=0,1",
    "x_var=learned,fixed z_dim=5 model=conv,mlp",
    "xvar z_dim=pca seed=0,1",
    "seed=0,1 model.hidden=[8],[16,8] dataset=./some/pictures,./c",
    "seed=0,1 +study.published=[{a:1}] trainer.lr=1e-3,1",
    "seed=0,1 trainer.epochs=10,20 beta=warmup 'beta.epochs=${trainer.epochs}'",
    "seed=0,1 x_var={value:3} trainer.precision=tf32,float32",
    "seed=0,1 study.name='0.1' study.title=yes trainer=default",
    "seed=0,1 hydra.job.name=mine model.logvar_max=null,4",
]


def jobs(command: str) -> tuple[GridSweeper, list[list[str]]]:
    """The sweeper of a command line, and the overrides of its jobs."""
    sweeper, task = composed(cli.rewrite(shlex.split(command)))
    assert isinstance(sweeper, GridSweeper)
    return sweeper, sweeper.batch(task)[0]


def compare(sweeper: GridSweeper, rows: list[list[str]]) -> None:
    composer = Composer(sweeper.hydra_context, sweeper.config)
    for number, row in enumerate(rows):
        cfg = Composer(sweeper.hydra_context, sweeper.config)(row)
        assert composer.settings(row) == cli.typed(cfg), row
        cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        files = Job(row, number, composer.settings(row), composer).files()
        theirs = {
            "config.yaml": OmegaConf.to_yaml(own),
            "hydra.yaml": OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, "hydra")),
            "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(list(cfg.hydra.overrides.task))),
        }
        assert list(files) == list(theirs)
        for name, text in theirs.items():  # they differ in how long lines are folded
            assert str(yaml.safe_load(files[name])) == str(yaml.safe_load(text)), name


@pytest.mark.parametrize("command", ["beta seed=3", "likelihoods seed=3", *COMMANDS])
def test_jobs_are_as_hydra_composes_them(command: str) -> None:
    sweeper, rows = jobs(command)
    compare(sweeper, [rows[0], rows[-1]])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_all_jobs_of_all_experiments(experiment: str) -> None:
    compare(*jobs(experiment))


@pytest.mark.parametrize(
    ("command", "most"), [("seed=range(500)", 1), ("death", 3), ("xvar seed=range(100)", 2), ("labels", 5)]
)
def test_hydra_composes_once_per_combination_of_options(
    command: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper, rows = jobs(command)
    loader = sweeper.hydra_context.config_loader
    calls: list[list[str]] = []
    compose: Callable = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda cfg, row: calls.append(row) or compose(cfg, row))
    composer = Composer(sweeper.hydra_context, sweeper.config)
    begun = time.process_time()
    for row in rows:
        composer.settings(row)
    assert len(calls) <= most
    assert time.process_time() - begun < 1 + 0.02 * len(rows) + 2 * most


def test_what_cannot_be_set_is_refused_as_by_hydra(tmp_path: Path) -> None:
    sweeper, _ = jobs("seed=0,1")
    for row in (["trainer.epochs=abc"], ["trainer.epoch=3"], ["x_var.value=-1"], ["model.hidden=[a]"], ["foo=3"]):
        lines = []
        for compose in (sweeper.compose.settings, lambda row: cli.typed(sweeper.compose(row))):
            with pytest.raises(Exception) as error:  # noqa: PT011
                compose(row)
            lines.append(cli.explain(error.value, row))
        assert lines[0] == lines[1]
        assert "; allowed: " in lines[0]
