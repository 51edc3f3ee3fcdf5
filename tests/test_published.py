"""The study's table beside runs whose numbers are the closed form's."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.collect import main as collect
from experiments.hypotheses import read_spectrum
from experiments.published import published
from experiments.reading import read
from tests.fakes import DATA, fake_report
from vae import bugs

EXPERIMENT = yaml.safe_load((Path(__file__).parents[1] / "conf/experiment/beta.yaml").read_text())
SPECTRUM = read_spectrum("cifar10").eigenvalues
D = 3072
CIFAR = {
    **DATA,
    "name": "cifar10",
    "image_shape": [3, 32, 32],
    **{
        key: SPECTRUM.tolist()
        for key in ("eigenvalues", "eigenvalues_within", "test_variances", "test_variances_within")
    },
    "sse_mean": {"train": float(SPECTRUM.sum()), "test": float(SPECTRUM.sum())},
}
FIXED = {"objective.kind": "per_dim", "label_placement.kind": "none"}


def as_predicted(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the closed form, on training images."""
    k, beta, bug = settings["z_dim.value"], settings["beta.value"], settings["bug.kind"]
    loss = bugs.Loss(SPECTRUM, beta * D / (2 * k), k, beta)
    found = bugs.optimum("correct" if bug == "none" else bug, loss)
    row |= {"train_kl": found.kl, "train_sse": found.sse}
    return row if bug == "none" else row | {"train_printed_kl": found.printed_kl, "train_printed_r": found.printed_sse}


def beta_report(folder: Path, change: Any = as_predicted, data: dict[str, Any] = CIFAR) -> None:
    points = [
        {key: value for key, value in {**point, "bug.kind": point["bug"]}.items() if key != "bug"}
        for point in EXPERIMENT["hydra"]["sweeper"]["points"]
    ]
    given = {"study": EXPERIMENT["study"], "fixed": FIXED, "pictures": False, "history": False}
    fake_report(folder, "beta", {"seed": [0]}, points, change=change, data=data, **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the report of all settings."""
    path = tmp_path_factory.mktemp("published")
    beta_report(path)
    return path


@pytest.fixture(autouse=True)
def nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.reading.evaluate", lambda *args, **kwargs: None)


def test_each_hypothesis_has_its_misfit_and_its_runs(folder: Path):
    found = published(read("beta", folder))
    assert found is not None
    assert found.stated[0].hypothesis.bug == "variance_as_std"
    expected = {"variance_as_std": 0.050, "half_kl": 0.068, "correct": 0.226}
    for bug, misfit in expected.items():
        assert found.misfit(bug) == pytest.approx(misfit, abs=0.001)
        assert found.trained[bug] == pytest.approx(misfit, abs=0.001)  # half_kl: the runs at half the beta
    assert found.n_free > found.n_stated > 5
    line = found.lines[3]
    assert line.published == (64, 1.0)
    assert line.by_bug["variance_as_std"].closed == pytest.approx((65.9, 1.03), rel=0.006)
    trained = line.by_bug["variance_as_std"].trained
    assert trained is not None
    assert [value.mean for value in trained] == pytest.approx(line.by_bug["variance_as_std"].closed)


def test_the_row_that_cannot_be_an_optimum_is_named_with_both_losses(folder: Path):
    found = published(read("beta", folder))
    assert found is not None
    assert found.impossible is not None
    line, loss, mean_image = found.impossible
    assert line.settings == {"z_dim.value": 10, "beta.value": 0.1}
    assert loss == pytest.approx(3.0 + 0.1 * 80)
    assert mean_image == pytest.approx(7.86, abs=0.005)


def test_a_missing_row_leaves_no_misfit_of_the_trained(tmp_path: Path):
    def without(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        lost = settings["bug.kind"] == "variance_as_std" and settings["z_dim.value"] == 10
        return None if lost else as_predicted(settings, row)

    beta_report(tmp_path, without)
    found = published(read("beta", tmp_path))
    assert found is not None
    assert found.trained.keys() == {"correct", "half_kl"}
    assert found.lines[0].by_bug["variance_as_std"].trained is None


def test_there_is_no_comparison_on_other_data(tmp_path: Path):
    beta_report(tmp_path, data={**CIFAR, "name": "photos"})
    assert published(read("beta", tmp_path)) is None


def test_the_report_says_what_is_inferred_and_how_certain_it_is(folder: Path):
    assert collect(["beta", "--output-dir", str(folder)]) == 0
    text = (folder / "reports/beta/report.md").read_text()
    assert "is 5.0 % off (root-mean-square log ratio), that of half_kl, the second best, 6.8 %" in text
    assert ", and that of a correct VAE 22.6 %" in text
    assert "| 10 | 0.1, read as 0.01 | 80 / 3.0 | 104 / 3.33 | 104 / 3.33 | 78.8 / 2.97 | 78.8 / 2.97 |" in text
    assert "its loss is 11, and the mean image with KL 0 costs 7.86" in text
    assert (
        "are free too, the best correct VAE is 6.8 % off (means over pixels and latents, sum over a batch of 64, "
        r"half squared error, pixels in \[-1, 1\])." in text
    )
    details = (folder / "reports/beta/details.md").read_text()
    assert "| half_kl | 6.8 % | 6.8 % |" in details
