"""Numbers compared with those of the reference reports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.frame import Report
from experiments.reading import read
from experiments.report.compare import Comparison, compare, line
from tests.fakes import fake_report


@pytest.fixture
def report(tmp_path: Path) -> Report:
    fake_report(tmp_path, "trial", {"x_var.value": [0.1, 1.0], "seed": [0, 1]}, history=False)
    return read("trial", tmp_path)


def ship(report: Report, root: Path, name: str = "trial", *, runs: slice = slice(None)) -> pd.DataFrame:
    """Writes the report's runs as a reference and returns them as they were written."""
    (root / name).mkdir(parents=True)
    frame = report.runs.iloc[runs]
    frame.to_csv(root / name / "runs.csv")
    return frame


def test_equal_numbers_are_counted(report: Report, tmp_path: Path):
    frame = ship(report, tmp_path / "reference")
    found = compare(report, tmp_path / "reference")
    assert found is not None
    assert (found.reference, found.n_runs, found.n_differ, found.largest) == ("trial", 4, 0, 0.0)
    # Counted apart: every number that is no setting and not the seed.
    numbers = [c for c in frame.select_dtypes("number") if "." not in str(c) and c not in ("seed", "usable")]
    assert found.n_numbers == frame[numbers].notna().sum().sum() > 4 * 30
    assert line(found) == f"All {found.n_numbers} numbers of 4 runs equal those of the shipped report trial."


def test_the_largest_difference_is_named(report: Report, tmp_path: Path):
    frame = ship(report, tmp_path / "reference").copy()
    last, other = frame.index[-1], frame.index[0]
    frame.loc[other, "test_kl"] *= 1 + 1e-12
    frame.loc[last, "test_sse"] *= 0.98
    frame.to_csv(tmp_path / "reference" / "trial" / "runs.csv")
    found = compare(report, tmp_path / "reference")
    assert found is not None
    assert (found.n_differ, found.column, found.run) == (2, "test_sse", last)
    assert found.largest == pytest.approx(0.02, rel=1e-9)
    assert f"differ from those of the shipped report trial, by at most 2 % (test_sse of {last})." in line(found)


def test_means_over_seeds_agree_if_the_interval_of_their_difference_contains_0(tmp_path: Path):
    fake_report(tmp_path, "trial", {"x_var.value": [0.1, 1.0], "seed": [0, 1, 2]}, history=False)
    report, root = read("trial", tmp_path), tmp_path / "reference"
    frame = ship(report, root).copy()
    small = frame.index[frame["x_var.value"] == 0.1]
    # With 3 seeds, t is 4.303 at 95 %: differences of 1, 2, 3 have the interval 2 ± 2.48, and 2, 3, 4 have 3 ± 2.48.
    frame.loc[small, "test_kl"] += [1.0, 2.0, 3.0]
    frame.loc[small, "test_sse"] += [2.0, 3.0, 4.0]
    frame.loc[small, "test_theory_sse_high"] *= 1 + 1e-9  # alike in all seeds, but only rounding
    frame.to_csv(root / "trial" / "runs.csv")
    found = compare(report, root)
    assert found is not None
    assert found.n_differ == 9
    assert found.n_means * 3 == found.n_numbers
    assert found.n_agree == found.n_means - 1
    assert line(found).endswith(
        f"Of {found.n_means} means over seeds, {found.n_agree} agree: the 95 % interval of their difference contains 0."
    )


def test_scores_of_another_judge_are_not_among_the_means(tmp_path: Path):
    scores = {"sample_ffd": 2.0, "sample_accuracy": 0.9}

    def judged(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | {"judge": "one"} | {name: value + settings["seed"] for name, value in scores.items()}

    fake_report(tmp_path, "trial", {"x_var.value": [0.1, 1.0], "seed": [0, 1, 2]}, history=False, change=judged)
    report, root = read("trial", tmp_path), tmp_path / "reference"
    frame = ship(report, root).copy()
    before = compare(report, root)
    for column in ("test_kl", *scores):
        frame[column] += 1
    for judge in ("one", "another"):
        frame.assign(judge=judge).to_csv(root / "trial" / "runs.csv")
        found = compare(report, root)
        assert before is not None
        assert found is not None
        assert found.same_judge == (judge == "one")
        assert before.n_means - found.n_means == (0 if judge == "one" else 2 * len(scores))  # two values of x_var
        assert found.n_means - found.n_agree == (2 + 2 * len(scores) if judge == "one" else 2)
    assert line(found).endswith(" Scores by the judge are not among them, because the judges differ.")


def test_a_value_that_is_0_in_the_reference_differs_by_100_percent(report: Report, tmp_path: Path):
    frame = ship(report, tmp_path / "reference").copy()
    frame.loc[frame.index[0], "test_kl"] = 0.0
    frame.to_csv(tmp_path / "reference" / "trial" / "runs.csv")
    found = compare(report, tmp_path / "reference")
    assert found is not None
    assert "by at most 100 % (test_kl of" in line(found)


def test_a_value_in_only_one_of_the_two_is_a_difference(report: Report, tmp_path: Path):
    frame = ship(report, tmp_path / "reference").copy()
    frame.loc[frame.index[1], "test_sse"] = math.nan
    frame.to_csv(tmp_path / "reference" / "trial" / "runs.csv")
    found = compare(report, tmp_path / "reference")
    assert found is not None
    assert (found.n_differ, found.largest, found.column, found.run) == (1, math.inf, "test_sse", frame.index[1])
    assert "has a value in only one of them." in line(found)


def test_the_reference_that_shares_most_runs_is_chosen(report: Report, tmp_path: Path):
    root = tmp_path / "reference"
    assert compare(report, root) is None
    ship(report, root, "a_small", runs=slice(1))
    ship(report, root, "large", runs=slice(3))
    (root / "broken").mkdir()
    (root / "broken" / "runs.csv").write_text("nothing")
    found = compare(report, root)
    assert found is not None
    assert (found.reference, found.n_runs) == ("large", 3)


def test_columns_of_text_in_an_old_reference_are_not_compared(report: Report, tmp_path: Path):
    root = tmp_path / "reference"
    frame = ship(report, root)
    before = compare(report, root)
    assert before is not None
    frame.assign(test_kl="collapsed").to_csv(root / "trial" / "runs.csv")
    found = compare(report, root)
    assert found is not None
    assert (found.n_differ, found.n_numbers) == (0, before.n_numbers - len(frame))


def test_runs_without_an_end_are_not_compared(tmp_path: Path):
    fake_report(tmp_path, "trial", {"seed": [0, 1]}, history=False)
    root = tmp_path / "reference"
    ship(read("trial", tmp_path), root)
    fake_report(
        tmp_path / "new", "trial", {"seed": [0, 1]}, history=False, change=lambda s, row: row if s["seed"] else None
    )
    found = compare(read("trial", tmp_path / "new"), root)
    assert found is not None
    assert found.n_runs == 1


def test_one_run_is_one_run():
    assert (
        line(Comparison("xvar", 1, 90, 0, 0.0, "", ""))
        == "All 90 numbers of 1 run equal those of the shipped report xvar."
    )
