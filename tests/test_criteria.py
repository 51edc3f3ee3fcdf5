"""The predicates of the claims' criteria against hand calculations, on made-up runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from experiments.criteria import Check, Missing, every, is_equivalent, judged, pairs, select, some, within
from experiments.frame import Report
from experiments.reading import read
from experiments.statistics import mean_interval
from tests.fakes import DATA, SPECTRUM, WITHIN, fake_report

SSE = {0.01: 5.0, 0.1: 10.0, 1.0: 30.0}


def change(settings: dict[str, Any], row: dict[str, Any]) -> Any:
    """SSE and KL known beforehand; at x_var 1 seeds 0 and 1 end at the class means, and seed 3 is missing."""
    seed, x_var = settings["seed"], settings["x_var.value"]
    if x_var == 1 and seed == 3:
        return None
    row |= {"test_sse": SSE[x_var] + 0.1 * seed, "test_kl": 20.0, "test_active_units": 5}
    if x_var == 1 and seed < 2:
        row |= {"test_kl": 0.0, "test_active_units": 0}
    return row


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    folder: Path = tmp_path_factory.mktemp("runs")
    data = {**DATA, "sse_zero": {"train": 88, "test": 88}, "sse_mean": {"train": 52, "test": 52}}
    params = {"x_var.value": [0.01, 1.0, 0.1], "seed": [0, 1, 2, 3]}
    fake_report(folder, "trial", params, change=change, history=False, data=data)
    points = [
        {"trainer.lr": 0.001, "model.hidden": [400], "model.kind": "mlp"},
        {"trainer.lr": 0.01, "model.hidden": [400], "model.kind": "mlp"},
        {"trainer.lr": 0.001, "model.hidden": [100], "model.kind": "mlp"},
        {"trainer.lr": 0.001, "model.hidden": None, "model.kind": "conv"},
    ]
    fake_report(folder, "one", {"seed": [0]}, points, history=False)
    return {name: read(name, folder) for name in ("trial", "one")}


def verdict(reports: dict[str, Report], **condition: Any) -> tuple[bool | None, list[Check]]:
    return judged(condition, reports)


def test_three_values():
    assert [every([True, None]), every([None, False]), every([True]), every([])] == [None, False, True, None]
    assert [some([True, None]), some([None, False]), some([False]), some([])] == [True, None, False, None]


def test_an_interval_is_inside_outside_or_neither():
    narrow, one = mean_interval([10.0, 10.1, 9.9]), mean_interval([10.0])
    assert (within(narrow, 9, 11), within(narrow, 10.05, 11), within(narrow, 11, 12)) == (True, None, False)
    assert within(one, 0, 100) is None


def test_equivalence_is_two_one_sided_tests():
    # n = 4, s = 0.02: standard error 0.01; t of 3 degrees of freedom is 2.353 at 95 % and 3.182 at 97.5 %.
    spread = 0.02 * math.sqrt(3 / 4)

    def around(centre: float) -> list[float]:
        return [centre - spread, centre - spread, centre + spread, centre + spread]

    margin = 0.1
    assert is_equivalent(around(margin - 0.0236), margin) is True
    assert is_equivalent(around(margin - 0.0234), margin) is None
    assert is_equivalent(around(margin + 0.0317), margin) is None
    assert is_equivalent(around(-margin - 0.0319), margin) is False
    assert is_equivalent([0.0], margin) is None


def test_runs_are_selected_by_settings_outcomes_and_changes(reports: dict[str, Report]):
    def names(**of: Any) -> list[dict[str, Any]]:
        return [group.settings for group in select(reports, **of)]

    assert names(runs="trial", where={"x_var.value": 1}) == [{"x_var.value": 1.0}]
    assert names(runs="trial", where={"x_var.value": {"at_least": 0.1}}) == [{"x_var.value": 1.0}, {"x_var.value": 0.1}]
    assert names(runs="trial", where={"x_var.value": {"below": 0.1}}) == [{"x_var.value": 0.01}]
    assert names(runs="trial", least="test_sse") == [{"x_var.value": 0.01}]
    assert names(runs="one", reference=True) == [{"setting": "the reference"}]
    assert names(runs="one", changing="trainer.lr") == [{"setting": "lr 0.01"}]
    assert names(runs="one", changing="trainer.lr", reference=True)[0] == {"setting": "the reference"}
    assert len(names(runs="one", changing="model")) == 2
    (dead,) = select(reports, runs=["trial"], outcomes=["collapsed"], pooled=True)
    assert list(dead.usable["seed"]) == [0, 1]
    assert list(dead.values("test_sse / 2")) == [15.0, 15.05]
    assert len(dead.values("no_such_column")) == 0
    assert names(runs="trial", outcomes=["collapsed"]) == [{"x_var.value": 1.0}]  # no other setting has such runs


def test_runs_with_a_bug_are_left_out_unless_they_are_asked_for(tmp_path: Path):
    fake_report(tmp_path, params={"seed": [0, 1]}, points=[{"bug.kind": "none"}, {"bug.kind": "variance_as_std"}])
    known = {"trial": read("trial", tmp_path)}
    (correct,), (buggy,) = (select(known, runs="trial", where=where) for where in ({}, {"bug.kind": "variance_as_std"}))
    assert [set(cell.runs["bug.kind"]) for cell in (correct, buggy)] == [{"none"}, {"variance_as_std"}]


def test_the_closed_form_of_the_bug_is_that_of_the_run(tmp_path: Path):
    placements = ["both", "encoder", "decoder"]
    fake_report(tmp_path, params={"label_placement.kind": placements}, fixed={"x_var.value": 0.2, "z_dim.value": 3})
    cells = select({"trial": read("trial", tmp_path)}, runs="trial")
    # The three largest components: 2s² - (1 + 2r)s + 1 = 0 with r = sqrt(l/t). The others have only their error.
    for cell, spectrum in zip(cells[:2], (WITHIN, SPECTRUM), strict=True):
        r = [math.sqrt(v / 0.2) for v in spectrum[:3]]
        s = [((1 + 2 * a) - math.sqrt((1 + 2 * a) ** 2 - 8)) / 4 for a in r]
        kl = sum(0.5 * (-math.log(a) - (1 - a) / 2) for a in s)
        sse = sum(a * math.sqrt(v * 0.2) for a, v in zip(s, spectrum, strict=False)) + sum(spectrum[3:])
        assert list(cell.values("variance_as_std_kl")) == [pytest.approx(kl)]
        assert list(cell.values("variance_as_std_sse")) == [pytest.approx(sse)]
    assert len(cells[2].values("variance_as_std_kl")) == 0  # the label in the decoder only has no simple form


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"runs": "none"}, "the report none is missing"),
        ({"runs": "trial", "where": {"x_var.value": 7}}, "trial: no runs with x_var 7"),
        ({"runs": "one", "where": {"trainer.epochs": {"at_least": 20}}}, "one: no runs with epochs at least 20"),
        ({"runs": "trial", "outcomes": ["dead"]}, "trial: no dead runs"),
        ({"runs": "trial", "data": {"n_train": 50_000}}, "the study's figures are for other images than synthetic"),
    ],
)
def test_missing_runs_leave_a_condition_open_with_the_reason(reports: dict[str, Report], of: Any, message: str):
    met, checks = verdict(reports, mean_within={"what": "SSE", "column": "test_sse"}, of=of)
    assert met is None
    assert checks == [Check("missing", message)]


def test_pairs(reports: dict[str, Report]):
    def found(**spec: Any) -> list[tuple[Any, Any]]:
        return [(a.settings["x_var.value"], b.settings["x_var.value"]) for a, b in pairs(reports, spec)]

    first = {"where": {"x_var.value": 0.1}}
    assert found(runs="trial", steps="x_var.value") == [(0.01, 0.1), (0.1, 1.0)]
    assert found(runs="trial", **{"from": first, "to": {}}) == [(0.1, 0.01), (0.1, 1.0)]
    assert found(**{"from": {"runs": "trial"}, "to": {"runs": "trial", **first}, "match": "z_dim"})[0] == (0.01, 0.1)
    with pytest.raises(Missing):
        pairs(reports, {"runs": "trial", "from": first, "to": {}, "match": "x_var.value"})


@pytest.mark.parametrize(
    ("predicate", "needs", "where", "expected"),
    [
        ("mean_within", {"column": "test_sse", "low": 9, "high": 11}, 0.1, True),
        ("mean_within", {"column": "test_sse / 2", "low": 9}, 0.1, False),
        ("about", {"column": "test_sse", "published": 12}, 0.1, True),
        ("about", {"column": "test_sse", "published": 12, "within": 0.1}, 0.1, False),
        ("rate_above", {"outcomes": ["ok"], "share": 0.5}, 0.1, True),
        ("rate_above", {"outcomes": ["ok"], "share": 0.5}, 1, None),
        ("rate_above", {"outcomes": ["dead"], "share": 0.5}, 0.1, False),
        ("rate_all", {"condition": "test_sse < 11"}, 0.1, True),
        ("rate_all", {"condition": "test_sse < 10.15"}, 0.1, None),
        ("rate_all", {"condition": "test_sse < 9"}, 0.1, False),
        ("rate_some", {"outcomes": ["collapsed"]}, 1, True),
        ("rate_some", {"condition": "test_sse > 10.25 and abs(test_kl - 20) < 1"}, 0.1, True),
        ("rate_some", {"outcomes": ["dead"]}, 1, False),
        ("rate_mixed", {"outcomes": ["collapsed"]}, 1, True),
        ("rate_mixed", {"outcomes": ["ok"]}, 0.1, None),
        ("rate_mixed", {"outcomes": ["collapsed"]}, 0.1, False),
    ],
)
def test_predicates_of_one_setting(reports: dict[str, Report], predicate: str, needs: Any, where: Any, expected: Any):
    of = {"runs": "trial", "where": {"x_var.value": where}}
    assert verdict(reports, **{predicate: {"what": "", **needs}}, of=of)[0] is expected


def test_a_rate_of_runs_without_numbers_is_a_share_of_all_runs(reports: dict[str, Report]):
    of = {"runs": "trial", "where": {"x_var.value": 1}}
    (missing,) = verdict(reports, show={"what": "", "outcomes": ["missing"]}, of=of)[1]
    assert (missing.value.mean, missing.value.n, missing.lost) == (0.25, 4, 0)
    (died,) = verdict(reports, show={"what": "", "outcomes": ["collapsed"]}, of=of)[1]
    assert (died.value.mean, died.value.n, died.lost) == (pytest.approx(2 / 3), 3, 1)


def test_all_settings_count_unless_one_is_enough(reports: dict[str, Report]):
    condition = {"rate_mixed": {"what": "died", "outcomes": ["collapsed"]}, "of": {"runs": "trial"}}
    met, checks = verdict(reports, **condition)
    assert met is False
    assert [(c.where, c.met, c.value.mean, c.lost, c.n) for c in checks] == [
        ("x_var 0.01", False, 0.0, 0, 4),
        ("x_var 1", True, pytest.approx(2 / 3), 1, 4),
        ("x_var 0.1", False, 0.0, 0, 4),
    ]
    assert verdict(reports, **condition, quantifier="some")[0] is True


def test_differences_are_paired_by_seed(reports: dict[str, Report]):
    step = {"runs": "trial", "from": {"where": {"x_var.value": 0.1}}, "to": {"where": {"x_var.value": 0.01}}}
    met, (check,) = verdict(
        reports, differs={"what": "SSE", "column": "test_sse", "unit": "", "sign": "less"}, pairs=step
    )
    assert met is True
    assert (check.where, check.value.mean, check.value.half) == (
        "x_var 0.1 → x_var 0.01",
        -5,
        pytest.approx(0, abs=1e-9),
    )
    assert not verdict(reports, differs={"what": "", "column": "test_sse", "unit": "%", "sign": "more"}, pairs=step)[0]
    columns = [{"what": "KL", "column": "test_kl", "within": 10, "unit": "%"}]
    assert verdict(reports, equivalent={"columns": columns}, pairs=step)[0] is True
    columns += [{"what": "half of SSE", "column": "test_sse / 2", "within": 250, "unit": "points"}]
    columns += [{"what": "nothing", "column": "none", "within": 1, "unit": "%"}]
    met, checks = verdict(reports, equivalent={"columns": columns}, pairs=step)
    assert met is None  # exactly at the margin
    assert [c.what for c in checks] == ["KL", "half of SSE"]
    assert checks[1].value.mean == pytest.approx(-250)


def test_equivalence_needs_all_runs(reports: dict[str, Report]):
    step = {"runs": "trial", "from": {"where": {"x_var.value": 0.1}}, "to": {"where": {"x_var.value": 1}}}
    columns = [{"what": "SSE", "column": "test_sse", "within": 1000, "unit": "%"}]
    met, checks = verdict(reports, equivalent={"columns": columns}, pairs=step)
    assert met is None  # a run is missing
    assert [(c.what, c.met) for c in checks] == [("SSE", True), ("runs with numbers", None)]
    trial = reports["trial"]
    diverged = trial.runs.assign(outcome=trial.runs["outcome"].replace("missing", "diverged"))
    other = Report(trial.name, trial.folder, trial.manifest, trial.keys, diverged)
    assert verdict({"trial": other}, equivalent={"columns": columns}, pairs=step)[0] is False


def test_conditions_combine_and_arithmetic_needs_no_runs():
    right = {"arithmetic": {"what": "", "product": [3, 4], "over": 2, "published": 6.5}}
    wrong = {"arithmetic": {"what": "", "product": [3, 4], "over": 2, "published": 60}}
    assert judged(right, {})[0] is True
    assert judged({"all_of": [right, wrong]}, {})[0] is False
    met, checks = judged({"any_of": [right, {"all_of": [wrong]}]}, {})
    assert (met, [c.met for c in checks]) == (True, [True, False])
