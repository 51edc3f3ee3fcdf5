"""The command line: short forms, help, tab completion, start-up."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.launch import cli
from experiments.launch.grid import GridSweeper
from vae.config import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("command", "rewritten"),
    [
        ("", ""),
        ("x_var=learned", "x_var=learned"),
        ("x_var=0.1", "x_var.value=0.1"),
        ("z_dim=10,100", "z_dim.value=10,100"),
        ("beta=1e-3,.5", "beta.value=1e-3,.5"),
        ("x_var=choice(1,0.1)", "x_var.value=choice(1,0.1)"),
        ("label_repeat=range(1,4)", "label_repeat.value=range(1,4)"),
        ("z_dim=sort(3,1)", "z_dim.value=sort(3,1)"),
        ("x_var=-1 beta=nan", "x_var.value=-1 beta.value=nan"),
        ("model=mlp,conv x_var=fixed,learned", "model=mlp,conv x_var=fixed,learned"),
        ("model=glob(*)", "model=glob(*)"),
        ("xvar", "experiment=xvar"),
        ("my-own_experiment2", "experiment=my-own_experiment2"),
        ("experiment=xvar", "experiment=xvar"),
        ("dataset=mnist", "dataset=mnist"),
        ("dataset=./a", "dataset=image_folder dataset.root='./a'"),
        ("dataset=../a(b),/c", "dataset=image_folder dataset.root='../a(b)','/c'"),
        ("dataset=./a.npz", "dataset=npz dataset.root='./a.npz'"),
        ("dataset=a.npz,b.npz", "dataset=npz dataset.root='a.npz','b.npz'"),
        ("dataset=tests", "dataset=image_folder dataset.root='tests'"),  # a folder that exists
        ("dataset=it's/here", r"dataset=image_folder dataset.root='it\'s/here'"),
        ("trainer.epochs=3 +x.y=1 ~hydra.x", "trainer.epochs=3 +x.y=1 ~hydra.x"),
        ("lr=0.01,0.1 hidden=[8] ratio=2", "trainer.lr=0.01,0.1 model.hidden=[8] z_dim.ratio=2"),
        ("epochs=3 name=x", "epochs=3 name=x"),  # of several groups
        ("-m xvar seed=0,1 --info config", "-m --info config experiment=xvar seed=0,1"),
        ("x_var=1 --multirun seed=0,1", "--multirun x_var.value=1 seed=0,1"),
        ("--config-dir mine xvar", "--config-dir mine experiment=xvar"),
        ("-sc query=bash", "-sc query=bash"),
    ],
)
def test_short_forms(command: str, rewritten: str) -> None:
    assert cli.rewrite(command.split()) == rewritten.split()


@pytest.mark.parametrize(
    "command",
    [
        "x_var=learned,0.1",
        "x_var=null",
        "model=5",
        "experiment=a,b",
        "seed=0 seed=0",
        "-x",
        "~x_var",
        "--",
        "--package x",
    ],
)
def test_what_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match=r"; allowed: "):
        cli.rewrite(command.split())


@pytest.mark.parametrize("command", ["xvar", "-m xvar", "-m experiment=xvar", "xvar -m"])
def test_an_experiment_is_a_sweep_with_and_without_m(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[int] = []
    monkeypatch.setattr(GridSweeper, "sweep", lambda self, arguments: sweeps.append(len(self.batch(arguments)[0])))
    monkeypatch.setattr(sys, "argv", ["run.py", *command.split()])
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    assert sweeps == [60]


def test_no_trace_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["run.py", "x_var=0.3"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    seen = []
    cli.run(lambda: seen.append((sys.argv[1:], os.environ["HYDRA_FULL_ERROR"])))
    assert seen == [(["x_var.value=0.3"], "1")]
    assert (sys.argv, "HYDRA_FULL_ERROR" in os.environ) == (argv, False)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "stopped; the same command continues from here"),
        (cli.SweepFailed("1 of 2 runs failed"), 1, "1 of 2 runs failed"),
        (cli.Stop("diverged", 1), 1, "diverged"),
        (ConfigError("seed=-1: out of range"), 2, "seed=-1: out of range"),
    ],
)
def test_how_it_ends(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def entry() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(SystemExit) as leaving:
        cli.run(entry)
    assert leaving.value.code == status
    assert capsys.readouterr() == ("", f"run.py: {line}\n")


HELP = ["--help", "xvar x_var=learned --help"]
FLAGS = ["--cfg job -p x_var x_var=0.3", "--info searchpath", "--hydra-help"]
MISTAKES = ["trainer.epoch=3", "x_var=-1", "-m x_var=1,-1", "x_var=["]
PROGRAM = """
import contextlib, io, json, runpy, sys
said = {}
for command in sys.argv[1:]:
    sys.argv = ["run.py", *command.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        with contextlib.suppress(SystemExit):
            runpy.run_path("run.py", run_name="__main__")
    slow = {"torch", "torchvision", "pandas", "matplotlib", "plotly", "jinja2", "numpy"} & set(sys.modules)
    said[command] = out.getvalue(), err.getvalue(), sorted(slow)
print(json.dumps(said))
"""


Said = dict[str, tuple[str, str, list[str]]]


@pytest.fixture(scope="module")
def said() -> Said:
    """What each command prints to stdout and stderr, and the slow modules that are imported until then."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *HELP, *FLAGS, *MISTAKES],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", [*HELP, *FLAGS])
