"""What a sweep writes down about its runs before it trains them."""

from pathlib import Path

import pytest

from experiments.manifest import manifest, write_manifest
from experiments.plan import plan
from experiments.store import read_json
from tests.conftest import Configs


def test_swept_and_fixed_settings_have_their_full_names(configs: Configs):
    changes = [{"x_var__value": v, "label_placement__kind": p} for v in (0.1, 1.0) for p in ("both", "none")]
    runs = plan(configs(*changes, trainer__device="cpu"))
    swept = ["x_var.value", "+label_placement", "label_repeat.value", "trainer.device", "dataset.kind", "dataset"]
    content = manifest(runs, swept, "name")
    assert content["swept"] == ["x_var.value", "label_placement.kind", "label_repeat.value", "dataset"]
    assert [row["run"] for row in content["runs"]] == [run.folder.name for run in runs]
    assert [row["settings"] for row in content["runs"]] == [
        {"x_var.value": v, "label_placement.kind": p, "label_repeat.value": n, "dataset": "toy"}
        for v in (0.1, 1.0)
        for p, n in (("both", 5), ("none", None))  # without a label its repeat has no part in the run
    ]
    fixed = content["fixed"]
    assert fixed["model.hidden"] == [16]
    assert fixed["beta.value"] == 1.0, "a default is listed too"
    assert not fixed.keys() & {*content["swept"], "dataset.root", "trainer.device", "label_repeat.kind", "beta.cycles"}


def test_the_same_run_is_listed_once_and_its_data_are_described(configs: Configs, tmp_path: Path):
    runs = plan(configs({"label_repeat__value": 1}, {"label_repeat__value": 2}, label_placement__kind="none"))
    content = manifest(runs, ["label_repeat.value"], "name")
    assert len(content["runs"]) == 1
    write_manifest(content, tmp_path / "outputs")
    read = read_json(tmp_path / "outputs" / "reports" / "name" / "sweep.json")
    assert read == content
    ((content_hash, data),) = read["datasets"].items()
    assert content_hash == read["runs"][0]["dataset_hash"]
    assert {k: data[k] for k in ("name", "n_train", "n_val", "n_test", "image_shape", "n_classes")} == {
        "name": "toy",
        "n_train": 300,
        "n_val": 0,
        "n_test": 60,
        "image_shape": [1, 8, 8],
        "n_classes": 3,
    }
    assert sum(data["eigenvalues"]) == pytest.approx(data["sse_mean"]["train"], rel=1e-4)
    assert sum(data["test_variances"]) == pytest.approx(data["sse_mean"]["test"], rel=1e-4)


def test_a_name_too_long_for_a_folder_is_shortened_and_stays_distinct(configs: Configs):
    runs = plan(configs())
    names = [manifest(runs, [], "x" * 300 + end)["name"] for end in ("a", "b")]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 107
