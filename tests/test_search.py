"""A search against brute force: what it tries, tells and reports, and what is left of it after a stop.

Most of it trains nothing: a launcher writes results that are known functions of the settings. The last test trains.
"""

import dataclasses
import json
import math
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments import plan as planning
from experiments.evaluate import evaluate
from experiments.launch import cli, conclude
from experiments.launch.grid import GridSweeper
from experiments.launch.search import OptunaSweeper
from experiments.plan import plan
from experiments.reading import read
from experiments.report.build import collect
from experiments.search_findings import Search, confirmation
from experiments.settings import Settings, result_settings
from experiments.store import read_json, write_json
from tests.conftest import composed, run_all, tiny_config
from vae.config import ConfigError
from vae.data import ImageData
from vae.metrics import METRICS

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")

TINY = """# @package _global_
defaults:
  - override /hydra/sweeper: optuna
study:
  name: tiny
dataset:
  validation: 0.2
model:
  hidden: [16]
trainer:
  batch_size: 64
  epochs: 1
hydra:
  mode: MULTIRUN
  sweeper:
    n_trials: 6
    batch_size: 2
    params:
      x_var.value: tag(log, interval(0.001, 10))
      z_dim.value: choice(2, 4)
"""
TWO = "'hydra.sweeper.objectives=[minimize val_sse,minimize val_sample_ffd]'"


def numbers(config: Settings) -> dict[str, float]:
    """The results that a run with these settings has here: the least val_sample_ffd, 3, is at x_var 0.1 and z_dim 4."""
    assert config.x_var.value is not None
    ln = math.log10(config.x_var.value) + 1
    sse = 10 + 5 * ln + (config.z_dim.value or 0)
    return {"val_sample_ffd": 7 + ln**2 - (config.z_dim.value or 0), "val_sse": sse, "val_r_loss": 2 * sse}


def pretend(folder: Path, template: Path, config: Settings, diverged: bool) -> None:
    """Makes a run's folder from that of another, as if training with these settings had ended in `numbers`."""
    shutil.copytree(template, folder)
    result = read_json(folder / "result.json")
    result |= {"settings": result_settings(config), "run": folder.name}
    if diverged:
        result |= {"status": "diverged", "diverged_epoch": 1, "model_sha256": None}
    write_json(folder / "result.json", result)
    for name, value in numbers(config).items():
        path = folder / f"metrics/{METRICS[name].family}.json"
        content = read_json(path)
        content["values"][name] = value
        write_json(path, content)


class Searching:
    """A search from a command line, and a launcher that trains in no time.

    Attributes:
        trained: names of the runs in the order of their training.
        breaks_after: a stop after so many runs; failing: whether a run of these settings diverges.
    """

    def __init__(self, sweeper: OptunaSweeper, arguments: list[str], output_dir: Path, template: Path) -> None:
        self.sweeper, self.arguments, self.output_dir, self.template = sweeper, arguments, output_dir, template
        self.trained: list[str] = []
        self.breaks_after = 10**9
        self.failing: Callable[[Settings], bool] = lambda config: False
        sweeper.launcher.launch = self.launch  # type: ignore[method-assign]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        for overrides in job_overrides:
            config = self.sweeper.compose.settings(overrides)
            (run,) = plan([config])
            if run.folder.result() is not None:
                continue
            if len(self.trained) == self.breaks_after:
                raise KeyboardInterrupt
            self.trained.append(run.folder.name)
            pretend(run.folder.path, self.template, config, self.failing(config))
        return []

    def __call__(self) -> Search:
        self.sweeper.sweep(self.arguments)
        return self.search()

    def search(self) -> Search:
        (manifest,) = self.output_dir.glob("reports/tiny-search*/sweep.json")
        return Search(read(manifest.parent.name, self.output_dir))

    def study(self) -> Any:
        """The only study of the storage."""
        storage = f"sqlite:///{self.output_dir}/search.db"
        (summary,) = optuna.get_all_study_summaries(storage)
        return optuna.load_study(study_name=summary.study_name, storage=storage)


@pytest.fixture(scope="module")
def held(toy: ImageData) -> ImageData:
    """Data with validation images."""
    x, y = toy.train_x, toy.train_y
    return dataclasses.replace(toy, train_x=x[60:], train_y=y[60:], val_x=x[:60], val_y=y[:60])


