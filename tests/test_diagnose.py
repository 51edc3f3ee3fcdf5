"""Diagnoses of values whose origin is known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import diagnose
from experiments.hypotheses import SAMPLING, SPECTRA, Diagnosis, Hypothesis, Row, Spectrum, hypotheses, read_spectrum
from tests.fakes import fake_report
from vae import bugs
from vae.config import Dataset
from vae.data import facts, load

CIFAR = read_spectrum("cifar10")
MNIST = read_spectrum("mnist")
SETTINGS = [(10, 0.01), (100, 0.1), (100, 0.05), (100, 0.01), (100, 0.005)]
PUBLISHED = np.array([(80, 3.0), (11, 2.5), (20, 2.2), (64, 1.0), (85, 0.8)])
AS_PRINTED = {"pixels": "mean", "latents": "mean", "error": "whole", "range": "01", "batch": "sum"}


def rows_of(settings: list[tuple[int, float]], values: np.ndarray | None = None) -> list[Row]:
    given = np.ones((len(settings), 2)) if values is None else values
    return [Row(k, beta, 1.0, *pair) for (k, beta), pair in zip(settings, given.tolist(), strict=True)]


def diagnosed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert diagnose.main(argv) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def free() -> Diagnosis:
    """The five rows, with nothing known of the code."""
    return Diagnosis(rows_of(SETTINGS), CIFAR)


def test_the_published_table_fits_the_variance_used_as_std(free: Diagnosis):
    ranking = free.ranking(free.misfits(PUBLISHED))
    assert ranking[0].hypothesis == Hypothesis("variance_as_std", "mean", "mean", batch="sum", batch_size=128)
    assert ranking[0].misfit <= 0.06
    expected = [(78.8, 2.97), (10.6, 2.62), (19.0, 2.03), (65.9, 1.03), (86.4, 0.88)]
    np.testing.assert_allclose(ranking[0].predicted, expected, rtol=0.006)


def test_the_published_table_is_far_from_a_correct_vae_of_the_stated_loss():
    known = Diagnosis(rows_of(SETTINGS), CIFAR, stated=AS_PRINTED, batch_size=128)
    misfits = {r.hypothesis.bug: r.misfit for r in known.best_of_bug(known.misfits(PUBLISHED))}
    assert misfits["variance_as_std"] == pytest.approx(0.050, abs=0.001)
    assert misfits["half_kl"] == pytest.approx(0.068, abs=0.001)
    assert misfits["correct"] == pytest.approx(0.226, abs=0.001)


def test_values_of_a_correct_vae_are_called_correct(free: Diagnosis):
    values = np.array([(104.2, 3.33), (11.3, 3.22), (20.8, 2.56), (76.9, 1.38), (121.1, 1.06)])
    best = free.ranking(free.misfits(values))[0]
    assert best.hypothesis == Hypothesis("correct", "mean", "mean", batch="sum", batch_size=128)
    assert best.misfit < 0.01


@pytest.mark.parametrize(("spectrum", "k"), [(CIFAR, 100), (MNIST, 20)], ids=["cifar10", "mnist"])
@pytest.mark.parametrize("n_rows", [1, 4])
def test_noisy_values_are_attributed_to_where_they_come_from(spectrum: Spectrum, k: int, n_rows: int):
    """From every hypothesis that is tried, 100 draws with 3 % noise."""
    settings = [(k, beta) for beta in (0.1, 1.0, 0.01, 0.03)[:n_rows]]
    diagnosis = Diagnosis(rows_of(settings), spectrum, batch_size=64)
    rng = np.random.default_rng(0)
    for i, hypothesis in enumerate(diagnosis.hypotheses):
        noise = np.exp(0.03 * rng.standard_normal((100, n_rows, 2)))
        draws = [diagnosis.misfits(diagnosis.predicted[i] * one) for one in noise]
        assert sum(diagnosis.indistinguishable(m)[i] for m in draws) >= 95, hypothesis


def test_what_is_told_apart_is_not_everything(free: Diagnosis):
    """The sets are small: five rows with 3 % noise leave a handful of several hundred hypotheses."""
    rng = np.random.default_rng(0)
    for bug in ("correct", "variance_as_std", "half_kl", "double_kl"):
        i = free.hypotheses.index(Hypothesis(bug, "mean", "mean", batch="sum", batch_size=128))
        misfits = free.misfits(free.predicted[i] * np.exp(0.03 * rng.standard_normal((5, 2))))
        left = [free.hypotheses[j] for j in np.flatnonzero(free.indistinguishable(misfits))]
        assert len(left) <= 12, bug
        assert len(free.hypotheses) > 500


def test_stated_conventions_leave_the_bugs_open():
    left = hypotheses({"pixels": "sum", "latents": "sum", "error": "half", "range": "01", "batch": "mean"}, 64)
    assert {h.bug for h in left if (h.pixels, h.latents) == ("sum", "sum")} == {*SAMPLING, "batch_error"}
    assert {h.bug for h in left if (h.pixels, h.latents) == ("mean", "sum")} == {"mean_error"}
    assert {h.bug for h in left if (h.pixels, h.latents) == ("sum", "mean")} == {"mean_kl"}
    assert {h.error for h in left} == {"half"}


def test_weights_follow_the_loss_as_written():
    written = Hypothesis("correct", "mean", "mean", "half", "-11", "sum", 32)
    assert written.weights(input_dim=784, k=20) == pytest.approx((32 * 4 / (2 * 784), 32 / 20))
    # pixels in [-1, 1] quadruple the error, so beta 4 gives what beta 1 does for pixels in [0, 1]
    row = Row(20, 1.0, 1.0, 1.0, 1.0)
    kl, r = Hypothesis("correct", range="-11").predicted(replace(row, beta=4.0), MNIST.eigenvalues, 0.0, True)
    assert (kl, r / 4) == pytest.approx(Hypothesis("correct").predicted(row, MNIST.eigenvalues, 0.0, True))


def test_a_collapse_is_reported_with_all_that_lead_to_it(capsys: pytest.CaptureFixture[str]):
    stated = ["pixels=sum", "latents=sum", "range=01", "error=whole"]
    text = diagnosed(capsys, "dataset=mnist", "k=100", "kl=0", "r=52.7", *stated)
    assert "predict the same values (" in text
    assert "broadcast_error" in text
    assert "Training that died can look the same." in text


def test_values_that_nothing_explains_fit_nothing(capsys: pytest.CaptureFixture[str]):
    text = diagnosed(capsys, *["dataset=mnist", "k=10", "beta=1,0.1", "kl=3,400", "r=900,0.01", "batch_size=100"])
    assert text.startswith("No hypothesis fits.")


def test_hypotheses_that_cannot_be_told_apart_are_listed(capsys: pytest.CaptureFixture[str]):
    text = diagnosed(capsys, *["dataset=mnist", "labels=both", "k=100", "x_var=2", "kl=2.2", "r=35.2"])
    assert "cannot be distinguished" in text
    assert text.count("half_kl: means over pixels and latents, sum over a batch of 200") == 2


@pytest.mark.parametrize("objective", ["elbo", "per_dim"])
@pytest.mark.parametrize("bug", ["correct", "variance_as_std"])
def test_a_run_is_diagnosed_from_its_training_values(bug: str, objective: str, tmp_path: Path, capsys):
    """Values of the closed form at an effective x_var of 0.1, written as a run's metrics."""
    found = bugs.optimum(bug, bugs.Loss(read_spectrum("mnist_5k").eigenvalues_within, 0.1, 100))

    def change(_: dict, row: dict) -> dict:
        return row | {"train_kl": found.kl, "train_sse": found.sse, "effective_x_var": 0.1}

    fixed = {"dataset.kind": "mnist_5k", "z_dim.value": 100, "label_placement.kind": "both"}
    fixed["objective.kind"] = objective
    (run,) = fake_report(tmp_path, fixed=fixed, change=change, pictures=False)
    text = diagnosed(capsys, f"run={run.name}", f"output_dir={tmp_path}")
    assert text.startswith(f"The values fit {bug}:")
    assert "(off by 0.0 %)" in text.splitlines()[0]


