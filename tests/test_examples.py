"""Every command, YAML and Python block of README.md and docs/, and the notebook, verbatim, on a fresh copy.

Commands are run by bash. `python` is a script that appends the settings of $MORE to those of a command that trains, so
that it takes seconds; pip and the servers of TensorBoard and MLflow are stand-ins that do nothing.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets import mnist_files, noise, write_all

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = """#!/bin/sh
case "$*" in
  run.py*--help) ;;
  run.py*|"-m experiments.claims"*) set -- "$@" $MORE ;;
esac
exec {python} "$@"
"""
QUICK = re.compile(r"experiments\.(runs (list|sample|prune)|diagnose)|make report")
PACKAGES = ("tensorboard", "mlflow", "wandb", "optuna")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language in all pages, as they stand there."""
    found = [re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(), re.M | re.S) for page in PAGES]
    return [textwrap.dedent(text) for page in found for _, name, text in page if name == language]


COMMANDS = [line for block in blocks("") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed files as a clone has them, an environment, and the data that the commands name."""
    root = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    scripts = {"python": PYTHON.format(python=sys.executable)}
    scripts |= dict.fromkeys(("pip", "tensorboard", "mlflow"), "#!/bin/sh\n")
    (root / ".venv/bin").mkdir(parents=True)
    for name, text in scripts.items():
        (root / ".venv/bin" / name).write_text(text)
        (root / ".venv/bin" / name).chmod(0o755)
    (root / ".venv/.made").touch()
    for name in ("MNIST", "KMNIST"):
        write_all(root / "data" / name / "raw", mnist_files(200, 50))
    for i in range(200):
        split = "test" if i % 5 == 4 else "train"
        for path in (f"path/to/pictures/{split}/{'ab'[i % 2]}/{i}.png", f"My Pictures/{i}.png"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(i, 8, 8, 3)).save(root / path)
    np.savez(root / "path/to/arrays.npz", x_train=noise(0, 200, 8, 8), x_test=noise(1, 50, 8, 8))
    return root


def run(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user would who has activated the environment, with a run's name for RUN."""
    if (root / "run_name").exists():
        command = re.sub(r"\bRUN\b(?!=)", (root / "run_name").read_text(), command)
    more = "trainer.epochs=1 trainer.threads=1" + " seed=0" * (not re.search("seed=|SEEDS=", command))
    more += " hydra.sweeper.n_trials=2" * ("optuna" in command)
    environment = {"PATH": f"{root}/.venv/bin:{os.environ['PATH']}", "MORE": more}
    environment["PYTEST_ADDOPTS"] = "tests/test_wording.py"  # for `make test`
    return subprocess.run(
        ["bash", "-c", command],
        cwd=root, env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(copy: Path) -> Path:
    """The copy with an experiment `xvar` of two small runs, one of which is the run RUN."""
    code = """
from experiments.manifest import manifest, write_manifest
from experiments.plan import plan
from experiments.progress import Progress
from experiments.runner import execute
from tests.conftest import tiny_config

data = {"dataset__kind": "mnist", "dataset__root": "data"}
runs = plan([tiny_config(x_var__value=value, **data) for value in (0.1, 1.0)])
execute(runs, Progress(2, 1))
write_manifest(manifest(runs, ["x_var.value"], "xvar"), "outputs")
print(runs[0].folder.path)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    (copy / "run_name").write_text(Path(done.stdout.strip()).name)
    return copy


@pytest.fixture
def untouched(copy: Path, tmp_path: Path) -> Path:
    """The copy without what other tests have run in it."""
    return shutil.copytree(copy, tmp_path / "clone", ignore=shutil.ignore_patterns("runs", "reports"))


def test_the_first_python_block_runs_on_a_fresh_copy(untouched: Path):
    shown = next(block for block in blocks("python") if "experiments.table(" in block)
    code = shown + "\nassert runs.shape[0] == 60 and nearest in runs.index"
    done = subprocess.run([sys.executable, "-c", code], cwd=untouched, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"xvar: none of its runs is in outputs/runs; these are the numbers of .*\n", done.stderr)


def test_the_python_blocks_have_the_values_that_they_say(trained: Path):
    values = """
assert runs["x_var.value"].tolist() == [0.1, 1.0]
assert runs["test_psnr"].notna().all()
assert digits.shape == (10, 1, 28, 28)
assert mu.shape == logvar.shape == (5, 4)
assert x_hat.shape == (5, 1, 28, 28)
"""
    code = "\n".join([*blocks("python"), values])
    done = subprocess.run([sys.executable, "-c", code], cwd=trained, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=[] if QUICK.search(c) else pytest.mark.slow, id=c.partition(" #")[0].strip())
        for c in COMMANDS
    ],
)
def test_a_command_runs(trained: Path, command: str):
    for package in PACKAGES:
        if package in command and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = run(trained, command)
    finished = "rerun RUN" in command and " is finished" in done.stderr
    assert done.returncode == 0 or finished, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def experiment(copy: Path) -> str:
    """The name of the experiment in the YAML block, which is put where the README says."""
    text, _ = blocks("yaml")
    name = re.findall(r"study: {name: (\w+)", text)[0]
    (copy / f"conf/experiment/{name}.yaml").write_text(text)
    return name


def test_the_option_of_an_own_network_is_that_of_the_example():
    assert blocks("yaml")[1] == (ROOT / "examples/own_parts/conf/model/gated.yaml").read_text()


def test_the_experiment_is_described_by_the_help(copy: Path, experiment: str):
    assert re.search(rf"^  {experiment} +Does depth matter\?$", run(copy, "python run.py --help").stdout, re.M)


@pytest.mark.slow
def test_the_experiment_runs(trained: Path, experiment: str):
    done = run(trained, f"python run.py {experiment}")
    assert done.returncode == 0, done.stderr
    assert len(list((trained / "outputs/reports").glob(f"{experiment}*/report.md"))) == 1


NOTEBOOK = ROOT / "examples/tour.ipynb"


def test_the_notebook_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_the_notebook_runs(untouched: Path):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    values = """
assert len(runs) == 50
assert sevens.shape == (10, 1, 28, 28)
assert ((x - x_hat).square().flatten(1).sum(1).mean() < 20).item()
assert mu.shape == (1000, 20)
assert len(plt.get_fignums()) == 3
"""
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(untouched)}
    command = [sys.executable, "-c", "\n".join([*code, values])]
    done = subprocess.run(command, cwd=untouched / "examples", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
