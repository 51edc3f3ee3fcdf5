"""Runs as a DataFrame: one row per run, grouped over seeds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from experiments.reading import read
from tests.fakes import change, fake_report


def test_a_report_has_one_row_per_run_and_one_cell_per_setting(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "label_placement.kind": ["both", "none"], "seed": [1, 0]})
    report = read("trial", tmp_path)
    assert report.runs.shape[0] == 8
    assert report.keys == ["x_var.value", "label_placement.kind"]
    assert report.main == "x_var.value"
    assert [cell.settings for cell in report.cells] == [
        {"x_var.value": x, "label_placement.kind": p} for x in (1, 0.1) for p in ("both", "none")
    ]
    assert list(report.cells[0].runs["seed"]) == [0, 1]
    assert [(rest, len(cells)) for rest, cells in report.lines] == [
        ({"label_placement.kind": "both"}, 2),
        ({"label_placement.kind": "none"}, 2),
    ]
    assert report.setting(report.cells[1], "label_placement") == "none"
    assert report.setting(report.cells[1], "z_dim") == 10
    assert report.objectives == ["elbo"]


def test_intervals_are_students_over_the_usable_runs(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        return None if settings == {"x_var.value": 1, "seed": 2} else row

    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2, 3]}, change=change)
    report = read("trial", tmp_path)
    assert [cell.interval("test_kl").n for cell in report.cells] == [3, 4]
    assert [cell.settings["x_var.value"] for cell in report.cells] == [1, 0.1]
    for cell in report.cells:
        kl, found = cell.usable["test_kl"], cell.interval("test_kl")
        low, high = stats.t.interval(0.95, len(kl) - 1, kl.mean(), stats.sem(kl))
        assert found.n == len(kl)
        assert found.mean == pytest.approx(kl.mean(), rel=1e-12)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_one_value_has_no_interval_and_none_no_mean(tmp_path: Path):
    fake_report(
        tmp_path,
        params={"x_var.value": [1, 0.1], "seed": [0]},
        change=lambda s, r: r if s["x_var.value"] == 1 else None,
    )
    one, none = (cell.interval("test_kl") for cell in read("trial", tmp_path).cells)
    assert (one.n, none.n) == (1, 0)
    assert math.isnan(one.low)
    assert math.isnan(none.low)
    assert math.isfinite(one.mean)
    assert math.isnan(none.mean)


def test_a_run_that_cannot_be_used_keeps_its_settings_and_has_a_reason(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str | None:
        return [row, "OutOfMemoryError: too big", None, row | {"status": "diverged", "diverged_epoch": 2}][
            settings["seed"]
        ]

    folders = fake_report(tmp_path, params={"x_var.value": [0.1], "seed": [0, 1, 2, 3]}, change=change)
    runs = read("trial", tmp_path).runs
    assert list(runs["outcome"]) == ["ok", "failed", "missing", "diverged"]
    assert runs["reason"].iloc[1] == "OutOfMemoryError: too big"
    assert runs["usable"].tolist() == [True, False, False, False]
    assert runs["x_var.value"].tolist() == [0.1] * 4
    assert runs["test_kl"].isna().tolist() == [False, True, True, True]
    (folders[0] / "result.json").write_text("{")
    runs = read("trial", tmp_path).runs
    assert runs["outcome"].iloc[0] == "failed"
    assert runs["reason"].iloc[0] == "its result or its model is damaged or missing"


def test_the_reason_why_a_run_was_not_evaluated_is_its_own(tmp_path: Path):
    folders = fake_report(tmp_path, params={"seed": [0, 1]})
    for family in ("reconstruction", "generation"):
        path = folders[0] / "metrics" / f"{family}.json"
        change(path, failure={"reason": f"ValueError: no {family}", "traceback": ""})
    runs = read("trial", tmp_path).runs
    assert runs["outcome"].tolist() == ["failed", "ok"]
    assert runs["reason"].iloc[0] == "ValueError: no reconstruction"
    assert runs["failures"].iloc[0] == {
        "generation": "ValueError: no generation",
        "reconstruction": "ValueError: no reconstruction",
    }
    assert runs["failures"].iloc[1] == {}


def test_a_setting_without_a_part_in_a_run_is_a_group_of_its_own(tmp_path: Path):
    points = [{"label_placement.kind": "both", "label_repeat.value": n} for n in (1, 5)]
    points.append({"label_placement.kind": "none", "label_repeat.value": None})  # type: ignore[dict-item]
    fake_report(tmp_path, params={"seed": [0, 1]}, points=points)
    cells = read("trial", tmp_path).cells
    assert [cell.settings["label_repeat.value"] for cell in cells] == [1, 5, None]
    assert [len(cell.runs) for cell in cells] == [2, 2, 2]