def test_a_shipped_spectrum_is_that_of_the_images():
    known, stored = facts(load(Dataset(kind="mnist_5k"))), read_spectrum("mnist_5k")
    np.testing.assert_allclose(stored.eigenvalues, known.eigenvalues, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(stored.eigenvalues_within, known.eigenvalues_within, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "total", "largest"), [("mnist", 52.7, 5.12), ("cifar10", 188.65, 55.05), ("fashion_mnist", 68.2, 19.8)]
)
def test_shipped_spectra_have_the_known_variance(name: str, total: float, largest: float):
    spectrum = read_spectrum(name)
    assert spectrum.eigenvalues.sum() == pytest.approx(total, rel=2e-3)
    assert spectrum.eigenvalues[0] == pytest.approx(largest, rel=2e-3)
    assert spectrum.eigenvalues_within.sum() < spectrum.eigenvalues.sum()
    assert (SPECTRA / f"{name}.npz").stat().st_size < 10_000


def test_spectra_of_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x_train=images, x_test=images[:5])
    total = (images / 255).var(axis=0).sum()
    text = diagnosed(capsys, f"dataset={tmp_path / 'own.npz'}", "k=2", "beta=100", "kl=0", f"r={total}", "batch=mean")
    assert text.startswith("The values fit correct")
    for split, image in (("train", images[0]), ("train", images[1]), ("test", images[2])):
        (tmp_path / "own" / split / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "own" / split / "a" / f"{image[0, 0]}.png")
    argv = (f"dataset={tmp_path / 'own'}", "k=2", "kl=1", "r=1", "dataset.size=8", "dataset.channels=1")
    assert "hypotheses were tried" in diagnosed(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("k=2 kl=1 r=1", "dataset: must be given; allowed: cifar10, fashion_mnist, mnist"),
        ("dataset=mnits k=2 kl=1 r=1", "dataset=mnits: no such spectrum or path; allowed: cifar10"),
        ("dataset=mnist kl=1 r=1", "k: must be given; allowed: whole numbers >= 1"),
        ("dataset=mnist k=1.5 kl=1 r=1", "k=1.5: 1.5 cannot be used; allowed: whole numbers >= 1"),
        ("dataset=mnist k=2 kl=-1 r=1", "kl=-1: -1 cannot be used; allowed: numbers >= 0"),
        ("dataset=mnist k=2 kl=1 r=nan", "r=nan: nan cannot be used; allowed: numbers > 0"),
        ("dataset=mnist k=2 kl=1 r=1,", "r=1,: an empty value cannot be used; allowed: numbers > 0"),
        ("dataset=mnist k=2 kl=1,2 r=1", "r=1: 1 given, but 2 of kl; allowed: as many as of kl"),
        ("dataset=mnist k=2 kl=1,2 r=1,2 beta=1,2,3", "beta=1,2,3: 3 given, but 2 of kl; allowed: as many as of kl"),
        ("dataset=mnist k=2 kl=1 r=1 batch=max", "batch=max: not an option; allowed: mean, sum"),
        ("dataset=mnist k=2 kl=1 r=1 bacth=sum", "bacth=sum: no such setting (did you mean batch?); allowed: dataset"),
        ("dataset=mnist k=2 k=3", "k=3: given twice; allowed: k=VALUE, once"),
        ("run=none", "run=none: not one run (none: no such report or run in outputs); allowed: the name of a run"),
        ("run=none k=3", "k=3: not together with run; allowed: run and output_dir"),
    ],
)
def test_bad_input_is_one_line(argv: str, line: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert diagnose.main(argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"diagnose: {line}")
    assert err.count("\n") == 1


def test_no_torch_is_imported():
    code = (
        "import sys; from experiments.diagnose import main; "
        "assert main('dataset=mnist k=2 kl=1 r=30'.split()) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent, capture_output=True)
