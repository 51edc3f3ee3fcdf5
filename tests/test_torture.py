"""A sweep that is killed again and again, two sweeps at once, and a disk that is full: nothing lost, nothing twice.

`make torture` runs the long form and prints its figures.
"""

import multiprocessing
import os
import random
import resource
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from experiments.settings import Settings
from experiments.store import all_runs
from tests.conftest import make_data, tiny_config

# Children are forked from a server that has imported torch, with the part that an optimizer loads late, and computed
# nothing: a start costs milliseconds.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "torch._dynamo", "experiments.runner", "tests.conftest"])


def configs(output_dir: str, n_runs: int) -> list[Settings]:
    """Runs of three shapes, one learning its x_var, checkpointed after each epoch."""
    made = []
    for i in range(n_runs):
        config = tiny_config(seed=i, z_dim__value=2 + i % 3, trainer__epochs=6, output_dir=output_dir)
        config.trainer.checkpoint_seconds = 0.0
        config.x_var.kind = "learned" if i % 4 == 3 else "fixed"
        made.append(config)
    return made


def train(output_dir: str, n_runs: int, slow: float, size_limit: int) -> None:
    """Trains the runs in this process; the file `writing` beside the output says whether it is inside a write."""
    from experiments import plan
    from experiments.progress import Progress
    from experiments.runner import execute

    toy = make_data()
    plan.load_data = lambda dataset: toy
    sync = os.fsync
    flag = os.open(f"{output_dir}.writing", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def slow_sync(descriptor: int) -> None:
        os.pwrite(flag, b"1", 0)
        time.sleep(slow)
        sync(descriptor)
        os.pwrite(flag, b"0", 0)

    os.fsync = slow_sync
    if size_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    runs = plan.plan(configs(output_dir, n_runs))
    with open(os.devnull, "w") as silent:
        outcomes = execute(runs, Progress(len(runs), 1, silent))
    os._exit(0 if all(o.ok for o in outcomes) else 1)


def train_with_few_files(output_dir: str) -> None:
    """Trains 300 runs as one stack in this process, which may have 64 files open."""
    from experiments import plan
    from experiments.progress import Progress
    from experiments.runner import execute

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    os.fsync = lambda descriptor: None
    toy = make_data(n_train=32, n_test=8)
    plan.load_data = lambda dataset: toy
    common = {"trainer__epochs": 1, "trainer__batch_size": 32, "trainer__stack_size": 300, "output_dir": output_dir}
    runs = plan.plan([tiny_config(seed=i, **common) for i in range(300)])
    with open(os.devnull, "w") as silent:
        outcomes = execute(runs, Progress(len(runs), 1, silent))
    os._exit(0 if all(o.ok for o in outcomes) else 1)


def start(output_dir: Path, n_runs: int, *, slow: float = 0.0, size_limit: int = 0) -> ForkServerProcess:
    process = SERVER.Process(target=train, args=(str(output_dir), n_runs, slow, size_limit))
    process.start()
    return process


def results(output_dir: Path) -> dict[str, dict[str, bytes]]:
    """The files of each run that must be those of an unbroken sweep."""
    names = ("result.json", "history.csv", "model.safetensors")
    return {run.name: {n: (run.path / n).read_bytes() for n in names} for run in all_runs(output_dir)}


def torture(tmp_path: Path, n_runs: int, kills: int, seed: int) -> dict[str, int]:
    """Kills a sweep at random instants until it has been killed often enough, then lets it end.

    Returns:
        kills, kills inside a write, runs whose files differ from an unbroken sweep's, temporary files left,
        runs finished more than once.
    """
    chance = random.Random(seed)
    whole = start(tmp_path / "unbroken", n_runs)
    whole.join()
    assert whole.exitcode == 0
    broken, flag = tmp_path / "broken", tmp_path / "broken.writing"
    done = inside = 0
    while done < kills:
        flag.unlink(missing_ok=True)
        process = start(broken, n_runs, slow=0.004)
        while process.is_alive() and not (flag.exists() and flag.read_bytes()):
            time.sleep(0.002)  # until it has written for the first time
        deadline = time.monotonic() + chance.uniform(0.0, 0.5)
        while time.monotonic() < deadline and process.is_alive():
            time.sleep(0.002)
        while done % 2 and process.is_alive() and flag.read_bytes() != b"1":
            time.sleep(0.001)  # every other kill is inside a write
        if not process.is_alive():
            # Finished before its time: take some runs away again, so that there is something left to kill.
            assert process.exitcode == 0
            for run in chance.sample(all_runs(broken), n_runs // 2):
                for file in run.path.iterdir():
                    file.unlink()
            continue
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
        inside += flag.read_bytes() == b"1"
    last = start(broken, n_runs)
    last.join()
    assert last.exitcode == 0
    expected, got = results(tmp_path / "unbroken"), results(broken)
    finished = [(run.path / "run.log").read_text().count(" finished: ") for run in all_runs(broken)]
    return {
        "kills": done,
        "kills inside a write": inside,
        "runs that differ": sum(expected[name] != got.get(name) for name in expected) + len(got) - len(expected),
        "temporary files left": len(list(broken.rglob("*.tmp"))),
        "runs finished more than once": sum(n > 1 for n in finished),
    }


def check(figures: dict[str, int], kills: int) -> None:
    print(", ".join(f"{value} {name}" for name, value in figures.items()))
    assert figures["kills"] == kills
    assert figures["kills inside a write"] > 0
    assert figures["runs that differ"] == 0
    assert figures["temporary files left"] == 0
    assert figures["runs finished more than once"] == 0


def test_a_sweep_killed_again_and_again_equals_an_unbroken_one(tmp_path: Path):
    check(torture(tmp_path, n_runs=4, kills=6, seed=0), kills=6)


@pytest.mark.slow
def test_torture(tmp_path: Path):
    check(torture(tmp_path, n_runs=12, kills=100, seed=1), kills=100)


def test_two_processes_at_once_train_each_run_once(tmp_path: Path):
    both = [start(tmp_path / "shared", 6) for _ in range(2)]
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    logs = [(run.path / "run.log").read_text() for run in all_runs(tmp_path / "shared")]
    assert [log.count("training from") for log in logs] == [1] * 6
    assert [log.count("finished:") for log in logs] == [1] * 6


def test_three_hundred_runs_in_one_stack_need_few_open_files(tmp_path: Path):
    process = SERVER.Process(target=train_with_few_files, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 0
    logs = [(run.path / "run.log").read_text() for run in all_runs(tmp_path)]
    assert len(logs) == 300
    assert all("in a stack of 300" in log for log in logs)


def test_files_over_a_size_limit_fail_the_runs_and_nothing_half_written_counts(tmp_path: Path):
    limited = start(tmp_path / "full", 3, size_limit=4096)  # settings fit, a model does not
    limited.join()
    assert limited.exitcode == 1
    runs = [run.path for run in all_runs(tmp_path / "full")]
    assert len(runs) == 3
    for run in runs:
        assert not (run / "result.json").exists()
        assert not list(run.glob("*.tmp"))
        assert not list(run.glob(".*.tmp"))
        assert "File too large" in (run / "failed.json").read_text()
    again = start(tmp_path / "full", 3)
    again.join()
    whole = start(tmp_path / "whole", 3)
    whole.join()
    assert again.exitcode == whole.exitcode == 0
    assert results(tmp_path / "full") == results(tmp_path / "whole")
