"""Each closed form against a linear VAE whose matrices are optimized numerically, with nothing assumed of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from vae import bugs, theory

D = 8
SPECTRUM = np.array([5.0, 3.0, 2.0, 1.2, 0.7, 0.3, 0.1, 0.05])
BATCH = 4
BETWEEN = 0.5  # variance between classes, along one direction
Terms = dict[str, Any]


def linear_vae(parameters: torch.Tensor, k: int, covariance: torch.Tensor, bug: str) -> Terms:
    """Expectations over images x ~ (mean 0, covariance) of a linear VAE: decoder (D, k), encoder (k, D), logvar (k,).

    `pairs` is the squared error averaged over all pairs of an output and an image in a batch; `own` is the KL of the
    distribution that is sampled from.
    """
    w, v = parameters[: D * k].reshape(D, k), parameters[D * k : 2 * D * k].reshape(k, D)
    logvar = parameters[2 * D * k :]
    s = logvar.exp()
    std = {"variance_as_std": s, "no_noise": 0 * s}.get(bug, s.sqrt())
    rest = torch.eye(D, dtype=torch.float64) - w @ v
    spread = (w**2 * std**2).sum()
    mu = torch.trace(v @ covariance @ v.T)
    sse = torch.trace(rest @ covariance @ rest.T) + spread
    crossed = torch.trace(covariance) + torch.trace(w @ v @ covariance @ v.T @ w.T) + spread
    return {
        "sse": sse,
        "kl": 0.5 * (mu + (s - 1 - logvar).sum()),
        "own": 0.5 * (mu + (std**2 - 1 - 2 * std.log()).sum()),
        "pairs": sse / BATCH + (1 - 1 / BATCH) * crossed,
    }


# The loss as the buggy code computes it, where it was meant to be SSE + 2t·KL; beta is 1.
LOSSES: dict[str, Callable[[Terms, float, int], torch.Tensor]] = {
    "correct": lambda m, t, k: m["sse"] + 2 * t * m["kl"],
    "variance_as_std": lambda m, t, k: m["sse"] + 2 * t * m["kl"],
    "half_kl": lambda m, t, k: m["sse"] + 2 * t * 0.5 * m["kl"],
    "double_kl": lambda m, t, k: m["sse"] + 2 * t * 2 * m["kl"],
    "mean_error": lambda m, t, k: m["sse"] / D + m["kl"],
    "mean_kl": lambda m, t, k: m["sse"] + m["kl"] / k,
    "broadcast_error": lambda m, t, k: m["pairs"] + 2 * t * m["kl"],
}
PRINTED_KL = {"half_kl": lambda kl, k: kl / 2, "double_kl": lambda kl, k: 2 * kl, "mean_kl": lambda kl, k: kl / k}


@pytest.mark.parametrize("bug", LOSSES)
@pytest.mark.parametrize(("t", "k"), [(0.05, 3), (0.4, 6), (1.1, 6)])
def test_the_closed_form_is_what_full_matrices_are_optimized_to(bug: str, t: float, k: int):
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((D, D)))[0]
    covariance = torch.tensor(rotation @ np.diag(SPECTRUM) @ rotation.T)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(parameters, requires_grad=True)
        loss = LOSSES[bug](linear_vae(at, k, covariance, bug), t, k)
        loss.backward()
        assert at.grad is not None
        return loss.item(), at.grad.numpy()

    starts = [np.r_[0.5 * rng.standard_normal(2 * D * k), rng.uniform(-3, 0, k)] for _ in range(2)]
    ends = [minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-6}) for start in starts]
    end = torch.tensor(min(ends, key=lambda m: m.fun).x)
    measured = {name: value.item() for name, value in linear_vae(end, k, covariance, bug).items()}
    found = bugs.optimum(bug, bugs.Loss(SPECTRUM, t, k, batch_size=BATCH))
    printed_kl = PRINTED_KL.get(bug, lambda kl, k: kl)(measured["kl"], k)
    printed_sse = {"mean_error": measured["sse"] / D, "broadcast_error": measured["pairs"]}.get(bug, measured["sse"])
    assert found.kl == pytest.approx(measured["own"], rel=1e-3, abs=1e-3)
    assert found.sse == pytest.approx(measured["sse"], rel=1e-3)
    assert found.printed_kl == pytest.approx(printed_kl, rel=1e-3, abs=1e-3)
    assert found.printed_sse == pytest.approx(printed_sse, rel=1e-3)


def test_a_broadcast_decoder_moves_its_output_the_share_1_over_b_towards_the_class_mean():
    """The best output (mean + m·(class mean - mean)) by the average over pairs, of which 1/B are of the same class."""
    moves = np.linspace(0, 1, 1001)
    pairs = BETWEEN * ((1 - moves) ** 2 / BATCH + (1 - 1 / BATCH) * (1 + moves**2))
    plain = bugs.broadcast_error(bugs.Loss(SPECTRUM, 10.0, 3, batch_size=BATCH))
    labelled = bugs.broadcast_error(bugs.Loss(SPECTRUM, 10.0, 3, batch_size=BATCH, between=BETWEEN))
    assert labelled.printed_sse - plain.printed_sse == pytest.approx(pairs.min(), abs=1e-6)
    assert labelled.sse - plain.sse == pytest.approx(BETWEEN * (1 - moves[pairs.argmin()]) ** 2, abs=1e-3)


def test_without_noise_the_loss_falls_towards_the_limit_and_never_reaches_it():
    limit = bugs.no_noise(bugs.Loss(SPECTRUM, 0.5, 3))
    losses = []
    for scale in (1.0, 0.1, 0.01, 0.001):  # of mu; the decoder undoes it
        axes = np.eye(D)[:3]
        parameters = np.r_[(axes.T / scale).ravel(), (scale * axes).ravel(), np.zeros(3)]
        found = linear_vae(torch.tensor(parameters), 3, torch.tensor(np.diag(SPECTRUM)), "no_noise")
        losses.append((found["sse"] + 2 * 0.5 * found["kl"]).item())
        assert losses[-1] > limit.printed_sse
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(limit.printed_sse, rel=1e-3)
    assert (limit.kl, limit.printed_kl) == (0, 0)


def test_at_the_threshold_the_buggy_code_does_not_collapse_where_the_correct_one_does():
    assert theory.optimum([1.0], 1.1, 1).kl == 0
    assert bugs.variance_as_std(bugs.Loss([1.0], 1.1, 1)).printed_kl > 0.1
    assert bugs.variance_as_std(bugs.Loss([1.0], 1.2, 1)).printed_kl == 0


@pytest.mark.parametrize("bug", ["correct", *bugs.BUGS])
@pytest.mark.parametrize(("t", "k"), [(0.0, 3), (1.0, 0), (float("nan"), 3)])
def test_settings_that_cannot_be_used_are_refused(bug: str, t: float, k: int):
    with pytest.raises(ValueError, match=r"t=|z_dim="):
        bugs.optimum(bug, bugs.Loss(SPECTRUM, t, k))


def test_an_unknown_bug_is_refused():
    with pytest.raises(ValueError, match="bug=typo"):
        bugs.optimum("typo", bugs.Loss(SPECTRUM, 1.0, 3))
