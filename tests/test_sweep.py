"""Whole runs: what lands in a folder, what is skipped, what a failure does, what an interruption leaves."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from experiments import sweep
from experiments.progress import Progress
from experiments.result import COLUMNS
from experiments.sweep import Interrupted, Outcome, execute, plan, stacks, workers_for
from tests.conftest import make_data, tiny_config
from vae import config as vae_config
from vae.config import Config, ConfigError
from vae.data import ImageData
from vae.trained import load_run


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData) -> Callable[..., list[Config]]:
    """Makes configs for runs on toy data below tmp_path, one for each dictionary of changes."""
    monkeypatch.setattr(sweep, "_load", lambda dataset: toy)

    def make(*changes: dict[str, Any], **common: Any) -> list[Config]:
        return [tiny_config(**common, **c, output_dir=str(tmp_path / "outputs")) for c in changes or ({},)]

    return make


class Silent(Progress):
    def __init__(self) -> None:
        super().__init__(0, 0)
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def run_all(configs: list[Config], progress: Progress | None = None) -> list[Outcome]:
    runs = plan(configs)
    return execute(runs, progress or Silent(), [None] * len(runs))


def files(outcome: Outcome) -> dict[str, bytes]:
    """The files that must not depend on when and how a run was trained."""
    names = ("result.json", "history.csv", "model.pt", "samples.png", "reconstructions.png", "config.yaml")
    return {name: (outcome.run.folder.path / name).read_bytes() for name in names}


def test_a_run_folder_holds_what_the_design_says(configs: Callable[..., list[Config]]):
    outcome = run_all(configs())[0]
    folder = outcome.run.folder.path
    assert {p.name for p in folder.iterdir()} == {
        *("config.yaml", "provenance.json", "history.csv", "run.log", "model.pt"),
        *("samples.png", "reconstructions.png", "result.json"),
    }
    result = json.loads((folder / "result.json").read_text())
    settings = {name for name, _, meta, _ in vae_config.settings(Config()) if meta["affects_result"]}
    assert set(result) == settings | set(COLUMNS)
    assert result["status"] == "ok"
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    for key in ("command", "git_commit", "device", "threads", "seed", "dataset_hash", "started", "finished"):
        assert key in provenance
    with Image.open(folder / "samples.png") as sheet:
        assert sheet.width > 300


def test_result_holds_what_its_own_model_gives(configs: Callable[..., list[Config]], toy: ImageData):
    outcome = run_all(configs(trainer__epochs=5))[0]
    assert outcome.result is not None
    model = load_run(outcome.run.folder.path)
    mu, logvar = model.encode(toy.test_x, toy.test_y)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    x = toy.test_x.float() / 255
    sse_mean = (model.reconstruct(toy.test_x, toy.test_y) - x).square().sum(dim=(1, 2, 3)).mean()
    assert outcome.result["test_kl"] == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    assert outcome.result["test_kl_per_dim"] == pytest.approx(kl.mean(0).tolist(), rel=1e-4)
    assert outcome.result["test_sse_mean"] == pytest.approx(sse_mean.item(), rel=1e-5)
    # The test images and the training images are other images, and each has its own columns.
    assert outcome.result["train_sse_mean"] != outcome.result["test_sse_mean"]


def test_what_is_finished_is_not_trained_again(configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch):
    first = run_all(configs({"seed": 0}, {"seed": 1}))
    before = [files(o) for o in first]
    trained = []
    original = sweep.train_epoch
    monkeypatch.setattr(sweep, "train_epoch", lambda stack, *a: trained.append(stack.n_runs) or original(stack, *a))
    again = run_all(configs({"seed": 0}, {"seed": 2}, {"seed": 1}))
    assert trained == [1, 1], "two epochs of seed 2 alone"
    assert [files(again[0]), files(again[2])] == before


def test_the_same_run_twice_in_a_sweep_is_one_run(configs: Callable[..., list[Config]]):
    same = run_all(configs({"label_repeat__value": 1}, {"label_repeat__value": 9}, label_placement__kind="none"))
    assert same[0].run.folder.name == same[1].run.folder.name
    assert same[0].result == same[1].result


def test_stack_size_and_threads_change_nothing_but_the_speed(configs: Callable[..., list[Config]], tmp_path: Path):
    changes = [{"seed": s, "x_var__value": v} for s in (0, 1) for v in (0.1, 0.01)]
    together = [files(o) for o in run_all(configs(*changes))]
    apart = configs(*changes, trainer__stack_size=1, trainer__threads=2)
    assert workers_for(plan(apart), threads=2) == 2
    for c in apart:
        c.output_dir = str(tmp_path / "apart")
    for a, b in zip(together, run_all(apart), strict=True):
        for name, content in files(b).items():
            if name != "config.yaml":  # it names the stack size and the threads
                assert a[name] == content, name


def test_stacks_share_shape_and_length_and_are_of_even_size(configs: Callable[..., list[Config]]):
    changes = [{"seed": s, "z_dim__value": z} for z in (3, 4) for s in range(5)]
    sizes = [[r.config.z_dim.value for r in stack] for stack in stacks(plan(configs(*changes, trainer__stack_size=4)))]
    assert sizes == [[3, 3, 3], [3, 3], [4, 4, 4], [4, 4]]
    lengths = plan(configs({"trainer__epochs": 2}, {"trainer__epochs": 3}, {"trainer__lr": 0.01}))
    assert [len(s) for s in stacks(lengths)] == [2, 1]


def test_workers_share_the_runs_and_convolutions_take_all_threads(configs: Callable[..., list[Config]]):
    runs = plan(configs(*({"seed": s} for s in range(9))))
    assert [workers_for(runs[:n], threads=4) for n in (0, 1, 3, 9)] == [1, 1, 3, 4]
    assert [len(s) for s in stacks(runs, workers=2)] == [3, 3, 3], "half of a worker's share or less"
    conv = {"model__kind": "conv", "model__hidden": None, "model__channels": [4]}
    assert workers_for(plan(configs(conv, {"seed": 1})), threads=4) == 1


def test_divergence_is_recorded_and_the_siblings_finish(configs: Callable[..., list[Config]], tmp_path: Path):
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
        assert files(a)["model.pt"] == files(b)["model.pt"]
        assert files(a)["result.json"] == files(b)["result.json"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("some defect")])
def test_a_stack_that_fails_is_split_and_only_the_culprit_fails(
    configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch, error: Exception
):
    original = sweep.train_epoch

    def fail(stack: Any, *args: Any) -> bool:
        if any(c.seed == 3 for c in stack.configs):
            raise error
        return original(stack, *args)

    monkeypatch.setattr(sweep, "train_epoch", fail)
    outcomes = run_all(configs(*({"seed": s} for s in range(5))))
    assert [o.ok for o in outcomes] == [True, True, True, False, True]
    failure = outcomes[3].run.folder.failure()
    assert failure is not None
    assert str(error) in failure["reason"]
    assert not (outcomes[3].run.folder.path / "result.json").exists()
    monkeypatch.setattr(sweep, "train_epoch", original)
    again = run_all(configs({"seed": 3}))[0]
    assert again.ok
    assert again.run.folder.failure() is None


def test_out_of_memory_at_eight_runs_is_no_failure_at_four(
    configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
):
    original, sizes = sweep.train_epoch, []

    def limited(stack: Any, *args: Any) -> bool:
        sizes.append(stack.n_runs)
        if stack.n_runs > 4:
            raise torch.OutOfMemoryError("out of memory")
        return original(stack, *args)

    monkeypatch.setattr(sweep, "train_epoch", limited)
    assert all(o.ok for o in run_all(configs(*({"seed": s} for s in range(8)))))
    assert sizes == [8, 4, 4, 4, 4]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_signal_checkpoints_and_the_same_command_goes_on(
    configs: Callable[..., list[Config]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal_number: int,
    after: int,
):
    changes = [{"seed": s} for s in range(3)]
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


def test_a_signal_stops_all_stacks_in_training_and_starts_no_other(configs: Callable[..., list[Config]]):
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
    configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
):
    runs = plan(configs({"seed": 0}, {"seed": 1}, {"seed": 2}, trainer__epochs=4, trainer__checkpoint_seconds=0.0))
    original, epochs = sweep.train_epoch, []

    def stop(stack: Any, *args: Any) -> bool:
        if stack.epoch == 2:
            handler = signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) == handler:
                time.sleep(0.001)
        return original(stack, *args)

    monkeypatch.setattr(sweep, "train_epoch", stop)
    with pytest.raises(Interrupted):
        execute(runs[:1], Silent(), [None])
    monkeypatch.setattr(
        sweep, "train_epoch", lambda stack, *a: epochs.append((stack.n_runs, stack.epoch)) or original(stack, *a)
    )
    assert all(o.ok for o in execute(runs, Silent(), [None] * 3))
    assert epochs == [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_each_stack_has_its_own_tf32(configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch):
    original, seen = sweep.train_epoch, []

    def watch(stack: Any, *args: Any) -> bool:
        seen.append((stack.configs[0].trainer.tf32, torch.backends.cuda.matmul.allow_tf32))
        return original(stack, *args)

    monkeypatch.setattr(sweep, "train_epoch", watch)
    run_all(configs({"trainer__tf32": False}, {"trainer__tf32": True}, trainer__epochs=1))
    assert seen == [(False, False), (True, True)]


def test_a_checkpoint_of_another_device_is_not_gone_on_from(configs: Callable[..., list[Config]], tmp_path: Path):
    run = plan(configs())[0]
    run.folder.path.mkdir(parents=True)
    run.folder.save_checkpoint({"device": "cuda", "epoch": 1, "step": 0})
    assert run_all(configs())[0].ok
    assert "from the start" in (run.folder.path / "run.log").read_text()


def test_a_full_disk_fails_the_run_in_one_line_and_counts_as_unfinished(
    configs: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
):
    progress = Silent()
    original = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    runs = plan(configs({"seed": 0}, {"seed": 1}))
    monkeypatch.setattr(os, "fsync", full)
    outcomes = execute(runs, progress, [None, None])
    monkeypatch.setattr(os, "fsync", original)
    assert not any(o.ok for o in outcomes)
    assert all(run.folder.result() is None for run in runs)
    assert [n for n in progress.notes if n.startswith("failed")] == [
        f"failed: {run.folder.name}: OSError: [Errno 28] No space left on device" for run in runs
    ]
    assert not list(Path(runs[0].folder.path).glob(".*.tmp"))


def test_output_that_cannot_be_written_is_the_users_to_mend(configs: Callable[..., list[Config]], tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    config = configs()[0]
    config.output_dir = str(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"output_dir=.*cannot be written to"):
        run_all([config])


def test_more_images_a_batch_than_there_are_is_refused(configs: Callable[..., list[Config]]):
    with pytest.raises(ConfigError, match=r"trainer.batch_size=301: .* at most 300"):
        plan(configs(trainer__batch_size=301))


def test_data_with_another_content_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = []
    for seed in (0, 1):
        data = make_data(seed=seed)
        monkeypatch.setattr(sweep, "_load", lambda dataset, data=data: data)
        names.append(plan([tiny_config(output_dir=str(tmp_path))])[0].folder.name)
    assert names[0] != names[1]
    assert names[0].rsplit("-", 1)[0] == names[1].rsplit("-", 1)[0]


def test_a_run_whose_folder_cannot_be_made_fails_alone(configs: Callable[..., list[Config]]):
    progress = Silent()
    runs = plan(configs({"seed": 0}, {"seed": 1}, {"seed": 2}))
    runs[1].folder.path.parent.mkdir(parents=True)
    runs[1].folder.path.write_text("in the way")
    outcomes = execute(runs, progress, [None] * 3)
    assert [o.ok for o in outcomes] == [True, False, True]
    assert "FileExistsError" in outcomes[1].reason
    assert [n for n in progress.notes if n.startswith("failed")] == [
        f"failed: {runs[1].folder.name}: {outcomes[1].reason}"
    ]


def test_checkpoints_take_no_more_than_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: now[0])
    checkpointer = sweep._Checkpointer(interval=10.0)

    class Slow:
        class Folder:
            def save_checkpoint(self, state: object) -> None:
                now[0] += 2.0  # seconds that a write takes

        folder = Folder()

    class OneRun:
        def state(self, k: int) -> None: ...

    now[0] = 10.5
    assert checkpointer.due(epoch_ended=False)
    checkpointer.write([Slow()], OneRun())  # pyright: ignore[reportArgumentType]
    now[0] += 99.0  # 2 s of writing are 2 % of 100 s
    assert not checkpointer.due(epoch_ended=True)
    now[0] += 1.5
    assert checkpointer.due(epoch_ended=False)


def test_reports_made_again_do_not_make_the_code_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*args: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *args], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("experiments/code.py", "outputs/report.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("as committed")
    git("add", ".")
    git("commit", "-m", "all")
    monkeypatch.setattr(sweep, "__file__", str(tmp_path / "experiments" / "code.py"))
    found = []
    for changed in ("outputs/report.md", "experiments/code.py"):
        (tmp_path / changed).write_text("changed")
        found.append(sweep.git_state.__wrapped__()["git_dirty"])
    assert found == [False, True]
