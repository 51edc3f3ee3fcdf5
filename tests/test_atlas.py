"""The atlas of bugs from runs whose numbers are known."""

from pathlib import Path
from typing import Any

import pytest

from experiments.atlas import atlas
from experiments.reading import read
from experiments.report.figures.atlas import atlas as draw
from tests.fakes import fake_report

KINDS = ("none", "half_kl", "mean_error", "no_noise", "mean_kl", "double_kl")


def numbers(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    bug = settings["bug.kind"]
    row |= {"train_kl": 10.0 + settings["seed"], "train_theory_kl_low": 9.0, "train_theory_kl_high": 9.0}
    row |= {"train_sse": 5.0, "sample_ffd": 3.0, "reconstruction_ffd": 1.0, "train_baseline_class_means": 12.5}
    if bug == "no_noise":
        row |= {"train_sse": 500.0, "test_sse": 1e6}  # more than all pixels can be wrong
    if bug == "mean_error":
        row |= {"test_kl": 0.0, "test_active_units": 0, "test_sse": 20.0}  # between the mean image and the zero image
        row |= {"train_sse": 12.0, "reconstruction_ffd": 9.0}
    if bug == "mean_kl":
        row |= {"sample_ffd": 6.0}
    if bug == "double_kl":
        row |= {"train_sse": 11.0, "sample_ffd": 8.0}
    if bug == "none":
        return row
    row |= {"train_printed_kl": 5.0, "train_printed_r": 3.0}
    return row | {"train_theory_printed_kl_low": 4.5, "train_theory_printed_kl_high": 4.6}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    points = [{"bug.kind": kind} for kind in KINDS]
    fake_report(tmp_path, "bugs", {"seed": [0, 1]}, points, change=numbers, study={"pick": False})
    return tmp_path


def test_each_bug_has_its_numbers_its_closed_form_and_its_outcome(folder: Path):
    found = atlas(read("bugs", folder))
    assert found is not None
    none, half, error, no_noise, *_ = found.entries
    assert (none.bug, none.how, none.outcome) == ("none", "", "ok")
    assert none.measured["printed_kl"].mean == none.measured["kl"].mean == 10.5  # correct code prints the true values
    assert none.predicted["printed_kl"] == 9.0
    assert half.measured["printed_kl"].mean == 5.0
    assert half.predicted["printed_kl"] != half.predicted["printed_kl"]  # NaN: its bounds differ
    assert "½" in half.how
    assert error.outcome == "collapsed"
    assert no_noise.measured["kl"].mean == 10.5  # though the report has no other use for runs that diverged


def test_each_bug_has_the_symptom_that_its_numbers_show(folder: Path):
    found = atlas(read("bugs", folder))
    assert found is not None
    assert found.by_symptom == {
        "constant": ["mean_error"],
        "noise": ["no_noise"],
        "samples": ["mean_kl"],
        "reconstructions": ["double_kl"],
        "numbers": ["half_kl"],
    }


def test_bugs_without_a_correct_vae_have_no_atlas(tmp_path: Path):
    fake_report(tmp_path, "bugs", {"seed": [0]}, [{"bug.kind": "half_kl"}, {"bug.kind": "no_noise"}], change=numbers)
    assert atlas(read("bugs", tmp_path)) is None


def test_a_report_that_varies_more_has_no_atlas(tmp_path: Path):
    fake_report(tmp_path, "both", {"x_var.value": [1, 0.1]}, [{"bug.kind": "none"}, {"bug.kind": "half_kl"}])
    assert atlas(read("both", tmp_path)) is None
    assert draw(read("both", tmp_path)) is None


def test_the_picture_has_a_row_per_bug(folder: Path):
    drawn = draw(read("bugs", folder))
    assert drawn is not None
    assert drawn.values == {"shown": 6, "total": 6}
