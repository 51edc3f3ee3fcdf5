"""The registry: torch-free to import, one entry per column, and a new metric is one function."""

import subprocess
import sys

import pytest
import torch

from tests.conftest import tiny_config
from tests.models import new_stack, subject_of
from vae.data import ImageData, facts
from vae.data.images import split_validation
from vae.metrics import DEFAULT_FAMILIES, FAMILIES, METRICS, Family, Metric, Result, Subject, compute, registry
from vae.metrics.registry import shared


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry without families, for those of the test."""
    monkeypatch.setattr(registry, "FAMILIES", {})
    monkeypatch.setattr(registry, "METRICS", {})


@pytest.fixture
def subject(toy: ImageData) -> Subject:
    return subject_of(new_stack(toy, tiny_config()), toy)


def test_importing_the_metrics_imports_no_torch():
    code = "import sys, vae.metrics, vae.sheet; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_families_and_metrics_are_complete():
    assert set(DEFAULT_FAMILIES) == set(FAMILIES) - {"early_steps", "gallery", "nll", "expost", "probe"}
    arrays = {name for name, family in FAMILIES.items() if family.arrays}
    assert arrays == {"pictures", "gallery", "expost", "early_steps"}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.family in FAMILIES
        assert metric.meaning
        assert metric.heading
        assert metric.direction in ("", "lower", "higher")


def test_every_declared_metric_is_computed(toy: ImageData, tmp_path_factory: pytest.TempPathFactory):
    data = split_validation(toy, 0.1)
    correct, buggy = tiny_config(), tiny_config(bug__kind="half_kl")  # some metrics are only for one of the two
    known = facts(data)
    subjects = [subject_of(new_stack(data, config), data, known=known) for config in (correct, buggy)]
    families = [name for name in DEFAULT_FAMILIES if name != "generation"]  # see test_metrics_generation.py
    values = {name for subject in subjects for family in families for name in compute(family, subject).values}
    assert values == {name for name, metric in METRICS.items() if metric.family in families}


@pytest.mark.usefixtures("empty")
def test_a_metric_is_one_function(subject: Subject):
    family = Family("mine", version=3)

    @family.computes(Metric("weight", "kg", "how heavy it is", "lower"))
    def weight(subject: Subject) -> float:
        return 2.5

    @family.computes(Metric("height", "m", "how high it is"), Metric("width", "m", "how wide it is"))
    def size(subject: Subject) -> dict[str, float | None]:
        return {"height": 1.0, "width": None}

    @family.computes()
    def drawing(subject: Subject) -> Result:
        return Result(arrays={"points": subject.data.test_x.numpy()})

    result = compute("mine", subject)
    assert result.values == {"weight": 2.5, "height": 1.0, "width": None}
    assert list(result.arrays) == ["points"]
    assert registry.METRICS["weight"] == Metric("weight", "kg", "how heavy it is", "lower", "weight", "mine")
    with pytest.raises(ValueError, match="declared twice"):
        family.computes(Metric("width", "m", "again"))
    with pytest.raises(ValueError, match="'mine' already"):
        Family("mine", version=1)


@pytest.mark.usefixtures("empty")
def test_it_runs_without_gradients_in_one_thread_and_leaves_torch_as_it_was(subject: Subject):
    family, seen = Family("mine", version=1), []

    @family.computes(Metric("failing", "", "raises"))
    def failing(subject: Subject) -> float:
        seen.append((torch.get_num_threads(), torch.is_grad_enabled()))
        raise ArithmeticError("no number")

    torch.set_num_threads(2)
    with pytest.raises(ArithmeticError, match="no number"):
        compute("mine", subject)
    assert seen == [(1, False)]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_shared_results_are_computed_once_for_each_subject_and_argument(subject: Subject, toy: ImageData):
    calls = []

    @shared
    def costly(subject: Subject, split: str) -> int:
        calls.append(split)
        return len(calls)

    assert [costly(subject, s) for s in ("test", "train", "test")] == [1, 2, 1]
    assert costly(subject_of(new_stack(toy, tiny_config()), toy), "test") == 3