@pytest.fixture(scope="module")
def trained(held: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a run that was trained and evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "load_data", lambda dataset: held)
        config = tiny_config(output_dir=str(folder), trainer__epochs=1, dataset__validation=0.2)
        evaluate([run_all([config])[0].run.folder])
    return folder


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: ImageData, trained: Path
) -> Callable[..., Searching]:
    """Makes a search of a command line, in an output folder of tmp_path; without its report, which takes a second."""
    monkeypatch.setattr(planning, "load_data", lambda dataset: held)
    monkeypatch.setattr(conclude, "conclude", lambda manifest, runs, output_dir: None)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/tiny.yaml").write_text(TINY)
    cli.register_schema()

    def make(line: str = "tiny", folder: str = "outputs") -> Searching:
        words = [*shlex.split(line), f"output_dir={tmp_path / folder}", f"hydra.searchpath=['file://{tmp_path}']"]
        arguments = cli.rewrite(words)
        sweeper, task = composed(arguments)
        assert isinstance(sweeper, OptunaSweeper)
        (result,) = trained.glob("runs/*/result.json")
        return Searching(sweeper, task, tmp_path / folder, result.parent)

    return make


def rows(search: Search) -> list[tuple[float, int, float, float]]:
    """x_var, z_dim, val_sse and val_sample_ffd of each run, read from the folders."""
    runs = [trial.run for trial in search.trials]
    return [(r["x_var.value"], r["z_dim.value"], r["val_sse"], r["val_sample_ffd"]) for r in runs]


def runs_of(search: Search) -> list[Path]:
    """The folders of the trials' runs."""
    return [search.report.folder.parent.parent / "runs" / str(trial.run.name) for trial in search.trials]


# --- what is tried


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_known_optimum_is_approached(command: Callable[..., Searching], sampler: str):
    search = command(f"tiny hydra.sweeper.n_trials=18 hydra.sweeper.batch_size=6 hydra.sweeper.sampler={sampler}")()
    assert len(search.manifest["trials"]) == 18
    x_var, z_dim, _, ffd = min(rows(search), key=lambda row: row[3])
    assert z_dim == 4
    assert abs(math.log10(x_var) + 1) < 0.35  # of a range of four
    (best,) = search.best
    assert best.values == (ffd,)
    first, last = rows(search)[:6], rows(search)[-6:]
    assert sum(r[3] for r in last) < sum(r[3] for r in first), "it is better than chance, with which it begins"


def test_each_setting_is_drawn_from_its_space_in_four_digits(command: Callable[..., Searching]):
    space = "beta=interval(0.5,2) z_dim=interval(2,6) model.hidden=[8],[16,8] trainer.batch_size=range(32,80,16)"
    search = command(f"tiny x_var=0.5 {space}")()
    results = [json.loads((path / "result.json").read_text())["settings"] for path in runs_of(search)]
    assert {r["x_var.value"] for r in results} == {0.5}
    assert {r["z_dim.value"] for r in results} <= {2, 3, 4, 5, 6}
    assert {tuple(r["model.hidden"]) for r in results} == {(8,), (16, 8)}
    assert {r["trainer.batch_size"] for r in results} <= {32, 48, 64}
    betas = {r["beta.value"] for r in results}
    assert len(betas) == 6
    assert all(0.5 <= beta <= 2 and float(f"{beta:.4g}") == beta for beta in betas)


def test_the_front_and_the_constraint_are_those_of_brute_force(command: Callable[..., Searching]):
    search = command(f"tiny hydra.sweeper.n_trials=12 {TWO} 'hydra.sweeper.constraints=[\"r_loss <= 30\"]'")()
    allowed = [(sse, ffd) for _, _, sse, ffd in rows(search) if 2 * sse <= 30]
    assert 0 < len(allowed) < 12
    front = {
        p for p in allowed if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in allowed)
    }  # fmt: skip
    assert {trial.values for trial in search.best} == front
    assert len(front) > 1


def test_a_constraint_moves_the_best_and_is_known_to_optuna(command: Callable[..., Searching]):
    searching = command('tiny \'hydra.sweeper.constraints=["val_sse <= 10","val_r_loss >= 2"]\'')
    search = searching()
    (best,) = search.best
    assert best.values[0] == min(ffd for _, _, sse, ffd in rows(search) if sse <= 10)
    assert best.values[0] > min(ffd for *_, ffd in rows(search))
    for trial, (_, _, sse, ffd) in zip(searching.study().trials, rows(search), strict=True):
        assert trial.values == [ffd]
        assert trial.constraints == pytest.approx({"val_sse <= 10": sse - 10, "val_r_loss >= 2": 2 - 2 * sse})


def test_more_is_better_where_it_is_to_be_maximized(command: Callable[..., Searching]):
    search = command("tiny 'hydra.sweeper.objectives=[maximize val_sample_ffd]'")()
    assert search.best[0].values[0] == max(ffd for *_, ffd in rows(search))


def test_the_experiment_of_the_project_searches_what_is_allowed(command: Callable[..., Searching]):
    searching = command("search hydra.sweeper.n_trials=2")
    searching.sweeper.sweep(searching.arguments)
    assert len(searching.trained) == 2
    assert (searching.output_dir / "reports/search/sweep.json").exists()


