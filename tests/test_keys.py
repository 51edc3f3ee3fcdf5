"""The settings by which the runs of a report are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.frame import changed
from experiments.keys import mostly_numbers, one_per_group
from experiments.reading import read
from tests.fakes import fake_report

LEARNED = [{"x_var.kind": "fixed", "x_var.value": x} for x in (1, 0.1, 0.01)] + [
    {"x_var.kind": "learned", "x_var.value": 0.1}
]


def test_a_sweep_that_changes_one_thing_at_a_time_has_one_key(tmp_path: Path):
    points = [
        {"x_var.value": 0.1, "trainer.lr": 0.001, "trainer.epochs": 3},
        {"x_var.value": 0.1, "trainer.lr": 0.01, "trainer.epochs": 3},
        {"x_var.value": 0.1, "trainer.lr": 0.003, "trainer.epochs": 3},
        {"x_var.value": 1, "trainer.lr": 0.001, "trainer.epochs": 3},
        {"x_var.value": 0.1, "trainer.lr": 0.001, "trainer.epochs": 9},
    ]
    fake_report(tmp_path, params={"seed": [0, 1]}, points=points)
    report = read("trial", tmp_path)
    assert report.keys == ["setting"]
    assert [cell.name for cell in report.cells] == ["the reference", "lr 0.01", "lr 0.003", "x_var 1", "epochs 9"]
    assert changed(report.cells[3], report.cells[0]) == {"x_var.value"}


def test_learned_is_one_more_value_of_x_var(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0, 1]}, points=LEARNED)
    report = read("trial", tmp_path)
    assert report.keys == ["x_var.value"]
    assert [cell.settings["x_var.value"] for cell in report.cells] == [1, 0.1, 0.01, "learned"]
    assert [len(cell.runs) for cell in report.cells] == [2, 2, 2, 2]
    assert report.cells[-1].point["x_var.value"] == 0.1  # what it was learned from
    assert report.main == "x_var.value"
    assert report.is_number("x_var.value")


def test_two_kinds_with_several_values_each_are_a_grid():
    points = [("constant", 1.0), ("constant", 0.1), ("warmup", 1.0), ("warmup", 0.1)]
    runs = pd.DataFrame(points, columns=["beta.kind", "beta.value"])
    assert one_per_group(runs, ["beta.kind", "beta.value"]) == ["beta.kind", "beta.value"]
    assert list(runs["beta.value"]) == [1.0, 0.1, 1.0, 0.1]


def test_two_kinds_with_one_value_each_keep_their_names():
    runs = pd.DataFrame({"x_var.kind": ["fixed", "learned"], "x_var.value": [0.1, 0.1]})
    assert one_per_group(runs, ["x_var.kind", "x_var.value"]) == ["x_var.kind", "x_var.value"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0.1, "learned"], True),
        ([1, "match"], False),
        ([1, 2], True),
        ([1, 2, None], False),
        (["a"], False),
        ([True, False], False),
    ],
)
def test_a_setting_is_a_number_if_most_of_its_values_are(values: list[Any], expected: bool):
    assert mostly_numbers(values) is expected


def test_a_setting_that_is_combined_with_all_others_stays_a_key(tmp_path: Path):
    changes = [{}, {"trainer.lr": 0.01}, {"model.hidden": [100]}, {"trainer.epochs": 9}, {"label_repeat.value": 1}]
    usual = {"trainer.lr": 0.001, "model.hidden": [400], "trainer.epochs": 3, "label_repeat.value": 5}
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0]}, points=[usual | own for own in changes])
    report = read("trial", tmp_path)
    names = ["the reference", "lr 0.01", "model.hidden 100", "epochs 9", "label_repeat 1"]
    assert report.keys == ["x_var.value", "setting"]
    assert [cell.settings for cell in report.cells] == [
        {"x_var.value": x, "setting": name} for x in (1, 0.1) for name in names
    ]
