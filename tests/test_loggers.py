"""Runs in TensorBoard and MLflow, read back with those libraries' own clients, also after a stop and a kill."""

import csv
import importlib.util
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from experiments import loggers, training
from experiments import plan as planning
from experiments.plan import Run, plan
from experiments.runner import execute
from experiments.settings import Settings
from tests.conftest import Configs, Silent, run_all, tiny_config
from vae.config import ConfigError
from vae.data import ImageData

METRICS = {"test_sse": 12.5, "test_kl": 3.25, "sample_ffd": None, "judge": "abc", "kl_per_dim": [1.0], "train_loss": 7}
Points = dict[str, list[tuple[int, float]]]  # (step, value) by name
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(importlib.util.find_spec(kind) is None, reason=f"no {kind}"))
    for kind in ("tensorboard", "mlflow")
]
with_each = pytest.mark.parametrize("kind", KINDS)
# MLflow uses what the newest SQLAlchemy warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty tables, which take it seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    if importlib.util.find_spec("mlflow"):
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData, database: Path) -> Configs:
    """Makes configs for runs on toy data that a logger records after each epoch."""
    monkeypatch.setattr(planning, "load_data", lambda dataset: toy)
    (tmp_path / "mlflow").mkdir()
    if database.exists():
        shutil.copy(database, tmp_path / "mlflow")

    def make(kind: str, *changes: dict[str, Any], **common: Any) -> list[Settings]:
        common = {"trainer__epochs": 4, "trainer__checkpoint_seconds": 0.0, **common}
        made = [tiny_config(**common, **c, output_dir=str(tmp_path / "outputs")) for c in changes or ({},)]
        for config in made:
            config.logger.kind = kind
            config.logger.store = None if kind == "csv" else str(tmp_path / kind)
        return made

    return make


def draw(run: Run) -> None:
    for name in ("samples", "reconstructions"):
        Image.new("RGB", (30, 20)).save(run.folder.path / f"{name}.png")


def conclude(run: Run) -> None:
    """What follows an evaluation: made-up numbers and pictures, and the record of them."""
    draw(run)
    notes: list[str] = []
    loggers.record(run, notes.append, METRICS)
    assert notes == []


def expected(run: Run, concluded: bool) -> Points:
    """What a record has to say, from the run's folder."""
    rows = list(csv.DictReader((run.folder.path / "history.csv").read_text().splitlines()))
    found = {f"history/{k}": [(int(row["epoch"]), float(row[k])) for row in rows] for k in rows[0]}
    if concluded:
        result = run.folder.result() or {}
        numbers = {"input_dim": 64, "test_sse": 12.5, "test_kl": 3.25, "train_loss": 7.0}
        found |= {f"result/{k}": [(result["epochs_done"], v)] for k, v in numbers.items()}
    return found


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def recorded(kind: str, run: Run) -> tuple[Points, dict[str, str], dict[str, tuple[int, int]]]:
    """Points, settings and sizes of the pictures of a run's record; fails if there is more than one record."""
    store = Path(run.config.logger.store or "")
    if kind == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{store}/mlflow.db")
        (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
        (own,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run.folder.name}'")
        points = {
            k: sorted((m.step, m.value) for m in client.get_metric_history(own.info.run_id, k))
            for k in own.data.metrics
        }
        return points, own.data.params, {p.stem: size(p) for p in Path(own.info.artifact_uri or "").glob("*.png")}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]

    accumulator = EventAccumulator(str(store / run.folder.name), purge_orphaned_data=False)
    accumulator.Reload()
    points = {k: [(e.step, e.value) for e in accumulator.Scalars(k)] for k in accumulator.Tags()["scalars"]}
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    settings = {k: getattr(v, v.WhichOneof("kind")) for k, v in hparams.items()}
    pictures = {k: accumulator.Images(k)[0] for k in accumulator.Tags()["images"]}
    return points, settings, {k: (p.width, p.height) for k, p in pictures.items()}


def check(kind: str, run: Run, concluded: bool = True) -> None:
    """Fails unless the record says what the folder says, once."""
    points, settings, sizes = recorded(kind, run)
    assert any(name.startswith("result/") for name in points) == concluded
    for name, own in expected(run, concluded).items():
        if kind == "tensorboard" and name == "history/epoch":
            continue  # it is the step
        assert [step for step, _ in points[name]] == [step for step, _ in own], name
        assert [value for _, value in points[name]] == pytest.approx([v for _, v in own], rel=1e-6), name
    for key, value in {"x_var.value": 0.1, "trainer.lr": 0.001, "seed": run.config.seed}.items():
        assert float(settings[key]) == value
    assert settings["model.hidden"] == "[16]"
    assert "beta.cycles" not in settings
    assert "trainer.device" not in settings
    assert sizes == ({"samples": (30, 20), "reconstructions": (30, 20)} if concluded else {})


