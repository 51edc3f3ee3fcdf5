"""The objectives against torch.distributions, double loops in double precision and hand calculation."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tests.conftest import tiny_config
from vae import objectives
from vae.config import Beta, ConfigError
from vae.likelihoods import Gaussian
from vae.objectives import (
    BetaTc,
    Capacity,
    Iwae,
    Mmd,
    beta_schedule,
    effective_x_var,
    elbo,
    objective_of,
    per_dim,
)
from vae.priors import Mixture, Prior, Standard
from vae.terms import Terms, squared_error

B, K, SHAPE = 5, 3, (2, 3, 2)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def terms_of(
    n_samples: int = 2,
    beta: float = 1.0,
    progress: float = 0.0,
    prior: Prior | None = None,
    noise: Mapping[str, Tensor] | None = None,
    **tensors: Tensor,
) -> Terms:
    """Terms with random numbers in double precision; z are samples of q."""
    random: dict[str, Any] = {
        "x": torch.rand(B, *SHAPE).double(),
        "parameters": torch.rand(n_samples, B, *SHAPE).double(),
        "log_px": torch.randn(n_samples, B).double(),
        "mu": torch.randn(B, K).double(),
        "logvar": torch.randn(B, K).double(),
    }
    random["z"] = random["mu"] + (0.5 * random["logvar"]).exp() * torch.randn(n_samples, B, K).double()
    random |= tensors
    return Terms(
        **random,
        likelihood=Gaussian(output="sigmoid"),
        prior=prior or Standard(K),
        beta=number(beta),
        progress=number(progress),
        noise=noise or {},
    )


def exact(terms: Terms) -> Tensor:
    """KL(q || N(0, I)) of each image by torch.distributions."""
    standard = Normal(torch.zeros_like(terms.mu), 1.0)
    return kl_divergence(Normal(terms.mu, (0.5 * terms.logvar).exp()), standard).sum(dim=1)


def sampled(terms: Terms, s: int = 0) -> Tensor:
    """ln q(z|x) - ln p(z) of sample s by torch.distributions."""
    q, p = Normal(terms.mu, (0.5 * terms.logvar).exp()), Normal(torch.zeros_like(terms.mu), 1.0)
    return (q.log_prob(terms.z[s]) - p.log_prob(terms.z[s])).sum(dim=1)


def test_the_terms_by_torch_distributions():
    terms = terms_of(n_samples=4)
    q = Normal(terms.mu, (0.5 * terms.logvar).exp())
    torch.testing.assert_close(terms.log_qz, q.log_prob(terms.z).sum(dim=2))
    torch.testing.assert_close(terms.log_pz, Normal(number(0.0), 1.0).log_prob(terms.z).sum(dim=2))
    torch.testing.assert_close(terms.kl, exact(terms))
    by_hand = [((terms.x[b] - torch.sigmoid(terms.parameters[0, b])) ** 2).sum().item() for b in range(B)]
    assert terms.sse.tolist() == pytest.approx(by_hand)


def test_the_kl_to_a_mixture_is_the_mean_over_samples():
    prior = Mixture(K, 1).double()
    prior.mu.data.zero_()  # one standard Gaussian
    terms = terms_of(n_samples=3, prior=prior)
    torch.testing.assert_close(terms.kl, torch.stack([sampled(terms, s) for s in range(3)]).mean(dim=0))


def test_elbo_by_hand():
    terms = terms_of(n_samples=3, beta=2.5)
    by_hand = np.mean([2.5 * exact(terms)[b].item() - terms.log_px[:, b].mean().item() for b in range(B)])
    assert elbo(terms).item() == pytest.approx(by_hand)


def test_per_dim_by_hand():
    terms = terms_of(n_samples=1, beta=0.5)
    sse = (terms.x - torch.sigmoid(terms.parameters[0])).square().sum().item() / B
    assert per_dim(terms).item() == pytest.approx(sse / 12 + 0.5 * exact(terms).mean().item() / K)


def gradients(loss: Callable[[Terms], Tensor], x_var: float, beta: float) -> list[Tensor]:
    """Of a loss with a Gaussian likelihood, in mu, logvar and the decoder's output."""
    torch.manual_seed(3)
    x, h = torch.rand(B, *SHAPE).double(), torch.rand(1, B, *SHAPE).double().requires_grad_()
    mu, logvar = (torch.randn(B, K).double().requires_grad_() for _ in range(2))
    likelihood = Gaussian(value=x_var, output="sigmoid").double()
    log_px = likelihood.log_prob(x, h[0])[None]
    z = torch.zeros(1, B, K).double()
    terms = terms_of(1, beta, x=x, parameters=h, log_px=log_px, mu=mu, logvar=logvar, z=z)
    return list(torch.autograd.grad(loss(terms), [mu, logvar, h]))


