"""The columns of generation: what the judge says, and images that are too small for it."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from tests.conftest import make_data, tiny_config
from tests.models import new_stack, subject_of
from vae import judge
from vae.metrics import METRICS, compute

COLUMNS = {name for name, metric in METRICS.items() if metric.family == "generation" and not name.startswith("val_")}


def columns(data, cache: Path, **changes: object) -> dict:  # type: ignore[no-untyped-def]
    subject = subject_of(new_stack(data, tiny_config(z_dim__value=2, **changes)), data)
    return compute("generation", dataclasses.replace(subject, cache=cache)).values


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 1, 12), (3, 3, 16)])
def test_images_too_small_for_the_judge_have_no_scores(shape: tuple[int, int, int], tmp_path: Path):
    assert columns(make_data(image_shape=shape), tmp_path) == dict.fromkeys(COLUMNS)


def test_small_images_have_scores_and_labels_only_where_the_model_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    data = make_data(n_train=400, image_shape=(1, 4, 4))
    labelled = columns(data, tmp_path)
    free = columns(data, tmp_path, label_placement__kind="none")
    assert set(labelled) == COLUMNS
    assert labelled["judge"] == free["judge"]
    assert all(math.isfinite(labelled[name]) for name in COLUMNS - {"judge"})
    assert {name for name, value in free.items() if value is None} == {"sample_accuracy"}


def test_samples_are_those_of_the_seed_with_the_labels_of_held_out_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    data = make_data(n_train=400)
    subject = subject_of(new_stack(data, tiny_config(seed=5)), data)
    made = judge.Judge.of(data, tmp_path)
    y = data.test_y[made.held_out]
    share = (made.predict(subject.model.sample(y, seed=5)) == y).double().mean().item()
    values = compute("generation", dataclasses.replace(subject, cache=tmp_path)).values
    assert values["sample_accuracy"] == share
    assert values["judge_accuracy"] == (made.predict(data.test_x) == data.test_y).double().mean().item()
    assert torch.get_num_threads() == 1
