"""The collector on synthetic run folders: the same files as a sweep leaves, with numbers that are known beforehand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import collect, figures, report, result
from vae import config, linear_theory

SPECTRUM = (4.0 * 0.8 ** np.arange(64)).tolist()  # of 8x8 pictures
WITHIN = (2.5 * 0.8 ** np.arange(64)).tolist()
DATA = {
    "name": "synthetic",
    "source": "no source: made up",
    "n_train": 400,
    "n_test": 100,
    "image_shape": [1, 8, 8],
    "n_classes": 10,
    "sse_zero": {"train": 30.0, "test": 31.0},
    "sse_mean": {"train": 20.0, "test": 21.0},
    "sse_class_means": {"train": 12.5, "test": 13.0},
    "eigenvalues": SPECTRUM,
    "eigenvalues_within": WITHIN,
}
FIXED = {
    "dataset.kind": "mnist_5k",
    "model.kind": "mlp",
    "model.hidden": [400],
    "model.activation": "relu",
    "model.output": "identity",
    "model.init": "uniform",
    "z_dim.kind": "fixed",
    "z_dim.value": 10,
    "beta.kind": "constant",
    "beta.value": 1.0,
    "x_var.kind": "fixed",
    "x_var.value": 0.1,
    "label_placement.kind": "both",
    "label_repeat.kind": "fixed",
    "label_repeat.value": 5,
    "objective.kind": "elbo",
    "trainer.epochs": 3,
    "trainer.batch_size": 128,
    "trainer.lr": 0.001,
    "trainer.lr_schedule": "constant",
    "trainer.tf32": False,
    "seed": 0,
    "training_version": 1,
}
PROVENANCE = {
    "command": "python run.py -m test",
    "versions": {"python": "3.12.1", "torch": "2.9.0"},
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "device": "cpu",
    "device_name": "x86_64",
    "threads": 2,
    "host_system": "Linux",
    "started": "2030-01-02T03:04:05+00:00",
    "finished": "2030-01-02T03:14:05+00:00",
    "train_seconds": 600.0,
    "stack_size": 10,
}


def result_row(run: str, settings: Mapping[str, Any], data: Mapping[str, Any], noise: float = 0.0) -> dict[str, Any]:
    """A result.json whose KL and SSE are the closed form's, SSE one higher and both plus the noise."""
    values = {**{name: v for name, v, meta, _ in config.settings(config.Config()) if meta["affects_result"]}, **FIXED}
    values |= {k: v for k, v in settings.items() if k in values}
    values |= {f"{k}.kind": v for k, v in settings.items() if f"{k}.kind" in values}
    values.pop("training_version")
    input_dim, z_dim = math.prod(data["image_shape"]), values["z_dim.value"]
    t = values["beta.value"] * values["x_var.value"]
    if values["objective.kind"] == "per_dim":
        t = values["beta.value"] * input_dim / (2 * z_dim)
    low, high = linear_theory.prediction(
        data["eigenvalues"], data["eigenvalues_within"], values["label_placement.kind"], t, z_dim
    )
    row = {
        **values,
        "schema_version": result.SCHEMA_VERSION,
        "run": run,
        "status": "ok",
        "diverged_epoch": None,
        "epochs_done": values["trainer.epochs"],
        "dataset": data["name"],
        "dataset_source": data["source"],
        "dataset_hash": "d" * 64,
        "n_train": data["n_train"],
        "n_test": data["n_test"],
        "input_dim": input_dim,
        "z_dim": z_dim,
        "label_repeat_encoder": 5,
        "label_repeat_decoder": 5,
        "n_parameters": 1234,
        "x_var": values["x_var.value"],
        "effective_x_var": t,
        "model_sha256": "0" * 64,
        "theory_kl_low": min(low.kl, high.kl),
        "theory_kl_high": max(low.kl, high.kl),
        "theory_sse_low": min(low.sse, high.sse),
        "theory_sse_high": max(low.sse, high.sse),
    }
    for split, more in (("train", 0.0), ("test", 0.5)):
        kl, sse = max(0.0, high.kl + noise), high.sse + 1 + more + noise
        row |= {f"{split}_baseline_{n}": data[f"sse_{n}"][split] for n in ("zero", "mean", "class_means")}
        row |= {
            f"{split}_{name}": value
            for name, value in {
                "sse": sse,
                "sse_mean": sse - 0.5,
                "kl": kl,
                "kl_per_dim": [kl / z_dim] * z_dim,
                "active_units": high.active_units,
                "loss": sse / 2 + kl,
                "elbo": -sse / 2 - kl,
                "elbo_per_dim": (-sse / 2 - kl) / input_dim,
                "bits_per_dim": 8 + (sse / 2 + kl) / input_dim / math.log(2),
                "kl_offset": kl + z_dim / 2,
                "r_half_sse": sse / 2,
                "kld_loss": 128 * kl / z_dim,
                "r_loss": 128 * sse / input_dim,
            }.items()
        }
    return row


