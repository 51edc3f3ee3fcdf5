"""A report's files, on synthetic run folders with numbers that are known beforehand."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import collect
from experiments.advice import advise
from experiments.asked import survivors, without_bugs
from experiments.damage import damage_named
from experiments.findings import findings
from experiments.frame import Report
from experiments.reading import read
from experiments.report import build, tables
from tests.fakes import DATA, change, fake_report
from tests.snapshots import check
from vae import theory

SCORES = {
    "judge": "j",
    "judge_accuracy": 0.97,
    "sample_ffd": 3.0,
    "reconstruction_ffd": 2.5,
    "real_ffd": 0.5,
    "sample_accuracy": 0.95,
    "sample_coverage": 0.9,
}
MEASURED = {"expost_gaussian_ffd": 2.6, "expost_mixture_ffd": 2.55, "probe_accuracy": 0.3, "probe_chance": 0.1}
DEAD = {"test_sse": 30.0, "test_kl": 0.0, "test_active_units": 0}
HOLE = {"reconstruction_ffd": 0.5, "sample_coverage": 0.1}


def collected(tmp_path: Path, name: str = "trial") -> str:
    return build.collect(name, tmp_path).read_text()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch):
    """No figures, which take most of the time."""
    monkeypatch.setattr(build.figures, "all_figures", lambda report, about: ({}, {}))
    for name in ("tradeoff", "joint"):
        monkeypatch.setattr(build, name, lambda *args: None)


def failed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the command says in its one line on stderr."""
    assert collect.main(list(argv)) != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def own_tables(tmp_path: Path, **kwargs: Any) -> dict[str, pd.DataFrame]:
    """The CSV files of a report."""
    fake_report(tmp_path, **kwargs)
    report = read("trial", tmp_path)
    found = tables.all_tables(report, survivors(report), findings(report))
    return {slug: pd.read_csv(io.StringIO(table.csv())) for slug, table in found.items()}


# ---------------------------------------------------------------------------------------------- files


def test_a_report_has_all_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = {"question": "Does it work?", "source": "a study", "published": [{"x_var.value": 1, "kl_offset": 50.0}]}
    params = {"x_var.value": [1, 0.1], "label_placement.kind": ["both", "encoder"], "seed": [0, 1, 2]}
    fake_report(tmp_path, params=params, study=study)
    assert collect.main(["trial", "--output-dir", str(tmp_path)]) == 0
    folder = tmp_path / "reports" / "trial"
    assert capsys.readouterr().out.strip() == str(folder / "report.md")
    slugs = {"headline", "settings", "changes", "published", "likelihood", "train_test"}
    assert {p.name for p in (folder / "tables").iterdir()} == {f"{s}.{end}" for s in slugs for end in ("md", "csv")}
    for page in ("report.md", "details.md"):
        for link in (part.split(")")[0] for part in (folder / page).read_text().split("](")[1:]):
            assert (folder / link).exists(), link
    summary = json.loads((folder / "summary.json").read_text())
    assert {key: summary[key] for key in ("title", "data", "n_runs", "n_usable", "date")} == {
        "title": "A trial", "data": "synthetic", "n_runs": 12, "n_usable": 12, "date": "2030-01-02",
    }  # fmt: skip
    assert summary["answer"] in (tmp_path / "reports" / "index.md").read_text()
    first = (folder / "report.md").read_text()
    assert len(first.split()) <= 700
    rows = [line for line in first.splitlines() if line.startswith("|")]
    assert all(line.count("|") <= 8 for line in rows)


@pytest.mark.usefixtures("plain")
def test_page_one_of_a_large_sweep_in_which_everything_happens_has_at_most_700_words(tmp_path: Path):
    happens = [{}, DEAD, HOLE, {"test_sse": 22.5}, {"test_kl": 0.0, "test_active_units": 0}, "MemoryError", None]

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str | None:
        found = happens[(7 * settings["seed"] + round(100 * settings["x_var.value"])) % 11 % len(happens)]
        return row | SCORES | found if isinstance(found, dict) else found

    params = {"x_var.value": [0.01 * i for i in range(1, 13)], "label_placement.kind": ["both", "encoder"]}
    study = {"question": "Which of all these settings is best, and which of them fail? " * 2, "title": "All settings"}
    fake_report(tmp_path, params=params | {"seed": [0, 1, 2]}, change=change, study=study)
    text = collected(tmp_path)
    assert "continues in tables/headline.md with 8 more settings." in text
    assert len({line.split("**")[1] for line in text.splitlines() if line.startswith("- **")}) >= 4  # outcomes
    assert len(text.split()) <= 700
    assert all(line.count("|") <= 8 for line in text.splitlines())  # seven columns


