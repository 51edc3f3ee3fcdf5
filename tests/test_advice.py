"""Advice: fronts, knees and verdicts of constructions whose answer is known beforehand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_collect import DATA, write_sweep

from experiments import advice, collect, figures
from experiments.report import read

# x_var -> (SSE, sample FFD, what the run is like). SSE of a zero image is 31, of the mean image 21.
KNEE = {1: (16.0, 2.0), 0.1: (8.5, 2.5), 0.01: (8.0, 8.0)}
NOISE = 0.01  # relative spread between seeds


def scores(sse: float, ffd: float, accuracy: float | None = 0.95, **more: Any) -> dict[str, Any]:
    """The columns of a healthy run with those errors."""
    return {
        "test_sse": sse,
        "sample_ffd": ffd,
        "reconstruction_ffd": ffd,
        "real_ffd": 0.5,
        "sample_coverage": 0.9,
        "sample_accuracy": accuracy,
        "judge_accuracy": 0.97,
        "judge": "j",
        "test_active_units": 5,
        "test_kl": 10.0,
        **more,
    }


HOLE = {"reconstruction_ffd": 0.5, "sample_coverage": 0.1}
DEAD = {"test_sse": 30.0, "test_kl": 0.0, "test_active_units": 0}
BLIND = {"label_repeat_decoder": 0, "sample_accuracy": 0.1}


def advised(
    tmp_path: Path, cells: dict[Any, dict[str, Any]], seeds: int = 5, key: str = "x_var.value", noise: float = NOISE
) -> advice.Advice:
    """The advice on a sweep of one setting, a row of scores a value; SSE and FFD vary a little by seed."""

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        values = dict(cells[settings[key]])
        for i, column in enumerate(("test_sse", "sample_ffd")):
            if values.get(column) is not None:
                values[column] *= 1 + noise * np.sin(1 + 7 * settings["seed"] + 3 * i + len(str(settings[key])))
        return row | values

    write_sweep(tmp_path, params={key: list(cells), "seed": list(range(seeds))}, change=change)
    (found,) = advice.advise(read("trial", tmp_path))
    return found


def text(found: advice.Advice) -> str:
    return " ".join([found.verdict, *found.reasons, *found.alternatives, *found.avoid])


def test_the_front_is_what_no_other_beats():
    points = np.array([[3, 1], [1, 3], [2, 2], [2, 3], [3, 3], [2, 2], [1, 4], [4, 1]], float)
    assert advice.pareto_front(points).tolist() == [1, 2, 0]  # of the two equal points the first


def test_the_knee_is_furthest_below_the_chord():
    points = np.array([[0, 1], [0.2, 0.3], [0.4, 0.15], [1, 0]])
    everyone = np.ones(4, bool)
    assert advice.knee(points, everyone) == 1  # depths 0, 0.5, 0.45, 0
    assert advice.knee(points * [7, 0.01] + [3, -9], everyone) == 1  # other units and powers
    assert advice.knee(points, np.array([True, False, True, True])) == 2
    assert advice.knee(points, np.array([False, False, False, True])) == 3
    assert advice.knee(points, np.zeros(4, bool)) is None
    assert advice.knee(np.array([[0, 1], [0.7, 0.6], [1, 0]]), np.ones(3, bool)) is None  # above the chord
    assert advice.knee(np.array([[0.0, 1], [1, 0]]), np.ones(2, bool)) is None
    assert advice.knee(np.array([[0.0, 1], [1, 0], [-1, -1]]), np.ones(3, bool)) == 2  # beats both


def test_a_beaten_front_of_its_own_has_a_knee_too():
    """Where what may not be picked beats all that may, the chord still has two ends."""
    points = np.array([[-1, -1], [0, 1], [0.2, 0.2], [1, 0]])
    assert advice.knee(points, np.array([False, True, True, True])) == 2


def test_shares_are_those_of_the_intervals():
    """Of one error: the means differ by d with standard error s each, so that P = P(t1 - t2 < d/s)."""
    centre, error = np.array([[0.0], [1.0]]), np.array([[0.5], [0.5]])
    eligible, n = np.ones(2, bool), np.full((2, 1), 400)
    found = advice.shares(centre, error, n, eligible)
    assert found[0] == pytest.approx(0.9214, abs=0.02)  # the normal distribution's at 1/(0.5·√2)
    assert found == advice.shares(centre, error, n, eligible)
    assert advice.shares(centre, error, np.full((2, 1), 2), eligible)[0] < found[0]  # two runs: wide tails
    assert sum(found.values()) == pytest.approx(1)


def test_the_runner_up_is_the_rival_of_the_redraws_or_what_would_be_chosen_next(tmp_path: Path):
    def names(found: advice.Advice) -> list[Any]:
        return [found.options[i].settings["x_var.value"] for i in advice.finalists(found)]

    cells = {x: scores(*errors) for x, errors in {**KNEE, 0.3: (11.0, 2.2)}.items()}
    clear = advised(tmp_path / "clear", cells)
    assert set(clear.shares) == {clear.pick}
    assert names(clear) == [0.1, 0.3]  # depths below the chord: 0.75 and 0.47
    close = advised(tmp_path / "close", {**cells, 0.05: scores(8.5, 2.52)}, noise=0.03)
    assert set(names(close)) == {0.1, 0.05}
    assert [close.shares[i] for i in advice.finalists(close)] == list(close.shares.values())[:2]
    alone = advised(tmp_path / "alone", {x: {**row, **DEAD} if x != 1 else row for x, row in cells.items()})
    assert names(alone) == [1]
    assert advice.finalists(advised(tmp_path / "none", {x: {**row, **DEAD} for x, row in cells.items()})) == []


def test_the_knee_is_recommended(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors) for x, errors in KNEE.items()})
    assert found.recommended
    assert [found.options[i].settings["x_var.value"] for i in found.front] == [0.01, 0.1, 1]
    assert found.verdict.startswith("Take x_var 0.1: SSE 8.")
    assert found.shares[found.pick] > 0.99
    assert "(x_var 0.01)" in found.reasons[1]
    assert "% above the least (x_var 1); real images have FFD 0.50" in found.reasons[1]
    assert found.alternatives[0].startswith("If only samples matter: x_var 1 (SSE 1")
    assert found.alternatives[1].startswith("If only reconstructions matter: x_var 0.01 (SSE 8")
    assert found.avoid == []


def test_a_setting_that_is_best_in_both_needs_no_knee(tmp_path: Path):
    found = advised(tmp_path, {1: scores(9, 2), 0.1: scores(12, 3), 0.01: scores(10, 5)})
    assert found.verdict.startswith("Take x_var 1:")
    assert "the best in both errors" in text(found)
    assert found.alternatives == ()


def test_a_hole_is_an_end_of_the_front_and_no_choice(tmp_path: Path):
    cells = {1: scores(16, 2), 0.1: scores(9, 2.8), 0.03: scores(8.2, 3.2, **HOLE), 0.01: scores(8, 8, **HOLE)}
    found = advised(tmp_path, cells)
    assert len(found.front) == 4
    assert found.verdict.startswith("Take x_var 0.1:")  # 0.03 would lie further below the chord
    assert "x_var 0.01 (5 of 5 runs, 57–100 %)" in found.avoid[0]
    assert found.avoid[0].startswith("Hole (good reconstructions, bad samples): x_var 0.03 (5 of 5")
    assert "If only reconstructions matter: x_var 0.01" in text(found)
    assert "hole in 5 of 5 runs" in text(found)


def test_a_dead_setting_is_no_part_of_the_front(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors) for x, errors in KNEE.items()} | {3: scores(30, 0.1) | DEAD})
    assert found.verdict.startswith("Take x_var 0.1:")
    assert len(found.front) == 3
    assert found.avoid == ["Dead (no better than a dark image or the mean image): x_var 3 (5 of 5 runs, 57–100 %)."]


def test_what_cannot_draw_the_class_is_not_chosen(tmp_path: Path):
    cells = {"both": scores(9, 3), "decoder": scores(10, 2.9, 0.95), "encoder": scores(8.9, 1, **BLIND)}
    found = advised(tmp_path, cells, key="label_placement", noise=0.001)
    assert [found.options[i].name for i in found.front] == ["label_placement both", "label_placement decoder"]
    assert found.avoid == [
        "Samples that are not of the class asked for: label_placement encoder (10 % are, of real images 97 %)."
    ]
    # Blurred throughout, which is no hole, and of the class asked for in less than 0.75 times as many as real images.
    cells = {"both": scores(9, 3), "decoder": scores(8.5, 2.9, 0.7, reconstruction_ffd=2.9)}
    found = advised(tmp_path / "two", cells, key="label_placement")
    assert found.verdict.startswith("Take label_placement both:")
    assert found.reasons[0] == "It alone is mostly ok and draws the class asked for."


def test_where_no_setting_draws_the_class_none_is_asked_to(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors, 0.1, label_repeat_decoder=0) for x, errors in KNEE.items()})
    assert found.verdict.startswith("Take x_var 0.1:")
    assert found.avoid == []
    assert "class asked for" not in text(found)


def test_equal_settings_are_undecided_and_any_will_do(tmp_path: Path):
    cells = {repeat: scores(9, 3) for repeat in (1, 5, 10)}
    found = advised(tmp_path, cells, key="label_repeat.value", noise=0.1)
    assert not found.recommended
    assert found.verdict.startswith("Undecided between label_repeat")
    assert "Their intervals overlap in SSE and in sample FFD, so by these any of them will do." in found.reasons
    found = advised(tmp_path / "extremes", {1: scores(9.1, 3), 5: scores(9, 3.1)}, key="label_repeat.value", noise=0.1)
    assert "Their intervals overlap in SSE and in sample FFD, so by these any of them will do." in found.reasons


def test_different_settings_of_one_depth_are_undecided(tmp_path: Path):
    cells = {1: scores(16, 2), 0.3: scores(11, 2.5), 0.1: scores(8.8, 3.9), 0.01: scores(8, 8)}
    found = advised(tmp_path, cells, noise=0.03)
    assert not found.recommended
    assert "x_var 0.3 (" in found.verdict
    assert "x_var 0.1 (" in found.verdict
    assert "More seeds decide it" in text(found)
    assert "they differ" in text(found)


def test_two_extremes_have_no_knee(tmp_path: Path):
    found = advised(tmp_path, {1: scores(16, 2), 0.01: scores(8, 8)})
    assert found.front == [1, 0]
    assert found.verdict.startswith("Undecided: the front has no knee")
    assert found.reasons == ("Values of x_var between theirs may hold one.",)
    assert len(found.alternatives) == 2
    found = advised(tmp_path / "words", {"mlp": scores(16, 2), "conv": scores(8, 8)}, key="model")
    assert found.reasons == ()


def test_one_seed_decides_nothing(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors) for x, errors in KNEE.items()}, seeds=1)
    assert found.verdict == (
        "Undecided: one run gives no interval, and there is but one at x_var 1, x_var 0.1, x_var 0.01."
    )
    assert "By the single values it would be x_var 0.1" in text(found)


def test_without_scores_it_goes_by_the_elbo(tmp_path: Path):
    none = dict.fromkeys(("sample_ffd", "reconstruction_ffd", "real_ffd", "sample_accuracy", "judge"))
    cells = {x: scores(9, 1, test_bits_per_dim=bits) | none for x, bits in ((1, 3.0), (0.1, -0.5), (0.01, 2.0))}
    found = advised(tmp_path, cells)
    assert found.verdict == "Take x_var 0.1: bits per dimension -0.5 ± 0."
    assert "No samples were scored. So this goes by the ELBO" in text(found)
    assert figures.tradeoff([found]) is None
    cells = {x: scores(9, 1, judge=str(x), test_bits_per_dim=x) for x in (1, 0.1)}
    found = advised(tmp_path / "judges", cells)
    assert "judged by different classifiers" in text(found)
    assert found.verdict.startswith("Take x_var 0.1: bits per dimension 0.1")


def test_some_without_scores_are_left_out(tmp_path: Path):
    cells = {x: scores(*errors) for x, errors in KNEE.items()} | {3: scores(20, 1) | {"sample_ffd": None}}
    found = advised(tmp_path, cells)
    assert found.verdict.startswith("Take x_var 0.1:")
    assert "Without scores, and so left out: 1 setting." in text(found)
    drawn = figures.tradeoff([found])
    assert drawn is not None
    assert "left out: 1." in drawn.caption


def test_failures_are_grouped_by_what_they_share(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str | None:
        if settings["x_var.value"] == 3:
            return "Boom" if settings["seed"] == 0 else None  # not finished: counts neither way
        row = row | scores(9 + settings["x_var.value"], 3)
        lr = settings["trainer.lr"]
        if lr == 0.1:
            row |= {"status": "diverged", "diverged_epoch": 2, "test_sse": float("nan")}
        return row | (DEAD if lr == 0.01 and (settings["x_var.value"] == 1 or settings["seed"] == 0) else {})

    params = {"x_var.value": [3, 1, 0.1], "trainer.lr": [0.1, 0.01, 0.001], "seed": [0, 1, 2]}
    write_sweep(tmp_path, params=params, change=change)
    (found,) = advice.advise(read("trial", tmp_path))
    assert found.avoid == [
        "Failed (an error): x_var 3 (3 of 3 runs, 44–100 %).",
        "Diverged (no usable numbers): x_var 1, lr 0.1 (3 of 3 runs, 44–100 %); x_var 0.1, lr 0.1 (3 of 3 runs, "
        "44–100 %).",
        "Dead (no better than a dark image or the mean image): x_var 1, lr 0.01 (3 of 3 runs, 44–100 %).",
    ]
    assert "x_var 0.1, lr 0.001" in found.verdict
    collect.collect("trial", tmp_path)


@pytest.mark.parametrize(("change", "said"), [
    (lambda settings, row: None, "Nothing to recommend: no run has usable numbers."),
    (lambda settings, row: "Boom", "Nothing to recommend: no run has usable numbers."),
    (lambda settings, row: row | {"test_sse": float("nan")}, "Nothing to recommend: no run has usable numbers."),
    (lambda settings, row: row | scores(9, 3) | DEAD, "Nothing to recommend: none of 2 settings is ok"),
    (lambda settings, row: row | scores(9, 0.0), "Nothing to recommend: no setting that trains has scores"),
])  # fmt: skip
def test_nothing_to_recommend(tmp_path: Path, change: Any, said: str):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, change=change)
    assert said in collect.collect("trial", tmp_path).read_text()


def test_one_setting_is_no_choice(tmp_path: Path):
    write_sweep(tmp_path, params={"seed": [0, 1]}, change=lambda settings, row: row | scores(9, 3))
    (found,) = advice.advise(read("trial", tmp_path))
    assert found.verdict == "One setting was run, so there is nothing to choose from."
    assert found.reasons == ("It has SSE 9 ± 0, sample FFD 3 ± 0.",)
    assert found.alternatives == ()
    assert figures.tradeoff([found]) is None


def test_each_dataset_has_its_own_advice(tmp_path: Path):
    params = {"x_var.value": list(KNEE), "seed": [0, 1, 2, 3]}
    write_sweep(tmp_path, params=params, change=lambda s, row: row | scores(*KNEE[s["x_var.value"]]))
    folder = tmp_path / "reports" / "trial"
    manifest = json.loads((folder / "sweep.json").read_text())
    manifest["datasets"]["e" * 64] = DATA | {"name": "other"}
    for run in manifest["runs"]:
        if run["settings"]["seed"] > 1:
            run["dataset_hash"] = "e" * 64
    (folder / "sweep.json").write_text(json.dumps(manifest))
    advices = advice.advise(read("trial", tmp_path))
    assert [found.verdict[:15] for found in advices] == ["Take x_var 0.1:"] * 2
    assert advice.line(advices).startswith("On synthetic: Take x_var 0.1")
    assert "**other: Take x\\_var" in collect.collect("trial", tmp_path).read_text().replace("x_var", "x\\_var")


def test_the_report_begins_with_the_advice(tmp_path: Path):
    params = {"x_var.value": list(KNEE), "seed": [0, 1]}
    write_sweep(tmp_path, params=params, change=lambda s, row: row | scores(*KNEE[s["x_var.value"]]))
    report = collect.collect("trial", tmp_path).read_text()
    parts = ["**Key findings.**", "## Which setting to pick", "**Take x_var 0.1: SSE 8.5 ± 0,", "- If only samples",
             "![trade-off](figures/tradeoff.png)", "## What was run"]  # fmt: skip
    positions = [report.index(part) for part in parts]
    assert positions == sorted(positions)
    with Image.open(io.BytesIO((tmp_path / "reports/trial/figures/tradeoff.png").read_bytes())) as image:
        assert image.width > 1000
    assert "Take x_var 0.1: SSE 8.5 ± 0, sample FFD 2.5 ± 0. |" in (tmp_path / "reports/index.md").read_text()


def test_a_blind_placement_is_named_once(tmp_path: Path):
    """Where its decoder has no label, some settings have a hole besides."""

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        row |= scores(*KNEE[settings["x_var.value"]])
        row |= HOLE if settings["x_var.value"] == 0.01 else {}
        return row | (BLIND if settings["label_placement"] == "none" else {})

    params = {"x_var.value": list(KNEE), "label_placement": ["both", "none"], "seed": [0, 1, 2]}
    write_sweep(tmp_path, params=params, change=change)
    (found,) = advice.advise(read("trial", tmp_path))
    assert found.avoid == [
        "Hole (good reconstructions, bad samples): x_var 0.01 (6 of 6 runs, 61–100 %).",
        "Samples that are not of the class asked for: label_placement none (10 % are, of real images 97 %).",
    ]
