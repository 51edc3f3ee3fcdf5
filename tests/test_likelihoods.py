"""The likelihoods against torch.distributions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Laplace, Normal, SigmoidTransform, TransformedDistribution, Uniform
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.nn import functional as F

from tests.conftest import tiny_config
from vae import likelihoods
from vae.config import Config
from vae.likelihoods import ContinuousBernoulli, DiscretizedLogistic, Gaussian, Likelihood, likelihood_of
from vae.model import resolve

SHAPE = (4, 2, 3, 5)  # B, C, H, W
HALF = 1 / 510
LEVELS = torch.arange(256, dtype=torch.float64) / 255


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def levels() -> Tensor:
    """Images of 8-bit levels in double precision, black and white ones among them."""
    x = torch.randint(256, SHAPE).double() / 255
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    return x


def logistic(location: Tensor, s: Tensor) -> TransformedDistribution:
    base = Uniform(torch.zeros_like(location), torch.ones_like(location))
    return TransformedDistribution(base, [SigmoidTransform().inv, AffineTransform(location, s)])


def log_level(location: Tensor, var: Tensor, x: Tensor) -> Tensor:
    """ln of the probability of the levels x, from the distribution function."""
    density = logistic(location, (3 * var).sqrt() / math.pi + 0 * location)
    upper = torch.where(x > 1 - HALF, 1.0, density.cdf(x + HALF))
    return (upper - torch.where(x < HALF, 0.0, density.cdf(x - HALF))).log()


REFERENCE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "gaussian": lambda location, var, x: Normal(location, var.sqrt()).log_prob(x),
    "laplace": lambda location, var, x: Laplace(location, (var / 2).sqrt()).log_prob(x),
    "discretized_logistic": log_level,
}


@pytest.mark.parametrize("x_var", ["fixed", "learned", "per_pixel"])
@pytest.mark.parametrize("kind", REFERENCE)
def test_log_prob_is_that_of_torch_distributions(kind: str, x_var: str):
    likelihood: Any = likelihood_of({"kind": kind, "x_var": x_var, "value": 0.03}).double()
    x, location = levels(), torch.rand(SHAPE).double()
    if x_var == "per_pixel":
        raw = torch.randn(SHAPE).double() - 3
        parameters = torch.cat([location, raw], dim=1)
        var = (math.log(1e-4) + (1 + (raw - math.log(1e-4)).exp()).log()).exp()
    else:
        parameters = location
        var = torch.tensor(math.log(0.03)).double().exp()  # it is stored in single precision
        assert var.item() == pytest.approx(0.03, rel=1e-6)
    assert likelihood.n_parameters == (2 if x_var == "per_pixel" else 1)
    expected = REFERENCE[kind](location, var, x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(x, parameters), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(likelihood.location(parameters), location)
    single = likelihood.float().log_prob(x.float(), parameters.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", REFERENCE)
def test_gradients_of_a_learned_x_var_and_of_the_location_by_finite_differences(kind: str):
    likelihood = likelihood_of({"kind": kind, "x_var": "learned", "value": 0.03}).double()
    x = levels()
    log_x_var = likelihood.get_parameter("log_x_var")

    def total(location: Tensor, value: Tensor) -> Tensor:
        return torch.func.functional_call(_LogProb(likelihood), {"likelihood.log_x_var": value}, (x, location))

    location = torch.rand(SHAPE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, [location, log_x_var.detach().clone().requires_grad_()])


class _LogProb(nn.Module):
    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x: Tensor, parameters: Tensor) -> Tensor:
        return self.likelihood.log_prob(x, parameters)


@pytest.mark.parametrize("kind", REFERENCE)
def test_x_var_is_a_buffer_if_it_is_fixed_and_a_parameter_if_it_is_learned(kind: str):
    fixed, learned, per_pixel = (
        likelihood_of({"kind": kind, "x_var": x_var, "value": 0.2}) for x_var in ("fixed", "learned", "per_pixel")
    )
    assert fixed.state_dict().keys() == learned.state_dict().keys() == {"log_x_var"}
    assert fixed.state_dict()["log_x_var"].item() == pytest.approx(math.log(0.2))
    assert learned.state_dict()["log_x_var"].item() == pytest.approx(math.log(0.2))
    assert not list(fixed.parameters())
    assert [name for name, _ in learned.named_parameters()] == ["log_x_var"]
    assert not per_pixel.state_dict()


def test_the_variance_per_pixel_has_a_floor_and_is_free_above_it():
    likelihood = Gaussian(x_var="per_pixel")
    raw = torch.tensor([-1000.0, -100.0, math.log(1e-4), 0.0, 3.0])
    parameters = torch.stack([torch.zeros(5), raw]).view(1, 2, 1, 5)
    log_var = likelihood.log_var(parameters).flatten()
    floor = math.log(1e-4)
    assert math.log(1e-4) == likelihoods.MIN_LOG_VAR
    assert log_var[:2].tolist() == pytest.approx([floor, floor])
    assert log_var[2].item() == pytest.approx(floor + math.log(2))
    assert log_var[3:].tolist() == pytest.approx([0.0, 3.0], abs=2e-4)
    log_prob = likelihood.log_prob(torch.zeros(1, 1, 1, 5), parameters)
    assert log_prob.item() == pytest.approx(
        sum(Normal(0.0, math.exp(v / 2)).log_prob(torch.tensor(0.0)).item() for v in log_var.tolist()), rel=1e-5
    )


@pytest.mark.parametrize("location", [-0.7, -0.01, 0.0, 0.3, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("x_var", [1e-4, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_probabilities_of_the_256_levels_sum_to_one(location: float, x_var: float, dtype: torch.dtype):
    likelihood = DiscretizedLogistic(value=x_var).to(dtype)
    x = LEVELS.to(dtype).view(256, 1, 1, 1)
    log_prob = likelihood.log_prob(x, torch.full_like(x, location))
    assert log_prob.isfinite().all()
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("x_var", [3e-4, 1e-3, 2e-3])
def test_the_levels_have_the_mean_and_the_variance_of_the_logistic(x_var: float):
    x = LEVELS.view(256, 1, 1, 1)
    p = DiscretizedLogistic(value=x_var).double().log_prob(x, torch.full_like(x, 0.5)).exp()
    mean = (p * LEVELS).sum()
    assert mean.item() == pytest.approx(0.5, abs=1e-6)
    rounding = (1 / 255) ** 2 / 12
    assert (p * (LEVELS - mean).square()).sum().item() == pytest.approx(x_var + rounding, rel=1e-3)


@pytest.mark.parametrize("location", [-5.0, -0.05, 0.3, 0.99, 7.0])
@pytest.mark.parametrize("x_var", [1e-3, 0.1])
def test_the_mean_of_the_levels_is_theirs_also_far_outside_of_the_pixels(location: float, x_var: float):
    likelihood = DiscretizedLogistic(value=x_var).double()
    x = LEVELS.view(256, 1, 1, 1)
    parameters = torch.full_like(x, location)
    by_hand = (likelihood.log_prob(x, parameters).exp() * LEVELS).sum().item()
    assert likelihood.mean(parameters)[0].item() == pytest.approx(by_hand, abs=2e-5)


def test_levels_far_from_the_location_have_the_tail_of_the_logistic_and_a_gradient():
    likelihood = DiscretizedLogistic(value=1e-4)
    s = math.sqrt(3e-4) / math.pi
    parameters = torch.zeros(1, 1, 1, 1, requires_grad=True)
    log_prob = likelihood.log_prob(torch.full((1, 1, 1, 1), 200 / 255), parameters)
    # In the tail the distribution function is 1 - exp(-x/s).
    lower, upper = (200 / 255 - HALF) / s, (200 / 255 + HALF) / s
    assert log_prob.item() == pytest.approx(-lower + math.log(-math.expm1(lower - upper)), rel=1e-5)
    log_prob.sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.item() == pytest.approx(1 / s, rel=1e-4)


@pytest.mark.parametrize("kind", REFERENCE)
@pytest.mark.parametrize("signed", [False, True])
def test_outputs_by_their_formulas(kind: str, signed: bool):
    h = torch.linspace(-3, 3, 25).view(1, 1, 5, 5)
    moved = (h + 1) / 2 if signed else h
    expected = {
        "identity": moved,
        "sigmoid": 1 / (1 + (-h).exp()),
        "relu": moved.clamp(min=0),
        "leaky_relu": torch.where(moved > 0, moved, 0.01 * moved),
    }
    assert expected.keys() == likelihoods.OUTPUTS.keys()
    for output, location in expected.items():
        spec = {"kind": kind, "output": output, "signed": signed}
        one: Any = likelihood_of({**spec, "x_var": "fixed", "value": 0.1})
        torch.testing.assert_close(one.location(h), location)
        two: Any = likelihood_of({**spec, "x_var": "per_pixel"})
        parameters = torch.cat([h, torch.randn_like(h)], dim=1)
        torch.testing.assert_close(two.location(parameters), location)
        x = torch.rand(1, 1, 5, 5)
        expected_log_prob = REFERENCE[kind](location.double(), torch.tensor(0.1).double(), (x * 255).round() / 255)
        got = one.log_prob((x * 255).round() / 255, h)
        torch.testing.assert_close(got.double(), expected_log_prob.sum()[None], rtol=1e-4, atol=1e-4)


def test_bernoulli_is_the_cross_entropy_of_the_pixels():
    likelihood = likelihood_of({"kind": "bernoulli", "targets": "pixels"})
    x, logits = torch.rand(SHAPE), 3 * torch.randn(SHAPE)
    p = torch.sigmoid(logits.double())
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum(dim=(1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(x, logits).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(-F.binary_cross_entropy(p, x.double(), reduction="sum"), expected.sum())
    black_and_white = (x > 0.5).float()
    drawn = torch.distributions.Bernoulli(logits=logits).log_prob(black_and_white).sum(dim=(1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(black_and_white, logits), drawn)
    torch.testing.assert_close(likelihood.mean(logits).double(), p, rtol=1e-5, atol=1e-6)
    assert not likelihood.binarizes
    assert likelihood_of({"kind": "bernoulli", "targets": "binarized"}).binarizes


LOGITS = [-20.0, -5.0, -0.5, -0.021, -0.0199, -0.001, 0.0, 1e-6, 0.0199, 0.02, 0.0201, 0.1, 1.0, 7.0, 20.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_bernoulli_is_that_of_torch_distributions_on_both_sides_of_the_switch(dtype: torch.dtype):
    logits = torch.tensor(LOGITS, dtype=torch.float64).view(-1, 1, 1, 1)
    theirs = TorchContinuousBernoulli(logits=logits)
    ours = ContinuousBernoulli()
    close: dict[str, Any] = {"rtol": 1e-8, "atol": 2e-9} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    for pixel in (0.0, 0.3, 1.0):
        x = torch.full_like(logits, pixel)
        got = ours.log_prob(x.to(dtype), logits.to(dtype)).double()
        torch.testing.assert_close(got, theirs.log_prob(x).flatten(), **close)
    # The mean at 0.02 is a difference of two numbers near 50.
    torch.testing.assert_close(ours.mean(logits.to(dtype)).double(), theirs.mean, rtol=0, atol=max(close["atol"], 2e-8))


def test_continuous_bernoulli_is_a_density_with_this_mean():
    x = torch.linspace(0, 1, 10001, dtype=torch.float64).view(-1, 1, 1, 1)
    for logit in (-12.0, -1.0, 0.0, 0.01, 0.3, 30.0):
        logits = torch.full_like(x, logit)
        density = ContinuousBernoulli().log_prob(x, logits).exp()
        assert torch.trapezoid(density, dx=1e-4).item() == pytest.approx(1, abs=2e-6)
        mean = ContinuousBernoulli().mean(logits)[0].item()
        assert torch.trapezoid(density * x.flatten(), dx=1e-4).item() == pytest.approx(mean, abs=2e-6)


@pytest.mark.parametrize("logit", [-100.0, -20.0, -1.0, -0.01, 0.0, 0.01, 1.0, 20.0, 100.0])
def test_gradients_of_continuous_bernoulli_are_finite_and_right(logit: float):
    # d(mean)/dl is the variance, and d(ln p)/dl is x - mean: an exponential family.
    logits = torch.full((1, 1, 1, 1), logit, requires_grad=True)
    mean = ContinuousBernoulli().mean(logits)
    (to_mean,) = torch.autograd.grad(mean.sum(), logits)
    (to_log_prob,) = torch.autograd.grad(ContinuousBernoulli().log_prob(torch.full_like(logits, 0.3), logits), logits)
    assert to_log_prob.item() == pytest.approx(0.3 - mean.item(), abs=1e-4)
    x = torch.linspace(0, 1, 20001, dtype=torch.float64)
    weights = (logit * x - max(logit, 0.0)).exp()
    exact = torch.trapezoid(weights * x, x) / torch.trapezoid(weights, x)
    variance = torch.trapezoid(weights * (x - exact).square(), x) / torch.trapezoid(weights, x)
    assert mean.item() == pytest.approx(exact.item(), abs=1e-4)
    assert to_mean.item() == pytest.approx(variance.item(), rel=1e-2, abs=1e-5)


def test_each_likelihood_says_what_its_log_prob_is_of():
    measures = {kind: likelihood.measure for kind, likelihood in likelihoods.KINDS.items()}
    assert measures == {
        "gaussian": "density",
        "laplace": "density",
        "discretized_logistic": "levels",
        "bernoulli": "binary",
        "continuous_bernoulli": "density",
    }


def likelihood_from(config: Config) -> Likelihood:
    return likelihood_of(resolve(config, (1, 8, 8), 3, []).likelihood)


@pytest.mark.parametrize("kind", REFERENCE)
def test_a_likelihood_comes_from_the_settings(kind: str):
    config = tiny_config(likelihood__kind=kind, x_var__value=0.4, model__output="sigmoid")
    made = likelihood_from(config)
    assert type(made) is likelihoods.KINDS[kind]
    assert made.get_buffer("log_x_var").item() == pytest.approx(math.log(0.4))
    assert made.mean(torch.zeros(1, 1, 8, 8)).unique().tolist() == [0.5]
    learned = likelihood_from(tiny_config(likelihood__kind=kind, x_var__kind="learned", x_var__value=0.4))
    assert learned.get_parameter("log_x_var").item() == pytest.approx(math.log(0.4))
    per_pixel = likelihood_from(tiny_config(likelihood__kind=kind, x_var__kind="per_pixel", x_var__value=None))
    assert per_pixel.n_parameters == 2


def test_a_likelihood_of_signed_pixels_comes_from_the_settings():
    made = likelihood_from(tiny_config(model__pixels="signed"))
    assert made.mean(torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)).flatten().tolist() == [0.0, 0.5, 1.0]