@pytest.mark.parametrize(("x_var", "beta"), [(0.01, 1.0), (0.1, 4.0), (2.0, 0.3)])
def test_elbo_at_x_var_and_beta_has_the_gradient_of_elbo_at_one_and_their_product(x_var: float, beta: float):
    both, product = gradients(elbo, x_var, beta), gradients(elbo, 1.0, beta * x_var)
    torch.testing.assert_close([x_var * grad for grad in both], product, rtol=1e-6, atol=1e-9)


def test_per_dim_has_the_gradient_of_elbo_at_its_effective_x_var():
    config = tiny_config(objective__kind="per_dim", beta__value=0.7)
    x_var = effective_x_var(config, None, 12, K)
    assert x_var is not None
    ours, theirs = gradients(per_dim, 1.0, 0.7), gradients(elbo, x_var, 1.0)
    torch.testing.assert_close([grad * K / 0.7 for grad in ours], theirs, rtol=1e-6, atol=1e-9)


def test_iwae_with_one_sample_is_the_elbo_with_the_kl_of_that_sample():
    terms = terms_of(n_samples=1, beta=7.0)  # which iwae does not have
    assert Iwae(1)(terms).item() == pytest.approx((sampled(terms) - terms.log_px[0]).mean().item())


def test_iwae_by_hand():
    terms = terms_of(n_samples=4)
    weights = [(terms.log_px[s] - sampled(terms, s)).exp() for s in range(4)]
    assert Iwae(4)(terms).item() == pytest.approx(-(sum(weights, number(0.0)) / 4).log().mean().item())
    assert Iwae(4)(terms_of(4, log_px=torch.full((4, B), -1e4).double())).isfinite()


class Linear:
    """x = W z + offset + noise with known evidence, and posteriors that are not the exact ones."""

    def __init__(self, z_dim: int, exact_posterior: bool = False) -> None:
        d, self.variance = 12, 0.3
        self.weight, self.offset = torch.randn(d, z_dim).double(), torch.randn(d).double()
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(d).double()
        evidence = MultivariateNormal(self.offset, covariance)
        self.x = evidence.sample((B,))
        self.log_px = evidence.log_prob(self.x)  # (B,)
        precision = torch.eye(z_dim).double() + self.weight.T @ self.weight / self.variance
        self.mu = (self.x - self.offset) @ self.weight @ precision.inverse() / self.variance  # (B, k)
        self.logvar = -precision.diagonal().log().expand_as(self.mu)
        if not exact_posterior:
            self.mu, self.logvar = self.mu + 0.1, self.logvar + 0.7

    def terms(self, n_samples: int) -> Terms:
        k = self.mu.shape[1]
        z = self.mu + (0.5 * self.logvar).exp() * torch.randn(n_samples, B, k).double()
        log_px = Normal(z @ self.weight.T + self.offset, math.sqrt(self.variance)).log_prob(self.x).sum(dim=2)
        return terms_of(n_samples, prior=Standard(k), mu=self.mu, logvar=self.logvar, z=z, log_px=log_px)


