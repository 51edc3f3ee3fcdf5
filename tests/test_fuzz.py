"""Command lines from a grammar of settings, in this process: each is composed and checked, or refused in one line.

Nothing is trained. The examples are the same each time.
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from experiments.launch import cli, job
from experiments.launch.grid import GridSweeper
from experiments.launch.search import OptunaSweeper
from experiments.settings import Settings
from tests.test_cli import ROOT
from vae import config as vae_config

NAMES = [name for name, _, _, _ in vae_config.settings(Settings())]
GROUPS = cli.groups()
HYDRA = [
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweeper.params",
    "hydra.sweeper.points",
    "hydra.mode",
    "hydra.job.num",
]
HYDRA += ["hydra/sweeper", "hydra/launcher", "hydra.sweeper._target_", "hydra.launcher.n_jobs", "hydra.searchpath"]
OPTIONS = sorted({option for group in GROUPS for option in cli.options(group)})

numbers = st.one_of(
    st.integers(-3, 40).map(str),
    st.sampled_from(
        ["0.1", "1e-3", "1e300", "5e-324", "-0.0", "nan", "inf", "-inf", str(2**63), str(2**70), "1_0", "0x1", ".5"]
    ),
    st.floats(allow_subnormal=False).map(repr),  # these cannot be drawn after torch.set_flush_denormal
)
words = st.sampled_from(
    [*OPTIONS, "null", "true", "false", "abc", "", "../x", "a/b", "/proc/x", ".", "$^$", "é", "???", "${seed}", "${x}"]
)
texts = st.text(max_size=6)
quoted = texts.map(lambda text: "'" + text.replace("'", "") + "'")
atoms = st.one_of(numbers, words, quoted)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]"),
        st.dictionaries(st.sampled_from(["a", "value", "kind", "1"]), inner, max_size=2).map(
            lambda d: "{" + ",".join(f"{k}:{v}" for k, v in d.items()) + "}"
        ),
    ),
    max_leaves=4,
)
calls = st.builds(
    lambda name, arguments: f"{name}({','.join(arguments)})",
    st.sampled_from(
        ["range", "interval", "choice", "glob", "tag", "sort", "shuffle", "int", "float", "str", "bool", "f"]
    ),
    st.lists(st.one_of(values, st.just("*"), st.just("log")), max_size=3),
)
sweeps = st.lists(st.one_of(values, calls), min_size=1, max_size=3).map(",".join)
keys = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(GROUPS),
    st.sampled_from(HYDRA),
    st.sampled_from(["foo", "model.x", "seed.x", "@"]),
)
overrides = st.builds(
    "{}{}={}".format, st.sampled_from(["", "", "", "", "+", "++", "~"]), keys, st.one_of(values, sweeps)
)
arguments = st.lists(
    st.one_of(overrides, overrides, overrides, texts, st.sampled_from(["xvar", "beta", "~model", "--", "x_var", "="])),
    min_size=1,
    max_size=3,
)
flags = st.sampled_from([[], [], ["-m"], ["-m"], ["--cfg", "job"], ["--package", "x"], ["--info", "defaults"]])


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each command ends where the settings are checked."""

    def check_all(sweeper: GridSweeper, arguments: Sequence[str]) -> None:
        rows, _ = sweeper.batch(arguments)
        configs = [sweeper.compose.settings(row) for row in rows[:20]]
        assert sweeper.report_name(arguments, configs)

    def check_space(sweeper: OptunaSweeper, arguments: Sequence[str]) -> None:
        sweeper.space(arguments)

    monkeypatch.setattr(GridSweeper, "sweep", check_all)
    monkeypatch.setattr(OptunaSweeper, "sweep", check_space)
    monkeypatch.setattr(job, "train_job", lambda cfg: None)
    monkeypatch.chdir(tmp_path)


def run(command: Sequence[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *command])
    capfd.readouterr()
    status: Any = 0
    try:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    except SystemExit as leaving:
        status = leaving.code
    err = capfd.readouterr().err
    assert (status, err.count("\n")) in ((0, 0), (1, 1), (2, 1)), err
    assert "Traceback" not in err
    assert not [path for path in Path.cwd().rglob("*") if path.is_file()]


COMMON: dict[str, Any] = {"derandomize": True, "deadline": None, "database": None}
COMMON |= {"phases": [Phase.explicit, Phase.generate]}
COMMON |= {"suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@example(["seed=range(0,1000000000000)"], ["-m"])
@example(["x_var=[0.1]"], [])
@given(arguments, flags)
@settings(max_examples=40, **COMMON)
def test_some_command_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: list[str], flags: list[str]
) -> None:
    run([*flags, *given], capfd, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(arguments, flags)
@settings(max_examples=2000, **COMMON)
def test_two_thousand_command_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: list[str], flags: list[str]
) -> None:
    run([*flags, *given], capfd, monkeypatch)
