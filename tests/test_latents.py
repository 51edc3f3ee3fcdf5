"""What the prior explains, and what a probe finds, against hand calculations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.latents import leakage, prior_shares
from experiments.reading import read
from experiments.report.render import say
from experiments.statistics import Interval
from tests.fakes import fake_report as fake_report_of

SCORES = {"judge": "j", "judge_accuracy": 0.97, "real_ffd": 0.5, "sample_coverage": 0.9, "sample_accuracy": 0.9}
DEAD = {"test_sse": 30.0, "test_kl": 0.0, "test_active_units": 0}


def fake_report(output_dir: Path, metrics: tuple[str, ...] = ("expost", "probe"), **kwargs: Any) -> None:
    """A report whose experiment asks for the metrics."""
    fake_report_of(output_dir, study={"metrics": list(metrics)}, **kwargs)


def scored(prior: float, gaussian: float, mixture: float, reconstruction: float) -> dict[str, Any]:
    fits = {"expost_gaussian_ffd": gaussian, "expost_mixture_ffd": mixture}
    return SCORES | fits | {"sample_ffd": prior, "reconstruction_ffd": reconstruction}


def test_the_share_is_taken_within_each_run_and_has_an_interval_over_seeds(tmp_path: Path):
    ffds = {0.01: [(40, 3, 2, 1), (44, 4, 2, 2), (36, 2, 1, 1)], 0.1: [(6, 3, 3, 2), (7, 3, 3, 2), (6.5, 3, 2, 2)]}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | scored(*ffds[settings["x_var.value"]][settings["seed"]])

    fake_report(tmp_path, params={"x_var.value": [0.1, 0.01], "seed": [0, 1, 2]}, change=change)
    first, second = prior_shares(read("trial", tmp_path))
    assert (first.name, second.name) == ("x_var 0.01", "x_var 0.1")  # the largest gap first
    shares = np.array([(40 - 3) / 39, (44 - 4) / 42, (36 - 2) / 35])
    low, high = stats.t.interval(0.95, 2, shares.mean(), stats.sem(shares))
    assert first.closed["gaussian"].mean == pytest.approx(shares.mean())
    assert (first.closed["gaussian"].low, first.closed["gaussian"].high) == pytest.approx((low, high))
    assert first.closed["mixture"].mean == pytest.approx(np.mean([38 / 39, 1, 1]))
    assert (first.prior.mean, first.reconstruction.mean) == (40, pytest.approx(4 / 3))
    assert say("sentences.md.j2", "prior_share", first) == (
        "At x_var 0.01, drawing z from a Gaussian fitted to the latents instead of from the prior closes 95.8 ± 3.0 % "
        "of the gap in FFD between samples and reconstructions; a mixture of Gaussians closes 99.1 ± 3.7 %. FFD: prior "
        "40.0, Gaussian 3.0, mixture 1.7, reconstructions 1.3."
    )
    nothing = Interval(0.1, -0.1, 0.3, 3)
    unclear = replace(first, closed={"gaussian": nothing, "mixture": nothing})
    told = (
        "closes no measurable part of the gap in FFD between samples and reconstructions (10 ± 20 %), nor does a "
        "mixture of Gaussians (10 ± 20 %)."
    )
    assert told in say("sentences.md.j2", "prior_share", unclear)


def test_runs_that_died_and_settings_without_a_measurable_gap_have_no_share(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        x_var, seed = settings["x_var.value"], settings["seed"]
        if x_var == 10:
            return row | DEAD | scored(40, 3, 2, 1)
        if x_var == 1:  # one seed above, one below
            return row | scored(6 + seed, 6, 6, 6.5)
        if x_var == 0.3:
            return row | SCORES | {"sample_ffd": 9.0, "reconstruction_ffd": 1.0}  # without the family
        if seed == 2:
            return row | {"status": "diverged", "diverged_epoch": 1}
        return row | (DEAD | scored(90, 90, 90, 1) if seed == 3 else scored(11 + 0.1 * seed, 2, 2, 1))

    params = {"x_var.value": [10, 1, 0.3, 0.1], "seed": [0, 1, 2, 3]}
    fake_report(tmp_path, params=params, change=change)
    (share,) = prior_shares(read("trial", tmp_path))
    assert share.name == "x_var 0.1"
    assert share.closed["gaussian"].n == 2
    assert share.closed["gaussian"].mean == pytest.approx(np.mean([9 / 10, 9.1 / 10.1]))


def test_a_single_seed_has_no_share(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0]}, change=lambda settings, row: row | scored(40, 3, 2, 1))
    assert prior_shares(read("trial", tmp_path)) == []


def probed(accuracies: dict[str, float]) -> Any:
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        own = accuracies[settings.get("label_placement.kind", "both")]
        own += (0.1 if settings.get("label_repeat.value") == 20 else 0.0) + 0.01 * settings["seed"]
        own += 0.2 if settings.get("x_var.value") == 0.01 else 0.0
        return row | {"probe_accuracy": own, "probe_chance": 0.1}

    return change


PROBED = {"both": 0.3, "decoder": 0.5, "none": 0.7}


def test_the_probe_is_told_by_label_placement_at_the_usual_label_repeat(tmp_path: Path):
    params = {"label_placement.kind": list(PROBED), "label_repeat.value": [20, 5], "seed": [0, 1]}
    fake_report(tmp_path, params=params, change=probed(PROBED))
    (found,) = leakage(read("trial", tmp_path))
    assert found.rest == {"label_repeat.value": 5}
    assert found.chance == 0.1
    assert {name: accuracy.mean for name, accuracy in found.accuracies} == pytest.approx(
        {name: v + 0.005 for name, v in PROBED.items()}
    )
    assert say("sentences.md.j2", "leakage", [found]) == (
        "At label_repeat 5, a linear probe finds the class of held-out images from z: 30.5 ± 6.4 % of them with "
        "label_placement both, 50.5 ± 6.4 % with decoder and 70.5 ± 6.4 % with none (chance: 10 %)."
    )


def test_the_probe_is_told_for_each_x_var(tmp_path: Path):
    params = {"x_var.value": [1, 0.01], "label_placement.kind": ["both", "none"], "seed": [0, 1]}
    fake_report(tmp_path, params=params, change=probed(PROBED))
    found = leakage(read("trial", tmp_path))
    assert [own.rest for own in found] == [{"x_var.value": 1}, {"x_var.value": 0.01}]
    assert [own.accuracies[0][1].mean for own in found] == pytest.approx([0.305, 0.505])
    assert say("sentences.md.j2", "leakage", found) == (
        "At x_var 1, a linear probe finds the class of held-out images from z: 30.5 ± 6.4 % of them with "
        "label_placement both and 70.5 ± 6.4 % with none (chance: 10 %). At x_var 0.01, in the same order: "
        "50.5 ± 6.4 % and 90.5 ± 6.4 %."
    )


def test_one_label_placement_is_named_and_dead_runs_are_left_out(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return probed(PROBED)(settings, row) | (DEAD | {"probe_accuracy": 0.1} if settings["seed"] == 0 else {})

    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2]}, change=change)
    found = leakage(read("trial", tmp_path))
    assert [(own.rest, own.accuracies[0][0]) for own in found] == [
        ({"x_var.value": 1}, "both"),
        ({"x_var.value": 0.1}, "both"),
    ]
    assert found[0].accuracies[0][1].mean == pytest.approx(0.315)


def test_without_the_probe_nothing_is_said(tmp_path: Path):
    fake_report(tmp_path, params={"label_placement.kind": ["both", "none"], "seed": [0, 1]})
    assert leakage(read("trial", tmp_path)) == []


def test_what_was_measured_for_another_experiment_is_not_told(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | scored(40 + settings["seed"], 3, 2, 1) | {"probe_accuracy": 0.5, "probe_chance": 0.1}

    fake_report(tmp_path, metrics=(), params={"seed": [0, 1]}, change=change)
    report = read("trial", tmp_path)
    assert leakage(report) == []
    assert prior_shares(report) == []
    assert "sample_ffd" in report.runs
    assert "probe_accuracy" not in report.runs