@pytest.mark.parametrize("n_samples", [1, 5])
def test_iwae_with_the_exact_posterior_is_the_evidence(n_samples: int):
    model = Linear(1, exact_posterior=True)
    assert Iwae(n_samples)(model.terms(n_samples)).item() == pytest.approx(-model.log_px.mean().item(), rel=1e-9)


def test_iwae_rises_with_the_samples_to_the_evidence():
    model = Linear(2)
    terms = model.terms(8192)

    def bound(n_samples: int) -> float:
        """The mean bound over all groups of samples: more in a group can only raise it."""
        parts = [
            Iwae(n_samples)(
                terms_of(n_samples, mu=terms.mu, logvar=terms.logvar, prior=terms.prior, z=z, log_px=log_px)
            )
            for z, log_px in zip(terms.z.split(n_samples), terms.log_px.split(n_samples), strict=True)
        ]
        return -torch.stack(parts).mean().item()

    bounds = [bound(n_samples) for n_samples in (8, 64, 512, 8192)]
    assert bounds == sorted(bounds)
    assert bounds[0] < model.log_px.mean().item() - 1e-3
    log_w = terms.log_px + terms.log_pz - terms.log_qz
    relative = (log_w - model.log_px).exp()  # with mean 1
    error = (relative.var(dim=0) / 8192).sum().sqrt().item() / B
    assert bounds[-1] == pytest.approx(model.log_px.mean().item(), abs=5 * error)
    assert error < 0.01


def parts_by_loops(terms: Terms, n_train: int) -> tuple[float, float, float]:
    """Mutual information, total correlation and the KLs of the dimensions, one sample at a time."""
    q = Normal(terms.mu, (0.5 * terms.logvar).exp())
    information, correlation, dimensions = 0.0, 0.0, 0.0
    for i in range(B):
        z = terms.z[0, i]
        joint, single = 0.0, [0.0] * K
        for j in range(B):
            log_q = [Normal(q.mean[j, d], q.stddev[j, d]).log_prob(z[d]).item() for d in range(K)]
            joint += math.exp(sum(log_q)) / (B * n_train)
            single = [total + math.exp(one) / (B * n_train) for total, one in zip(single, log_q, strict=True)]
        log_marginals = sum(math.log(one) for one in single)
        own = q.log_prob(terms.z[0])[i].sum().item()
        information += (own - math.log(joint)) / B
        correlation += (math.log(joint) - log_marginals) / B
        dimensions += (log_marginals - Normal(number(0.0), 1.0).log_prob(z).sum().item()) / B
    return information, correlation, dimensions


@pytest.mark.parametrize("n_train", [B, 1000])
def test_beta_tc_at_beta_one_is_the_elbo_with_the_kl_of_one_sample(n_train: int):
    terms = terms_of(n_samples=1)
    assert BetaTc(n_train)(terms).item() == pytest.approx((sampled(terms) - terms.log_px[0]).mean().item(), rel=1e-12)


@pytest.mark.parametrize("n_train", [B, 1000])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_beta_tc_weights_the_total_correlation_of_a_double_loop(n_train: int, beta: float):
    terms = terms_of(n_samples=1, beta=beta)
    information, correlation, dimensions = parts_by_loops(terms, n_train)
    assert information + correlation + dimensions == pytest.approx(sampled(terms).mean().item())
    expected = information + beta * correlation + dimensions - terms.log_px[0].mean().item()
    assert BetaTc(n_train)(terms).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 1000.0), (0.0, 1.0), (0.0, 3.0), (-2.0, 10.0)])
