"""Reports read from their files: manifests, tables, and the numbers that a report recorded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import experiments
from experiments import reading
from experiments.frame import ReportError
from experiments.reading import read, recorded
from experiments.report.build import collect
from experiments.store import digest
from tests.fakes import SPECTRUM, WITHIN, change, fake_report, put
from vae import theory


@pytest.mark.parametrize(("placement", "spectrum"), [("both", WITHIN), ("none", SPECTRUM), ("decoder", SPECTRUM)])
def test_sse_ratio_compares_with_the_closed_form_at_equal_kl(tmp_path: Path, placement: str, spectrum: list[float]):
    fake_report(tmp_path, params={"seed": [0]}, fixed={"label_placement.kind": placement})
    (row,) = read("trial", tmp_path).runs.to_dict("records")
    expected = row["train_sse"] / theory.distortion(spectrum, row["train_kl"], 10)
    assert row["sse_ratio"] == pytest.approx(expected, rel=1e-12)


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
    monkeypatch.setattr(reading, "REFERENCE", tmp_path / "a/reports")
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


def test_a_recorded_report_is_the_one_that_was_collected(tmp_path: Path):
    """Settings of every kind: a word among numbers, one without a part in some runs, a list, and a run that failed."""
    names = ("x_var.value", "x_var.kind", "model.hidden", "label_placement.kind", "label_repeat.value")
    rows = [
        (1, "fixed", [400], "both", 5),
        (0.1, "fixed", [512, 256], "both", 5),
        (0.1, "learned", [400], "both", 5),
        (1, "fixed", [400], "none", None),
    ]
    fake_report(
        tmp_path,
        params={"seed": [0, 1]},
        points=[dict(zip(names, row, strict=True)) for row in rows],
        change=lambda own, row: "an error" if own["seed"] and own["model.hidden"] != [400] else row,
    )
    report = read("trial", tmp_path)
    collect("trial", tmp_path)
    shutil.rmtree(tmp_path / "runs")
    found = recorded(tmp_path / "reports" / "trial")
    assert found.keys == report.keys
    assert [cell.settings for cell in found.cells] == [cell.settings for cell in report.cells]
    assert [cell.point for cell in found.cells] == [cell.point for cell in report.cells]
    assert found.date == report.date == "2030-01-02"
    numbers = report.runs.select_dtypes("number").columns
    pd.testing.assert_frame_equal(found.runs[numbers], report.runs[numbers], check_dtype=False, rtol=0, atol=0)
    texts = ["outcome", "reason", "usable", "dataset", "model.hidden"]
    pd.testing.assert_frame_equal(found.runs[texts], report.runs[texts])


def test_a_record_that_cannot_be_used_is_one_line(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0, 1]})
    folder = tmp_path / "reports" / "trial"
    with pytest.raises(ReportError, match=r"runs\.csv: missing or damaged"):
        recorded(folder)
    collect("trial", tmp_path)
    rows = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text(rows[0] + rows[1])
    with pytest.raises(ReportError, match=r"runs\.csv: missing or damaged"):
        recorded(folder)
    change(folder / "summary.json", files={"runs.csv": digest((folder / "runs.csv").read_bytes())})
    with pytest.raises(ReportError, match=r"runs\.csv: has no row for .*; collect makes it from the runs"):
        recorded(folder)


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
    code = f"from experiments.reading import read; read('trial', {str(tmp_path)!r})"
    code += "; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
