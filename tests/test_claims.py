"""The verdicts against hand calculations, and every claim in a world where it is so and in one where it is not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import claims, report
from experiments.claims import CLAIMS, FAILS, HOLDS, OPEN, Finding, Part, Studies, about, equivalent, mostly, within
from experiments.statistics import mean_interval
from tests.test_collect import DATA, PROVENANCE, write_sweep

ROOT = Path(__file__).parent.parent
MNIST = {**DATA, "image_shape": [1, 28, 28], "sse_zero": {"train": 88, "test": 88}}
MNIST |= {"sse_class_means": {"train": 42, "test": 42}}
CIFAR = {**DATA, **claims.CIFAR10, "sse_mean": {"train": 190.0, "test": 190.0}}


def values_of(text: str) -> list[Any]:
    if text.startswith("range("):
        return list(range(int(text[6:-1])))
    return [yaml.safe_load(v) for v in text.split(",")]


def write(tmp_path: Path, name: str, change: Callable[..., Any], data: dict[str, Any], **fixed: Any) -> report.Report:
    """The experiment as conf/ has it, with made-up results, and few enough seeds to be quick."""
    conf = yaml.safe_load((ROOT / "conf" / "experiment" / f"{fixed.pop('experiment', name)}.yaml").read_text())
    sweeper = conf["hydra"]["sweeper"]
    params = {key: values_of(str(text))[:20] for key, text in sweeper.get("params", {}).items()}
    rename = {"model": "model.kind", "beta": "beta.kind"}
    raw: list[dict[str, Any]] = [
        {str(rename.get(k, k)): v for k, v in point.items()} for point in sweeper.get("points", [{}])
    ]
    keys = list(dict.fromkeys(k for point in raw for k in point))
    base: dict[str, Any] = {
        "x_var.value": conf.get("x_var", {}).get("value", 0.1),
        "beta.value": 1.0,
        "trainer.lr": 0.001,
    }
    base |= {"trainer.epochs": 50, "model.hidden": [400], "model.kind": "mlp", "beta.kind": "constant"}
    base |= {"model.init": "uniform", "model.output": "identity", "model.activation": "relu"}
    points = [{k: point.get(k, base.get(k)) for k in keys} for point in raw]
    if name == "beta_sum":
        points = [p | {"z_dim.value": 100} for p in points[1:5]]
    all_fixed = {**base, "z_dim.value": 100, **fixed}
    study = {**conf["study"], "name": name}
    write_sweep(tmp_path, name, params, points, study=study, fixed=all_fixed, data=data, change=change, history=False)
    return report.read(name, tmp_path)


def healthy(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A run without noise that is ok: the numbers depend on the settings alone, and a little on the seed."""
    jitter = 1 + 0.001 * settings.get("seed", 0)
    t = row["effective_x_var"]
    scores = {"sample_ffd": 2.0, "reconstruction_ffd": 2.0, "real_ffd": 0.6, "sample_coverage": 0.9}
    scores |= {"sample_accuracy": 0.97 / jitter, "judge_accuracy": 0.99, "judge": "j"}
    scores |= {"sample_sharpness": 0.01 / t * jitter, "reconstruction_sharpness": 0.02 / t * jitter}
    scores |= {"test_aggregate_gaussian_kl": 0.1 / t * jitter, "test_active_units": 20}
    return set_numbers({**row, **scores}, sse=20 * jitter, kl=30 * jitter)


def set_numbers(row: dict[str, Any], sse: float, kl: float) -> dict[str, Any]:
    k, d = row["z_dim"], row["input_dim"]
    numbers = {"sse": sse, "kl": kl, "kl_offset": kl + k / 2, "r_half_sse": sse / 2}
    numbers |= {"kld_loss": 128 * kl / k, "r_loss": 128 * sse / d}
    return row | {f"test_{name}": value for name, value in numbers.items()}


def collapsed(row: dict[str, Any]) -> dict[str, Any]:
    return set_numbers(row | {"test_active_units": 0}, sse=42.0 + 0.01 * row["seed"], kl=0.01)


def hole(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"sample_ffd": 40.0 + row["seed"], "sample_coverage": 0.1, "sample_accuracy": 0.3}


