"""Runs as a DataFrame, against the files that they are made of."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

import experiments
from experiments import report, sweep
from experiments.progress import Progress
from tests.conftest import make_data, tiny_config
from vae.config import settings


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs of the experiment `own`, one of them failed, and one beside it on other data."""
    out = tmp_path_factory.mktemp("outputs")
    toy, other = make_data(), make_data(seed=1, name="other")
    own = [
        tiny_config(output_dir=str(out)),
        tiny_config(output_dir=str(out), x_var__value=1.0, seed=1),
        tiny_config(output_dir=str(out), label_placement__kind="none", model__hidden=[16, 8]),
        tiny_config(output_dir=str(out), x_var__value=0.5),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_load", lambda dataset: other)
        sweep.execute(sweep.plan([tiny_config(output_dir=str(out))]), Progress(1, 1), [None])
        patch.setattr(sweep, "_load", lambda dataset: toy)
        runs = sweep.plan(own)
        sweep.execute(runs[:3], Progress(3, 1), [None] * 3)
    job = OmegaConf.create({"study": {"name": "own"}})
    swept = ["x_var.value", "label_placement", "model.hidden", "seed"]
    report.write_manifest(report.manifest(runs, swept, "own", job), out)
    runs[3].folder.path.mkdir()
    runs[3].folder.write("failed.json", {"reason": "no luck"})
    return out


def test_an_experiment_has_its_runs_with_the_settings_that_differ(outputs: Path):
    table = experiments.table("own", outputs)
    manifest = json.loads((outputs / "reports/own/sweep.json").read_text())
    assert table.index.tolist() == [row["run"] for row in manifest["runs"]]
    expected = [
        "model.hidden",
        "x_var.value",
        "label_placement.kind",
        "label_repeat.kind",
        "label_repeat.value",
        "seed",
    ]
    assert table.columns[: len(expected)].tolist() == expected
    assert table["x_var.value"].tolist() == [0.1, 1.0, 0.1, 0.5]
    assert table["model.hidden"].tolist() == ["[16]", "[16]", "[16, 8]", "[16]"]
    assert table["label_repeat.value"].isna().tolist()[:3] == [False, False, True]  # no label to repeat
    assert table["seed"].tolist() == [0, 1, 0, 0]
    assert table["status"].tolist() == ["ok", "ok", "ok", "failed"]


def test_every_number_of_every_run_is_there_and_no_text(outputs: Path):
    table = experiments.table("own", outputs)
    own = {name for name, _, _, _ in settings(tiny_config())}
    for name in table.index[:3]:
        result = json.loads((outputs / "runs" / name / "result.json").read_text())
        numbers = {k: v for k, v in result.items() if isinstance(v, int | float) and k not in own}
        del numbers["schema_version"]
        assert {k: table.loc[name, k] for k in numbers} == numbers
    numeric = table.columns[table.columns.tolist().index("health") + 1 :]
    assert set(map(str, table.dtypes[numeric])) == {"float64"}
    assert table.iloc[3][numeric].isna().all()


def test_all_runs_are_told_apart_by_their_data(outputs: Path):
    table = experiments.table(output_dir=outputs)
    assert sorted(table.index) == sorted(p.name for p in (outputs / "runs").iterdir())
    assert table.loc[table.index.str.startswith("other"), "dataset"].tolist() == ["other"]
    assert set(table["dataset"].dropna()) == {"toy", "other"}


def test_an_unfinished_run_has_the_settings_of_its_config(outputs: Path, tmp_path: Path):
    run = tmp_path / "runs/begun"
    run.mkdir(parents=True)
    config = tiny_config(x_var__value=0.3, seed=7)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    finished = next(p for p in (outputs / "runs").iterdir() if (p / "result.json").exists())
    (tmp_path / "runs" / finished.name).symlink_to(finished)
    table = experiments.table(output_dir=tmp_path)
    assert (table.loc["begun", "x_var.value"], table.loc["begun", "seed"]) == (0.3, 7)
    assert table.loc["begun", "status"] == "missing"


def test_no_runs_are_an_empty_table_and_an_unknown_name_an_error(outputs: Path, tmp_path: Path):
    assert isinstance(experiments.table(output_dir=tmp_path), pd.DataFrame)
    assert len(experiments.table(output_dir=tmp_path)) == 0
    with pytest.raises(report.ReportError, match=r"owm: no such report in .* \(did you mean own\?\)"):
        experiments.table("owm", outputs)


def test_importing_the_package_imports_neither_pandas_nor_torch():
    code = "import sys, experiments; print({'pandas', 'torch'} & set(sys.modules), experiments.table.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code + "; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout == "set() table\nFalse\n"
