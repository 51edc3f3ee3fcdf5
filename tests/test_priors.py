"""The priors against torch.distributions and, in one dimension, numerical integration."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from tests.conftest import tiny_config
from vae import priors
from vae.likelihoods import Gaussian
from vae.model import VAE, build, resolve
from vae.priors import Mixture, Prior, Standard, Vamp, exact_kl, gaussian_kl, gaussian_log_prob, prior_of
from vae.terms import Terms

MANY = 200_000
IMAGE = (2, 3, 4)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def never(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError


def mixture(z_dim: int = 3, components: int = 4) -> Mixture:
    """A mixture with components of different widths."""
    prior = Mixture(z_dim, components).double()
    prior.mu.data = 2 * torch.randn(components, z_dim).double()
    prior.logvar.data = torch.randn(components, z_dim).double()
    return prior


def vamp(pixels: str | None = None, placement: str = "both", components: int = 4) -> VAE:
    """A linear VAE whose prior has pseudo-inputs that are not all alike."""
    config = tiny_config(prior__kind="vamp", prior__components=components, label_placement__kind=placement)
    config.model.kind, config.model.hidden, config.model.activation = "linear", None, None
    config.model.pixels, config.label_repeat.value, config.z_dim.value = pixels, 2, 3
    model = build(resolve(config, IMAGE, 5, []), 0)
    model.get_parameter("encoder.logvar").data = torch.randn(3)
    return model


def mixture_of(mu: Tensor, logvar: Tensor) -> MixtureSameFamily:
    each = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mu), dtype=mu.dtype)), each)


def assert_mean(values: Tensor, exact: Tensor) -> None:
    """The mean over rows is the exact one within 5 standard errors."""
    error = values.std(dim=0) / math.sqrt(len(values))
    assert ((values.mean(dim=0) - exact).abs() <= 5 * error).all()


def drawn(prior: Prior, z_dim: int) -> Tensor:
    with torch.no_grad():
        return prior.sample(torch.randn(MANY, z_dim, dtype=torch.float64), torch.rand(MANY, dtype=torch.float64))


def test_kl_is_that_of_torch_distributions():
    mu, logvar = torch.randn(2, 5, 3, dtype=torch.float64)
    q, p = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), 1.0)
    torch.testing.assert_close(gaussian_kl(mu, logvar), kl_divergence(q, p))
    torch.testing.assert_close(Standard(3).kl(mu, logvar), kl_divergence(q, p).sum(dim=1))
    torch.testing.assert_close(exact_kl(Standard(3), mu, logvar), kl_divergence(q, p).sum(dim=1))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"mu \(4, 3\) and logvar \(1, 3\) differ in shape"):
        gaussian_kl(torch.zeros(4, 3), torch.zeros(1, 3))


def test_log_prob_of_a_gaussian_is_that_of_torch_distributions():
    z, mu, logvar = torch.randn(3, 2, 5, 3, dtype=torch.float64)
    expected = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(dim=-1)
    torch.testing.assert_close(gaussian_log_prob(z, mu, logvar), expected)


def test_log_prob_of_the_standard_prior_is_that_of_torch_distributions():
    z = 3 * torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(Standard(5).log_prob(z), Normal(torch.zeros(5).double(), 1.0).log_prob(z).sum(dim=1))


def test_log_prob_of_a_mixture_is_that_of_torch_distributions():
    prior, z = mixture(), 3 * torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(z), mixture_of(prior.mu, prior.logvar).log_prob(z))
    far = torch.full((1, 3), 1e3, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(far), mixture_of(prior.mu, prior.logvar).log_prob(far))


def test_a_mixture_of_one_standard_gaussian_is_the_standard_prior():
    prior, z = Mixture(3, 1), torch.randn(7, 3)
    prior.mu.data.zero_()
    torch.testing.assert_close(prior.log_prob(z), Standard(3).log_prob(z))
    assert torch.equal(prior.sample(z, torch.rand(7)), z)


def test_a_mixture_starts_with_unit_variances_and_means_drawn_from_the_standard_gaussian():
    prior = Mixture(100, 200)
    assert prior.mu.shape == prior.logvar.shape == (200, 100)
    assert not prior.logvar.any()
    assert_mean(prior.mu.detach().flatten()[:, None], torch.zeros(1))
    assert_mean(prior.mu.detach().flatten()[:, None].square(), torch.ones(1))


@pytest.mark.parametrize("kind", ["standard", "mixture", "vamp"])
def test_samples_have_the_moments_of_the_prior(kind: str):
    if kind == "standard":
        prior, mu, var = Standard(3), torch.zeros(1, 3).double(), torch.ones(1, 3).double()
    else:
        made: Any = mixture() if kind == "mixture" else vamp().double().prior
        prior = made
        mu, var = made.components()[0].detach(), made.components()[1].detach().exp()
    z = drawn(prior, 3)
    assert z.shape == (MANY, 3)
    assert_mean(z, mu.mean(dim=0))
    second = (torch.diag_embed(var) + mu[:, :, None] * mu[:, None, :]).mean(dim=0)
    assert_mean((z[:, :, None] * z[:, None, :]).flatten(1), second.flatten())
    assert_mean(z.pow(3), (mu.pow(3) + 3 * mu * var).mean(dim=0))


def test_each_component_of_a_mixture_is_drawn_as_often_with_its_own_mean_and_spread():
    prior = mixture()
    n = len(prior.mu)
    chance = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    noise = torch.randn(1000, 3, dtype=torch.float64)
    with torch.no_grad():
        z = prior.sample(noise, chance).view(n, -1, 3)
        expected = prior.mu[:, None] + prior.logvar.exp().sqrt()[:, None] * noise.view(n, -1, 3)
        last = prior.sample(noise[:1], torch.ones(1, dtype=torch.float64))
        torch.testing.assert_close(last, prior.mu[-1:] + prior.logvar[-1:].exp().sqrt() * noise[:1])
    torch.testing.assert_close(z, expected)


@pytest.mark.parametrize("pixels", [None, "signed"])
def test_the_components_of_vamp_are_the_posteriors_of_its_pseudo_inputs(pixels: str | None):
    model = vamp(pixels)
    prior: Any = model.prior
    assert prior.logits.shape == (4, *IMAGE)
    labels = torch.tensor([3, 0, 4, 1])
    prior.class_logits.data = 1e4 * torch.eye(5)[labels]  # softmax makes them one-hot
    images = 1 / (1 + (-prior.logits.detach()).exp())
    torch.testing.assert_close(prior.components(), model.encode(images, labels))
    z = torch.randn(6, 3)
    torch.testing.assert_close(prior.log_prob(z), mixture_of(*model.encode(images, labels)).log_prob(z))


def test_a_pseudo_label_of_vamp_weights_the_classes():
    model = vamp()
    prior: Any = model.prior
    weights = prior.class_logits.exp() / prior.class_logits.exp().sum(dim=1, keepdim=True)
    images = torch.sigmoid(prior.logits)
    # The encoder is linear, so that its mean is the weighted mean of the classes'.
    of_class = torch.stack([model.encode(images, torch.full((4,), c))[0] for c in range(5)])
    torch.testing.assert_close(prior.components()[0], torch.einsum("mc,cmk->mk", weights, of_class))


def test_vamp_has_no_pseudo_labels_if_the_encoder_does_not_receive_the_label():
    model = vamp(placement="decoder")
    prior: Any = model.prior
    assert [name for name, _ in prior.named_parameters()] == ["logits"]
    expected = model.encode(torch.sigmoid(prior.logits), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(prior.components(), expected)


def test_vamp_trains_its_pseudo_inputs_and_the_encoder():
    model = vamp()
    model.prior.log_prob(torch.randn(6, 3)).sum().backward()
    for name in ("prior.logits", "prior.class_logits", "encoder.net.weight", "encoder.logvar"):
        grad = model.get_parameter(name).grad
        assert grad is not None
        assert grad.abs().max() > 0


def test_there_is_no_closed_form_of_the_kl_to_a_mixture():
    mu, logvar = torch.randn(2, 5, 3)
    assert exact_kl(Mixture(3), mu, logvar) is None
    assert exact_kl(vamp().prior, mu, logvar) is None


def in_one_dimension() -> dict[str, Prior]:
    encoded = (torch.tensor([[-1.0], [0.5], [3.0]]).double(), torch.tensor([[-2.0], [0.3], [-1.0]]).double())
    return {"mixture": mixture(1, 3), "vamp": Vamp(1, IMAGE, 0, lambda x, weights: encoded, 3), "standard": Standard(1)}


@pytest.mark.parametrize("kind", ["standard", "mixture", "vamp"])
def test_the_kl_estimated_from_samples_is_the_integral(kind: str):
    prior = in_one_dimension()[kind]
    closed_form = exact_kl(prior, torch.zeros(1, 1), torch.zeros(1, 1)) is not None
    mu = torch.tensor([[-1.5], [0.0], [2.0]], dtype=torch.float64)
    logvar = torch.tensor([[-3.0], [0.0], [0.7]], dtype=torch.float64)
    z = mu + (0.5 * logvar).exp() * torch.randn(MANY, 3, 1, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    nothing = torch.zeros(3, 1, 1, 1)
    terms = Terms(nothing, nothing[None], Gaussian(), zero, mu, logvar, z, prior, zero, zero, {})
    with torch.no_grad():
        estimate, ratio = terms.kl, terms.log_qz - terms.log_pz
        grid = torch.linspace(-30, 30, 60001, dtype=torch.float64)
        q = Normal(mu, (0.5 * logvar).exp())
        p = Normal(torch.zeros(1).double(), 1.0) if kind == "standard" else None
        log_p = p.log_prob(grid) if p else mixture_of(*_components(prior)).log_prob(grid[:, None])
        integral = torch.trapezoid(q.log_prob(grid).exp() * (q.log_prob(grid) - log_p), grid)  # (3,)
    error = ratio.std(dim=0) / math.sqrt(MANY)
    assert ((ratio.mean(dim=0) - integral).abs() <= 5 * error + 1e-9).all()
    torch.testing.assert_close(estimate, integral if closed_form else ratio.mean(dim=0))


def _components(prior: Any) -> tuple[Tensor, Tensor]:
    mu, logvar = prior.components()
    return mu, logvar


MAKERS: dict[str, Callable[[], Prior]] = {
    "standard": lambda: prior_of({"kind": "standard"}, 3, IMAGE, 5, never),
    "mixture": lambda: prior_of({"kind": "mixture", "components": 7}, 3, IMAGE, 5, never),
    "vamp": lambda: prior_of({"kind": "vamp", "components": 7}, 3, IMAGE, 5, never),
}


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("standard", {}),
        ("mixture", {"mu": (7, 3), "logvar": (7, 3)}),
        ("vamp", {"logits": (7, *IMAGE), "class_logits": (7, 5)}),
    ],
)
def test_a_prior_has_the_parameters_of_its_specification(kind: str, shapes: dict[str, tuple[int, ...]]):
    prior = MAKERS[kind]()
    assert type(prior) is priors.KINDS[kind]
    assert {name: tuple(p.shape) for name, p in prior.named_parameters()} == shapes


def test_a_prior_of_your_own_gets_z_dim_and_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wide_prior.py").write_text(WIDE)
    monkeypatch.syspath_prepend(tmp_path)
    prior = prior_of({"kind": "custom", "part": {"_target_": "wide_prior.Wide", "scale": 2.5}}, 3, IMAGE, 5, never)
    assert type(prior).__name__ == "Wide"
    assert vars(prior)["given"] == (3, 2.5)


WIDE = """
from torch import nn

class Wide(nn.Module):
    def __init__(self, z_dim, scale):
        super().__init__()
        self.given = z_dim, scale
"""
