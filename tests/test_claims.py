"""Every claim in a world where it is so and in one where it is not; the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import claims
from experiments.claims import Finding, judge, studies
from experiments.criteria import PREDICATES
from experiments.frame import Report, ReportError
from experiments.reading import REFERENCE, read
from experiments.report.build import collect
from experiments.report.render import render
from tests.fakes import DATA, FIXED, change, fake_report

ROOT = Path(__file__).parent.parent
CLAIMS = [claim for study in studies() for claim in study.claims]
SIZES = {"sse_zero": {"train": 88.0, "test": 88.0}, "sse_mean": {"train": 52.0, "test": 52.0}}
MNIST = {**DATA, **SIZES, "image_shape": [1, 28, 28], "sse_class_means": {"train": 42.0, "test": 42.0}}
with np.load(ROOT / "experiments" / "spectra" / "cifar10.npz") as known:
    COLOURS = {name: known["eigenvalues"].tolist() for name in ("eigenvalues", "eigenvalues_within")}
    COLOURS |= {name: known["eigenvalues"].tolist() for name in ("test_variances", "test_variances_within")}
CIFAR = {**DATA, **SIZES, **COLOURS, "image_shape": [3, 32, 32], "n_train": 50_000}
CIFAR["sse_mean"] = {"train": 100.0, "test": 100.0}
FULL = {
    name: f"{name}.kind" for name in ("model", "beta", "x_var", "label_placement", "label_repeat", "objective", "bug")
}
World = Callable[[str, dict[str, Any], dict[str, Any]], dict[str, Any]]


def report_of(tmp_path: Path, name: str, experiment: str, world: World, data: dict[str, Any], **fixed: Any) -> Report:
    """The experiment as conf/ has it, with made-up numbers and as few seeds as the criteria allow."""
    conf = yaml.safe_load((ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text())
    sweeper = conf["hydra"]["sweeper"]
    texts = {str(FULL.get(key, key)): str(text).split(",") for key, text in sweeper["params"].items()}
    params = {key: [yaml.safe_load(text) for text in own] for key, own in texts.items()}
    params["seed"] = list(range({"xvar": 4, "death": 8}.get(name, 2)))
    raw: list[dict[str, Any]] = [
        {str(FULL.get(k, k)): v for k, v in point.items()} for point in sweeper.get("points", [{}])
    ]
    base = {**FIXED, "z_dim.value": 100, "trainer.epochs": 50, "beta.epochs": None, **fixed}
    if name == "beta_sum":
        raw = [point for point in raw if point["z_dim.value"] == 100 and point["bug.kind"] == "none"]
    points = [{key: point.get(key, base.get(key)) for key in dict.fromkeys(k for p in raw for k in p)} for point in raw]

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        made = world(name, {**base, **settings}, healthy({**base, **settings}, row))
        return {key: value for key, value in made.items() if key not in ("k", "d")}

    fake_report(tmp_path, name, params, points, fixed=base, data=data, change=change, history=False)
    return read(name, tmp_path)


def numbers(row: dict[str, Any], sse: float, kl: float) -> dict[str, Any]:
    k, d = row["k"], row["d"]
    own = {"sse": sse, "kl": kl, "kl_offset": kl + k / 2, "r_half_sse": sse / 2}
    own |= {"kld_loss": 128 * kl / k, "r_loss": 128 * sse / d, "loss": sse / 2 + kl}
    return row | {f"test_{name}": value for name, value in own.items()}


def healthy(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A run without noise that is ok: its numbers depend on the settings, and a little on the seed."""
    jitter, t = 1 + 0.001 * settings["seed"], row["effective_x_var"]
    row |= {"k": settings["z_dim.value"], "d": 3072 if settings["label_placement.kind"] == "none" else 784}
    row |= {"sample_ffd": 2.0, "reconstruction_ffd": 2.0, "real_ffd": 0.6, "sample_coverage": 0.9}
    row |= {"sample_accuracy": 0.97 / jitter, "judge_accuracy": 0.99, "test_active_units": 20}
    row |= {"sample_sharpness": 0.01 / t * jitter, "reconstruction_sharpness": 0.02 / t * jitter}
    row |= {"test_aggregate_gaussian_kl": 0.1 / t * jitter}
    return numbers(row, sse=20 * jitter, kl=30 * jitter)


