"""What is checked before anything is trained, and how a run is named by its data."""

from pathlib import Path

import pytest

from experiments import plan as planning
from experiments.plan import plan
from tests.conftest import Configs, make_data, tiny_config
from vae.config import ConfigError


def test_more_images_a_batch_than_there_are_is_refused(configs: Configs):
    with pytest.raises(ConfigError, match=r"trainer.batch_size=301: .* at most 300"):
        plan(configs(trainer__batch_size=301))


def test_data_without_labels_needs_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(planning, "load_data", lambda dataset: make_data(n_classes=1, name="bare"))
    given = tiny_config(output_dir=str(tmp_path))
    runs = plan([given, tiny_config(output_dir=str(tmp_path), label_placement__kind="none")])
    assert [run.config.label_placement.kind for run in runs] == ["none", "none"]
    assert runs[0].folder.name == runs[1].folder.name
    assert given.label_placement.kind == "both"
    plan([given])
    said = "label_placement=both: bare has no labels to choose from; label_placement=none is used\n"
    assert capsys.readouterr().err == said


def test_data_with_another_content_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = []
    for seed in (0, 1):
        data = make_data(seed=seed)
        monkeypatch.setattr(planning, "load_data", lambda dataset, data=data: data)
        names.append(plan([tiny_config(output_dir=str(tmp_path))])[0].folder.name)
    assert names[0] != names[1]
    assert names[0].rsplit("-", 1)[0] == names[1].rsplit("-", 1)[0]
