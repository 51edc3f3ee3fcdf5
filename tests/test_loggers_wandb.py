"""Runs in Weights & Biases: what its library is told, by a stand-in, and a record offline where it is installed."""

from __future__ import annotations

import csv
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from experiments import loggers
from experiments import plan as planning
from experiments.plan import Run
from experiments.settings import Settings
from tests.conftest import Silent, run_all, tiny_config
from vae.data import ImageData

METRICS = {"test_sse": 12.5, "sample_ffd": None, "judge": "abc"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData) -> Settings:
    """A run of four epochs that is recorded after each."""
    monkeypatch.setattr(planning, "load_data", lambda dataset: toy)
    made = tiny_config(output_dir=str(tmp_path / "outputs"), trainer__epochs=4, trainer__checkpoint_seconds=0.0)
    made.logger.kind, made.logger.store = "wandb", str(tmp_path / "wandb")
    return made


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module as if wandb were installed."""
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


class Recorder:
    """The run of one call of init."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments, self.logged, self.summary, self.exit_code = arguments, [], {}, None

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """What wandb is told, by call."""
    found: list[Recorder] = []
    module = stand_in(monkeypatch)
    module.init = lambda **arguments: found.append(Recorder(arguments)) or found[-1]
    module.Image = lambda path: Path(path).name
    return found


def concluded(run: Run) -> list[str]:
    for name in ("samples", "reconstructions"):
        Image.new("RGB", (30, 20)).save(run.folder.path / f"{name}.png")
    notes: list[str] = []
    loggers.record(run, notes.append, METRICS)
    return notes


def test_each_epoch_is_told_once_and_the_numbers_at_the_end(config: Settings, calls: list[Recorder]):
    (outcome,) = run_all([config])
    run = outcome.run
    assert len(calls) == 4  # three checkpoints and the end of the training
    assert concluded(run) == []
    assert concluded(run) == []
    assert len(calls) == 5
    rows = list(csv.DictReader((run.folder.path / "history.csv").read_text().splitlines()))
    told = [entry for call in calls[:4] for entry in call.logged]
    assert told == [(i, {f"history/{k}": float(v) for k, v in rows[i - 1].items()}) for i in (1, 2, 3, 4)]
    last = calls[4]
    assert last.logged == [(None, {"samples": "samples.png", "reconstructions": "reconstructions.png"})]
    assert last.summary["result/test_sse"] == 12.5
    assert last.summary["result/input_dim"] == 64
    assert not {"result/sample_ffd", "result/judge"} & last.summary.keys()
    assert [call.exit_code for call in calls] == [0] * 5
    assert {call.arguments["id"] for call in calls} == {run.folder.name[-10:]}
    assert last.arguments["config"]["x_var.value"] == 0.1


def test_what_it_raises_is_told_in_one_line_and_the_run_is_trained(config: Settings, monkeypatch: pytest.MonkeyPatch):
    def fail(**_: Any) -> None:
        raise RuntimeError("no API key\nconfigured")

    stand_in(monkeypatch).init = fail
    progress = Silent()
    (outcome,) = run_all([config], progress)
    assert outcome.ok
    line = f"logger=wandb: cannot record {outcome.run.folder.name}: RuntimeError: no API key configured"
    assert set(progress.notes) == {line}


def test_a_record_offline(config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (outcome,) = run_all([config])
    assert concluded(outcome.run) == []
    assert list((tmp_path / "wandb").rglob(f"run-{outcome.run.folder.name[-10:]}.wandb"))