def as_claimed(name: str, s: dict[str, Any], row: dict[str, Any]) -> Any:
    """A world in which the studies are right, but for what arithmetic forbids (B5) and what they contradict (A6)."""
    row = healthy(s, row | {"seed": s["seed"]})
    jitter = 1 + 0.001 * s["seed"]
    if name == "death" and s["x_var.value"] == 1 and s["seed"] < 10:
        return set_numbers(row | {"test_active_units": 0}, sse=82.0 + 0.1 * s["seed"], kl=0.01)
    if name == "xvar" and s["x_var.value"] == 0.01:
        return hole(set_numbers(row, sse=20 * jitter, kl=120 * jitter))
    if name == "labels" and s["label_placement"] == "encoder":
        return row | {"sample_accuracy": 0.1 * jitter}
    if name == "beta":
        published = {(10, 0.1): (80, 3.0), (100, 0.1): (11, 2.5), (100, 0.05): (20, 2.2), (100, 0.01): (64, 1.0)}
        kld, r = published.get((s["z_dim.value"], s["beta.value"]), (85, 0.8))
        if s["z_dim.value"] == 10 and s["beta.value"] < 0.1:
            kld, r = 85, 2.9
        row = set_numbers(row, sse=r * 3072 / 128 * jitter, kl=kld * s["z_dim.value"] / 128 * jitter)
        row |= {"sample_ffd": (3 if s["z_dim.value"] == 10 else 1 / r) * jitter}
        row |= {"test_baseline_mean": 100.0}  # the published R of the least KL is 38 % of CIFAR-10's own
        return hole(row) if (s["z_dim.value"], s["beta.value"]) == (100, 0.005) else row
    if name == "beta_sum":
        return set_numbers(row, sse=18 * jitter, kl=90 * jitter)
    return row


def otherwise(name: str, s: dict[str, Any], row: dict[str, Any]) -> Any:
    """A world in which they are wrong wherever they can be."""
    row = healthy(s, row | {"seed": s["seed"]})
    jitter = 1 + 0.001 * s["seed"]
    if name == "xvar":
        row = set_numbers(row, sse=0.5 * jitter, kl=150 * jitter)
        row |= {"sample_sharpness": s["x_var.value"] * jitter, "test_aggregate_gaussian_kl": s["x_var.value"] * jitter}
        return row if s["x_var.value"] == 0.01 else hole(row)
    if name == "labels":
        changed = s["label_placement"] == "decoder" or s["label_repeat.value"] != 5
        return set_numbers(row, sse=(40 if changed else 20) * jitter, kl=30 * jitter)
    if name == "training":
        if s["beta.value"] == 10:
            return collapsed(row)
        if s["trainer.epochs"] == 20:
            return row | {"sample_accuracy": 0.2 * jitter}
        changed = s["trainer.lr"] != 0.001 or s["model.hidden"] != [400] or s["model.kind"] != "mlp"
        return set_numbers(row, sse=(40 if changed else 20) * jitter, kl=30 * jitter)
    if name == "beta":
        good = s["beta.value"] == 0.1
        row = set_numbers(row, sse=(5 if good else 9) * jitter * (1 if s["z_dim.value"] == 10 else 2), kl=300 * jitter)
        row |= {"sample_ffd": (30 if good else 2) * jitter, "reconstruction_ffd": 25.0, "sample_coverage": 0.9}
        return row
    if name == "beta_sum":
        return set_numbers(row, sse=90 * jitter, kl=2000 * jitter)
    return row


def studies(tmp_path: Path, world: Callable[[str, dict[str, Any], dict[str, Any]], Any]) -> Studies:
    found = Studies()
    for name, data, fixed in (
        ("xvar", MNIST, {}),
        ("labels", MNIST, {"z_dim.value": 20}),
        ("training", MNIST, {}),
        ("death", MNIST, {"x_var.value": 1}),
        ("beta", CIFAR, {"objective.kind": "per_dim", "label_placement.kind": "none"}),
        ("beta_sum", CIFAR, {"experiment": "beta", "x_var.value": 0.5, "label_placement.kind": "none"}),
    ):
        change = lambda s, row, name=name: world(name, s, row)  # noqa: E731
        found.found[name] = write(tmp_path, name, change, data, **fixed)
    return found


def test_where_the_studies_are_right_their_claims_hold(tmp_path: Path):
    found = studies(tmp_path, as_claimed)
    verdicts = {c.id: claims.judged(c, found) for c in CLAIMS}
    wrong = {i: f for i, f in verdicts.items() if f.verdict != HOLDS}
    # 120 + 50 nats are no KL between 10 and 100, and 3,072/100 is no 22.
    assert set(wrong) == {"A6", "B5"}, {i: f.parts for i, f in wrong.items()}