def test_the_same_runs_give_the_same_report(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})

    def files() -> dict[str, bytes]:
        collected(tmp_path)
        return {str(p): p.read_bytes() for p in (tmp_path / "reports").rglob("*") if p.is_file()}

    assert files() == files()


@pytest.mark.usefixtures("plain")
def test_strays_are_not_picked_up_and_other_reports_stay_as_they_are(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    collected(tmp_path)
    folder = tmp_path / "reports" / "trial"
    before = {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    fake_report(tmp_path, "other", params={"x_var.value": [0.5], "seed": [0, 1]})
    (tmp_path / "runs" / "not a run").mkdir()
    (tmp_path / "runs" / "file").write_text("x")
    collected(tmp_path, "other")
    assert {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert set(pd.read_csv(tmp_path / "reports" / "other" / "runs.csv")["x_var.value"]) == {0.5}
    assert "(trial/report.md)" in (tmp_path / "reports" / "index.md").read_text()


def test_other_reports_are_drawn_from_their_runs_csv_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build.figures, "all_figures", lambda report, about: ({}, {}))
    runs = fake_report(tmp_path, "other", params={"x_var.value": [0.3, 0.5]})
    fake_report(tmp_path, params={"x_var.value": [1, 0.1]})
    collected(tmp_path)
    figure = tmp_path / "reports/trial/figures/joint.png"
    assert not figure.exists(), "the other report is not built"
    collected(tmp_path, "other")
    for folder in runs:
        shutil.rmtree(folder)
    drawn: list[dict[str, list[float]]] = []
    joint = build.joint

    def watch(report: Report, others: Mapping[str, pd.DataFrame], content: str) -> Any:
        drawn.append({name: runs["x_var.value"].tolist() for name, runs in others.items()})
        return joint(report, others, content)

    monkeypatch.setattr(build, "joint", watch)
    collected(tmp_path)
    assert drawn == [{"other": [0.3, 0.5]}]
    assert figure.exists()
    path = tmp_path / "reports/other/runs.csv"
    path.write_text(path.read_text().replace("0.3", "0.4"))
    with damage_named("collect") as found:
        collected(tmp_path)
    assert list(found) == [f"{path}: damaged: it does not match its checksum in summary.json"]
    assert not figure.exists()


@pytest.mark.usefixtures("plain")
def test_files_of_an_earlier_report_go_away(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    collected(tmp_path)
    folder = tmp_path / "reports" / "trial"
    stale = [folder / "tables" / "stale.csv", folder / "figures" / "stale.png"]
    for path in stale:
        path.write_text("x")
    collected(tmp_path)
    assert not any(path.exists() for path in stale)


@pytest.mark.usefixtures("plain")
def test_a_report_of_fewer_runs_replaces_none_unless_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folders = fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    before = collected(tmp_path)
    (folders[0] / "result.json").unlink()
    files = {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*") if path.is_file()}
    assert "3 of the 4 runs" in failed(capsys, "trial", "--output-dir", str(tmp_path))
    assert {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*") if path.is_file()} == files
    assert collect.main(["trial", "--output-dir", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "reports" / "trial" / "report.md").read_text() != before


@pytest.mark.usefixtures("plain")
def test_a_report_of_failures_alone_appears_with_their_reasons(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0]}, change=lambda s, row: "CudaError: <bad> | x")
    collected(tmp_path)
    folder = tmp_path / "reports" / "trial"
    assert r"CudaError: \<bad\> \| x" in (folder / "details.md").read_text()
    assert json.loads((folder / "summary.json").read_text())["n_usable"] == 0


@pytest.mark.usefixtures("plain")
def test_a_run_alone_makes_a_report(tmp_path: Path):
    fake_report(tmp_path)
    collected(tmp_path)


@pytest.mark.usefixtures("plain")
def test_text_from_data_is_escaped(tmp_path: Path):
    study = {"title": "A | *b* <c>", "question": "[d]?"}
    fake_report(tmp_path, study=study, data=DATA | {"name": "<x>", "source": "a|b"}, params={"seed": [0, 1]})
    first = collected(tmp_path)
    assert r"# A \| \*b\* \<c\>" in first
    assert r"\[d\]?" in first
    assert r"\<x\> (a\|b)" in (tmp_path / "reports" / "trial" / "details.md").read_text()


@pytest.mark.usefixtures("plain")
def test_no_absolute_path_of_the_machine_is_in_a_report(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
        return row if settings["seed"] else f"FileNotFoundError: {tmp_path}/data/train"

    data = DATA | {"source": f"{tmp_path}/pictures/train and {tmp_path}/pictures/test"}
    fake_report(tmp_path, data=data, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, change=change)
    collected(tmp_path)
    folder = tmp_path / "reports" / "trial"
    for path in [p for p in folder.rglob("*") if p.is_file() and p.name != "sweep.json"]:
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "…/pictures/train" in (folder / "details.md").read_text()


@pytest.mark.usefixtures("plain")
def test_differing_provenance_is_a_warning(tmp_path: Path):
    folders = fake_report(tmp_path, params={"seed": [0, 1]})
    collected(tmp_path)
    details = tmp_path / "reports" / "trial" / "details.md"
    assert "**Warning:**" not in details.read_text()
    change(folders[0] / "provenance.json", threads=7)
    collected(tmp_path)
    assert "differ in threads: 7 (1 run); 2 (1 run)" in details.read_text()
    (folders[1] / "provenance.json").write_text("{")
    collected(tmp_path)
    assert "1 run has no readable provenance.json" in details.read_text()


def test_an_unknown_report_or_a_broken_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fake_report(tmp_path)
    assert "did you mean trial?" in failed(capsys, "trail", "--output-dir", str(tmp_path))
    (tmp_path / "reports" / "trial" / "sweep.json").write_text("{")
    assert "sweep.json: has no checksum" in failed(capsys, "trial", "--output-dir", str(tmp_path))


def test_reports_need_no_torch():
    code = "import sys; import experiments.collect, experiments.search_findings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------- tables


def test_the_headline_against_a_hand_calculation(tmp_path: Path):
    values = {(1, 0): (1.0, 16.0), (1, 1): (2.0, 19.0), (1, 2): (4.0, 17.0), (0.1, 0): (20.0, 10.0)}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        if (settings["x_var.value"], settings["seed"]) not in values:
            return None
        kl, sse = values[settings["x_var.value"], settings["seed"]]
        return row | {"test_kl": kl, "test_sse": sse}

    found = own_tables(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2]}, change=change)
    first, second = found["headline"].to_dict("records")
    x = np.array([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, x.mean(), stats.sem(x))
    assert (first["test_kl"], first["test_kl_low"], first["test_kl_high"]) == pytest.approx((7 / 3, low, high))
    assert (first["test_kl_n"], first["x_var.value"], first["test_sse"]) == (3, 1, pytest.approx(52 / 3))
    assert (second["test_kl"], second["test_kl_n"]) == (20.0, 1)
    assert math.isnan(second["test_kl_low"])
    assert second["outcome"] == "2 of 3 missing"


def test_the_closed_form_is_that_of_held_out_images(tmp_path: Path):
    found = own_tables(tmp_path, params={"label_placement.kind": ["both", "decoder"], "seed": [0, 1]})["settings"]
    within, every = (theory.optimum(DATA[key], 0.1, 10) for key in ("eigenvalues_within", "eigenvalues"))
    assert found["test_theory_sse_low"].tolist() == pytest.approx([within.sse + 0.5, within.sse + 0.5])
    assert found["test_theory_sse_high"].tolist() == pytest.approx([within.sse + 0.5, every.sse + 0.5])
    assert found["effective_x_var"].tolist() == [0.1, 0.1]


def test_a_column_that_the_experiment_names_is_in_its_tables(tmp_path: Path):
    study = {"columns": ["test_elbo", "test_kl"]}
    found = own_tables(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, study=study)
    assert {"test_elbo", "test_kl"} <= set(found["headline"]) & set(found["settings"]) & set(found["changes"])


def test_published_figures_land_in_their_rows(tmp_path: Path):
    study = {"published": [
        {"x_var.value": 1, "label_placement": "both", "kl_offset": 50.0, "note": "dies"},
        {"x_var.value": 7, "kl_offset": 1.0},
    ]}  # fmt: skip
    found = own_tables(tmp_path, params={"x_var.value": [0.1, 1], "seed": [0, 1]}, study=study)["published"]
    assert found["published_kl_offset"].isna().tolist() == [True, False]
    assert found["note"].tolist()[1] == "dies"
    assert found["test_kl_offset"].tolist() == pytest.approx([kl + 5 for kl in _kl(tmp_path)])
    report = read("trial", tmp_path)
    assert tables.unmatched(report) == [{"x_var.value": 7}]


def _kl(tmp_path: Path) -> list[float]:
    return [cell.mean("test_kl") for cell in read("trial", tmp_path).cells]


def test_changes_are_paired_by_seed_and_leave_out_unpaired_runs(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        seed = settings["seed"]
        if settings["x_var.value"] == 0.1:
            return None if seed == 3 else row | {"test_kl": 10.0 + 5 * seed + 0.1 * seed**2}
        return row | {"test_kl": 1.0 + 5 * seed}

    found = own_tables(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2, 3]}, change=change)["changes"]
    differences = np.array([9.0, 9.1, 9.4])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    row = found.to_dict("records")[0]
    assert (row["setting"], row["control"]) == ("x_var 0.1", "x_var 1")
    assert (row["test_kl"], row["test_kl_low"], row["test_kl_high"]) == pytest.approx((differences.mean(), low, high))


def test_the_gap_to_training_is_taken_within_runs(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | {"train_sse": 5.0 + settings["seed"], "test_sse": 6.0 + 1.5 * settings["seed"]}

    row = own_tables(tmp_path, params={"seed": [0, 1, 2]}, change=change)["train_test"].to_dict("records")[0]
    assert row["gap_sse"] == pytest.approx(1.5)
    assert row["gap_sse_high"] - row["gap_sse"] == pytest.approx(stats.t.ppf(0.975, 2) * 0.5 / math.sqrt(3))


def test_a_constant_column_becomes_a_sentence():
    table = tables.Table("t", "T", [
        tables.Column("a", "a", [1, 2], key=True),
        tables.Column("b", "b", [3.0, 3.0]),
        tables.Column("c", "c", [None, None]),
    ])  # fmt: skip
    assert table.constant == {"b": "3"}
    assert [line.replace(" ", "") for line in table.markdown().splitlines()] == ["|a|", "|----:|", "|1|", "|2|"]
    assert table.csv() == "a,b\n1,3.0\n2,3.0\n"


@pytest.mark.usefixtures("plain")
def test_runs_csv_has_one_row_per_run_at_full_precision(tmp_path: Path):
    fake_report(
        tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, change=lambda s, row: row | {"test_kl": 1 / 3}
    )
    collected(tmp_path)
    found = pd.read_csv(tmp_path / "reports" / "trial" / "runs.csv", index_col="run")
    assert set(found.index) == {path.name for path in (tmp_path / "runs").iterdir()}
    assert set(found["test_kl"]) == {1 / 3}
    assert {"outcome", "reason", "x_var.value", "seed", "test_sse", "trainer.lr"} <= set(found)
    assert "path" not in found


# ---------------------------------------------------------------------------------------------- texts


def test_the_texts_of_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    output_dir = Path("outputs")
    sizes = {1: (18.0, 2.0), 0.1: (9.0, 2.6), 0.03: (8.0, 8.0), 0.01: (7.0, 20.0)}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
        (sse, ffd), seed = sizes[settings["x_var.value"]], settings["seed"]
        e = 0.02 * math.sin(1 + 7 * seed + sse)
        if settings["x_var.value"] == 0.03 and seed == 2:
            return "MemoryError: too big"
        own = {"test_sse": sse * (1 + e), "sample_ffd": ffd * (1 - e)} | (
            HOLE if settings["x_var.value"] == 0.01 else {}
        )
        return row | SCORES | MEASURED | {"probe_accuracy": 0.3 + 0.01 * seed} | own

    study = {
        "title": "Decoder variance",
        "question": "Which x_var gives good pictures?",
        "source": "study A",
        "published": [{"x_var.value": 1, "kl_offset": 50.0, "note": "good pictures"}],
        "metrics": ["expost", "probe"],
    }
    fake_report(output_dir, params={"x_var.value": list(sizes), "seed": [0, 1, 2]}, study=study, change=change)
    collected(output_dir)
    folder = output_dir / "reports" / "trial"
    check("report.md", (folder / "report.md").read_text())
    check("details.md", (folder / "details.md").read_text())
    check("index.md", (output_dir / "reports" / "index.md").read_text())


def test_the_texts_about_rates(tmp_path: Path):
    usual = {"trainer.lr": 0.01, "model.init": "uniform", "trainer.epochs": 3, "trainer.batch_size": 128}
    points = [
        usual,
        {**usual, "trainer.lr": 0.001},
        {**usual, "model.init": "xavier"},
        {**usual, "trainer.epochs": 9},
        {**usual, "trainer.batch_size": 32},
    ]
    dead = dict(zip((tuple(point.values()) for point in points), (5, 0, 8, 4, 5), strict=True))

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | (DEAD if settings["seed"] < dead[tuple(settings[k] for k in usual)] else {})

    study = {"title": "Deaths", "columns": ["collapsed", "dead", "test_kl", "test_sse"], "pick": False}
    fake_report(tmp_path, points=points, params={"seed": list(range(8))}, change=change, study=study)
    check("rates.md", collected(tmp_path))
    report = read("trial", tmp_path)
    about = build._about(report, replace(findings(report), keys=[]), [])
    assert [cell.name for cell in about] == ["the reference", "lr 0.001"]  # the figures show what the answer names


def test_the_figures_show_every_setting_that_the_answer_names(tmp_path: Path):
    usual = {"trainer.lr": 0.01, "model.init": "uniform", "trainer.epochs": 3}
    points = [usual, *({**usual, "trainer.lr": lr} for lr in (0.001, 0.002, 0.003)), {**usual, "trainer.epochs": 9}]
    points += [{**usual, "model.init": "xavier"}, {**usual, "trainer.epochs": 1}]
    errors = dict(zip((tuple(point.values()) for point in points), (30, 29.9, 25, 28, 20, 40, 29.9), strict=True))

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        which = tuple(settings[k] for k in usual)
        error = errors[which] + 0.3 * ((1 + list(errors).index(which)) * settings["seed"] % 3)  # seeds differ
        return row | {"test_sse": error, "sample_ffd": error / 10, "test_kl": 3.0, "sample_accuracy": 0.9}

    fake_report(tmp_path, points=points, params={"seed": [0, 1, 2]}, change=change)
    report = read("trial", tmp_path)
    advised = advise(without_bugs(report))
    about = build._about(report, findings(report), advised)
    assert [cell.name for cell in about] == ["the reference", "lr 0.002", "epochs 9", "model.init xavier"]
    assert advised[0].best is not None
    assert advised[0].best.cell.name == "epochs 9"
    assert all(any(cell is own for own in report.cells) for cell in about)  # figures compare cells by identity


@pytest.mark.usefixtures("plain")
def test_a_sweep_ends_with_the_answer_and_at_most_eight_rows(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": list(range(1, 11)), "seed": [0, 1]})
    path = build.collect("trial", tmp_path)
    lines = build.ending(path.parent).splitlines()
    assert lines[0] == json.loads((path.parent / "summary.json").read_text())["answer"]
    table = [line for line in lines if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[:1] + table[2:]] == ["x_var", *"12345678"]
    assert lines[-1] == "The report has 2 more settings."
    assert "\\" not in "".join(lines)