@pytest.mark.parametrize("mixture", [False, True])
def test_mmd_is_that_of_a_double_loop(alpha: float, weight: float, mixture: bool):
    prior: Prior = Mixture(K, 4).double() if mixture else Standard(K)
    noise = {"prior": torch.randn(B, K).double(), "chance": torch.rand(B).double()}
    terms = terms_of(1, 9.0, prior=prior, noise=noise)  # beta has no part
    drawn = prior.sample(noise["prior"], noise["chance"])

    def kernel(a: Tensor, b: Tensor) -> float:
        return np.mean([[math.exp(-((u - v) ** 2).sum().item() / (2 * K)) for u in a] for v in b]).item()

    z = terms.z[0]
    discrepancy = kernel(z, z) + kernel(drawn, drawn) - 2 * kernel(z, drawn)
    kl = terms.log_qz[0] - prior.log_prob(z) if mixture else exact(terms)
    expected = -terms.log_px.mean() + (1 - alpha) * kl.mean() + (alpha + weight - 1) * discrepancy
    assert Mmd(alpha, weight)(terms).item() == pytest.approx(expected.item())
    assert Mmd.draws_prior


def test_the_mmd_of_equal_samples_is_zero_and_of_distant_ones_large():
    z = torch.randn(1, B, K).double()
    noise = {"prior": z[0], "chance": torch.rand(B).double()}
    same = Mmd(1.0, 500.0)(terms_of(1, z=z, noise=noise, log_px=torch.zeros(1, B).double()))
    assert same.item() == pytest.approx(0, abs=1e-9)
    # So far apart that the kernel between the two is 0: what is left are the means of the kernels within them.
    apart = Mmd(1.0, 500.0)(terms_of(1, z=z + 100, noise=noise, log_px=torch.zeros(1, B).double()))
    within = (-torch.cdist(z[0], z[0]).square() / (2 * K)).exp().mean()
    assert apart.item() == pytest.approx(500 * 2 * within.item())


@pytest.mark.parametrize(
    ("progress", "ramp", "share"),
    [(0.0, 0.5, 0.0), (0.25, 0.5, 0.5), (0.5, 0.5, 1.0), (0.8, 0.5, 1.0), (0.25, 1.0, 0.25), (1.0, 1.0, 1.0)],
)
def test_capacity_grows_linearly_and_then_stays(progress: float, ramp: float, share: float):
    terms = terms_of(n_samples=2, beta=7.0, progress=progress)  # beta has no part
    kl = exact(terms).mean().item()
    for nats in (0.5 * kl, 4 * kl):  # the KL is above and, at the end, below
        expected = 30 * abs(kl - nats * share) - terms.log_px.mean().item()
        assert Capacity(30.0, nats, ramp)(terms).item() == pytest.approx(expected)


def test_the_objective_of_each_kind_has_the_arguments_of_its_settings():
    assert objective_of(tiny_config(), 300) is elbo
    assert objective_of(tiny_config(objective__kind="per_dim"), 300) is per_dim
    iwae = objective_of(tiny_config(objective__kind="iwae", objective__samples=5), 300)
    assert isinstance(iwae, Iwae)
    assert iwae.samples == 5
    beta_tc = objective_of(tiny_config(objective__kind="beta_tc"), 300)
    assert isinstance(beta_tc, BetaTc)
    assert beta_tc.n_train == 300
    mmd = objective_of(tiny_config(objective__kind="mmd", objective__alpha=-0.5, objective__weight=4.0), 300)
    assert isinstance(mmd, Mmd)
    assert (mmd.alpha, mmd.weight) == (-0.5, 4.0)
    config = tiny_config(objective__kind="capacity", objective__gamma=2.0)
    config.objective.nats, config.objective.ramp = 25.0, 0.4
    capacity = objective_of(config, 300)
    assert isinstance(capacity, Capacity)
    assert (capacity.gamma, capacity.nats, capacity.ramp) == (2.0, 25.0, 0.4)


