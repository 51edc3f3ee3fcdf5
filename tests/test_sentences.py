"""Every sentence of experiments/report/templates/sentences.md.j2 that other tests' reports do not contain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.effects import Effect, KeyFinding
from experiments.findings import RateRow, Rates
from experiments.report import build
from experiments.report.render import say
from experiments.statistics import Interval, mean_interval, wilson_interval
from tests.fakes import fake_report
from tests.snapshots import check


def option(name: str, sse: float, ffd: float, outcomes: dict[str, int] | None = None) -> Any:
    scores = tuple(mean_interval([0.99 * v, v, 1.01 * v]) for v in (sse, ffd))
    found = outcomes or {"ok": 3}
    return SimpleNamespace(
        name=name, scores=scores, draws_class=True, outcomes=SimpleNamespace(items=found.items, total=lambda: 3)
    )


OPTIONS = [option("x_var 1", 20, 2), option("x_var 0.1", 10, 3), option("x_var 0.01", 5, 20, {"ok": 2, "dead": 1})]
USUAL: dict[str, Any] = {
    "on_validation": False,
    "criteria": ("test_sse", "sample_ffd"),
    "by_elbo": "",
    "options": OPTIONS,
    "compared": [0, 1, 2],
    "eligible": [0, 1],
    "front": [1, 0],
    "pick": 1,
    "best": OPTIONS[1],
    "shares": {1: 0.6, 0: 0.3, None: 0.1},
    "omissions": {},
    "rivals": [1, 0, None],
}
CASES: dict[str, dict[str, Any]] = {
    "the knee": {"verdict": "take", "shares": {1: 0.97}, "on_validation": True},
    "best in both errors": {"verdict": "take", "shares": {1: 0.97}, "front": [1]},
    "the only setting": {"verdict": "take", "eligible": [1]},
    "by the likelihood": {"verdict": "take", "criteria": ("test_bits_per_dim",), "by_elbo": "several_judges"},
    "undecided, and alike": {"verdict": "undecided", "alike": True},
    "undecided, and different": {"verdict": "undecided", "alike": False},
    "it depends on another setting": {"verdict": "unsettled", "omissions": {0: None, 2: 0}},
    "no knee, and alike": {"verdict": "no_knee", "pick": None, "alike": True},
    "no knee, and different": {"verdict": "no_knee", "pick": None, "alike": False},
    "one seed": {"verdict": "single_seeds"},
    "no scores": {"verdict": "no_scores", "eligible": [], "by_elbo": "no_scores"},
    "none is ok": {"verdict": "none_ok", "eligible": []},
    "one setting": {"verdict": "one_setting", "options": OPTIONS[:1]},
}


def advised(case: dict[str, Any]) -> str:
    """What the report says about a choice."""
    values = {**USUAL, **case}
    alike = values.pop("alike", False)
    a = SimpleNamespace(
        **values,
        alike=lambda indices: alike,
        least=lambda k, among: min(among, key=lambda i: OPTIONS[i].scores[k].mean),
    )
    return " ".join(filter(None, [say("sentences.md.j2", part, a) for part in ("verdict", "why", "alternatives")]))


def effect(column: str, first: Any, second: Any, start: float, end: float) -> Effect:
    half = 0.1 * abs(end - start)
    change = Interval(end - start, end - start - half, end - start + half, 3)
    return Effect(column, first, second, Interval(start, 0.9 * start, 1.1 * start, 3), mean_interval([end] * 3), change)


def finding(key: str, *, numeric: bool = False, **changes: Any) -> str:
    values: dict[str, Any] = {
        "rest": {}, "clear": [], "by_key": [], "ends": [], "unclear": [], "values": [], "alike": [], "best": {},
        "testable": True,
    }  # fmt: skip
    f = KeyFinding(key=key, numeric=numeric, **{**values, **changes})
    return f"{say('sentences.md.j2', 'key_finding', f)} {say('sentences.md.j2', 'more_about', f)}".strip()


def test_the_sentences():
    sse, ffd = effect("test_sse", 1, 0.01, 20.0, 5.0), effect("sample_ffd", 1, 0.01, 3.0, 20.0)
    lr = effect("test_kl", "the reference", "lr 0.01", 2.0, 0.5)
    depth = effect("test_sse", "lr 0.01", "lr 0.01, model.hidden 400", 30.0, 20.0)
    placements = [effect("sample_accuracy", "both", "encoder", 0.95, 0.1), effect("test_kl", "both", "none", 2.0, 4.0)]
    accuracy = [(name, Interval(v, v - 0.02, v + 0.02, 3)) for name, v in (("both", 0.95), ("none", 0.94), ("x", 0.1))]
    findings = {
        "a number": finding(
            "x_var.value", numeric=True, clear=[sse, ffd], best={"sample_ffd": (0.3, mean_interval([2.0] * 3))}
        ),
        "a word": finding(
            "label_placement.kind", clear=placements, values=accuracy, alike=["none"], unclear=["test_sse"],
            rest={"x_var.value": 0.1},
        ),
        "one thing at a time": finding(
            "setting", clear=[lr, depth], by_key=[lr, depth], unclear=["lr 0.003", "epochs 9"]
        ),
        "nothing at a time": finding("setting", unclear=["lr 0.003"]),
        "no effect": finding("seed", unclear=["test_kl", "test_sse", "test_bits_per_dim"]),
        "one seed": finding("setting", testable=False),
        "one seed, numbers": finding("x_var.value", numeric=True, testable=False, ends=[sse, ffd]),
    }  # fmt: skip
    rows = [
        RateRow("the reference", wilson_interval(5, 20), None, None, False, 0),
        RateRow("lr 0.001", wilson_interval(0, 20), "the reference", Interval(-0.25, -0.4, -0.1, 20), False, 0),
        RateRow("lr 0.03", wilson_interval(20, 20), "the reference", Interval(0.75, 0.5, 0.9, 20), False, 0),
        RateRow("model.hidden 400, lr 0.03", wilson_interval(20, 20), "lr 0.001", Interval(1, 0.8, 1, 20), False, 0),
    ]
    lines = [f"{case}: {advised(values)}" for case, values in CASES.items()]
    lines += [f"{case}: {text}" for case, text in findings.items()]
    lines += [f"rates: {say('sentences.md.j2', 'rates', Rates(('collapsed', 'dead'), rows))}"]
    check("sentences.md", "\n\n".join(lines) + "\n")


def test_what_is_missing_is_said_on_page_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        scores = {"judge": f"judge {settings['beta.value']}", "sample_ffd": 3.0, "test_mutual_information": 2.0}
        return row | scores

    reasons = {"swept.png": "ValueError: no room"}
    monkeypatch.setattr(build.figures, "all_figures", lambda report, about: ({}, reasons))
    study = {"published": [{"beta.value": 7, "kld_loss": 80.0}], "source": "study B"}
    fixed = {"objective.kind": "per_dim", "label_placement.kind": "none"}
    params = {"beta.value": [1.0, 0.1], "seed": [0, 1]}
    fake_report(tmp_path, params=params, study=study, fixed=fixed, change=change, pictures=False)
    build.collect("trial", tmp_path)
    details = (tmp_path / "reports" / "trial" / "details.md").read_text()
    for sentence in (
        "No setting here corresponds to the study's beta 7.",
        "different classifiers judged the runs, so their scores cannot be compared.",
        "if it is large, there is a prior hole.",
        "- swept.png could not be drawn: ValueError: no room",
        "effective x_var = beta·D/(2k)",
    ):
        assert sentence in details
    assert "There are no reports yet." in build.index(tmp_path / "nowhere")


def test_a_search_on_validation_images_says_so():
    best, objectives = [SimpleNamespace(name="x_var 0.1", values=[0.9])], {"val_psnr": "maximize"}
    search = SimpleNamespace(best=best, objectives=objectives, constraints=[], on_validation=True)
    said = say("search_sentences.md.j2", "answer", search)
    assert said.endswith("0.9. It was chosen on validation images, with one seed.")
    assert say("search_sentences.md.j2", "aim", search).startswith("the highest ")