@with_each
def test_every_run_of_several_stacks_in_threads_is_recorded(configs: Configs, kind: str):
    changes = [{"seed": s, "z_dim__value": z} for z in (2, 3) for s in (0, 1)]
    outcomes = run_all(configs(kind, *changes, trainer__threads=2))
    assert all(o.ok for o in outcomes)
    for outcome in outcomes:
        check(kind, outcome.run, concluded=False)
        conclude(outcome.run)
        check(kind, outcome.run)


@with_each
def test_a_logger_is_no_part_of_the_identity_and_a_finished_run_is_recorded_once_and_not_trained(
    configs: Configs, monkeypatch: pytest.MonkeyPatch, kind: str
):
    plain = run_all(configs("csv"))[0].run
    monkeypatch.setattr(training, "train_epoch", None)
    again = run_all(configs(kind))[0].run
    assert again.folder.name == plain.folder.name
    check(kind, again, concluded=False)
    conclude(again)
    check(kind, again)
    store = Path(again.config.logger.store or "")
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*.*") if p.is_file()}
    run_all(configs(kind))
    conclude(again)
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*.*") if p.is_file()} == before


@with_each
def test_curves_are_there_while_it_trains_and_go_on_after_a_stop(
    configs: Configs, monkeypatch: pytest.MonkeyPatch, kind: str
):
    original = training.train_epoch

    def stop(stack: Any, *args: Any) -> bool:
        if stack.epoch == 2:
            raise KeyboardInterrupt  # as a kill would, it writes nothing more
        return original(stack, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run_all(configs(kind, {"seed": 0}, {"seed": 1}))
    runs = plan(configs(kind, {"seed": 0}, {"seed": 1}))
    for run in runs:
        assert [step for step, _ in recorded(kind, run)[0]["history/train_sse"]] == [1, 2]
        check(kind, run, concluded=False)
    assert all(o.ok for o in execute(runs, Silent()))
    for run in runs:
        assert len(expected(run, concluded=False)["history/train_sse"]) == 4
        conclude(run)
        check(kind, run)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="no tensorboard")
def test_a_tensorboard_that_is_open_follows_the_run(configs: Configs, monkeypatch: pytest.MonkeyPatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = []
    original = loggers.record

    def look(run: Run, *args: Any) -> None:
        original(run, *args)
        if not seen:
            seen.append(EventAccumulator(str(Path(run.config.logger.store or "") / run.folder.name)))
        seen[0].Reload()
        seen.append([event.step for event in seen[0].Scalars("history/train_sse")])

    monkeypatch.setattr(loggers, "record", look)
    run_all(configs("tensorboard"))
    assert seen[1:] == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]


@pytest.mark.parametrize("breaks", ["log_batch", "log_artifact", "set_terminated"])
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="no mlflow")
def test_a_kill_inside_mlflow_leaves_no_point_twice_and_no_second_run(
    configs: Configs, monkeypatch: pytest.MonkeyPatch, breaks: str
):
    """Broken off after each of its calls in turn, for as long as it takes."""
    from mlflow import MlflowClient

    monkeypatch.setattr(loggers, "MLFLOW_BATCH", 7)  # an epoch a batch
    run_all(configs("csv"))
    asked = plan(configs("mlflow"))[0]
    original, progress = getattr(MlflowClient, breaks), Silent()

    def once(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, breaks, once)
        draw(asked)
        for _ in range(8):
            execute([asked], progress)
            loggers.record(asked, progress.note, METRICS)
    assert progress.notes
    assert all(note.startswith(f"logger=mlflow: cannot record {asked.folder.name}: ") for note in progress.notes)
    conclude(asked)
    check("mlflow", asked)


@with_each
def test_a_diverged_run_is_recorded_as_far_as_it_went(configs: Configs, kind: str):
    bad, good = run_all(configs(kind, {"trainer__lr": 10.0}, {}))
    assert not bad.ok
    assert good.ok
    conclude(good.run)
    points, _, sizes = recorded(kind, bad.run)
    assert "result/test_sse" not in points
    assert sizes == {}
    if kind == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{bad.run.config.logger.store}/mlflow.db")
        status = Counter(r.info.status for r in client.search_runs(["1"]))
        assert status == {"FAILED": 1, "FINISHED": 1}


@with_each
def test_a_store_that_cannot_be_written_is_told_and_the_run_is_trained(configs: Configs, tmp_path: Path, kind: str):
    if (tmp_path / kind).exists():
        (tmp_path / kind).rename(tmp_path / "aside")
    (tmp_path / kind).write_text("in the way")
    progress = Silent()
    (outcome,) = run_all(configs(kind, trainer__checkpoint_seconds=60.0), progress)
    assert outcome.ok
    assert [note.partition(": ")[0] for note in progress.notes] == [f"logger={kind}"]
    (tmp_path / kind).unlink()
    if (tmp_path / "aside").exists():
        (tmp_path / "aside").rename(tmp_path / kind)
    run_all(configs(kind))
    conclude(outcome.run)
    check(kind, outcome.run)


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused_before_training(
    configs: Configs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as e:
        plan(configs(kind))
    assert str(e.value) == (
        f"logger={kind}: its package is not installed (pip install -e '.[{kind}]'); allowed without it: csv"
    )
    assert not (tmp_path / "outputs").exists()