Change = Callable[[dict[str, Any], dict[str, Any]], "dict[str, Any] | str | None"]


def write_sweep(
    output_dir: Path,
    name: str = "trial",
    params: Mapping[str, Sequence[Any]] | None = None,
    points: Sequence[Mapping[str, Any]] = ({},),
    *,
    study: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] = DATA,
    change: Change | None = None,
    history: bool = True,
) -> list[Path]:
    """Leaves behind what a sweep over params, crossed with points, leaves: a manifest and run folders.

    Args:
        change: of (settings, result row) makes the row that is written; a word for the reason of a failure, None for a
            run that is missing.

    Returns:
        The run folders.
    """
    params = params or {}
    rows, folders = [], []
    rng = np.random.default_rng(0)
    fixed = {**FIXED, **(fixed or {})}
    for point in points:
        for values in itertools.product(*params.values()):
            settings = {**point, **dict(zip(params, values, strict=True))}
            run = f"{name}-" + "-".join(f"{k.split('.')[0]}{v}" for k, v in settings.items()).replace("/", "_")
            folder = output_dir / "runs" / run
            folder.mkdir(parents=True)
            row = result_row(run, {**fixed, **settings}, data, noise=0.2 * rng.standard_normal())
            content = change(settings, row) if change else row
            if isinstance(content, dict):
                (folder / "result.json").write_text(json.dumps(content))
            elif content is not None:
                (folder / "failed.json").write_text(json.dumps({"reason": content}))
            provenance = PROVENANCE | {"seed": settings.get("seed", 0)}
            (folder / "provenance.json").write_text(json.dumps(provenance))
            if history and isinstance(content, dict) and content["status"] == "ok":
                lines = [
                    f"{e},{row['train_sse'] + 9 / e},{row['train_kl'] * (1 - 0.5 / e)},1,1,1,0.001" for e in (1, 2, 3)
                ]
                head = "epoch,train_sse,train_kl,train_loss,beta,x_var,lr"
                (folder / "history.csv").write_text("\n".join([head, *lines]) + "\n")
            rows.append({"run": run, "settings": settings, "dataset_hash": "d" * 64})
            folders.append(folder)
    swept = list(dict.fromkeys([*points[0], *params]))
    manifest = {
        "manifest_version": report.MANIFEST_VERSION,
        "name": name,
        "study": {
            "name": "trial",
            "title": "A trial",
            "question": None,
            "published": [],
            "source": None,
            **(study or {}),
        },
        "command": "python run.py -m test",
        "versions": PROVENANCE["versions"],
        "git_commit": PROVENANCE["git_commit"],
        "git_dirty": False,
        "swept": swept,
        "fixed": {k: v for k, v in fixed.items() if not any(k in (s, f"{s}.kind") for s in swept)},
        "datasets": {"d" * 64: dict(data)},
        "runs": rows,
    }
    folder = output_dir / "reports" / name
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(manifest))
    return folders


def collected(tmp_path: Path, name: str = "trial") -> str:
    return collect.collect(name, tmp_path).read_text()


