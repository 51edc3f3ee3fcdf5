"""Runs as a DataFrame: one row per run, grouped over seeds."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import experiments
from experiments import frame
from experiments.frame import ReportError, read
from experiments.report.build import collect
from tests.fakes import SPECTRUM, WITHIN, change, fake_report, put
from vae import theory


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


@pytest.mark.parametrize(("placement", "spectrum"), [("both", WITHIN), ("none", SPECTRUM), ("decoder", SPECTRUM)])
def test_sse_ratio_compares_with_the_closed_form_at_equal_kl(tmp_path: Path, placement: str, spectrum: list[float]):
    fake_report(tmp_path, params={"seed": [0]}, fixed={"label_placement.kind": placement})
    (row,) = read("trial", tmp_path).runs.to_dict("records")
    expected = row["train_sse"] / theory.distortion(spectrum, row["train_kl"], 10)
    assert row["sse_ratio"] == pytest.approx(expected, rel=1e-12)


def test_a_setting_without_a_part_in_a_run_is_a_group_of_its_own(tmp_path: Path):
    points = [{"label_placement.kind": "both", "label_repeat.value": n} for n in (1, 5)]
    points.append({"label_placement.kind": "none", "label_repeat.value": None})  # type: ignore[dict-item]
    fake_report(tmp_path, params={"seed": [0, 1]}, points=points)
    cells = read("trial", tmp_path).cells
    assert [cell.settings["label_repeat.value"] for cell in cells] == [1, 5, None]
    assert [len(cell.runs) for cell in cells] == [2, 2, 2]


def test_table_has_the_settings_that_differ_and_every_number(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    runs = experiments.table("trial", tmp_path)
    assert list(runs.columns[:4]) == ["x_var.value", "seed", "outcome", "reason"]
    assert {"test_kl", "test_sse", "train_theory_kl_low", "n_train", "sse_ratio"} <= set(runs.columns)
    numbers = runs.drop(columns=["outcome", "reason"])
    assert all(np.issubdtype(kind, np.number) for kind in numbers.dtypes)
    assert runs.groupby("x_var.value")["test_sse"].mean().idxmin() == 0.1
    assert len(experiments.table(output_dir=tmp_path)) == 4
    assert len(experiments.table(output_dir=tmp_path / "nothing")) == 0


def test_table_falls_back_on_the_reference_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fake_report(tmp_path / "a", params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    own = experiments.table("trial", tmp_path / "a")
    collect("trial", tmp_path / "a")
    monkeypatch.setattr(frame, "REFERENCE", tmp_path / "a/reports")
    fake_report(tmp_path / "b", params={"seed": [0, 1]}, change=lambda own, row: "an error" if own["seed"] else row)
    assert len(experiments.table("trial", tmp_path / "b")) == 2  # one run is trained
    assert capsys.readouterr().err == ""
    fake_report(tmp_path / "c", params={"seed": [0, 1]}, change=lambda own, row: None)
    for folder in ("c", "nothing"):
        pd.testing.assert_frame_equal(experiments.table("trial", tmp_path / folder), own, rtol=1e-9, check_like=True)
        path = tmp_path / "a/reports/trial/runs.csv"
        line = f"trial: none of its runs is in {tmp_path / folder}/runs; these are the numbers of {path}"
        assert capsys.readouterr().err == f"{line}\n"


def test_the_numbers_that_are_shipped_fit_the_readme(tmp_path: Path):
    runs = experiments.table("xvar", tmp_path)
    assert len(runs) == 60
    assert runs.groupby("x_var.value")["test_sse"].count().tolist() == [10] * 6
    assert runs["sample_ffd"].idxmin() in runs.index


def test_a_name_without_a_report_is_one_line_with_the_nearest(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0]})
    with pytest.raises(ReportError, match=r"trail: no such report in .* \(did you mean trial\?\); it has trial"):
        experiments.table("trail", tmp_path)
    with pytest.raises(ReportError, match="it has none; a sweep makes one"):
        experiments.table("trail", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "has no checksum"),
        ("[]", "has no checksum"),
        ({}, "has manifest_version None, this program reads 2"),
        ({"manifest_version": 1}, "has manifest_version 1, this program reads 2"),
        ({"manifest_version": 2}, r"not a usable manifest \(KeyError: 'study'\)"),
        ({"swept": 5}, "not a usable manifest .*swept is not a list"),
        ({"runs": []}, "names no runs"),
        ({"runs": 5}, "not a usable manifest .*runs is not a list"),
        ({"runs": [{"run": "../elsewhere"}]}, r"not a usable manifest .*\.\./elsewhere is not the name of a run"),
        ({"runs": [{"run": "a", "settings": 3}]}, "not a usable manifest"),
        ({"datasets": {}}, "not a usable manifest"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_line(tmp_path: Path, content: Any, message: str):
    fake_report(tmp_path, params={"seed": [0]})
    path = tmp_path / "reports/trial/sweep.json"
    if isinstance(content, str):
        path.write_text(content)
    elif "manifest_version" in content or not content:
        put(path, content)
    else:
        change(path, **content)
    with pytest.raises(ReportError, match=message) as e:
        read("trial", tmp_path)
    assert str(e.value).startswith(f"{path}: ")
    assert "\n" not in str(e.value)


def test_runs_are_read_without_torch(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0]})
    code = f"from experiments.frame import read; read('trial', {str(tmp_path)!r})"
    code += "; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
