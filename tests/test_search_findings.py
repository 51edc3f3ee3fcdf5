"""The report of a search: the best that keeps the constraints, or the front, and the command that confirms it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments.find import find
from experiments.reading import read
from experiments.report import build
from experiments.search_findings import Search, confirmation
from experiments.site import build as site
from experiments.site.cards import user_cards
from experiments.store import read_json
from tests.fakes import fake_report, put
from tests.snapshots import check

# x_var -> (SSE, sample FFD)
POINTS = {0.5: (12.0, 3.0), 0.05: (8.0, 4.0), 0.2: (10.0, 2.0), 0.1: (9.0, 5.0)}
BOTH = {"test_sse": "minimize", "sample_ffd": "minimize"}


def searched(
    tmp_path: Path, objectives: dict[str, str], constraints: Sequence[tuple[str, str, float]] = (), **more: Any
) -> Search:
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        sse, ffd = POINTS[settings["x_var.value"]]
        return row | {"test_sse": sse, "sample_ffd": ffd} | {k: f(settings) for k, f in more.items()}

    study = {"name": "search", "title": "A search", "question": "Which x_var?"}
    fake_report(tmp_path, params={"x_var.value": list(POINTS)}, change=change, study=study)
    path = tmp_path / "reports" / "trial" / "sweep.json"
    manifest = read_json(path)
    manifest["search"] = {
        "objectives": objectives,
        "constraints": [dict(zip(("column", "sign", "limit"), c, strict=True)) for c in constraints],
        "trials": [row["run"] for row in manifest["runs"]],
        "space": {"x_var.value": "0.01 to 1, logarithmic"},
    }
    put(path, manifest)
    return Search(read("trial", tmp_path))


def names(search: Search) -> list[str]:
    return [trial.name for trial in search.best]


def test_the_best_keeps_the_constraints(tmp_path: Path):
    free = searched(tmp_path / "free", {"sample_ffd": "minimize"})
    assert names(free) == ["x_var 0.2"]
    assert [trial.number for trial in free.trials] == [1, 2, 3, 4]
    bound = searched(tmp_path / "bound", {"sample_ffd": "minimize"}, [("test_sse", "<=", 9.5)])
    assert names(bound) == ["x_var 0.05"]
    assert [trial.allowed for trial in bound.trials] == [False, True, False, True]
    assert names(searched(tmp_path / "most", {"sample_ffd": "maximize"}, [("test_sse", ">=", 9.5)])) == ["x_var 0.5"]
    assert names(searched(tmp_path / "none", {"sample_ffd": "minimize"}, [("test_sse", "<=", 1.0)])) == []


def test_two_objectives_have_a_front(tmp_path: Path):
    assert names(searched(tmp_path, BOTH)) == ["x_var 0.05", "x_var 0.2"]  # by ascending SSE


def test_validation_figures_are_used_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.fakes.family_of", lambda column: "generation")
    search = searched(
        tmp_path,
        {"test_sse": "minimize"},
        [("sample_ffd", "<=", 4.5)],
        val_sse=lambda settings: 1 / settings["x_var.value"],
        val_sample_ffd=lambda settings: 9.0 if settings["x_var.value"] == 0.5 else 1.0,
    )
    assert list(search.objectives) == ["val_sse"]
    assert search.on_validation
    assert names(search) == ["x_var 0.2"]


@pytest.mark.parametrize("objectives", [{"sample_ffd": "minimize"}, BOTH])
def test_the_command_trains_the_best_with_other_seeds(tmp_path: Path, objectives: dict[str, str]):
    line = confirmation(searched(tmp_path, objectives), tmp_path)
    words = shlex.split(line)
    assert words[:4] == ["python", "run.py", "-m", "study.name=search-confirmed"]
    assert words[-1] == "seed=range(1,6)"
    assert "z_dim.value=10" in words
    assert f"output_dir={os.path.relpath(tmp_path)}" in words
    assert f"\n{line}\n" in build.collect("trial", tmp_path).read_text()  # complete, to be copied
    best = "x_var.value=0.2" if len(objectives) == 1 else "hydra.sweeper.points=[{x_var.value:0.05},{x_var.value:0.2}]"
    assert best in words


def test_the_texts_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    searched(Path("outputs"), {"sample_ffd": "minimize"}, [("test_sse", "<=", 9.5)])
    first = build.collect("trial", "outputs")
    check("search_report.md", first.read_text())
    check("search_details.md", (first.parent / "details.md").read_text())
    summary = json.loads((first.parent / "summary.json").read_text())
    assert summary["answer"].startswith("The best setting found is x_var 0.05")
    searched(Path("none"), {"sample_ffd": "minimize"}, [("test_sse", "<=", 1.0)])
    assert "No setting was found" in build.collect("trial", "none").read_text()


def test_the_page_and_the_report_name_the_same_setting(tmp_path: Path):
    """The best by the objective alone, x_var 0.2, breaks the constraint, and a trial is a single run."""
    searched(tmp_path, {"sample_ffd": "minimize"}, [("test_sse", "<=", 9.5)])
    text = build.collect("trial", tmp_path).read_text()
    site.write(tmp_path)
    (card,) = user_cards(tmp_path)
    assert card.summary["answer"].startswith("The best setting found is x_var 0.05, ")
    assert card.summary["answer"] in text
    page = (tmp_path / "index.html").read_text()
    assert card.summary["answer"] in page
    for shown in (text, page, (tmp_path / "reports/trial/details.md").read_text()):
        assert "redrawn" not in shown
        assert "best setting found is x_var 0.2" not in shown
    assert find("best:trial", tmp_path).name == "trial-x_var0.05"