def failed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the command says in its one line on stderr."""
    assert collect.main(list(argv)) != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_report_has_all_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = {"question": "Does it work?", "source": "a study", "published": [{"x_var.value": 1, "kl_offset": 50.0}]}
    write_sweep(
        tmp_path,
        params={"x_var.value": [1, 0.1], "label_placement": ["both", "encoder"], "seed": [0, 1, 2]},
        study=study,
    )
    assert collect.main(["trial", "--output-dir", str(tmp_path)]) == 0
    folder = tmp_path / "reports" / "trial"
    assert capsys.readouterr().out.strip() == str(folder / "report.md")
    text = (folder / "report.md").read_text()
    order = [
        "# A trial",
        "*Does it work?*",
        "**Data.** synthetic (no source: made up): 400 training and 100 held-out images, 8×8×1, so D = 64",
        "**Key findings.**",
        "## What was run",
        "seeds: 0 to 2",
        "epochs 3",
        "## Loss convention",
        "SSE/(2·x_var) + (D/2)·ln(2π·x_var) + beta·KL",
        "## KLD and R-loss on held-out images",
        "quoted from a study",
        "## Likelihood",
        "## By label_placement",
        "## Failures",
        "## Training against held-out images",
        "## Baselines",
        "## Figures",
        "## Runs and provenance",
        "## How to make it again",
        "```sh\npython run.py -m test",
        "python -m experiments.collect",
    ]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    assert "per_dim" not in text.split("## Figures")[0]
    for link in ("figures/swept.png", "figures/rate_distortion.png", "figures/learning.png", "runs.csv"):
        assert f"({link})" in text
        assert (folder / link).exists()
    names = {p.name for p in (folder / "tables").iterdir()}
    assert {"headline.md", "headline.csv", "failures.csv", "label_placement.md", "baselines.md"} <= names
    assert (tmp_path / "reports" / "synthetic-joint.png").exists()
    index = (tmp_path / "reports" / "index.md").read_text()
    assert "| [A trial](trial/report.md) | `trial` | synthetic | 12 | 2030-01-02 | From x_var 1 to 0.1" in index


def test_the_same_runs_give_the_same_report(tmp_path: Path):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})

    def files() -> dict[str, bytes]:
        collected(tmp_path)
        return {str(p): p.read_bytes() for p in (tmp_path / "reports").rglob("*") if p.is_file()}

    assert files() == files()


def test_strays_are_never_picked_up(tmp_path: Path):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]})
    before = collected(tmp_path)
    rows = (tmp_path / "reports" / "trial" / "runs.csv").read_text()
    write_sweep(tmp_path, "stray", {"x_var.value": [0.5], "seed": [0, 1]})
    (tmp_path / "reports" / "stray" / "sweep.json").unlink()
    (tmp_path / "runs" / "not a run").mkdir()
    (tmp_path / "runs" / "file").write_text("x")
    assert collected(tmp_path) == before
    assert (tmp_path / "reports" / "trial" / "runs.csv").read_text() == rows


def test_files_of_an_earlier_report_go_away(tmp_path: Path):
    write_sweep(tmp_path, params={"label_placement": ["both", "encoder"], "seed": [0, 1]})
    collected(tmp_path)
    folder = tmp_path / "reports" / "trial"
    assert (folder / "tables" / "label_placement.csv").exists()
    manifest = json.loads((folder / "sweep.json").read_text())
    manifest["runs"] = [row for row in manifest["runs"] if row["settings"]["label_placement"] == "both"]
    (folder / "sweep.json").write_text(json.dumps(manifest))
    collected(tmp_path)
    assert not (folder / "tables" / "label_placement.csv").exists()


def test_findings_say_what_differs_and_what_does_not(tmp_path: Path):
    shift = {"both": 0.0, "decoder": 0.01, "encoder": 3.0}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        noise = 0.1 * settings["seed"] * (-1) ** (settings["label_placement"] == "decoder")
        return row | {"test_kl": 10 + shift[settings["label_placement"]] + noise, "test_sse": 5.0 + noise}

    params = {"x_var.value": [0.1], "label_placement": list(shift), "seed": [0, 1, 2, 3]}
    write_sweep(tmp_path, params=params, change=change)
    text = collected(tmp_path)
    assert "at encoder KL is higher (+3 ± 0) and SSE no different beyond the interval" in text
    assert "at decoder neither KL nor SSE differs beyond its interval" in text


def test_findings_name_the_failing_settings(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
        if settings["x_var.value"] == 1:
            no_z = {"test_active_units": 0, "test_kl": 0.0, "test_sse": row["test_baseline_class_means"]}
            return row | no_z if settings["seed"] == 0 else "CudaError: <bad> | x"
        return row

    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, change=change)
    text = collected(tmp_path)
    assert "1 of 4 runs (5–70 %) is without usable numbers and left out of every mean; 1 of 2 at x_var 1." in text
    assert "1 of 3 runs (6–79 %) is collapsed: the posterior equals the prior; 1 of 2 at x_var 1." in text
    assert r"failed, CudaError: \<bad\> \| x" in text
    assert "| 1 | 1 of 2 |" in text


@pytest.mark.parametrize(
    ("excess", "said"),
    [
        ([[-0.1], [-0.1]], "At equal KL no run has more training error than the linear"),
        (
            [[-0.1], [0.1]],
            "At equal KL 1 of 2 settings has more training error than the linear closed form, at x_var 0.1",
        ),
        # the mean lies above, its interval does not
        ([[-0.1, -0.1, -0.1], [-0.05, 0.1, 0.1]], "beyond its interval, but 2 of 6 runs have, the most at x_var 0.1"),
        # runs without numbers do not count
        ([[-0.1, None, -0.1], [None, None, None]], "At equal KL no run has more training error than the linear"),
        ([[0.1, None, -0.1], [None, 0.1, None]], "At equal KL 1 of 2 settings has more training error than the linear"),
        (
            [[0.1, None, -0.1], [-0.1, None, None]],
            "beyond its interval, but 1 of 3 runs has, at x_var 1, seed 0, by 10 %",
        ),
        ([[1e-6, 1e-6, -1e-6], [0, 0, 0]], "At equal KL no run has more training error than the linear"),
        ([[-0.1, -0.1, -0.1], [-0.1, -0.1, -0.1]], "At equal KL no run has more training error than the linear"),
        (
            [[-0.1, -0.1, -0.1], [-0.1, -0.2, 0.046]],
            "At equal KL no setting has more training error than the linear closed form beyond its interval, but 1 of "
            "6 runs has, at x_var 0.1, seed 2, by 4.6 %.",
        ),
        (
            [[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]],
            "At equal KL 2 of 2 settings have more training error than the linear closed form, the most at x_var 0.1, "
            "by 20 %: what PCA knows has not been learned there",
        ),
        (
            [[0.1, 0.1, 0.1], [-0.3, 0.02, 0.03]],
            "At equal KL 1 of 2 settings has more training error than the linear closed form, at x_var 1, by 10 %: "
            "what PCA knows has not been learned there, and better training would gain. 2 single runs "
            "beside have, the most at x_var 0.1, seed 2, by 3.0 %.",
        ),
    ],
)
def test_findings_name_the_settings_and_runs_above_the_closed_form(tmp_path: Path, excess: list, said: str):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        share = excess[settings["x_var.value"] == 0.1][settings["seed"]]
        if share is None:
            return None
        # The placement is `both`, whose closed form the row carries, at the KL of the optimum.
        return row | {"train_kl": row["theory_kl_low"], "train_sse": row["theory_sse_low"] * (1 + share)}

    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": range(len(excess[0]))}, change=change)
    assert said in collected(tmp_path)


def test_a_collapse_that_the_closed_form_has_too_is_no_failure_to_learn(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | {"train_kl": row["theory_kl_low"], "train_sse": 1.01 * row["theory_sse_low"]}

    write_sweep(tmp_path, params={"x_var.value": [10, 0.1], "seed": [0, 1]}, change=change)
    text = collected(tmp_path)
    assert (
        "At equal KL 1 of 1 settings has more training error than the linear closed form, at x_var 0.1, by 1.0 %"
        in text
    )
    assert "Not counted: x_var 10, where the closed form keeps no KL." in text


def test_a_report_of_failures_alone_appears_and_says_so(tmp_path: Path):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1]}, change=lambda settings, row: "Boom: no")
    text = collected(tmp_path)
    assert "None of the 4 runs has usable numbers: Boom: no (4)." in text
    assert "No run has numbers or pictures to draw." in text
    assert "0 of 2" in text
    assert "0 of 4" in (tmp_path / "reports" / "index.md").read_text()


def test_one_run_has_no_interval(tmp_path: Path):
    write_sweep(tmp_path)
    text = collected(tmp_path)
    assert "(n = 1)" in text
    assert "One run: KL" in text
    assert " ± " not in text.split("## KLD and R-loss")[1].split("Mean ± 95")[0]


def test_one_seed_makes_no_claims(tmp_path: Path):
    write_sweep(tmp_path, params={"x_var.value": [1, 0.1], "model": ["mlp", "conv"]})
    text = collected(tmp_path)
    assert "one seed: no interval" in text
    assert "nothing is said about differences by model" in text


def test_odd_names_are_escaped(tmp_path: Path):
    data = DATA | {"name": "my|pictures *2*"}
    write_sweep(tmp_path, params={"model": ["a|b", "_c_"], "seed": [0, 1]}, data=data, study={"title": "A <b> | [c]"})
    text = collected(tmp_path)
    assert text.startswith("# A \\<b\\> \\| \\[c\\]\n")
    assert "| a\\|b | 2 |" in text
    assert (tmp_path / "reports" / "my_pictures__2_-joint.png").exists()
    assert "my\\|pictures \\*2\\*" in (tmp_path / "reports" / "index.md").read_text()


def test_differing_provenance_is_a_warning(tmp_path: Path):
    folders = write_sweep(tmp_path, params={"seed": [0, 1, 2]})
    assert "Warning" not in collected(tmp_path)
    other = PROVENANCE | {"threads": 8, "versions": {"python": "3.12.1", "torch": "2.8.0"}}
    (folders[0] / "provenance.json").write_text(json.dumps(other))
    (folders[1] / "provenance.json").unlink()
    text = collected(tmp_path)
    assert "**Warning:** the runs differ in threads: 8 (1 runs); 2 (1 runs)." in text
    assert "**Warning:** the runs differ in versions: torch 2.8.0 (1 runs); torch 2.9.0 (1 runs)." in text
    assert "1 runs have no readable provenance.json" in text
    assert "- versions: python 3.12.1, torch 2.8.0\n" in text  # of the first run, not of the report


def test_the_code_is_that_of_the_runs_not_of_the_command_that_found_them_finished(tmp_path: Path):
    folders = write_sweep(tmp_path, params={"seed": [0, 1, 2]})
    for folder, commit, dirty in zip(folders, ("bbb", "aaa", "bbb"), (False, True, False), strict=True):
        provenance = PROVENANCE | {"git_commit": commit, "git_dirty": dirty}
        (folder / "provenance.json").write_text(json.dumps(provenance))
    assert "- code of the runs: bbb (2 runs); aaa, with uncommitted changes (1 runs)\n" in collected(tmp_path)
    for folder in folders:
        (folder / "provenance.json").write_text(json.dumps({"versions": None}))
    text = collected(tmp_path)
    assert "- code of the runs: not known\n" in text
    assert "- versions: python 3.12.1, torch 2.9.0\n" in text  # the report's own


def test_two_datasets_become_a_setting(tmp_path: Path):
    write_sweep(tmp_path, params={"seed": [0, 1]})
    folder = tmp_path / "reports" / "trial"
    manifest = json.loads((folder / "sweep.json").read_text())
    manifest["datasets"]["e" * 64] = DATA | {"name": "other", "n_train": 7}
    manifest["runs"][1]["dataset_hash"] = "e" * 64
    (folder / "sweep.json").write_text(json.dumps(manifest))
    text = collected(tmp_path)
    assert "| synthetic | 1 |" in text
    assert "| other | 1 |" in text
    assert "other (no source: made up): 7 training" in text
    assert (tmp_path / "reports" / "other-joint.png").exists()


def test_datasets_of_one_name_are_kept_apart(tmp_path: Path):
    write_sweep(tmp_path, params={"seed": [0, 1]})
    folder = tmp_path / "reports" / "trial"
    manifest = json.loads((folder / "sweep.json").read_text())
    manifest["datasets"]["e" * 64] = dict(DATA)
    manifest["runs"][1]["dataset_hash"] = "e" * 64
    (folder / "sweep.json").write_text(json.dumps(manifest))
    assert "| synthetic eeeeee | 1 |" in collected(tmp_path)
    assert {p.name for p in (tmp_path / "reports").glob("*.png")} == {
        "synthetic-dddddd-joint.png",
        "synthetic-eeeeee-joint.png",
    }


def test_an_unknown_report_names_the_folder_and_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "it has none" in failed(capsys, "xvar", "--output-dir", str(tmp_path))
    write_sweep(tmp_path, "labels", {"seed": [0]})
    write_sweep(tmp_path, "xvar-seed=0", {"seed": [0]})
    line = failed(capsys, "label", "--output-dir", str(tmp_path))
    assert str(tmp_path / "reports") in line
    assert "did you mean labels?" in line
    assert "labels, xvar-seed=0" in line
    assert "no such report" in failed(capsys, "../reports/labels", "--output-dir", str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"manifest_version": 99}',
        '{"manifest_version": 1}',
        '{"manifest_version": 1, "swept": ["seed"], "datasets": {}, "runs": [{"run": "a"}]}',
        '{"manifest_version": 1, "swept": [], "datasets": {}, "runs": [], "study": {}, "fixed": {}, "versions": {}}',
    ],
)
def test_a_broken_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str):
    folder = tmp_path / "reports" / "trial"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(content)
    assert str(folder / "sweep.json") in failed(capsys, "trial", "--output-dir", str(tmp_path))
    assert not (folder / "report.md").exists()


def test_a_broken_neighbour_does_no_harm(tmp_path: Path):
    write_sweep(tmp_path, params={"seed": [0]})
    (tmp_path / "reports" / "broken").mkdir()
    (tmp_path / "reports" / "broken" / "sweep.json").write_text("{")
    for name, content in (("claims-broken", "{"), ("claims-a,b", '{"finding": "3 hold, 2 do not hold, 1 undecided"}')):
        (tmp_path / "reports" / name).mkdir()
        (tmp_path / "reports" / name / "summary.json").write_text(content)
    assert "A trial" in collected(tmp_path)
    index = (tmp_path / "reports" / "index.md").read_text()
    assert "broken" not in index
    assert "[claims-a,b](claims-a%2Cb/report.md): 3 hold, 2 do not hold, 1 undecided.\n" in index


def test_a_broken_result_is_a_hole(tmp_path: Path):
    folders = write_sweep(tmp_path, params={"seed": [0, 1, 2]})
    (folders[0] / "result.json").write_text("{")
    (folders[1] / "result.json").write_text("[1]")
    text = collected(tmp_path)
    assert "| 1 of 3 |" in text
    assert "result.json cannot be read" in text
    assert "schema_version None, this program reads 1" in text


def test_the_collector_needs_no_torch():
    code = "import sys; import experiments.collect; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_every_column_is_documented():
    text = (Path(__file__).parent.parent / "outputs" / "README.md").read_text()
    assert [column for column in result.COLUMNS if f"`{column}`" not in text] == []


def test_synthetic_rows_have_the_columns_of_real_ones():
    row = result_row("run", {}, DATA)
    assert set(result.COLUMNS) - set(row) <= {*result.SCORES, *(f"test_{name}" for name in result.DIAGNOSTICS)}


def test_a_manifest_of_real_runs_can_be_read(tmp_path: Path, toy: Any):
    from conftest import tiny_config
    from omegaconf import OmegaConf

    from experiments.store import RunFolder
    from experiments.sweep import Run
    from vae.data import facts as facts_of
    from vae.model import resolve

    facts = facts_of(toy)
    runs = []
    for placement in ("both", "none"):
        for repeat in (1, 5):
            settings = tiny_config(label_placement__kind=placement, label_repeat__value=repeat)
            arch = resolve(settings, toy.image_shape, toy.n_classes, facts.eigenvalues.tolist())
            folder = RunFolder(tmp_path / "runs" / f"{placement}{repeat if placement == 'both' else ''}")
            runs.append(Run(settings, arch, toy, facts, folder))
    job = OmegaConf.structured(tiny_config())
    content = report.manifest(runs, ["label_placement", "label_repeat.value", "trainer.threads"], "real", job)
    report.write_manifest(content, tmp_path)
    found = report.read("real", tmp_path)
    # repeating has no part in a run without labels: its two rows are one run and one cell
    assert [tuple(run.settings.values()) for run in found.runs] == [("both", 1), ("both", 5), ("none", None)]
    assert found.keys == ["label_placement", "label_repeat.value"]  # threads change no number
    assert found.manifest["fixed"]["x_var.value"] == 0.1
    assert "label_repeat.value" not in found.manifest["fixed"]
    assert len(found.datasets[toy.content_hash]["eigenvalues"]) == 64
    assert "None of the 3 runs has usable numbers: not finished (3)." in collected(tmp_path, "real")


def test_datasets_by_name_are_one_setting(tmp_path: Path, toy: Any):
    from conftest import make_data, tiny_config
    from omegaconf import OmegaConf

    from experiments.store import RunFolder
    from experiments.sweep import Run
    from vae.config import Dataset
    from vae.data import facts as facts_of
    from vae.model import resolve

    runs = []
    for seed, name in enumerate(("KMNIST", "SVHN")):
        settings = tiny_config(dataset=Dataset(kind="torchvision", name=name))
        data = make_data(seed=seed, name=name)
        arch = resolve(settings, data.image_shape, data.n_classes, ())
        runs.append(Run(settings, arch, data, facts_of(data), RunFolder(tmp_path / "runs" / name)))
    content = report.manifest(runs, ["dataset.name", "seed"], "named", OmegaConf.structured(runs[0].config))
    report.write_manifest(content, tmp_path)
    assert report.read("named", tmp_path).keys == ["dataset"]
    assert [row["settings"]["dataset"] for row in content["runs"]] == ["KMNIST", "SVHN"]


def test_pictures_are_drawn_of_one_run_a_cell_and_the_report_shows_those_of_its_pick(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from conftest import tiny_config
    from omegaconf import OmegaConf

    from experiments import sweep
    from experiments.pictures import present
    from experiments.progress import Progress

    monkeypatch.setattr(sweep, "_load", lambda dataset: toy)
    configs = [
        tiny_config(x_var__value=x_var, seed=seed, output_dir=str(tmp_path), trainer__epochs=20, trainer__lr=5e-3)
        for x_var in (0.001, 0.01)
        for seed in (0, 1)
    ]
    runs = sweep.plan(configs)
    sweep.execute(runs, Progress(4, 1), [None] * 4)
    job = OmegaConf.structured(configs[0])
    report.write_manifest(report.manifest(runs, ["x_var.value", "seed"], "real", job), tmp_path)

    text = collected(tmp_path, "real")
    drawn = ["traversals", "interpolations", "latents", "styles", "neighbours"]
    assert [present(run.folder) for run in runs] == [drawn, [], drawn, []]  # the lowest seed of each cell
    figures_dir = tmp_path / "reports/real/figures"
    for name in ("traversals", "neighbours"):
        assert f"![{name}](figures/{name}.png)" in text
        assert (figures_dir / f"{name}.png").stat().st_size <= figures.MAX_BYTES
    links = re.findall(r"\]\((\.\./\.\./runs/[^)]*)\)", text)
    assert len(links) == 2 * len(drawn)  # the pick and its runner-up
    assert all((tmp_path / "reports/real" / link).exists() for link in links)

    for run in runs:  # nothing is drawn again, and what cannot be drawn is a line
        (run.folder.path / "styles.png").unlink(missing_ok=True)
    kept = (runs[0].folder.path / "traversals.png").stat().st_mtime_ns
    monkeypatch.setattr(sweep, "_load", lambda dataset: dataclasses.replace(toy, content_hash="another"))
    capsys.readouterr()
    collect.collect("real", tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, "once for the data, not once a run"
    assert all("was trained on other data" in line for line in lines)
    assert (runs[0].folder.path / "traversals.png").stat().st_mtime_ns == kept


def test_changes_of_a_reference_are_one_setting_and_the_report_says_where_training_dies(tmp_path: Path):
    reference = {"trainer.lr": 0.001, "model.hidden": [400], "model.init": "uniform"}
    points = [reference, reference | {"trainer.lr": 0.003}, reference | {"trainer.lr": 0.01}]
    points += [reference | {"model.hidden": [20, 10]}, reference | {"model.init": "xavier"}]

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        dead = settings["trainer.lr"] == 0.01 or (settings["model.init"] == "xavier" and settings["seed"] < 2)
        return row | {"test_kl": 0.01, "test_active_units": 0, "test_sse": 13.0} if dead else row

    folders = write_sweep(tmp_path, params={"seed": range(20)}, points=points, change=change)
    for folder in folders:
        if "lr0.01" in folder.name.replace("trainer", "lr"):
            lines = ["epoch,train_sse,train_kl,train_loss,beta,x_var,lr", "1,20,2,1,1,1,1", "2,14,0.01,1,1,1,1"]
            (folder / "history.csv").write_text("\n".join([*lines, "3,13,0.06,1,1,1,1"]) + "\n")
    text = collected(tmp_path)
    assert "![deaths](figures/deaths.png)" in text
    assert "- swept: setting = the reference; lr 0.003; lr 0.01; model.hidden 20, 10; model.init xavier" in text
    assert "- the reference: lr 0.001, model.hidden 400, model.init uniform; every other setting" in text
    deaths = text.partition("## Where training dies")[2].partition("## ")[0]
    assert "- **in all runs**: lr 0.01 (20/20, 84–100 %)" in deaths
    assert "- **in some**: model.init xavier (2/20, 3–30 %)" in deaths
    assert "- **in none**: the reference (0/20, 0–16 %); lr 0.003 (0/20, 0–16 %); model.hidden 20, 10 (0/20," in deaths
    assert "2.50 within classes and 4.00 over all; 22 of the 22 runs died below" in deaths
    assert "fell to 0.05 nats by epoch 2 (8 steps)" in deaths
    assert "| lr 0.01 | 20/20, 84–100 % | the reference | +100 points, +77 to +100: more die |" in deaths
    assert "| model.init xavier | 2/20, 3–30 % | the reference | +10 points, -8 to +30: no difference shown |" in deaths


def test_a_change_of_two_settings_is_held_against_the_change_of_one(tmp_path: Path):
    reference = {"trainer.lr": 0.001, "model.hidden": [400], "model.init": "uniform"}
    points = [reference, reference | {"trainer.lr": 0.01}, reference | {"model.hidden": [20, 10]}]
    points += [reference | {"trainer.lr": 0.003}, reference | {"trainer.lr": 0.01, "model.init": "xavier"}]

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        dead = settings["trainer.lr"] == 0.01 and settings["model.init"] == "uniform"
        return row | {"test_kl": 0.01, "test_active_units": 0, "test_sse": 13.0} if dead else row

    write_sweep(tmp_path, params={"seed": range(20)}, points=points, change=change)
    text = collected(tmp_path)
    assert "| lr 0.01, model.init xavier | 0/20, 0–16 % | lr 0.01 | -100 points, -100 to -77: fewer die |" in text


def test_a_grid_with_a_few_holes_stays_a_grid():
    def run(**settings: Any) -> report.Run:
        return report.Run("r", Path(), settings, "d", None, "ok", "")

    grid = [run(a=a, b=b) for a in (1, 2, 3) for b in (1, 2, 3)]
    assert not report.changes_one_thing(grid[:5], ["a", "b"])
    assert not report.changes_one_thing([run(a=1), run(a=2)], ["a"])
    cross = [run(a=1, b=1, c=1), run(a=2, b=1, c=1), run(a=1, b=2, c=1)]
    assert not report.changes_one_thing(cross, ["a", "b", "c"]), "c does not vary: 3 of 4 cells"
    assert report.changes_one_thing([*cross, run(a=3, b=1, c=1), run(a=1, b=1, c=2)], ["a", "b", "c"])
