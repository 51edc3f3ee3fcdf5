"""The stacked launcher against Hydra's others, each through the real entry point, and what Hydra gets back."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.evaluate import read_metrics
from experiments.settings import read_settings
from experiments.store import all_runs
from tests.datasets import noise

ROOT = Path(__file__).parent.parent
SWEEP = ["-m", "seed=0,1", "trainer.epochs=1", "model.hidden=[8]", "z_dim=2", "trainer.batch_size=50"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def results(output_dir: Path) -> dict[str, dict]:
    """The seed and the metrics of each run that is trained and evaluated, by its name."""
    runs = [run for run in all_runs(output_dir) if run.result()]
    return {run.name: {"seed": read_settings(run.path).seed, **read_metrics(run)[0]} for run in runs}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names a few small pictures."""
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    y = np.arange(200) % 2
    np.savez(path, x_train=noise(0, 200, 8, 8), x_test=noise(1, 200, 8, 8), y_train=y, y_test=y)
    return f"dataset={path}"


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    """A finished quiet sweep of two runs; a callback wrote `record` beside it, and `printed` is what it said."""
    output_dir = tmp_path_factory.mktemp("stacked") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECORD", str(output_dir.parent / "record"))
        done = run(
            *SWEEP,
            data,
            f"output_dir={output_dir}",
            "quiet=true",
            "+hydra.callbacks.record._target_=tests.recorder.Recorder",
        )
    assert done.returncode == 0, done.stderr
    (output_dir.parent / "printed").write_text(done.stdout + done.stderr)
    return output_dir


def test_a_sweep_from_the_command_line_ends_in_a_report(stacked: Path):
    assert len(results(stacked)) == 2
    reports = list((stacked / "reports").glob("*/report.md"))
    assert len(reports) == 1
    hydra = all_runs(stacked)[0].path / ".hydra"
    assert {p.name for p in hydra.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert "seed=" in (hydra / "overrides.yaml").read_text()


def test_a_quiet_sweep_prints_only_its_end(stacked: Path):
    lines = (stacked.parent / "printed").read_text().splitlines()
    (report,) = (stacked / "reports").glob("*/report.md")
    assert lines[1] == json.loads((report.parent / "summary.json").read_text())["answer"]
    assert lines[-2:] == [f"report: {report}", f"page: {stacked}/index.html"]
    assert all(line.startswith("|") for line in lines[3:-3])


def test_callbacks_hear_of_each_job_and_its_return(stacked: Path):
    events = [json.loads(line) for line in (stacked.parent / "record").read_text().splitlines()]
    starts = [e for e in events if e["event"] == "start"]
    ends = [e for e in events if e["event"] == "end"]
    assert [(e["seed"], e["number"]) for e in starts] == [(0, 0), (1, 1)]
    assert [e["status"] for e in ends] == ["JobStatus.COMPLETED"] * 2
    by_seed = {r["seed"]: r["test_sse"] for r in results(stacked).values()}
    assert [e["sse"] for e in ends] == [by_seed[0], by_seed[1]]
    assert all(f"seed={e['seed']}" in e["overrides"] for e in ends)


LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_submitit_launcher", ["hydra.launcher.timeout_min=5"]),
    "ray": ("hydra_ray_launcher", ["+hydra.launcher.ray.init.num_cpus=2"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_other_launchers_train_the_same_runs(stacked: Path, data: str, tmp_path: Path, name: str):
    package, extra = LAUNCHERS[name]
    if importlib.util.find_spec(f"hydra_plugins.{package}") is None:
        pytest.skip(f"the extra for hydra/launcher={name} is not installed")
    done = run(*SWEEP, data, f"output_dir={tmp_path}", f"hydra/launcher={name}", *extra, "trainer.threads=1")
    assert done.returncode == 0, done.stderr
    ours, theirs = results(stacked), results(tmp_path)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert theirs[key]["test_sse"] == pytest.approx(ours[key]["test_sse"], rel=1e-4)
    assert len(list((tmp_path / "reports").glob("*/report.md"))) == 1