# --- stop and go on


@pytest.mark.parametrize(("breaks_after", "objectives"), [(1, TWO), (2, "")])
def test_a_stopped_search_goes_on_as_if_it_had_not(
    command: Callable[..., Searching], breaks_after: int, objectives: str
):
    unbroken = command(f"tiny {objectives}", "unbroken")()
    stopped = command(f"tiny {objectives}")
    stopped.breaks_after = breaks_after
    with pytest.raises(KeyboardInterrupt):
        stopped()
    again = command(f"tiny {objectives}")
    search = again()
    assert len(again.trained) == 6 - breaks_after
    assert rows(search) == rows(unbroken)
    assert search.manifest["trials"] == unbroken.manifest["trials"]
    assert [t.state.name for t in again.study().trials] == ["COMPLETE"] * 6


def test_a_kill_between_asking_or_telling_is_made_good(
    command: Callable[..., Searching], monkeypatch: pytest.MonkeyPatch
):
    unbroken = command("tiny", "unbroken")()
    for method, calls in (("ask", 3), ("tell", 1), ("ask", 1)):
        original, left = getattr(optuna.Study, method), [calls]

        def killed(*args: Any, original: Any = original, left: list[int] = left, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(optuna.Study, method, killed)
            with pytest.raises(KeyboardInterrupt):
                command()()
    assert rows(command()()) == rows(unbroken)


def test_a_finished_search_trains_nothing_and_more_trials_continue_it(command: Callable[..., Searching]):
    first = command()
    before = rows(first())
    again = command()
    assert rows(again()) == before
    assert again.trained == []
    more = command("tiny hydra.sweeper.n_trials=8")
    assert rows(more())[:6] == before
    assert len(more.trained) == 2


def test_another_definition_is_another_study(command: Callable[..., Searching]):
    lines = ("tiny", "tiny hydra.sweeper.seed=1", "tiny seed=1", "tiny x_var=interval(0.1,1)", f"tiny {TWO}")
    for line in lines:
        searching = command(f"{line} hydra.sweeper.n_trials=2")
        searching.sweeper.sweep(searching.arguments)
    output_dir = command().output_dir
    assert len(optuna.get_all_study_names(f"sqlite:///{output_dir}/search.db")) == len(lines)
    folders = {p.parent.name for p in output_dir.glob("reports/*/sweep.json")}
    assert "tiny-search" in folders
    assert len(folders) == len(lines)


def test_a_diverged_trial_is_told_as_failed_and_the_search_goes_on(command: Callable[..., Searching]):
    searching = command()
    searching.failing = lambda config: config.z_dim.value == 2
    search = searching()
    assert len(searching.study().trials) == 6
    for trial, told in zip(search.trials, searching.study().trials, strict=True):
        assert (told.state.name == "FAIL") == (told.params["z_dim.value"] == 2) == (not trial.usable)
    assert any(not trial.usable for trial in search.trials)
    assert collect("tiny-search", searching.output_dir).exists()


def test_no_usable_trial_is_a_failed_search(command: Callable[..., Searching]):
    searching = command("tiny hydra.sweeper.n_trials=3")
    searching.failing = lambda config: True
    with pytest.raises(cli.SweepFailed, match="none of the 3 trials has a usable result"):
        searching()
    assert collect("tiny-search", searching.output_dir).exists()


# --- mistakes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x_var=interval(1,0.1)", "x_var.value=interval(1,0.1): no interval to search; allowed: two numbers"),
        ("'x_var=tag(log,interval(0,1))'", "x_var.value=tag(log,interval(0,1)): no interval to search; allowed: two"),
        ("x_var=interval(-1,1)", "x_var.value=-1.0: out of range; allowed: a number > 0"),
        ("z_dim=interval(0,4)", "z_dim.value=0: out of range; allowed: a whole number >= 1"),
        ("z_dim=choice(2,65)", "z_dim.value=65: out of range; allowed: at most 64, the number of values of an image"),
        ("trainer.batch_size=interval(8,400)", "trainer.batch_size=400: out of range; allowed: at most 240"),
        ("seed=0,1", "seed=0,1: the best seed is luck, not a setting; allowed: one seed"),
        ("x_var=0.1 z_dim=2", "hydra.sweeper.params: nothing to search for; allowed: x_var.value: interval(0.01, 1)"),
        ("hydra.sweeper.sampler=grid", "hydra.sweeper.sampler=grid: not an option; allowed: tpe, nsga2"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: out of range; allowed: a whole number >= 1"),
        ("hydra.sweeper.objectives=[]", "hydra.sweeper.objectives=[]: 0 columns; allowed: 1 or 2"),
        ("'hydra.sweeper.objectives=[least val_sse]'", "hydra.sweeper.objectives=least val_sse: cannot be read"),
        (
            "'hydra.sweeper.objectives=[minimize val_ssee]'",
            "hydra.sweeper.objectives=val_ssee: no such metric (did you mean val_sse?); allowed: val_",
        ),
        (
            "'hydra.sweeper.objectives=[minimize test_sse]'",
            "hydra.sweeper.objectives=test_sse: a search must not choose by it; allowed: val_",
        ),
        (
            "'hydra.sweeper.objectives=[minimize kl_per_dim]'",
            "hydra.sweeper.objectives=kl_per_dim: no such metric",
        ),
        ("dataset.validation=0", "dataset.validation=0: a search chooses by validation images; allowed: a share > 0"),
        ("'hydra.sweeper.constraints=[\"r_loss < 2\"]'", "hydra.sweeper.constraints=r_loss < 2: cannot be read"),
        ("'hydra.sweeper.constraints=[\"r_loss <= two\"]'", "hydra.sweeper.constraints=r_loss <= two: cannot be read"),
        ("'hydra.sweeper.constraints=[\"rloss <= 2\"]'", "hydra.sweeper.constraints=rloss: no such metric (did"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(
    command: Callable[..., Searching], tmp_path: Path, line: str, message: str
):
    with pytest.raises(ConfigError) as e:
        command(f"tiny {line}")()
    assert str(e.value).startswith(message)
    assert "\n" not in str(e.value)
    assert list((tmp_path / "outputs").glob("r*/*")) == []
    assert not (tmp_path / "outputs/search.db").exists()


def test_without_optuna_one_line_says_how_to_get_it(command: Callable[..., Searching], monkeypatch: pytest.MonkeyPatch):
    searching = command()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"its package is not installed \(pip install -e '\.\[optuna\]'\)"):
        searching()


# --- the report


@pytest.mark.parametrize("objectives", ["", TWO])
def test_the_confirmation_trains_the_best_with_new_seeds(command: Callable[..., Searching], objectives: str):
    searching = command(f"tiny {objectives} trainer.lr=0.002 'hydra.sweeper.constraints=[\"r_loss <= 30\"]'")
    search = searching()
    line = confirmation(search, searching.output_dir)
    folder = collect(search.report.name, searching.output_dir).parent
    assert any(line.partition(" output_dir=")[0] in path.read_text() for path in folder.glob("*.md"))
    arguments = cli.rewrite(shlex.split(line)[2:])
    grid, task = composed([a for a in arguments if a != "-m"])
    assert isinstance(grid, GridSweeper)
    jobs, _ = grid.batch(task)
    confirmed = [result_settings(cli.typed(grid.compose(row))) for row in jobs]
    best = [
        json.loads((searching.output_dir / "runs" / str(t.run.name) / "result.json").read_text()) for t in search.best
    ]
    assert confirmed == [{**result["settings"], "seed": seed} for result in best for seed in range(1, 6)]


def test_a_search_that_trains_ends_in_a_report(command: Callable[..., Searching], tmp_path: Path, trained: Path):
    shutil.copytree(trained / ".cache", tmp_path / "outputs/.cache")  # the judge of the data
    searching = command(f"tiny hydra.sweeper.n_trials=4 {TWO}")
    del searching.sweeper.launcher.launch  # the real one
    search = searching()
    folder = collect(search.report.name, searching.output_dir).parent
    assert {p.name for p in (folder / "figures").iterdir()} == {"search.png", "samples.png"}
    assert all(p.stat().st_size < 300 * 1024 for p in (folder / "figures").iterdir())
    assert {p.name for p in (folder / "tables").iterdir()} >= {"best.md", "best.csv", "trials.csv"}
    told = [trial.values for trial in searching.study().trials]
    assert told == [list(trial.values) for trial in search.trials]
    assert json.loads((folder / "summary.json").read_text())["n_usable"] == 4
    assert "tiny-search" in (tmp_path / "outputs/reports/index.md").read_text()


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(200), b"cut"])
def test_a_damaged_database_is_one_line_that_says_what_to_do(command: Callable[..., Searching], content: bytes):
    search = command()
    search()
    database = search.output_dir / "search.db"
    database.write_bytes(database.read_bytes()[:5000] if content == b"cut" else content)
    with pytest.raises(ConfigError) as e:
        command()()
    assert str(e.value).startswith(f"{database}: cannot be used (")
    assert "move it away and run the same command again" in str(e.value)
    assert "\n" not in str(e.value)
    database.unlink()
    again = command()
    again()
    assert again.trained == [], "the same trials, found trained"
