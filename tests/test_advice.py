"""Advice: fronts, knees and verdicts of constructions whose answer is known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import advice
from experiments.reading import read
from experiments.store import read_json
from tests.fakes import DATA, fake_report, put

# x_var -> (SSE, sample FFD). SSE of a zero image is 31, of the mean image 21.
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
    tmp_path: Path,
    cells: dict[Any, dict[str, Any]],
    seeds: int = 5,
    key: str = "x_var.value",
    noise: float = NOISE,
    errors: tuple[str, ...] = ("test_sse", "sample_ffd"),
) -> advice.Advice:
    """The advice on a sweep of one setting, a row of scores per value; the errors vary a little by seed."""

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        values = dict(cells[settings[key]])
        for i, column in enumerate(errors):
            if values.get(column) is not None:
                values[column] *= 1 + noise * np.sin(1 + 7 * settings["seed"] + 3 * i + len(str(settings[key])))
        return row | values

    fake_report(tmp_path, params={key: list(cells), "seed": list(range(seeds))}, change=change)
    (found,) = advice.advise(read("trial", tmp_path))
    return found


def value(found: advice.Advice, i: int | None) -> Any:
    return None if i is None else next(iter(found.options[i].settings.values()))


def test_the_front_is_what_no_other_beats():
    points = np.array([[3, 1], [1, 3], [2, 2], [2, 3], [3, 3], [2, 2], [1, 4], [4, 1]], float)
    assert advice.pareto_front(points).tolist() == [1, 2, 0]  # of the two equal points the first


def test_the_knee_is_furthest_below_the_chord():
    points = np.array([[0, 1], [0.2, 0.3], [0.4, 0.15], [1, 0]])
    assert advice.choose(points) == 1  # depths 0, 0.5, 0.45, 0
    assert advice.choose(points * [7, 0.01] + [3, -9]) == 1  # other units and powers
    assert advice.choose(points[[0, 2, 3]]) == 1
    assert advice.choose(points[:0]) is None
    assert advice.choose(np.array([[0, 1], [0.7, 0.6], [1, 0]])) is None  # above the chord
    assert advice.choose(np.array([[0.0, 1], [1, 0]])) is None
    assert advice.choose(np.array([[0.0, 1], [1, 0], [-1, -1]])) == 2  # beats both
    assert advice.choose(np.array([[3.0], [1.0], [2.0]])) == 1  # of one error the least


HANGING = np.array([[0, 1], [0.2, 0.45], [0.3, 0.33], [1, 0]])  # depths 0, 0.35, 0.37, 0


def test_an_omission_that_changes_the_choice_is_found():
    """Without (1, 0) the third point is the end of the front, and the second lies 0.154 below the new chord."""
    assert advice.choose(HANGING) == 2
    assert advice.changed_by_omission(HANGING, 2) == {3: 1}
    assert advice.changed_by_omission(np.array([[0, 1], [0.2, 0.3], [1, 0]]), 1) == {}  # two ends say nothing


def test_shares_are_those_of_the_intervals():
    """Of one error: the means differ by d with standard error s each, so that P = P(t1 - t2 < d/s)."""
    centre, error, n = np.array([[0.0], [1.0]]), np.array([[0.5], [0.5]]), np.full((2, 1), 400)
    found = advice.shares(centre, error, n)
    assert found[0] == pytest.approx(0.9214, abs=0.02)  # the normal distribution's at 1/(0.5·√2)
    assert found == advice.shares(centre, error, n)
    assert advice.shares(centre, error, np.full((2, 1), 2))[0] < found[0]  # two runs: wide tails
    assert sum(found.values()) == pytest.approx(1)


def test_the_knee_is_recommended(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors) for x, errors in KNEE.items()})
    assert found.verdict == "take"
    assert [value(found, i) for i in found.front] == [0.01, 0.1, 1]
    assert value(found, found.pick) == 0.1
    assert found.shares[found.pick] > 0.99
    assert value(found, found.least(1, found.eligible)) == 1
    assert value(found, found.least(0, found.compared)) == 0.01
    assert found.avoid == {}
    assert not found.on_validation


def test_a_setting_to_avoid_does_not_stretch_the_chord(tmp_path: Path):
    """The embedded digits: x_var 0.03 was the knee only because 0.01, a prior hole, made the chord longer."""
    digits = {1: (29.48, 3.06), 0.3: (19.43, 2.042), 0.1: (13.23, 3.19), 0.03: (9.222, 7.10), 0.01: (6.734, 24.84)}
    everyone = np.log(np.array(list(digits.values())))
    assert list(digits)[advice.choose(everyone) or 0] == 0.03
    cells = {x: scores(sse / 2, ffd, **(HOLE if x == 0.01 else {})) for x, (sse, ffd) in digits.items()}
    found = advised(tmp_path, cells)
    assert found.verdict == "take"
    assert value(found, found.pick) == 0.1
    assert found.avoid == {"prior_hole": ["x_var 0.01"]}
    assert value(found, found.least(0, found.compared)) == 0.01  # still the one to take for reconstructions alone


def test_a_choice_that_hangs_on_one_setting_is_not_settled(tmp_path: Path):
    errors = np.exp(HANGING) * [6, 2]
    found = advised(tmp_path, {x: scores(*e) for x, e in zip((1, 2, 3, 4), errors, strict=True)}, noise=0.0005)
    assert (found.verdict, value(found, found.pick)) == ("unsettled", 3)
    assert {value(found, i): value(found, j) for i, j in found.omissions.items()} == {4: 2}


def test_a_setting_that_is_best_in_both_needs_no_knee(tmp_path: Path):
    found = advised(tmp_path, {1: scores(9, 2), 0.1: scores(12, 3), 0.01: scores(10, 5)})
    assert (found.verdict, value(found, found.pick), len(found.front)) == ("take", 1, 1)


def test_a_dead_setting_is_not_compared(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors) for x, errors in KNEE.items()} | {3: scores(30, 0.1) | DEAD})
    assert value(found, found.pick) == 0.1
    assert len(found.compared) == 3
    assert found.avoid == {"dead": ["x_var 3"]}


def test_what_cannot_draw_the_class_is_not_chosen(tmp_path: Path):
    cells = {"both": scores(9, 3), "decoder": scores(10, 2.9, 0.95), "encoder": scores(8.9, 1, **BLIND)}
    found = advised(tmp_path, cells, key="label_placement.kind", noise=0.001)
    assert [value(found, i) for i in found.front] == ["both", "decoder"]
    assert found.avoid == {"class": ["label_placement encoder"]}
    # Blurred throughout, which is not a hole, and of the requested class less than 0.75 times as often as real images.
    cells = {"both": scores(9, 3), "decoder": scores(8.5, 2.9, 0.7, reconstruction_ffd=2.9)}
    found = advised(tmp_path / "two", cells, key="label_placement.kind")
    assert (found.verdict, value(found, found.pick), len(found.eligible)) == ("take", "both", 1)


def test_where_no_setting_draws_the_class_none_is_asked_to(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors, 0.1, label_repeat_decoder=0) for x, errors in KNEE.items()})
    assert (found.verdict, value(found, found.pick), found.avoid) == ("take", 0.1, {})


def test_equal_settings_are_undecided_and_any_will_do(tmp_path: Path):
    cells = {repeat: scores(9, 3) for repeat in (1, 5, 10)}
    found = advised(tmp_path, cells, key="label_repeat.value", noise=0.1)
    assert found.verdict in ("undecided", "no_knee")
    assert found.alike(range(3))


def test_different_settings_of_one_depth_are_undecided(tmp_path: Path):
    cells = {1: scores(16, 2), 0.3: scores(11, 2.5), 0.1: scores(8.8, 3.9), 0.01: scores(8, 8)}
    found = advised(tmp_path, cells, noise=0.03)
    assert found.verdict == "undecided"
    assert {value(found, i) for i in found.rivals} == {0.3, 0.1}
    assert not found.alike(found.rivals)


def test_two_extremes_have_no_knee(tmp_path: Path):
    found = advised(tmp_path, {1: scores(16, 2), 0.01: scores(8, 8)})
    assert (found.verdict, found.front, found.pick) == ("no_knee", [1, 0], None)


def test_single_runs_decide_nothing_and_are_not_redrawn(tmp_path: Path):
    found = advised(tmp_path, {x: scores(*errors) for x, errors in KNEE.items()}, seeds=1)
    assert (found.verdict, value(found, found.pick), found.shares) == ("single_seeds", 0.1, {})


def test_without_scores_it_goes_by_the_elbo(tmp_path: Path):
    none = dict.fromkeys(("sample_ffd", "reconstruction_ffd", "real_ffd", "sample_accuracy", "judge"))
    cells = {x: scores(9, 1, test_bits_per_dim=bits) | none for x, bits in ((1, 3.0), (0.1, -0.5), (0.01, 2.0))}
    found = advised(tmp_path, cells)
    assert (found.verdict, value(found, found.pick), found.by_elbo) == ("take", 0.1, "no_scores")
    cells = {x: scores(9, 1, judge=str(x), test_bits_per_dim=x) for x in (1, 0.1)}
    found = advised(tmp_path / "judges", cells)
    assert (found.verdict, value(found, found.pick), found.by_elbo) == ("take", 0.1, "several_judges")


def test_validation_figures_choose_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The held-out figures would choose 0.01, the best in both; the validation figures choose the knee 0.1."""
    monkeypatch.setattr("tests.fakes.family_of", lambda column: "generation")
    cells = {x: scores(10 * x + 1, x + 1, val_sse=sse, val_sample_ffd=ffd) for x, (sse, ffd) in KNEE.items()}
    found = advised(tmp_path, cells, errors=("val_sse", "val_sample_ffd"))
    assert found.on_validation
    assert value(found, found.pick) == 0.1


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda settings, row: None, "no_numbers"),
        (lambda settings, row: "Boom", "no_numbers"),
        (lambda settings, row: row | {"test_sse": None}, "no_numbers"),
        (lambda settings, row: row | scores(9, 3) | DEAD, "none_ok"),
        (lambda settings, row: row | scores(9, 0.0), "no_scores"),
    ],
)
def test_nothing_to_recommend(tmp_path: Path, change: Any, verdict: str):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, change=change)
    (found,) = advice.advise(read("trial", tmp_path))
    assert found.verdict == verdict


def test_one_setting_is_no_choice_and_some_experiments_have_none(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0, 1]}, change=lambda settings, row: row | scores(9, 3))
    (found,) = advice.advise(read("trial", tmp_path))
    assert found.verdict == "one_setting"
    fake_report(tmp_path, "none", params={"x_var.value": [1, 0.1], "seed": [0, 1]}, study={"pick": False})
    assert advice.advise(read("none", tmp_path)) == []


def test_each_dataset_has_its_own_advice(tmp_path: Path):
    params = {"x_var.value": list(KNEE), "seed": [0, 1, 2, 3]}
    fake_report(tmp_path, params=params, change=lambda s, row: row | scores(*KNEE[s["x_var.value"]]))
    path = tmp_path / "reports" / "trial" / "sweep.json"
    manifest = read_json(path)
    manifest["datasets"]["e" * 64] = DATA | {"name": "other"}
    for run in manifest["runs"]:
        if run["settings"]["seed"] > 1:
            run["dataset_hash"] = "e" * 64
    put(path, manifest)
    advices = advice.advise(read("trial", tmp_path))
    assert [found.dataset for found in advices] == ["synthetic", "other"]
    assert [value(found, found.pick) for found in advices] == [0.1, 0.1]
