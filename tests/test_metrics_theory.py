"""The closed form's columns against a linear VAE built from the eigenvectors, and the choice of the spectrum."""

import pytest
import torch

from tests.conftest import make_data, tiny_config
from tests.models import exact_linear_model, set_exact_posterior, subject_of
from vae import theory
from vae.data import ImageData, facts
from vae.metrics import compute


def test_the_linear_vae_itself_has_the_numbers_on_both_sets_of_images():
    data = make_data(n_train=400, n_test=4000, image_shape=(1, 4, 5))
    x_var = 0.003
    stack, _, _ = exact_linear_model(data, tiny_config(label_placement__kind="none", x_var__value=x_var), x_var)
    x = data.train_x.flatten(1) / 255
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    loadings = (values[-4:] - x_var).clamp(min=0).sqrt()[:, None] * vectors.T[-4:]
    set_exact_posterior(stack, loadings, x.mean(dim=0), torch.zeros(3, 20), x_var)
    subject = subject_of(stack, data, known=facts(data))
    closed, measured = compute("theory", subject).values, compute("reconstruction", subject).values
    for split in ("train", "test"):
        for name in ("kl", "sse"):
            expected = pytest.approx(measured[f"{split}_{name}"], rel=0.01)
            assert closed[f"{split}_theory_{name}_low"] == closed[f"{split}_theory_{name}_high"] == expected
    assert closed["effective_x_var"] == closed["x_var"] == pytest.approx(x_var)


@pytest.mark.parametrize("placement", ["both", "decoder", "encoder", "none"])
def test_the_label_placement_chooses_the_spectrum(toy: ImageData, placement: str):
    known = facts(toy)
    stack, _, _ = exact_linear_model(
        toy, tiny_config(label_placement__kind="both", beta__value=2.0, x_var__value=0.01), 0.01
    )
    stack.configs[0].label_placement.kind = placement
    values = compute("theory", subject_of(stack, toy, known=known)).values
    t = values["effective_x_var"]
    assert t == pytest.approx(0.02)
    whole = theory.held_out(known.eigenvalues, known.test_variances, t, 4)
    within = theory.held_out(known.eigenvalues_within, known.test_variances_within, t, 4)
    low, high = {"both": (within, within), "decoder": (within, whole)}.get(placement, (whole, whole))
    assert values["test_theory_sse_low"] == min(low.sse, high.sse)
    assert values["test_theory_kl_high"] == max(low.kl, high.kl)
    trained = theory.prediction(known.eigenvalues, known.eigenvalues_within, placement, t, 4)
    assert values["train_theory_kl_low"] == min(p.kl for p in trained)
    assert values["train_theory_sse_high"] == max(p.sse for p in trained)
