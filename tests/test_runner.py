"""Whole runs: what lands in a folder, what is skipped, what a failure does, what an interruption leaves."""

import csv
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import checkpoint, store, training
from experiments.evaluate import evaluate
from experiments.plan import plan
from experiments.runner import execute
from experiments.settings import result_settings
from experiments.site.build import write
from experiments.store import read_json
from experiments.training import Interrupted, Outcome
from tests.conftest import Configs, Silent, run_all
from vae.config import ConfigError
from vae.data import ImageData
from vae.trained import load_run


def files(outcome: Outcome) -> dict[str, bytes]:
    """The files that must not depend on when and how a run was trained."""
    names = ("result.json", "history.csv", "model.safetensors", "config.yaml")
    return {name: (outcome.run.folder.path / name).read_bytes() for name in names}


def test_a_run_folder_holds_the_model_and_how_training_ended(configs: Configs, toy: ImageData):
    (config,) = configs(trainer__epochs=3)
    (outcome,) = run_all([config])
    folder = outcome.run.folder.path
    assert {p.name for p in folder.iterdir()} == {
        *("config.yaml", "provenance.json", "history.csv", "run.log", "model.safetensors", "result.json"),
    }
    result = read_json(folder / "result.json")
    history = hashlib.sha256((folder / "history.csv").read_bytes()).hexdigest()
    assert result == {**(outcome.result or {}), "files": {"history.csv": history}}
    del result["files"]
    assert result == {
        "schema_version": 2,
        "run": folder.name,
        "status": "ok",
        "diverged_epoch": None,
        "epochs_done": 3,
        "settings": result_settings(config),
        "dataset": "toy",
        "dataset_source": "made up",
        "dataset_hash": toy.content_hash,
        "n_train": 300,
        "n_val": 0,
        "n_test": 60,
        "image_shape": [1, 8, 8],
        "n_classes": 3,
        "input_dim": 64,
        "z_dim": 4,
        "label_repeat_encoder": 5,
        "label_repeat_decoder": 5,
        "n_parameters": (64 + 15) * 16 + 16 + 16 * 8 + 8 + (4 + 15) * 16 + 16 + 16 * 64 + 64,
        "model_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    for key in ("command", "git_commit", "device", "threads", "seed", "dataset_hash", "started", "finished"):
        assert key in provenance
    assert load_run(folder).reconstruct(toy.test_x, toy.test_y).shape == toy.test_x.shape


def test_what_is_finished_is_not_trained_again(configs: Configs, monkeypatch: pytest.MonkeyPatch):
    first = run_all(configs({"seed": 0}, {"seed": 1}))
    before = [files(o) for o in first]
    trained = []
    original = training.train_epoch
    monkeypatch.setattr(training, "train_epoch", lambda stack, *a: trained.append(stack.n_runs) or original(stack, *a))
    again = run_all(configs({"seed": 0}, {"seed": 2}, {"seed": 1}))
    assert trained == [1, 1], "two epochs of seed 2 alone"
    assert [files(again[0]), files(again[2])] == before


def test_the_same_run_twice_in_a_sweep_is_one_run(configs: Configs):
    same = run_all(configs({"label_repeat__value": 1}, {"label_repeat__value": 9}, label_placement__kind="none"))
    assert same[0].run.folder.name == same[1].run.folder.name
    assert same[0].result == same[1].result


@pytest.mark.parametrize("network", [{}, {"model__kind": "conv", "model__hidden": None, "model__channels": [4]}])
def test_a_run_is_bit_identical_alone_and_in_a_sweep(configs: Configs, tmp_path: Path, network: dict[str, Any]):
    changes = [{"seed": s, "x_var__value": v} for s in (0, 1) for v in (0.1, 0.01)]
    together = [files(o) for o in run_all(configs(*changes, trainer__threads=2, **network))]
    alone = configs(*changes, trainer__threads=2, **network)
    for c in alone:
        c.output_dir = str(tmp_path / "alone")
    for a, b in zip(together, [run_all([c])[0] for c in alone], strict=True):
        for name, content in files(b).items():
            if name != "config.yaml":  # it names the output folder
                assert a[name] == content, name


def test_divergence_is_recorded_and_the_siblings_finish(configs: Configs, tmp_path: Path):
    changes = [{"seed": 0}, {"seed": 1, "trainer__lr": 10.0}, {"seed": 2}]
    progress = Silent()
    outcomes = run_all(configs(*changes, trainer__epochs=4), progress)
    assert [o.ok for o in outcomes] == [True, False, True]
    assert outcomes[1].result is not None
    assert outcomes[1].result["status"] == "diverged"
    assert outcomes[1].reason == f"diverged in epoch {outcomes[1].result['diverged_epoch']}"
    assert any("diverged" in note for note in progress.notes)
    without = configs(changes[0], changes[2], trainer__epochs=4)
    for c in without:
        c.output_dir = str(tmp_path / "without")
    for a, b in zip([outcomes[0], outcomes[2]], run_all(without), strict=True):
        assert files(a)["model.safetensors"] == files(b)["model.safetensors"]
        assert files(a)["result.json"] == files(b)["result.json"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("some defect")])