OWN = """
def scaled(terms, scale=1.0):
    return scale * terms.log_px.mean()

def many(terms):
    return terms.log_px.mean()

many.samples, many.draws_prior = 6, True

class Power:
    samples = 4

    def __init__(self, power):
        self.power = power

    def __call__(self, terms):
        return terms.kl.mean() ** self.power
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., objectives.Objective]:
    """The objective of a specification that names something in a module of your own."""
    (tmp_path / "own_objectives.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, **arguments: Any) -> objectives.Objective:
        part = {"_target_": f"own_objectives.{name}", **arguments}
        return objective_of(tiny_config(objective__kind="custom", objective__part=part), 300)

    return make


def test_an_objective_of_your_own_is_a_function_with_its_arguments(own: Callable[..., objectives.Objective]):
    terms = terms_of()
    assert own("scaled")(terms).item() == pytest.approx(terms.log_px.mean().item())
    assert own("scaled", scale=-3.0)(terms).item() == pytest.approx(-3 * terms.log_px.mean().item())


def test_an_objective_of_your_own_is_a_class_with_its_arguments(own: Callable[..., objectives.Objective]):
    terms = terms_of()
    power: Any = own("Power", power=3)
    assert power(terms).item() == pytest.approx(exact(terms).mean().item() ** 3)
    assert power.samples == 4


def test_a_function_of_your_own_keeps_its_attributes(own: Callable[..., objectives.Objective]):
    many: Any = own("many")
    assert getattr(many, "samples", 1) == 6
    assert getattr(many, "draws_prior", False)


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("Power", {}, "'power'"),
        ("Power", {"power": 2, "scale": 3}, "'scale'"),
        ("scaled", {"scales": 3}, "'scales'"),
        ("nothing", {}, "the module own_objectives has no nothing"),
    ],
)
def test_an_objective_of_your_own_that_cannot_be_made_is_one_line(
    own: Callable[..., objectives.Objective], name: str, arguments: dict[str, Any], part: str
):
    with pytest.raises(ConfigError) as caught:
        own(name, **arguments)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_effective_x_var_of_both_objectives():
    assert effective_x_var(tiny_config(x_var__value=0.01, beta__value=4.0), 0.01, 784, 20) == pytest.approx(0.04)
    config = tiny_config(objective__kind="per_dim", beta__value=0.1)
    assert effective_x_var(config, 0.1, 3072, 100) == pytest.approx(0.1 * 3072 / 200)
    assert effective_x_var(config, None, 3072, 100) == pytest.approx(0.1 * 3072 / 200)


def test_other_losses_have_no_effective_x_var():
    assert effective_x_var(tiny_config(), None, 784, 20) is None
    for change in (
        {"likelihood__kind": "laplace"},
        {"likelihood__kind": "bernoulli", "objective__kind": "elbo"},
        {"prior__kind": "mixture"},
        {"prior__kind": "vamp", "objective__kind": "per_dim"},
        {"objective__kind": "iwae"},
        {"objective__kind": "beta_tc"},
        {"objective__kind": "mmd"},
        {"objective__kind": "capacity"},
        {"objective__kind": "custom"},
    ):
        assert effective_x_var(tiny_config(**change), 0.1, 784, 20) is None


def test_beta_schedules_by_hand():
    constant = beta_schedule(Beta(value=0.5), epochs=2, steps_per_epoch=2)
    assert constant.tolist() == [0.5] * 4
    warmup = beta_schedule(Beta("warmup", 2.0, epochs=2.0), epochs=4, steps_per_epoch=2)
    assert warmup.tolist() == [0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    cyclical = beta_schedule(Beta("cyclical", 1.0, cycles=2, ramp=0.5), epochs=4, steps_per_epoch=2)
    np.testing.assert_allclose(cyclical, [0, 0.5, 1, 1, 0, 0.5, 1, 1])


def test_squared_error_by_hand():
    x, x_hat = torch.rand(2, 3, *SHAPE), torch.rand(2, 3, *SHAPE)
    expected = [[np.sum((x[i, j].numpy() - x_hat[i, j].numpy()) ** 2) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(squared_error(x, x_hat), expected, rtol=1e-5)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        squared_error(torch.zeros(4, 1, 3, 4), torch.zeros(4, 1, 3, 1))
    with pytest.raises(ValueError, match=r"x \(4, 1, 3, 4\) and x_hat \(1, 3, 4\) differ in shape"):
        squared_error(torch.zeros(4, 1, 3, 4), torch.zeros(1, 3, 4))
