"""Which jobs a sweep has, and what its report is called: composed as the command line would, nothing is trained."""

import functools
from collections.abc import Callable, Sequence

import pytest

from experiments.launch import cli
from experiments.launch.grid import GridSweeper, supersedes
from experiments.settings import Settings
from tests.conftest import composed
from vae.config import ConfigError, settings

TINY = """# @package _global_
study:
  name: tiny
model:
  hidden: [16]
z_dim:
  value: 30
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      x_var.value: 1,0.1
      seed: range(2)
"""
POINTS = """# @package _global_
study:
  name: points
hydra:
  mode: MULTIRUN
  sweeper:
    points:
      - {z_dim.value: 10, beta.value: 0.1, model.hidden: [16]}
      - {z_dim.value: 20, beta.value: 0.1, model.hidden: [16, 8]}
      - {z_dim.value: 20, beta.value: 0.01, model.hidden: [16]}
    params:
      label_placement: both,none
"""


class Sweep:
    """What the sweeper makes of a command line."""

    def __init__(self, sweeper: GridSweeper, arguments: Sequence[str]) -> None:
        self.sweeper, self.arguments = sweeper, arguments
        self.rows, self.swept = sweeper.batch(arguments)

    @property
    def configs(self) -> list[Settings]:
        return [self.sweeper.compose.settings(row) for row in self.rows]

    @property
    def name(self) -> str:
        return self.sweeper.report_name(self.arguments, self.configs)

    def values(self, *names: str) -> list[tuple]:
        """The settings of these names, one row a job."""
        rows = [{name: value for name, value, _, _ in settings(config)} for config in self.configs]
        return [tuple(row[name] for name in names) for row in rows]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sweep]:
    """Makes the sweep of a command line; those of one experiment share a sweeper, as composing takes time."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment/tiny.yaml").write_text(TINY)
    (folder / "experiment/points.yaml").write_text(POINTS)

    @functools.cache
    def sweeper_of(experiment: str | None) -> GridSweeper:
        sweeper, _ = composed([*filter(None, [experiment]), f"hydra.searchpath=['file://{folder}']"])
        assert isinstance(sweeper, GridSweeper)
        return sweeper

    def made(command: str) -> Sweep:
        arguments = cli.rewrite(command.split())
        named = [argument for argument in arguments if argument.startswith("experiment=")]
        return Sweep(sweeper_of(*named or [None]), arguments)

    return made


X_VAR_SEED = [(1.0, 0), (1.0, 1), (0.1, 0), (0.1, 1)]


@pytest.mark.parametrize(
    ("command", "names", "expected"),
    [
        ("tiny", ("x_var.value", "seed"), X_VAR_SEED),
        ("x_var=1,0.1 seed=0,1", ("x_var.value", "seed"), X_VAR_SEED),
        ("x_var=choice(1,0.1) seed=range(2)", ("x_var.value", "seed"), X_VAR_SEED),
        ("x_var.value=1,0.1 seed=range(0,2)", ("x_var.value", "seed"), X_VAR_SEED),
        # what the command line says takes the place of what the experiment sweeps ...
        ("tiny x_var=0.3", ("x_var.value", "seed"), [(0.3, 0), (0.3, 1)]),
        ("tiny x_var=0.3,0.2 seed=5", ("x_var.value", "seed"), [(0.3, 5), (0.2, 5)]),
        ("tiny seed=range(3) x_var=1", ("x_var.value", "seed"), [(1.0, 0), (1.0, 1), (1.0, 2)]),
        ("tiny x_var=learned", ("x_var.kind", "x_var.value", "seed"), [("learned", 0.1, 0), ("learned", 0.1, 1)]),
        ("tiny x_var=fixed,learned seed=0", ("x_var.kind", "x_var.value"), [("fixed", 0.1), ("learned", 0.1)]),
        ("tiny beta=warmup x_var=1", ("beta.kind", "x_var.value", "seed"), [("warmup", 1.0, 0), ("warmup", 1.0, 1)]),
        # ... and of what it fixes
        ("tiny x_var=1 seed=0 model.hidden=[8]", ("model.hidden",), [([8],)]),
        ("x_var=1 seed=0 model.hidden=[400],[400,200]", ("model.hidden",), [([400],), ([400, 200],)]),
        ("tiny x_var=1 seed=0 z_dim=40", ("z_dim.value",), [(40,)]),
        # also where an option has no use for it
        ("tiny x_var=1 seed=0 z_dim=pca model=conv", ("z_dim.variance", "model.channels"), [(0.9, [32, 64, 128])]),
        ("tiny x_var=1 seed=0 z_dim=fixed,pca", ("z_dim.kind", "z_dim.value"), [("fixed", 30), ("pca", None)]),
        # an option of a group that the experiment sweeps by its number
        ("points z_dim=pca label_placement=none beta=1 model.hidden=[8]", ("z_dim.kind",), [("pca",)]),
        ("points label_placement=none beta=1 model.hidden=[8]", ("z_dim.value", "beta.value"), [(10, 1.0), (20, 1.0)]),
        ("points label_placement=both model.hidden=[8] z_dim=20", ("beta.value",), [(0.1,), (0.01,)]),
        ("points label_placement=both model.hidden=[8] z_dim=20 beta=1", ("z_dim.value", "beta.value"), [(20, 1.0)]),
        ("x_var=0.1,0.1 seed=0,0", ("x_var.value", "seed"), [(0.1, 0)]),
        ("dataset=./a,./b", ("dataset.kind", "dataset.root"), [("image_folder", "./a"), ("image_folder", "./b")]),
    ],
)  # fmt: skip
def test_jobs(sweep: Callable[[str], Sweep], command: str, names: tuple[str, ...], expected: list[tuple]) -> None:
    assert sweep(command).values(*names) == expected


def test_points_are_crossed_with_params(sweep: Callable[[str], Sweep]) -> None:
    points = sweep("points")
    rows = [(10, 0.1, [16]), (20, 0.1, [16, 8]), (20, 0.01, [16])]
    assert points.values("z_dim.value", "beta.value", "model.hidden", "label_placement.kind") == [
        (*row, placement) for row in rows for placement in ("both", "none")
    ]
    assert points.swept == ["z_dim.value", "beta.value", "model.hidden", "label_placement"]


@pytest.mark.parametrize(
    ("command", "swept"),
    [
        ("tiny", ["x_var.value", "seed"]),
        ("tiny x_var=1", ["seed"]),
        ("tiny x_var=1 seed=0", []),
        ("x_var=fixed,learned trainer.lr=0.1,0.01", ["x_var", "trainer.lr"]),
    ],
)
def test_swept_settings(sweep: Callable[[str], Sweep], command: str, swept: list[str]) -> None:
    assert sweep(command).swept == swept


@pytest.mark.parametrize("command", ["x_var=interval(0,1)", "tiny trainer.lr=interval(0.1,1)"])
def test_an_interval_cannot_be_swept(sweep: Callable[[str], Sweep], command: str) -> None:
    with pytest.raises(ConfigError, match="an interval has no end to sweep"):
        sweep(command)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("tiny", "tiny"),
        ("points", "points"),
        # settings that change no number
        ("tiny output_dir=elsewhere trainer.device=cpu trainer.threads=1 trainer.stack_size=2", "tiny"),
        ("tiny dataset=fashion_mnist dataset.root=elsewhere trainer.checkpoint_seconds=5", "tiny-fashion_mnist"),
        # the experiment's own values, however they are written
        ("tiny seed=0,1", "tiny"),
        ("tiny x_var=0.10,1.0", "tiny"),
        ("tiny dataset=mnist_5k trainer.epochs=50 model.hidden=[16]", "tiny"),
        ("tiny dataset=fashion_mnist", "tiny-fashion_mnist"),
        ("tiny dataset=./some/pictures", "tiny-pictures"),
        ("tiny dataset=./some/arrays.npz", "tiny-arrays"),
        ("tiny dataset=torchvision dataset.name=KMNIST", "tiny-KMNIST"),
        ("tiny dataset=./a/pictures,./flowers", "tiny-flowers,pictures"),
        ("tiny dataset=./a/pictures dataset.size=64", "tiny-pictures-dataset.size=64"),
        ("tiny trainer.epochs=6", "tiny-epochs=6"),
        ("tiny x_var=1", "tiny-x_var=1"),
        ("tiny x_var.value=1.0", "tiny-x_var=1"),
        ("tiny x_var=1e0", "tiny-x_var=1"),
        ("tiny x_var=learned", "tiny-x_var=learned"),
        ("tiny x_var=learned x_var.value=0.5", "tiny-x_var=learned-x_var=0.5"),
        ("tiny x_var=fixed", "tiny-x_var=0.1"),  # no longer the two values of the experiment
        ("tiny beta=warmup", "tiny-beta=warmup"),
        ("tiny z_dim=pca", "tiny-z_dim=pca"),
        ("tiny seed=range(5)", "tiny-seed=0..4"),
        ("tiny seed=0,1,3", "tiny-seed=0,1,3"),
        ("tiny model.hidden=[400],[400,200]", "tiny-model.hidden=400,400x200"),
        ("points z_dim=10", "points-z_dim=10"),
        ("points label_placement=both", "points-label_placement=both"),
        ("points label_placement=none,both", "points"),
        ("x_var=1,0.1 seed=0,1", "multirun-x_var=0.1,1-seed=0,1"),
        ("seed=0,1 x_var=1,0.1", "multirun-x_var=0.1,1-seed=0,1"),  # in any order
        ("tiny seed=0,1,3 trainer.lr=0.1 z_dim=5", "tiny-z_dim=5-lr=0.1-seed=0,1,3"),
        ("tiny trainer.lr=0.1 z_dim=5 seed=3,1,0", "tiny-z_dim=5-lr=0.1-seed=0,1,3"),
        ("tiny dataset.validation=0.1", "tiny-dataset.validation=0.1"),
        ("seed=0,1 study.name=mine", "mine-seed=0,1"),
        # Only one of the points sets the epochs.
        ("iwae objective.samples=1 trainer.epochs=2000", "iwae-objective.samples=1-epochs=2000"),
    ],
)
def test_report_name(sweep: Callable[[str], Sweep], command: str, name: str) -> None:
    assert sweep(command).name == name


@pytest.mark.parametrize(
    ("given", "swept", "expected"),
    [
        ("x_var.value", "x_var.value", True),
        ("x_var", "x_var.value", True),
        ("x_var", "x_var", True),
        ("x_var.value", "x_var", False),  # x_var=fixed,learned is swept at the value given
        ("x", "x_var.value", False),
        ("trainer.lr", "trainer.lr_schedule", False),
    ],
)
def test_supersedes(given: str, swept: str, expected: bool) -> None:
    assert supersedes(given, swept) is expected


@pytest.mark.parametrize("experiment", [name for name in cli.options("experiment") if name != "search"])
def test_the_experiments_compose(sweep: Callable[[str], Sweep], experiment: str) -> None:
    """Every value that an experiment sweeps is allowed: its first seed, each of its rows."""
    configs = sweep(f"{experiment} seed=0").configs
    assert configs[0].study.name == experiment
    assert len({repr(config) for config in configs}) == len(configs) > 1
