"""Which run is meant by a name."""

import pydoc
import re
from pathlib import Path

import pytest

import experiments
from experiments.find import find
from experiments.frame import ReportError
from tests.fakes import fake_report

NAMES = ("mnist-x0.1-s0-0123456789", "mnist-x0.1-s1-abcdef0123", "mnist-x1-s0-fedcba9876")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "runs" / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "index"),
    [(NAMES[1], 1), ("abcdef0123", 1), ("x1", 2), ("x0.1-s0", 0), ("fedcba9876", 2), ("0123456789", 0)],
)
def test_a_name_a_fingerprint_and_a_unique_part(outputs: Path, name: str, index: int):
    assert find(name, outputs).path == outputs / "runs" / NAMES[index]


def test_a_path_can_lie_anywhere(outputs: Path, monkeypatch: pytest.MonkeyPatch):
    assert find(outputs / "runs" / NAMES[0], "elsewhere").name == NAMES[0]
    monkeypatch.chdir(outputs)
    assert find(f"runs/{NAMES[0]}/", "elsewhere").name == NAMES[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s0", r"s0: 2 runs have this in their names, such as mnist-x0.1-s0-\d+ and mnist-x1-s0-.*; allowed: a longer"),
        ("mnist-x1-s1-fedcba9876", r"no such run in .*/runs \(did you mean mnist-x1-s0-fedcba9876\?\); python -m"),
        ("runs/nothing", "runs/nothing: there is no such run folder"),
        ("best:nothing", "nothing: no such report"),
    ],
)
def test_what_means_no_run_or_several_is_one_line(outputs: Path, name: str, message: str):
    with pytest.raises(ValueError, match=message) as e:
        find(name, outputs)
    assert "\n" not in str(e.value)


def scores(own: dict, row: dict) -> dict:
    """The trade-off of x_var: only 0.1 is below the chord."""
    sse, ffd = {1: (15.0, 1.0), 0.1: (8.0, 1.2), 0.01: (5.0, 20.0)}[own["x_var.value"]]
    more = {"test_sse": sse + 0.01 * own["seed"], "sample_ffd": ffd, "reconstruction_ffd": ffd, "real_ffd": ffd}
    return row | more | {"judge": "a judge", "sample_accuracy": 0.99, "judge_accuracy": 0.99, "sample_coverage": 0.9}


def test_the_best_run_of_a_report_is_of_the_setting_that_it_names(tmp_path: Path):
    folders = fake_report(tmp_path, params={"x_var.value": [1, 0.1, 0.01], "seed": [3, 1]}, change=scores)
    assert experiments.best("trial", tmp_path) == folders[3]
    assert find("best:trial", tmp_path).path == folders[3]


def test_help_lists_the_public_names():
    text = pydoc.plain(pydoc.render_doc(experiments))
    assert all(re.search(rf"^    {name}\(", text, re.M) for name in experiments.__all__)


def test_a_report_that_names_no_setting(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0]}, study={"pick": False})
    with pytest.raises(
        ReportError, match="best:trial: the report recommends no setting; allowed: the name of one of its runs"
    ):
        experiments.best("trial", tmp_path)
