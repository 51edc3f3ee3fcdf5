"""Findings: which effect comes first, rates by setting, and failures, against hand calculations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.asked import asked, survivors
from experiments.effects import controls
from experiments.findings import Findings, findings
from experiments.reading import read
from experiments.report.render import say
from experiments.statistics import rate_difference, wilson_interval
from tests.fakes import change, fake_report

DEAD = {"test_sse": 30.0, "test_kl": 0.0, "test_active_units": 0}
SCORES = {"judge": "j", "judge_accuracy": 0.97, "sample_ffd": 3.0, "reconstruction_ffd": 2.5, "real_ffd": 0.5}


def found(tmp_path: Path, **kwargs: Any) -> Findings:
    fake_report(tmp_path, **kwargs)
    return findings(read("trial", tmp_path))


def noise(seed: int, size: float = 0.1) -> float:
    return size * float(np.sin(1 + 7 * seed))


def test_the_largest_effect_relative_to_its_interval_comes_first_whatever_its_column(tmp_path: Path):
    accuracy = {"both": 0.95, "decoder": 0.75, "encoder": 0.1}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        placement, e = settings["label_placement.kind"], noise(settings["seed"])
        shift = {"both": 0.0, "decoder": 0.02, "encoder": 0.2}[placement]
        own = {"sample_accuracy": accuracy[placement] + 0.01 * e * (placement != "both")}
        return row | SCORES | own | {"test_kl": 10 + shift * (1 + 5 * e), "test_sse": 9.0 + e, "sample_coverage": 0.9}

    params = {"label_placement.kind": list(accuracy), "seed": [0, 1, 2, 3]}
    (key,) = found(tmp_path, params=params, change=change).keys
    first = key.clear[0]
    assert (first.column, first.first, first.second) == ("sample_accuracy", "both", "encoder")
    change_by_seed = np.array([accuracy["encoder"] - accuracy["both"] + 0.01 * noise(seed) for seed in range(4)])
    low, high = stats.t.interval(0.95, 3, change_by_seed.mean(), stats.sem(change_by_seed))
    assert first.change.mean == pytest.approx(change_by_seed.mean())
    assert (first.change.low, first.change.high) == pytest.approx((low, high))
    assert [value for value, _ in key.values] == list(accuracy)
    assert [interval.mean for _, interval in key.values] == pytest.approx(list(accuracy.values()), abs=0.01)
    assert key.unclear == ["test_sse", "sample_ffd"]
    assert key.alike == []


def test_a_value_that_does_not_differ_from_the_reference_is_said_to(tmp_path: Path):
    bits = {"both": 7.0, "decoder": 7.0, "encoder": 2.0}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        placement, seed = settings["label_placement.kind"], settings["seed"]
        return row | {"test_bits_per_dim": bits[placement] + 0.01 * (-1) ** seed * (placement != "both")}

    params = {"label_placement.kind": list(bits), "seed": [0, 1, 2, 3]}
    study = {"columns": ["test_bits_per_dim"]}
    (key,) = found(tmp_path, params=params, change=change, study=study).keys
    assert key.alike == ["decoder"]
    said = say("sentences.md.j2", "key_finding", key)
    assert said.startswith("Bits per dimension are ")
    assert said.count(" (no measurable difference)") == 1
    assert " at decoder (no measurable difference) and " in said


def test_a_column_that_the_reference_lacks_makes_no_finding(tmp_path: Path):
    params = {"label_placement.kind": ["both", "none"], "seed": [0, 1]}
    study = {"columns": ["test_log_px"]}

    def only_others(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row if settings["label_placement.kind"] == "both" else row | {"test_log_px": -3.0}

    assert found(tmp_path, params=params, study=study, change=only_others).keys == []


def test_a_number_goes_from_end_to_end_and_the_best_between_is_named(tmp_path: Path):
    ffd = {1: 3.0, 0.3: 2.0, 0.1: 4.0, 0.01: 20.0}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        e = noise(settings["seed"] + len(str(settings["x_var.value"])), 0.02)
        return row | SCORES | {"sample_ffd": ffd[settings["x_var.value"]] + e, "sample_coverage": 0.9}

    (key,) = found(tmp_path, params={"x_var.value": list(ffd), "seed": [0, 1, 2]}, change=change).keys
    assert key.numeric
    assert {(e.first, e.second) for e in key.clear} == {(1, 0.01)}
    assert key.trade_off  # SSE falls, FFD rises
    assert list(key.best) == ["sample_ffd"]
    assert key.best["sample_ffd"][0] == 0.3


def test_a_word_among_numbers_is_no_end(tmp_path: Path):
    points = [{"x_var.kind": kind, "x_var.value": x} for kind, x in (("fixed", 1), ("fixed", 0.1), ("learned", 0.1))]
    (key,) = found(tmp_path, params={"seed": [0, 1, 2]}, points=points).keys
    assert key.numeric
    assert {(e.first, e.second) for e in key.clear} == {(1, 0.1)}


def test_means_leave_out_runs_that_died_where_others_did_not(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | (DEAD if settings["x_var.value"] == 1 and settings["seed"] < 2 else {})

    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2, 3]}, change=change)
    report = read("trial", tmp_path)
    mixed, whole = survivors(report).cells
    assert list(mixed.usable["seed"]) == [2, 3]
    assert len(whole.usable) == 4
    assert len(report.cells[0].usable) == 4  # the report itself is left as it is
    every = read("trial", tmp_path)
    every.runs["outcome"] = "dead"
    assert len(survivors(every).cells[0].usable) == 4  # all of one kind


def test_columns_of_the_experiment_decide_what_is_asked(tmp_path: Path):
    fake_report(tmp_path, study={"columns": ["test_elbo", "collapsed", "sample_ffd"]}, params={"seed": [0, 1]})
    assert asked(read("trial", tmp_path)) == ["test_elbo"]  # outcomes are no metrics; the runs have no FFD


def test_rates_are_per_setting_and_compared_with_the_nearest_control(tmp_path: Path):
    """One thing at a time: the reference, a change of it, and a change of that change."""
    usual = {"trainer.lr": 0.01, "model.init": "uniform", "trainer.epochs": 3, "trainer.batch_size": 128}
    points = [
        usual,
        {**usual, "trainer.lr": 0.001},
        {**usual, "trainer.lr": 0.001, "model.init": "xavier"},
        {**usual, "trainer.epochs": 9},
        {**usual, "trainer.batch_size": 32},
    ]
    dead = dict(zip((tuple(point.values()) for point in points), (5, 0, 8, 4, 5), strict=True))

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | (DEAD if settings["seed"] < dead[tuple(settings[k] for k in usual)] else {})

    study = {"columns": ["collapsed", "dead"], "pick": False}
    all_of_them = found(tmp_path, points=points, params={"seed": list(range(8))}, change=change, study=study)
    assert all_of_them.rates_first
    assert all_of_them.rates is not None
    rows = {row.name: row for row in all_of_them.rates.rows}
    assert [(row.name, row.against) for row in rows.values()] == [
        ("the reference", None),
        ("lr 0.001", "the reference"),
        ("lr 0.001, model.init xavier", "lr 0.001"),
        ("epochs 9", "the reference"),
        ("batch_size 32", "the reference"),
    ]
    assert rows["the reference"].rate == wilson_interval(5, 8)
    assert rows["lr 0.001"].change == rate_difference(5, 8, 0, 8)
    assert [row.name for row in rows.values() if row.prevents] == ["lr 0.001"]
    assert [row.name for row in rows.values() if row.causes] == ["lr 0.001, model.init xavier"]
    assert not any(row.expected for row in rows.values())


def test_failures_are_counted_by_setting_and_grouped_by_value(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str | None:
        if settings["x_var.value"] == 3:
            return "Boom" if settings["seed"] else None
        if settings["trainer.lr"] == 0.1:
            return row | {"status": "diverged", "diverged_epoch": 2}
        return row | (DEAD if settings["x_var.value"] == 1 and settings["seed"] == 0 else {})

    params = {"x_var.value": [3, 1, 0.1], "trainer.lr": [0.1, 0.01], "seed": [0, 1]}
    failures = {f.outcome: f for f in found(tmp_path, params=params, change=change).failures}
    assert list(failures) == ["dead", "diverged", "failed", "missing"]
    assert failures["dead"].sometimes == [("x_var 1, lr 0.01", wilson_interval(1, 2))]
    assert failures["diverged"].everywhere == ["x_var 1, lr 0.1", "x_var 0.1, lr 0.1"]
    assert [name for name, _ in failures["failed"].sometimes] == ["x_var 3, lr 0.1", "x_var 3, lr 0.01"]


@pytest.mark.parametrize(
    ("excess", "settings", "single"),
    [
        ([0.2, 0.3, 0.25], ["x_var 0.1"], []),
        ([-0.2, 0.3, -0.25], [], ["x_var 0.1, seed 1"]),
        ([-0.2, -0.3, -0.25], [], []),
    ],
)
def test_settings_and_runs_above_the_closed_form(tmp_path: Path, excess: list, settings: list, single: list):
    def change(own: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        if own["x_var.value"] == 0.1:  # the fake KL is the closed form's, so that its SSE is the one at equal KL
            sse, kl = row["train_theory_sse_low"], row["train_theory_kl_low"]
            return row | {"train_kl": kl, "train_sse": sse * (1 + excess[own["seed"]])}
        return row | {"train_sse": 0.5 * row["train_theory_sse_low"]}

    above = found(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2]}, change=change).above
    assert [name for name, _ in above.settings] == settings
    assert [name for name, _ in above.single] == single
    assert above.n_settings == 2
    if settings:
        assert above.settings[0][1].mean == pytest.approx(1.25)


def test_a_collapse_that_the_closed_form_predicts_is_not_compared(tmp_path: Path):
    collapsed = {"test_kl": 0.0, "train_kl": 0.0, "test_active_units": 0, "test_sse": 13.0, "train_sse": 13.0}
    above = found(tmp_path, params={"x_var.value": [10], "seed": [0, 1]}, change=lambda s, row: row | collapsed).above
    assert above.empty == ["x_var 10"] or above.empty == ["the only setting"]
    assert above.n_settings == 0


def test_one_seed_makes_no_claims(tmp_path: Path):
    (key,) = found(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0]}).keys
    assert not key.testable
    assert key.clear == []


def test_runs_that_could_not_be_evaluated_are_counted_by_reason(tmp_path: Path):
    for folder in fake_report(tmp_path, params={"seed": [0, 1]}):
        path = folder / "metrics" / "posterior.json"
        change(path, failure={"reason": "RuntimeError: no", "traceback": ""})
    assert findings(read("trial", tmp_path)).evaluation == [("posterior", "RuntimeError: no", 2)]


def test_changes_at_several_values_of_another_setting_are_told_at_its_first_value(tmp_path: Path):
    changes = [{}, {"trainer.lr": 0.01}, {"model.hidden": [100]}, {"trainer.epochs": 9}, {"label_repeat.value": 1}]
    usual = {"trainer.lr": 0.001, "model.hidden": [400], "trainer.epochs": 3, "label_repeat.value": 5}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        e = noise(settings["seed"], 0.001)
        lost = 0.2 if settings["x_var.value"] == 0.1 and settings["trainer.epochs"] == 9 else 0
        return row | {"sample_accuracy": (0.5 if settings["trainer.lr"] == 0.01 else 0.9) - lost + e}

    keys = found(
        tmp_path,
        params={"x_var.value": [1, 0.1], "seed": [0, 1, 2]},
        points=[usual | own for own in changes],
        change=change,
        study={"columns": ["sample_accuracy"], "pick": False},
    ).keys
    (key,) = [own for own in keys if own.key == "setting"]
    assert key.rest == {"x_var.value": 1}  # though 0.1 is the default
    assert [(value, round(own.mean, 2)) for value, own in key.values][:2] == [("the reference", 0.9), ("lr 0.01", 0.5)]
    assert key.alike == ["model.hidden 100", "epochs 9", "label_repeat 1"]
    assert say("sentences.md.j2", "key_finding", key) == (
        "Sample accuracy (x_var 1) is 0.9008 with the reference settings and 0.5008 with lr 0.01. "
        "No measurable difference with model.hidden 100, epochs 9 or label_repeat 1. "
        "At x_var 0.1, it is 0.9008 with the reference settings, but 0.7008 with epochs 9."
    )


def test_crossed_changes_are_compared_with_the_reference_at_the_same_value(tmp_path: Path):
    usual = {"trainer.lr": 0.001, "model.hidden": [400], "trainer.epochs": 3, "label_repeat.value": 5}
    points = [usual, usual | {"trainer.lr": 0.01}, usual | {"trainer.epochs": 9}]
    points += [usual | {"model.hidden": [100]}, usual | {"label_repeat.value": 1}]
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, points=points)
    pairs = [(cell.name, base.name) for cell, base in controls(read("trial", tmp_path).cells)]
    changes = ("lr 0.01", "epochs 9", "model.hidden 100", "label_repeat 1")
    expected = [(f"x_var {x_var}, {name}", f"x_var {x_var}, the reference") for x_var in (1, 0.1) for name in changes]
    assert pairs == [*expected[:4], ("x_var 0.1, the reference", "x_var 1, the reference"), *expected[4:]]