def test_help_is_not_an_error(said: Said, command: str) -> None:
    assert said[command][1] == ""


@pytest.mark.parametrize("command", [*HELP, *FLAGS, *MISTAKES])
def test_help_and_mistakes_need_no_torch(said: Said, command: str) -> None:
    """Torch takes seconds to import."""
    assert said[command][2] == []


def test_help(said: Said) -> None:
    text = said["--help"][0]
    for group in cli.groups():
        for option in cli.options(group):
            assert cli.summary(group, option), f"conf/{group}/{option}.yaml begins with no comment"
            if group in ("optimizer", "bug"):
                assert f" {option}" in text
            elif group != "trainer":
                assert f"\n  {option:20} {cli.summary(group, option)}\n" in text
    for command in (
        "python run.py sweep",
        "python run.py -m x_var=1,0.1 seed=0,1",
        "x_var:\n  kind: fixed\n  value: 0.1\n",
    ):
        assert command in text
    assert "$" not in text.replace('"$(python run.py', "")  # all of Hydra's placeholders are filled in
    assert text.count("\n") < 185


def test_an_experiment_without_a_comment_is_described_by_its_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiment").mkdir()
    monkeypatch.setattr(cli, "CONF", tmp_path)
    texts = {
        "a": "# @package _global_\n# A comment.\nstudy: {title: T}",
        "b": "# @package _global_\nstudy: {title: T, question: 'Q?'}",
        "c": "study: {title: T}",
        "d": "study: [",
        "e": "",
    }
    for name, text in texts.items():
        (tmp_path / f"experiment/{name}.yaml").write_text(text)
    assert [cli.summary("experiment", name) for name in texts] == ["A comment.", "Q?", "T", "", ""]


def test_help_shows_the_settings_of_its_command(said: Said) -> None:
    assert "x_var:\n  kind: learned\n" in said["xvar x_var=learned --help"][0]


def test_flags_of_hydra(said: Said) -> None:
    job, path, flags = (said[command][0] for command in FLAGS)
    assert job == "# @package x_var\nkind: fixed\nvalue: 0.3\n"
    assert "Config search path" in path
    assert "--multirun" in flags


COMPLETIONS = {
    "x_var=": {"x_var=fixed", "x_var=learned", "x_var=per_pixel"},
    "x_var=le": {"x_var=learned"},
    "x_var.": {"x_var.kind=", "x_var.value="},
    "label_": {"label_placement", "label_placement=", "label_placement.", "label_repeat=", "label_repeat."},
    "xv": {"xvar"},
    "trainer.lr_schedule=": {
        f"trainer.lr_schedule={choice}" for choice in cli.known_settings()["trainer.lr_schedule"]["choices"]
    },
    "lr_schedule=co": {"lr_schedule=constant", "lr_schedule=cosine"},
    "xvar x_var=0.3 beta.va": {"beta.value="},  # after short forms, which Hydra could not read
    "-m x_var=1,0.1 dataset=mn": {"dataset=mnist", "dataset=mnist_5k"},
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_tab_completion(tmp_path: Path) -> None:
    """Through Hydra's own script in a real bash, which takes the suggestions from run.py."""
    (tmp_path / "python").symlink_to(sys.executable)
    script = 'eval "$(python run.py -sc install=bash)"\n'
    for line in COMPLETIONS:
        script += f"""
            COMP_LINE='python run.py {line}' COMP_POINT=999 COMP_CWORD={len(line.split()) + 1}
            COMPREPLY=()
            hydra_bash_completion
            echo "${{COMPREPLY[@]}}"
        """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    found = dict(zip(COMPLETIONS, done.stdout.splitlines(), strict=True))
    for line, expected in COMPLETIONS.items():
        assert set(found[line].split()) - {"label_placement"} == expected - {"label_placement"}, line