def test_where_they_are_wrong_their_claims_do_not_hold(tmp_path: Path):
    found = studies(tmp_path, otherwise)
    verdicts = {c.id: claims.judged(c, found) for c in CLAIMS}
    wrong = {i: f.parts for i, f in verdicts.items() if f.verdict != FAILS}
    assert not wrong


def test_other_images_than_cifar10_leave_study_b_undecided_and_missing_runs_too(tmp_path: Path):
    change = lambda s, row: as_claimed("beta", s, row)  # noqa: E731
    found = Studies({"beta": write(tmp_path, "beta", change, DATA, **{"objective.kind": "per_dim"})})
    verdicts = {c.id: claims.judged(c, found) for c in CLAIMS}
    assert all(verdicts[c.id].verdict == OPEN for c in CLAIMS if c.id.startswith("B1"))
    assert verdicts["A1"].parts == [Part("the report xvar is missing", None)]


def test_verdicts_from_intervals():
    assert [mostly(9, 10), mostly(5, 10), mostly(1, 10), mostly(1, 1)] == [True, None, False, None]
    narrow, one = mean_interval([10.0, 10.1, 9.9]), mean_interval([10.0])
    assert (within(narrow, 9, 11), within(narrow, 10.05, 11), within(narrow, 11, 12)) == (True, None, False)
    assert within(one, 0, 100) is None
    assert (about(narrow, 9), about(narrow, 12.5), about(narrow, 20)) == (True, None, False)
    assert Finding([Part("", True), Part("", None)]).verdict == OPEN
    assert Finding([Part("", None), Part("", False)]).verdict == FAILS
    assert Finding([]).verdict == OPEN


def test_equivalence_is_two_one_sided_tests():
    # n = 4, s = 0.02: standard error 0.01; t of 3 degrees of freedom is 2.353 at 95 % and 3.182 at 97.5 %.
    spread = 0.02 * math.sqrt(3 / 4)

    def around(centre: float) -> list[float]:
        return [centre - spread, centre - spread, centre + spread, centre + spread]

    margin = 0.1
    assert equivalent(around(margin - 0.0236), margin) is True
    assert equivalent(around(margin - 0.0234), margin) is None
    assert equivalent(around(margin + 0.0317), margin) is None
    assert equivalent(around(-margin - 0.0319), margin) is False
    assert equivalent([0.0], margin) is None


def test_the_criteria_stand_in_the_readme_of_the_outputs():
    assert claims.table_of_criteria() in (ROOT / "outputs" / "README.md").read_text()


def test_the_report_has_a_row_and_a_section_for_every_claim(tmp_path: Path):
    found = studies(tmp_path, otherwise)
    text = claims.markdown([claims.judged(claim, found) for claim in CLAIMS], found, "make claims")
    for claim in CLAIMS:
        assert f"| {claim.id} |" in text
        assert f"\n## {claim.id}: does not hold\n" in text
    assert f"0 hold, {len(CLAIMS)} do not hold, 0 undecided" in text
    assert f"code of the runs: {PROVENANCE['git_commit']}\n" in text


def test_two_datasets_are_needed(capsys: pytest.CaptureFixture[str]):
    assert claims.main(["dataset=mnist"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "dataset=mnist: two are needed; allowed: study A's and study B's, as in dataset=mnist,cifar10" in line


def test_a_report_is_found_by_the_command_that_made_it(tmp_path: Path):
    write_sweep(tmp_path, "other", {"seed": [0]}, history=False)
    write_sweep(tmp_path, "mine", {"seed": [0]}, history=False)
    path = tmp_path / "reports" / "mine" / "sweep.json"
    written_out = (
        "python run.py experiment=xvar dataset=image_folder 'dataset.root='\"'\"'data/digits'\"'\"'' x_var.value=0.5"
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": written_out}))
    found = claims.find(["xvar", "dataset=data/digits", "x_var=0.5"], tmp_path)
    assert found is not None
    assert found.name == "mine"
    assert claims.find(["labels"], tmp_path) is None


def test_the_short_trainings_give_way_to_epochs_of_ones_own():
    assert claims.parts_of(["mnist", "cifar10"], [])["death"] == ["death", "dataset=mnist", "trainer.epochs=2"]
    own = claims.parts_of(claims.EMBEDDED, ["trainer.epochs=1"])
    assert all(arguments.count("trainer.epochs=1") == 1 for arguments in own.values())
    assert all(len([a for a in arguments if a.startswith("trainer.epochs")]) == 1 for arguments in own.values())