def hole(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"sample_ffd": 40.0 + row["test_sse"], "sample_coverage": 0.1, "sample_accuracy": 0.3}


def as_claimed(name: str, s: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The studies are right, but for what arithmetic forbids (B5) and what they contradict themselves (A6, A14)."""
    jitter = 1 + 0.001 * s["seed"]
    if name == "death" and s["x_var.value"] == 1 and s["seed"] < 4:
        return numbers(row | {"test_active_units": 0}, sse=82.0 + 0.1 * s["seed"], kl=0.01)
    if name == "xvar":
        if s["x_var.value"] == 0.01:
            return hole(numbers(row, sse=20 * jitter, kl=120 * jitter))
        row |= {"sample_accuracy": row["sample_accuracy"] * s["x_var.value"] ** 0.01}
        return numbers(row, sse=30 * s["x_var.value"] ** 0.5 * jitter, kl=30 * jitter)
    if name == "labels":
        if s["label_placement.kind"] == "encoder":
            return numbers(row | {"sample_accuracy": 0.1 * jitter}, sse=60 * jitter, kl=30 * jitter)
        return numbers(row, sse=(19 if s["label_repeat.kind"] == "match" else 20) * jitter, kl=30 * jitter)
    if name == "extremes":
        if s["beta.value"] == 100:
            return numbers(row | {"test_active_units": 0}, sse=100 * jitter, kl=0.001)
        return numbers(row, sse=80 * jitter, kl=1.0) if s["beta.value"] == 1 else hole(row)
    if name == "beta":
        published = {(10, 0.1): (80, 3.0), (100, 0.1): (11, 2.5), (100, 0.05): (20, 2.2), (100, 0.01): (64, 1.0)}
        small = s["z_dim.value"] == 10
        kld, r = published.get((s["z_dim.value"], s["beta.value"]), (85, 2.9 if small else 0.8))
        row = numbers(row, sse=r * 24 * jitter, kl=kld * s["z_dim.value"] / 128 * jitter)
        row |= {"sample_ffd": (3 if small else 1 / r) * jitter}
        return hole(row) if (s["z_dim.value"], s["beta.value"]) == (100, 0.005) else row
    if name == "beta_sum":
        return numbers(row, sse=18 * jitter, kl=90 * jitter)
    return row


def otherwise(name: str, s: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The studies are wrong wherever they can be."""
    jitter = 1 + 0.001 * s["seed"]
    if name == "xvar":
        row = numbers(row, sse=0.5 * jitter, kl=160 * jitter)
        row |= {"sample_sharpness": s["x_var.value"] * jitter, "reconstruction_sharpness": s["x_var.value"] * jitter}
        row |= {"test_aggregate_gaussian_kl": s["x_var.value"] * jitter}
        return row if s["x_var.value"] == 0.01 else hole(row)
    if name == "labels":
        if s["label_repeat.kind"] == "match":
            return numbers(row | {"sample_accuracy": 0.4 * jitter}, sse=45 * jitter, kl=30 * jitter)
        if s["label_placement.kind"] == "decoder" or s["label_repeat.value"] != 5:
            return numbers(row | {"sample_accuracy": 0.5 * jitter}, sse=40 * jitter, kl=30 * jitter)
        return row
    if name == "training":
        if s["beta.value"] == 10:
            return numbers(row | {"test_active_units": 0}, sse=42.0 + 0.01 * s["seed"], kl=0.01)
        changed = s["trainer.lr"] != 0.001 or s["model.hidden"] != [400] or s["trainer.epochs"] == 20
        return numbers(
            row | ({"sample_accuracy": 0.2 * jitter} if changed else {}), sse=(40 if changed else 20) * jitter, kl=30
        )
    if name == "beta":
        good = s["beta.value"] == 0.1
        row = numbers(row, sse=(5 if good else 9) * jitter * (1 if s["z_dim.value"] == 10 else 2), kl=300 * jitter)
        return row | {"sample_ffd": (30 if good else 2) * jitter, "reconstruction_ffd": 25.0}
    if name == "beta_sum":
        return numbers(row, sse=90 * jitter, kl=20000 * jitter)
    return row


def judged(tmp_path: Path, world: World) -> tuple[dict[str, Report], list[Finding]]:
    photos = {"objective.kind": "per_dim", "label_placement.kind": "none"}
    known = {name: report_of(tmp_path, name, name, world, MNIST) for name in ("xvar", "training")}
    known["labels"] = report_of(tmp_path, "labels", "labels", world, MNIST)
    known["death"] = report_of(tmp_path, "death", "death", world, MNIST, **{"x_var.value": 1})
    known |= {name: report_of(tmp_path, name, name, world, CIFAR, **photos) for name in ("beta", "extremes")}
    plain = {"objective.kind": "elbo", "x_var.value": 0.5, "label_placement.kind": "none"}
    known["beta_sum"] = report_of(tmp_path, "beta_sum", "beta", world, CIFAR, **plain)
    return known, [judge(claim, known) for claim in CLAIMS]


def test_where_the_studies_are_right_their_claims_hold(tmp_path: Path):
    _, findings = judged(tmp_path, as_claimed)
    others = {f.claim.id: f.verdict for f in findings if f.met is not True}
    # 120 + 50 nats of KL do not lie between 10 and 100, 3,072/100 is not 22, and 4 of 8 seeds died.
    assert others == {"A6": "does not hold", "A14 hyperparameters": "undecided", "B5": "does not hold"}


def test_where_they_are_wrong_their_claims_do_not_hold(tmp_path: Path):
    known, findings = judged(tmp_path, otherwise)
    others = {f.claim.id: f.verdict for f in findings if f.met is not False}
    # Nothing died: there are no runs to judge, and hyperparameters do not matter. The bug's closed form is the same.
    undecided = dict.fromkeys(("A1 KL", "A1 reconstruction", "A1 dark picture", "A1 together"), "undecided")
    assert others == undecided | dict.fromkeys(("A14 hyperparameters", "A14 loss", "B1 variance as std"), "holds")
    folder = tmp_path / "reports" / "claims"
    claims.write(folder, findings, known, ["Written before.", "Tuned after."], "python -m experiments.claims")
    text, details = ((folder / f"{name}.md").read_text() for name in ("report", "details"))
    for finding in findings:
        name = finding.claim.id + ("\\*" if finding.claim.earlier else "")
        if finding.claim.ours:
            assert f"Not a claim of the study, but our reading of it: {name}, **{finding.verdict}**." in text
        elif finding.verdict == "holds":
            assert re.search(rf"Those that hold: .*\b{re.escape(finding.claim.id)}\b", text)
        assert (f"| {name} | " in text) == (finding.verdict != "holds" and not finding.claim.ours)
        assert f"\n## {finding.claim.id}: {finding.verdict}\n" in details
    # The reading of study B's table is not counted. Both claims that hold got their criterion after the results.
    answer = (
        f"Of {len(CLAIMS) - 1} claims 2 hold (2 by a criterion that was written after the results were known), "
        f"{len(CLAIMS) - 7} do not hold, and 4 are undecided."
    )
    assert answer in text
    assert "\n- Study A: Written before.\n- Study B: Tuned after.\n" in details
    # A1 death shows the runs of two experiments, A2 those of one.
    assert re.search(r"\| died \| death: .*\n(?:.*\n)*\| died \| xvar: x_var 1 \|", details.split("## A1 KL")[0])
    assert "xvar: " not in details.partition("\n## A2")[2].partition("\n## A3")[0]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["answer"] == answer
    assert summary["n_runs"] == summary["n_usable"] == sum(len(report.runs) for report in known.values())
    verdicts = pd.read_csv(folder / "verdicts.csv", index_col="id")["verdict"]
    assert verdicts.to_dict() == summary["verdicts"] == {f.claim.id: f.verdict for f in findings}


def test_the_verdict_by_an_earlier_criterion_is_told(tmp_path: Path):
    known, findings = judged(tmp_path, as_claimed)
    claims.write(tmp_path / "claims", findings, known, ["", ""], "python -m experiments.claims")
    text, details = ((tmp_path / "claims" / f"{name}.md").read_text() for name in ("report", "details"))
    reversed_ = [f.claim.id for f in findings if f.claim.earlier_verdict == "does not hold" and f.verdict == "holds"]
    assert "A1 reconstruction" in reversed_
    assert "A1 KL" not in reversed_  # it held before, too
    told = re.search(r"Of these, (.*) did not hold by the criterion that came before\.", text)
    assert told is not None
    assert told[1].replace(" and ", ", ").split(", ") == ", ".join(reversed_).split(", ")
    assert details.count("the verdict by it was: holds.") == sum(c.earlier_verdict == "holds" for c in CLAIMS)


def test_missing_reports_leave_every_claim_with_runs_undecided():
    for claim in CLAIMS:
        finding = judge(claim, {})
        assert finding.verdict == ("does not hold" if claim.id == "B5" else "undecided")
        assert claim.id == "B5" or finding.checks[0].what.endswith("is missing")


def test_the_claims_are_well_formed():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    named = {name for study in studies() for name in study.experiments}

    def conditions(condition: dict[str, Any]) -> list[dict[str, Any]]:
        parts = [*condition.get("all_of", []), *condition.get("any_of", [])]
        return [c for part in parts for c in conditions(part)] or [condition]

    for claim in CLAIMS:
        for condition in (c for top in (*claim.criterion, *claim.also) for c in conditions(dict(top))):
            assert len([key for key in condition if key in PREDICATES]) == 1
            assert set(condition) <= {*PREDICATES, "of", "pairs", "quantifier"}
            spec = condition.get("pairs", condition.get("of", {}))
            runs = [own["runs"] for own in (spec, spec.get("from", {}), spec.get("to", {})) if "runs" in own]
            assert {name for r in runs for name in ([r] if isinstance(r, str) else r)} <= named


def test_the_criteria_as_the_documentation_shows_them():
    lines = render("claims_criteria.md.j2", claims=CLAIMS).splitlines()
    assert lines[0] == "| id | the study said | holds if |"
    assert lines[3].startswith("| A1 KL | in a run that died, KL stays at its minimum, 50.0 | in at least one setting ")
    assert len([line for line in lines if line.startswith("| ")]) == len(CLAIMS) + 2


def test_two_datasets_are_needed(capsys: pytest.CaptureFixture[str]):
    assert claims.main(["dataset=mnist"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "dataset=mnist: two are needed; allowed: study A's and study B's, as in dataset=mnist,cifar10" in line


def test_the_short_trainings_give_way_to_epochs_of_ones_own():
    study = studies()[0]
    assert study.arguments("mnist", [])["death"] == ["death", "dataset=mnist", "trainer.epochs=2"]
    assert study.arguments("mnist_5k", [])["death"] == ["death", "dataset=mnist_5k"]
    own = study.arguments("mnist", ["trainer.epochs=1"])
    assert all([a for a in arguments if "epochs" in a] == ["trainer.epochs=1"] for arguments in own.values())


def test_a_sweep_tells_its_report_by_the_manifest_that_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_report(tmp_path, "other", {"seed": [0]}, history=False)
    fake_report(tmp_path, "mine", {"seed": [0]}, history=False)
    manifest = tmp_path / "reports" / "mine" / "sweep.json"
    script = f"import os; os.utime({str(manifest)!r}, ns=(1, 1))"
    monkeypatch.setattr(claims, "RUN", ["-c", script])
    assert claims.train(["xvar"], tmp_path).name == "mine"
    monkeypatch.setattr(claims, "RUN", ["-c", "raise SystemExit(2)"])
    with pytest.raises(claims.subprocess.CalledProcessError) as e:
        claims.train(["xvar"], tmp_path)
    assert e.value.returncode == 2


def test_the_command_names_its_report_after_the_data_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_report(tmp_path, "trial", {"seed": [0, 1]}, history=False)
    trained: list[list[str]] = []

    def train(arguments: list[str], output_dir: str) -> Report:
        trained.append(arguments)
        return read("trial", output_dir)

    monkeypatch.setattr(claims, "train", train)
    given = ["dataset=data/digits,cifar10", "seed=0,1", f"output_dir={tmp_path}"]
    assert claims.main(given) == 0
    folder = tmp_path / "reports" / "claims-digits,cifar10-seed=0,1"
    assert "undecided" in (folder / "report.md").read_text()
    assert trained[0] == ["xvar", "dataset=data/digits", "seed=0,1", f"output_dir={tmp_path}"]
    assert trained[-2][:3] == ["beta", "bug=none", "objective=elbo"]
    assert trained[-1][:2] == ["extremes", "dataset=cifar10"]
    assert "claims-digits%2Ccifar10" in (tmp_path / "reports" / "index.md").read_text()


def test_the_shipped_verdicts_follow_from_the_shipped_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The whole chain from runs.csv to the verdicts, figures included."""
    monkeypatch.setattr(claims, "refresh", lambda output_dir: None)
    assert claims.main([f"reports={REFERENCE}", f"output_dir={tmp_path}"]) == 0
    made, shipped = tmp_path / "reports" / "claims", REFERENCE / "claims"
    assert (made / "verdicts.csv").read_bytes() == (shipped / "verdicts.csv").read_bytes()
    here, there = ((folder / "details.md").read_text().partition("## Where the figures") for folder in (made, shipped))
    assert here[0] == there[0]
    assert here[2].count(" runs ") == there[2].count(" runs ")


def test_a_recorded_report_is_found_by_its_settings_and_data(tmp_path: Path):
    commands = {
        "a": "python run.py experiment=trial dataset=mnist_5k",
        "b": "python run.py -m experiment=trial trainer.lr=0.1 output_dir=elsewhere",
        "c": "python run.py experiment=other",
    }
    for name, command in commands.items():
        fake_report(tmp_path, name, {"seed": [0]}, history=False)
        change(tmp_path / "reports" / name / "sweep.json", command=command)
        collect(name, tmp_path)
    folder = tmp_path / "reports"

    def found(*arguments: str, dataset: str = DATA["name"]) -> str:
        return claims.recorded_report([*arguments, f"dataset={dataset}"], dataset, folder).name

    assert found("trial") == found("trial", dataset=f"data/{DATA['name']}.npz") == "a"
    assert found("trial", "lr=0.1", "output_dir=here") == "b"
    assert found("other") == "c"
    for arguments, dataset in ((["trial", "seed=0"], DATA["name"]), (["trial"], "mnist"), (["nothing"], DATA["name"])):
        with pytest.raises(ReportError, match=f"has no report of {arguments[0]} "):
            found(*arguments, dataset=dataset)


def test_a_folder_of_reports_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert claims.main([f"reports={tmp_path}/nothing"]) == 2
    assert capsys.readouterr().err == f"claims: reports={tmp_path}/nothing: allowed: a folder of reports\n"
    for setting in ("z_dim=[", "~trainer", "beta=1,warmup"):
        assert claims.main([f"reports={tmp_path}", f"output_dir={tmp_path}", setting]) == 2
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith("claims: ")
        assert "allowed: " in line
    assert claims.main([f"reports={tmp_path}", f"output_dir={tmp_path}"]) == 1  # nothing is trained instead
    lines = capsys.readouterr().err.splitlines()
    assert f"claims: {tmp_path}: has no report of xvar dataset=mnist_5k" in lines