def test_a_stack_that_fails_is_split_and_only_the_culprit_fails(
    configs: Configs, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    original = training.train_epoch

    def fail(stack: Any, *args: Any) -> bool:
        if any(c.seed == 3 for c in stack.configs):
            raise error
        return original(stack, *args)

    monkeypatch.setattr(training, "train_epoch", fail)
    outcomes = run_all(configs(*({"seed": s} for s in range(5)), trainer__stack_size=5))
    assert [o.ok for o in outcomes] == [True, True, True, False, True]
    failure = outcomes[3].run.folder.failure()
    assert failure is not None
    assert str(error) in failure["reason"]
    assert not (outcomes[3].run.folder.path / "result.json").exists()
    monkeypatch.setattr(training, "train_epoch", original)
    again = run_all(configs({"seed": 3}))[0]
    assert again.ok
    assert again.run.folder.failure() is None


def test_out_of_memory_at_eight_runs_is_no_failure_at_four(configs: Configs, monkeypatch: pytest.MonkeyPatch):
    original, sizes = training.train_epoch, []

    def limited(stack: Any, *args: Any) -> bool:
        sizes.append(stack.n_runs)
        if stack.n_runs > 4:
            raise torch.OutOfMemoryError("out of memory")
        return original(stack, *args)

    monkeypatch.setattr(training, "train_epoch", limited)
    assert all(o.ok for o in run_all(configs(*({"seed": s} for s in range(8)), trainer__stack_size=8)))
    assert sizes == [8, 4, 4, 4, 4]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_signal_checkpoints_and_the_same_command_goes_on(
    configs: Configs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal_number: int,
    after: int,
):
    changes = [{"seed": s, "trainer__stack_size": 3} for s in range(3)]
    unbroken = configs(*changes)
    for c in unbroken:
        c.output_dir = str(tmp_path / "unbroken")
    expected = [files(o) for o in run_all(unbroken)]
    steps = []

    class Killer(Silent):
        def tick(self, images: int) -> None:
            steps.append(images)
            if len(steps) == after:
                os.kill(os.getpid(), signal_number)
                while signal.getsignal(signal_number) != handler:
                    time.sleep(0.001)  # the main thread is told of it, this one is not

    handler = signal.getsignal(signal_number)
    with pytest.raises(Interrupted):
        run_all(configs(*changes), Killer())
    assert signal.getsignal(signal_number) == handler
    runs = plan(configs(*changes))
    assert all((run.folder.path / "checkpoint.pt").exists() for run in runs)
    assert all(run.folder.result() is None for run in runs)
    resumed = run_all(configs(*changes))
    for a, b in zip(expected, resumed, strict=True):
        for name, content in files(b).items():
            if name != "config.yaml":
                assert a[name] == content, name
    assert all(not (o.run.folder.path / "checkpoint.pt").exists() for o in resumed)


def test_a_signal_stops_all_stacks_in_training_and_starts_no_other(configs: Configs):
    started = configs(*({"seed": s} for s in range(4)), trainer__epochs=50, trainer__stack_size=1, trainer__threads=2)

    class Killer(Silent):
        def tick(self, images: int) -> None:
            if (
                sum(1 for r in plan(started) if r.folder.path.exists()) == 2
                and signal.getsignal(signal.SIGTERM) != handler
            ):
                os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run_all(started, Killer())
    folders = [run.folder.path for run in plan(started)]
    assert [(f / "checkpoint.pt").exists() for f in folders] == [True, True, False, False]
    assert [f.exists() for f in folders[2:]] == [False, False]


def test_runs_that_stopped_at_different_epochs_go_on_together_as_far_as_they_can(
    configs: Configs, monkeypatch: pytest.MonkeyPatch
):
    runs = plan(configs({"seed": 0}, {"seed": 1}, {"seed": 2}, trainer__epochs=4, trainer__stack_size=3))
    original, epochs = training.train_epoch, []

    def stop(stack: Any, *args: Any) -> bool:
        if stack.epoch == 2:
            handler = signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) == handler:
                time.sleep(0.001)
        return original(stack, *args)

    monkeypatch.setattr(training, "train_epoch", stop)
    with pytest.raises(Interrupted):
        execute(runs[:1], Silent())
    monkeypatch.setattr(
        training, "train_epoch", lambda stack, *a: epochs.append((stack.n_runs, stack.epoch)) or original(stack, *a)
    )
    assert all(o.ok for o in execute(runs, Silent()))
    assert epochs == [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_each_stack_has_its_own_precision(configs: Configs, monkeypatch: pytest.MonkeyPatch):
    original, seen = training.train_epoch, []

    def watch(stack: Any, *args: Any) -> bool:
        seen.append((stack.configs[0].trainer.precision, torch.backends.cuda.matmul.allow_tf32))
        return original(stack, *args)

    monkeypatch.setattr(training, "train_epoch", watch)
    run_all(configs({"trainer__precision": "float32"}, {"trainer__precision": "tf32"}, trainer__epochs=1))
    assert sorted(seen) == [("float32", False), ("tf32", True)]


def test_runs_that_cannot_be_one_program_are_trained_one_after_the_other(configs: Configs):
    progress = Silent()
    adafactor = {"optimizer": {"kind": "Adafactor"}, "trainer__stack_size": 3}
    outcomes = run_all(configs(*({"seed": s} for s in range(3)), **adafactor), progress)
    assert all(o.ok for o in outcomes)
    assert progress.notes == ["mlp runs are trained one after the other, as Adafactor mixes the numbers of a tensor"]


def test_a_checkpoint_of_another_device_is_not_gone_on_from(configs: Configs, tmp_path: Path):
    run = plan(configs())[0]
    run.folder.path.mkdir(parents=True)
    checkpoint.save(run.folder, {"device": "cuda", "epoch": 1, "step": 0})
    assert run_all(configs())[0].ok
    assert "a cuda" in (run.folder.path / "run.log").read_text()


def test_a_full_disk_fails_the_run_in_one_line_and_counts_as_unfinished(
    configs: Configs, monkeypatch: pytest.MonkeyPatch
):
    progress = Silent()
    original = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    runs = plan(configs({"seed": 0}, {"seed": 1}))
    monkeypatch.setattr(os, "fsync", full)
    outcomes = execute(runs, progress)
    monkeypatch.setattr(os, "fsync", original)
    assert not any(o.ok for o in outcomes)
    assert all(run.folder.result() is None for run in runs)
    assert [n for n in progress.notes if n.startswith("failed")] == [
        f"failed: {run.folder.name}: OSError: [Errno 28] No space left on device" for run in runs
    ]
    assert not list(Path(runs[0].folder.path).glob(".*.tmp"))


def test_output_that_cannot_be_written_is_the_users_to_mend(configs: Configs, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    config = configs()[0]
    config.output_dir = str(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"output_dir=.*cannot be written to"):
        run_all([config])


def test_a_run_whose_folder_cannot_be_made_fails_alone(configs: Configs):
    progress = Silent()
    runs = plan(configs({"seed": 0}, {"seed": 1}, {"seed": 2}))
    runs[1].folder.path.parent.mkdir(parents=True)
    runs[1].folder.path.write_text("in the way")
    outcomes = execute(runs, progress)
    assert [o.ok for o in outcomes] == [True, False, True]
    assert "FileExistsError" in outcomes[1].reason
    assert [n for n in progress.notes if n.startswith("failed")] == [
        f"failed: {runs[1].folder.name}: {outcomes[1].reason}"
    ]


def test_runs_trained_by_other_code_are_named_in_one_line(configs: Configs, monkeypatch: pytest.MonkeyPatch):
    first = run_all(configs({"seed": 0}, {"seed": 1}))
    monkeypatch.setattr(store, "training_code", lambda: "changed")
    progress = Silent()
    again = run_all(configs({"seed": 0}, {"seed": 1}, {"seed": 2}), progress)
    assert [files(o)["model.safetensors"] for o in again[:2]] == [files(o)["model.safetensors"] for o in first]
    (line,) = progress.notes
    assert line.startswith("2 of 3 runs were trained by other code than this, ")
    assert line.endswith("to train them again, remove them: python -m experiments.runs prune --other-code")


def test_the_log_has_a_line_for_each_epoch(configs: Configs):
    (outcome,) = run_all(configs(trainer__epochs=3))
    lines = [line for line in (outcome.run.folder.path / "run.log").read_text().splitlines() if " of 3: " in line]
    assert ["epoch 1 of 3: loss" in lines[0], "epoch 3 of 3: loss" in lines[2], len(lines)] == [True, True, 3]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model__hidden": [10**9]}, "model.hidden=[1000000000]: training needs "),
        ({"label_repeat__value": 999_999_999}, "label_repeat=999999999: training needs "),
        ({"model__hidden": [2 * 10**9, 2 * 10**9]}, "model.hidden=[2000000000, 2000000000]: training needs "),
    ],
)
def test_a_model_that_cannot_fit_is_refused_with_the_bytes(configs: Configs, changes: dict[str, Any], line: str):
    with pytest.raises(ConfigError) as caught:
        plan(configs(changes))
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith(" GB")


@pytest.mark.parametrize("kind", ["bernoulli", "continuous_bernoulli"])
def test_a_likelihood_without_x_var_has_no_such_column(configs: Configs, kind: str):
    targets = "pixels" if kind == "bernoulli" else None
    (outcome,) = run_all(configs(likelihood__kind=kind, likelihood__targets=targets))
    header = (outcome.run.folder.path / "history.csv").read_text().splitlines()[0]
    assert header == "epoch,train_sse,train_kl,train_loss,beta,lr"
    evaluate([outcome.run.folder], progress=False)
    write(outcome.run.config.output_dir)
    page = Path(outcome.run.config.output_dir) / "pages" / f"{outcome.run.folder.name}.html"
    assert "x_var (variance of a pixel)" not in page.read_text()
