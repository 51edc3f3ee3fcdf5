"""What a user gets wrong: one line that names the setting, the value and what is allowed; nothing is written.

Each case goes through run.py as the command line would, most of them in this process, so that torch is loaded once.
"""

import itertools
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import stopping

RUN_PY = Path(__file__).parent.parent / "run.py"
CACHE = ".vae-cache"  # pictures decoded once, beside the pictures, whatever is trained on them
FOLDER = "a folder with train/<class>/* and test/<class>/*, or with <class>/*, or with pictures"
TRAINER = "trainer.epochs, trainer.batch_size, trainer.lr, trainer.lr_schedule, trainer.warmup_epochs, trainer.clip, "
TRAINER += "trainer.precision, trainer.device, "
EXPERIMENTS = "beta, bugs, bugs_photos, death, extremes, iwae, labels, likelihoods, search, sweep, training, xvar"
GROUPS = (
    "beta, bug, dataset, experiment, label_placement, label_repeat, likelihood, logger, model, objective, optimizer, "
)
GROUPS += "prior, trainer, x_var, z_dim, seed"
EXPERIMENT = "# @package _global_\nstudy: {{name: own}}\nhydra: {{mode: MULTIRUN, sweeper: {{points: {}}}}}\n"

# A command line, and how the one line on stderr begins.
CASES = [
    # options of a group
    (
        "x_var=lerned",
        "x_var=lerned: not an option (did you mean learned?); allowed: fixed, learned, per_pixel, or a number",
    ),
    ("-m model=mlp,cnn", "model=cnn: not an option; allowed: conv, linear, mlp"),
    ("x_var=null", "x_var=null: not an option; allowed: fixed, learned, per_pixel, or a number"),
    ("trainer.epochs=null", "trainer.epochs=null: wrong type; allowed: a whole number >= 1"),
    # names of settings
    ("trainer.epoch=3", f"trainer.epoch=3: no such setting (did you mean trainer.epochs?); allowed: {TRAINER}"),
    ("x_var={valu:1}", "x_var={valu:1}: no such setting (did you mean x_var.value?); allowed: x_var.kind, x_var.value"),
    ("epochs=3", f"epochs=3: no such setting (did you mean trainer.epochs?); allowed: {GROUPS}"),
    ("lr=0", "trainer.lr=0.0: out of range; allowed: a number > 0 and <= 10"),
    ("foo=3", f"foo=3: no such setting; allowed: {GROUPS}"),
    # experiments
    ("nonsense", f"experiment=nonsense: not an option; allowed: {EXPERIMENTS}"),
    ("xvar labels", "experiment=xvar: experiment is given more than once; allowed: once"),
    (
        "-m experiment=xvar,labels",
        f"experiment=xvar,labels: several experiments; allowed: one of {EXPERIMENTS}",
    ),
    # values
    ("trainer.epochs=abc", "trainer.epochs=abc: wrong type; allowed: a whole number >= 1"),
    ("model.hidden=5", "model.hidden=5: wrong type; allowed: a list of whole numbers, each >= 1"),
    ("model.hidden=[a]", "model.hidden[0]=a: wrong type; allowed: a list of whole numbers, each >= 1"),
    ("model.hidden=[]", "model.hidden=[]: empty; allowed: a list of whole numbers, each >= 1"),
    # settings that do not fit each other, or the data
    ("z_dim=785", "z_dim.value=785: out of range; allowed: at most 784, the number of values of an image"),
    ("beta.cycles=3", "beta.cycles=3: beta=constant does not use it; allowed: with beta=cyclical only"),
    (
        "beta=warmup beta.epochs=3 trainer.epochs=2",
        "beta.epochs=3: the warm-up would not end; allowed: at most trainer.epochs=2",
    ),
    (
        "objective=per_dim x_var=learned",
        "x_var=learned: objective=per_dim has no x_var to learn; allowed: another objective",
    ),
    (
        "model=conv model.channels=[1,2,3,4,5]",
        "model.channels=[1, 2, 3, 4, 5]: too many layers for images of 28x28, because each layer halves them",
    ),
    ("trainer.batch_size=4001", "trainer.batch_size=4001: out of range; allowed: at most 4000, the training images"),
    # seeds
    # sweeps
    ("x_var=1,0.1", "x_var.value=1,0.1: several values; allowed: one value; to train a run for each, add -m"),
    ("seed=range(2) x_var=lerned", "x_var=lerned: not an option (did you mean learned?); allowed: fixed, learned"),
    ("-m x_var=learned,0.1", "x_var=learned,0.1: words and numbers mixed; allowed: numbers, or fixed, learned"),
    (
        "-m x_var=interval(0.1,1)",
        "x_var.value=interval(0.1,1): an interval has no end to sweep; allowed: a list of values or range()",
    ),
    ("-m seed=range(0)", "seed=range(0): 0 values; allowed: 1 to 100,000"),
    ("-m seed=range(0,10,0)", "seed=range(0,10,0): not a range; allowed: range(start, stop, step) of numbers"),
    (
        "-m seed=range(0,1000000000000)",
        "seed=range(0,1000000000000): 1,000,000,000,000 values; allowed: 1 to 100,000",
    ),
    (
        "-m seed=range(0,1000) trainer.batch_size=range(1,102)",
        "seed=range(0,1000) trainer.batch_size=range(1,102): a sweep of 101,000 runs; allowed: at most 100,000",
    ),
    # values of the wrong form
    ("x_var=[0.1]", "x_var=[0.1]: not an option; allowed: fixed, learned, per_pixel, or a number"),
    ("x_var=1e300", "x_var.value=1e+300: out of range; allowed: a number > 0, at most 1e+30"),
    (f"z_dim={2**70}", f"z_dim.value={2**70}: out of range; allowed: a whole number >= 1, at most 2.147e+09"),
    # names of folders
    ("study.name=../x", "study.name='../x': not the name of a folder; allowed: 1 to 60 characters without / and"),
    (f"study.name={'x' * 61}", f"study.name='{'x' * 61}': not the name of a folder"),
    ("hydra.run.dir=/proc/x", "hydra.run.dir=/proc/x: leads out of "),
    ("-m seed=0,1 hydra.sweep.subdir=../../x", "hydra.run.dir=.: leads out of "),
    # what has no effect
    ("~trainer", "~trainer: a setting cannot be removed; allowed: name=value"),
    ("-- x_var=1", "--: does nothing; allowed: name=value and the flags"),
    ("--package x", "--package x: does nothing on its own; allowed: with --cfg"),
    # Hydra's own settings
    (
        "-m hydra.sweeper._target_=foo",
        "-m hydra.sweeper._target_=foo: cannot be read (RuntimeError: Invalid plugin 'foo'",
    ),
    ("hydra.job_logging.root=5", "hydra.job_logging.root=5: cannot be read (ValueError: Unable to configure root"),
    # what cannot be read
    ("seed=0 seed=1", "seed=0: seed is given more than once; allowed: once"),
    ("x_var=[", "x_var=[: cannot be read (no viable alternative at input '['); allowed: name=value"),
    ("trainer.lr='${foo}'", "trainer.lr=${foo}: Interpolation key 'foo' not found"),
    # flags
    ("--foo", "unrecognized arguments: --foo; allowed: the flags of python run.py --hydra-help"),
    ("--cfg job -m", "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified"),
    ("--config-dir nowhere xvar", "Additional config directory '"),
    (
        "-m hydra/launcher=stakced",
        "hydra/launcher=stakced: not an option (did you mean stacked?); allowed: basic, ",
    ),
    # datasets
    ("dataset=image_folder", "dataset.root=null: must be given; allowed: a folder of pictures"),
    ("dataset=good,mnist", "dataset=good,mnist: data of several kinds; allowed: names, or folders, or .npz files"),
    (
        "dataset=goods",
        "dataset=goods: not an option; allowed: cifar10, fashion_mnist, image_folder, mnist, mnist_5k, npz, "
        "photos, torchvision, or the path of a folder of pictures or an .npz file",
    ),
    ("dataset=./empty", "dataset.root=./empty: holds no pictures; allowed: bmp, gif, "),
    ("dataset=./no_test", f"dataset.root=./no_test: has no folder test; allowed: {FOLDER}"),
    ("dataset=./broken", "dataset.root=./broken: cannot read the picture train/a/0.png"),
    ("dataset=./good", "trainer.batch_size=128: out of range; allowed: at most 4, the training images"),
    ("dataset=./good dataset.size=4", "dataset.size=4: out of range; allowed: a whole number >= 8 and <= 256"),
    ("dataset=torchvision", "dataset.name: must be given; allowed: text"),
    (
        "dataset=torchvision dataset.name=KMNST",
        "dataset.name=KMNST: not a classification dataset of torchvision that is known here; nearest: KMNIST, ",
    ),
    (
        "dataset=torchvision dataset.name=KMNIST",
        "dataset.root=data: there is no complete KMNIST in data, and its download failed; put ",
    ),
    # where to write
    ("output_dir=file/outputs", "output_dir=file/outputs: cannot write to "),
    (
        "output_dir=/proc/outputs",
        "output_dir=/proc/outputs: cannot be written to (No such file or directory); allowed: a folder of yours",
    ),
    ("output_dir=", "output_dir=: empty; allowed: a folder, such as . for the current one"),
]
# More of the same kinds.
MORE_CASES = [
    ("model=5", "model=5: not an option; allowed: conv, linear, mlp"),
    ("model=[mpl]", "model=mpl: not an option (did you mean mlp?); allowed: conv, linear, mlp"),
    ("x_var=", "x_var=: not an option; allowed: fixed, learned, per_pixel, or a number"),
    ("x_var.value=", "x_var.value=: wrong type; allowed: a number > 0"),
    ("+trainer.epoch=3", f"trainer.epoch=3: no such setting (did you mean trainer.epochs?); allowed: {TRAINER}"),
    ("epoch=3", f"epoch=3: no such setting (did you mean trainer.epochs?); allowed: {GROUPS}"),
    ("modle=conv", f"modle=conv: no such setting (did you mean model?); allowed: {GROUPS}"),
    ("foo.bar=3", f"foo.bar=3: no such setting; allowed: {GROUPS}"),
    ("-m xvra", f"experiment=xvra: not an option (did you mean xvar?); allowed: {EXPERIMENTS}"),
    ("x_var=-0.1", "x_var.value=-0.1: out of range; allowed: a number > 0"),
    ("beta=0", "beta.value=0.0: out of range; allowed: a number > 0"),
    ("x_var=nan", "x_var.value=nan: out of range; allowed: a number > 0"),
    ("trainer.lr=inf", "trainer.lr=inf: out of range; allowed: a number > 0 and <= 10"),
    ("trainer.epochs=2.5", "trainer.epochs=2.5: wrong type; allowed: a whole number >= 1"),
    ("trainer.precision=maybe", "trainer.precision=maybe: not an option; allowed: one of float32, tf32, bfloat16"),
    ("model.hidden=[8,0]", "model.hidden=[8, 0]: out of range; allowed: a list of whole numbers, each >= 1"),
    ("trainer.lr_schedule=step", "trainer.lr_schedule=step: not an option; allowed: one of constant, cosine"),
    ("z_dim=0", "z_dim.value=0: out of range; allowed: a whole number >= 1"),
    ("z_dim=compression z_dim.ratio=0.5", "z_dim.ratio=0.5: out of range; allowed: a number >= 1"),
    (
        "z_dim=compression z_dim.ratio=785",
        "z_dim.ratio=785: out of range; allowed: at most 784, the number of values of an image",
    ),
    ("z_dim=pca z_dim.variance=1.1", "z_dim.variance=1.1: out of range; allowed: a number > 0 and <= 1"),
    ("seed=-1", "seed=-1: out of range; allowed: a whole number >= 0 and <= "),
    ("seed=1.5", "seed=1.5: wrong type; allowed: a whole number >= 0 and <= "),
    ("seed=abc", "seed=abc: wrong type; allowed: a whole number >= 0 and <= "),
    ("seed=range(2)", "seed=range(2): several values; allowed: one value; to train a run for each, add -m"),
    ("-m x_var=1,-0.1 seed=0,1", "x_var.value=-0.1: out of range; allowed: a number > 0"),
    ("-m trainer.epochs=1,abc", "trainer.epochs=abc: wrong type; allowed: a whole number >= 1"),
    ("sweep trainer.lr=0", "trainer.lr=0.0: out of range; allowed: a number > 0 and <= 10"),
    ("-m seed=range(5,1)", "seed=range(5,1): 0 values; allowed: 1 to 100,000"),
    ("-m seed=range(nan)", "seed=range(nan): not a range; allowed: range(start, stop, step) of numbers"),
    ("-m seed=glob(*)", "seed=glob(*): 0 values; allowed: 1 to 100,000"),
    ("-m experiment=glob(*)", f"experiment=glob(*): several experiments; allowed: one of {EXPERIMENTS}"),
    ("model.hidden=[[4]]", "model.hidden=[[4]]: wrong type; allowed: a list of whole numbers, each >= 1"),
    ("beta=1e-300", "beta.value=1e-300: out of range; allowed: a number > 0, at least 1e-30"),
    ("-m study.name=a/b seed=0,1", "study.name='a/b': not the name of a folder; allowed: 1 to 60 characters"),
    ("-m seed=0,1 hydra.sweep.dir=../x", "hydra.sweep.dir=../x: leads out of "),
    ("x_var=1 x_var.value=2", "x_var.value=1: x_var.value is given more than once; allowed: once"),
    ("model.hidden=[4", "model.hidden=[4: cannot be read (no viable alternative at input '[4'); allowed: name=value"),
    ("x_var.value", "x_var.value: cannot be read (missing EQUAL at '<EOF>'); allowed: name=value"),
    ("--cfg jobs", "argument --cfg/-c: invalid choice: 'jobs'"),
    ("dataset.root=foo", "dataset.root=foo: dataset=mnist_5k does not use it; allowed: with dataset=mnist or "),
    ("dataset=./nowhere", f"dataset.root=./nowhere: no such folder; allowed: {FOLDER}"),
    ("dataset=./file", f"dataset.root=./file: is not a folder; allowed: {FOLDER}"),
    ("dataset=good", "trainer.batch_size=128: out of range; allowed: at most 4, the training images"),
    ("dataset=nowhere.npz", "dataset.root=nowhere.npz: no such file; allowed: an .npz file with x_train"),
    ("dataset=./good dataset.channels=2", "dataset.channels=2: out of range; allowed: 1 (grey) or 3 (colour)"),
    ("dataset=npz", "dataset.root=null: must be given; allowed: a file of arrays"),
    ("dataset=./nowhere.npz", "dataset.root=./nowhere.npz: no such file; allowed: an .npz file with x_train"),
    ("dataset.name=KMNIST", "dataset.name=KMNIST: dataset=mnist_5k does not use it; allowed: with dataset=torchvision"),
    ("dataset=mnist", "dataset.root=data: there is no complete MNIST in data, and its download failed"),
    ("-m seed=0,1 output_dir=file", "output_dir=file: cannot write to "),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some good and some bad folders of pictures, and no network."""
    both = ("train", "test")
    folders = {"good": ("ab", both), "broken": ("ab", both), "no_test": ("ab", both[:1])}
    for name, (classes, splits) in folders.items():
        for split, label in itertools.product(splits, classes):
            folder = tmp_path / name / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "broken/train/a/0.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nobody listens
    for variable in ("no_proxy", "NO_PROXY", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    """All files under a folder but for the caches of datasets."""
    files = (p for p in folder.rglob("*") if CACHE not in p.parts)
    return {p: p.read_bytes() if p.is_file() else b"" for p in files}


RunPy = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def run_py(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunPy:
    """Runs run.py in this process: exit status, stdout, stderr."""

    def run(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(RUN_PY), *shlex.split(command)])
        with pytest.raises(SystemExit) as leaving:
            runpy.run_path(str(RUN_PY), run_name="__main__")
        assert isinstance(leaving.value.code, int)
        out, err = capfd.readouterr()
        return leaving.value.code, out, err

    return run


def quoted(command: str) -> str:
    """What a shell would make of the brackets and braces that stand here without quotes."""
    return command if "'" in command else " ".join(shlex.quote(word) for word in command.split())


@pytest.mark.parametrize(
    ("command", "line"),
    [
        *(pytest.param(command, line, id=command) for command, line in CASES),
        *(pytest.param(command, line, id=command, marks=pytest.mark.slow) for command, line in MORE_CASES),
    ],
)
def test_one_line_and_nothing_written(here: Path, run_py: RunPy, command: str, line: str) -> None:
    before = contents(here)
    status, out, err = run_py(quoted(command))
    assert status == 2
    assert out == ""
    assert err.startswith(f"run.py: {line}")
    assert err.count("\n") == 1
    assert contents(here) == before


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ("[5]", "In 'experiment/own': ValidationError raised while composing config: Cannot assign int to Dict["),
        ("[{z_dim.valu: 10}]", "z_dim.valu=10: no such setting (did you mean z_dim.value?); allowed: z_dim.kind, "),
        ("[{z_dim.value: 10}, {z_dim.value: -1}]", "z_dim.value=-1: out of range; allowed: a whole number >= 1"),
        ("[{x_var: lerned}]", "x_var=lerned: not an option (did you mean learned?); allowed: fixed, learned"),
        ("[{", "while parsing a flow "),
    ],
)
@pytest.mark.parametrize("more", ["", " seed=0,1"])
def test_mistakes_in_an_experiment_of_ones_own(here: Path, run_py: RunPy, points: str, line: str, more: str) -> None:
    (here / "conf/experiment").mkdir(parents=True)
    (here / "conf/experiment/own.yaml").write_text(EXPERIMENT.format(points))
    before = contents(here)
    status, out, err = run_py(f"--config-dir conf own{more}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"run.py: {line}")
    assert contents(here) == before


def test_no_gpu(here: Path, run_py: RunPy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = contents(here)
    expected = "run.py: trainer.device=cuda: there is no usable GPU; allowed here: auto, cpu\n"
    assert run_py("trainer.device=cuda") == (2, "", expected)
    assert contents(here) == before


def test_traceback_on_request(here: Path, run_py: RunPy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    status, _, err = run_py("trainer.epochs=abc")
    assert status == 2
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("\nrun.py: trainer.epochs=abc: wrong type; allowed: a whole number >= 1\n")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_defect_keeps_its_traceback(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only mistakes of the user are put into one line; this one is ours, raised inside the run."""
    monkeypatch.setattr("experiments.launch.job.plan", lambda configs: [][0])
    monkeypatch.setattr(sys, "argv", [str(RUN_PY)])
    with pytest.raises(IndexError):
        runpy.run_path(str(RUN_PY), run_name="__main__")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("-m x_var=1,-0.1", "x_var.value=-0.1: out of range; allowed: a number > 0\n"),
        ("dataset=./nowhere", f"dataset.root=./nowhere: no such folder; allowed: {FOLDER}\n"),
    ],
)
def test_in_a_process_of_its_own(here: Path, command: str, line: str) -> None:
    before = contents(here)
    done = subprocess.run([sys.executable, RUN_PY, *command.split()], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"run.py: {line}")
    assert contents(here) == before


def test_ctrl_c_in_training(here: Path) -> None:
    command = [sys.executable, RUN_PY, "trainer.epochs=100000", "model.hidden=[8]", "trainer.threads=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(here.glob("outputs/runs/*/run.log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "run.py: stopped; the same command continues from here"
    assert not re.search(r"Traceback|Error", err)
    assert list(here.glob("outputs/runs/*/checkpoint.pt"))


@pytest.mark.parametrize("moment", ["hydra", "experiments.launch.grid", "torch.nn", "pandas"])
def test_ctrl_c_at_any_moment(here: Path, moment: str) -> None:
    """While a module is imported that the composing of settings, the training or the report needs."""
    program = f"""
import os, runpy, signal, sys, time
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
sys.meta_path.insert(0, Finder())
sys.path.insert(0, {str(RUN_PY.parent)!r})
sys.argv = [{str(RUN_PY)!r}, "-m", "x_var=1,0.1", "trainer.epochs=1"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "run.py: stopped; the same command continues from here\n"
    assert time.monotonic() - begun < 20


def test_ctrl_c_while_runs_are_measured(here: Path) -> None:
    """What is being computed is finished and written; nothing else is measured, and no report is built."""
    program = f"""
import os, runpy, signal, sys, time
sys.path.insert(0, {str(RUN_PY.parent)!r})
import experiments.evaluate as evaluation
compute = evaluation.compute
def interrupted(family, subject):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    return compute(family, subject)
evaluation.compute = interrupted
sys.argv = [{str(RUN_PY)!r}, "-m", "seed=0,1,2", "trainer.epochs=1", "model.hidden=[8]"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "run.py: stopped; the same command continues from here"
    assert len(list(here.glob("outputs/runs/*/result.json"))) == 3
    assert len(list(here.glob("outputs/runs/*/metrics/*.json"))) == 1
    assert not list(here.glob("outputs/reports/*/report.md"))


def test_ctrl_c_says_what_it_waits_for(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.1)
    for patience, lines in ((0.0, 0), (0.5, 1)):
        with stopping.after_writing("run.py"):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            time.sleep(patience)
        err = capfd.readouterr().err
        assert (
            err.count("run.py: stopping; the checkpoint, evaluation or report in progress is finished first") == lines
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
