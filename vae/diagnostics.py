"""Where a run's posteriors lie: what they tell about the image, how they fill the prior, how tight the bound is.

Over the held-out images n = 1..M let q(z) = (1/M)·sum of q(z|x_n, y_n), the aggregate posterior. The mean KL, the term
that training pays for, splits exactly (Hoffman and Johnson 2016, "ELBO surgery"):

    KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)),

what z tells about which image it was, and how unlike the prior all the posteriors together are. Collapse is
I(x; z) = 0. The hole is KL(q(z) || p(z)) >> 0: samples z ~ p(z) then fall where the decoder was never trained.

M images cannot show more than I(x; z) = ln M, and where KL > ln M the rest lands in the second term, good model or bad.
So, but for Monte-Carlo noise, `mutual_information` is a lower bound on that of the whole data distribution (Poole et
al. 2019) and `aggregate_kl` an upper one. A lower one is `aggregate_gaussian_kl`, the KL of the Gaussian N(m, S) with
the moments of q(z): it knows no ceiling, and KL(q(z) || p(z)) = KL(q(z) || N(m, S)) + KL(N(m, S) || p(z)) holds
exactly, since ln N(m, S)/p is quadratic in z and so has the same mean under both.

Conditional VAEs: the prior N(0, I) is the same for every class, and so q(z) is that of all classes together, each
posterior seeing its own image's label where the encoder does. A class's own posteriors may still miss the prior where
q(z) does not. (The same estimate for each class would not tell: narrow posteriors never overlap, of one class or two.)

All in nats. Pixels in [0, 1].
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vae import objective
from vae.layers import generator
from vae.model import Mlp
from vae.stack import Stack
from vae.train import pixels

MAX_IMAGES = 2000  # M, at most: time grows with its square, and the ceiling only with its logarithm
IW_IMAGES = 250  # of these, those whose importance-weighted bound is taken, which is most of the time spent here
IW_SAMPLES = 64
CHUNK = 500  # images encoded, and rows of the matrix of log densities, at a time: 500 x 2000 float64 are 8 MB


@torch.no_grad()
def diagnose(stack: Stack, images: Tensor, labels: Tensor, iw_samples: int = IW_SAMPLES) -> list[dict[str, Any]]:
    """Each run's diagnostics on one set of images, the same images for every run.

    Args:
        images: (N, D) uint8, on the stack's device.
        labels: (N,) int64, likewise.
        iw_samples: z of each image for the importance-weighted bound.

    Returns:
        A dictionary a run: what `decomposition`, `moments`, `importance_weighted` and `dead_units` return.
    """
    # Drawn once for all runs, and not the first ones, which a folder of pictures has sorted by class.
    order = torch.randperm(len(images), generator=generator(0, "diagnose images")).to(images.device)
    index = order[:MAX_IMAGES].expand(stack.n_runs, -1)  # (K, M)
    noise = [generator(c.seed, "diagnose", stack.device) for c in stack.configs]
    posteriors = [stack.model.encode(pixels(images, i), labels[i]) for i in index.split(CHUNK, dim=1)]
    mu, logvar = (torch.cat(parts, dim=1).double() for parts in zip(*posteriors, strict=True))  # (K, M, k) each
    eps = _normal(noise, mu.shape[1:])  # (K, M, k)
    first = index[:, :IW_IMAGES]  # (K, B)
    posterior = mu[:, :IW_IMAGES], logvar[:, :IW_IMAGES]  # (K, B, k) each
    bounds = importance_weighted(stack, pixels(images, first), labels[first], *posterior, noise, iw_samples)
    dead = dead_units(stack, pixels(images, index), labels[index])
    return [
        {**decomposition(mu[k], logvar[k], eps[k]), **moments(mu[k], logvar[k]), **bounds[k], **dead[k]}
        for k in range(stack.n_runs)
    ]


def decomposition(mu: Tensor, logvar: Tensor, eps: Tensor) -> dict[str, float]:
    """The KL as mutual information and KL(q(z) || p(z)), with one z = mu + sigma·eps an image.

    Args:
        mu, logvar: of the M posteriors, (M, k) float64 each.
        eps: standard normal noise, (M, k).

    Returns:
        mutual_information: I(x; z), the mean of ln q(z_n|x_n) - ln q(z_n). Noise: a few hundredths at M = 1000.
        mutual_information_ceiling: ln M, the most that M images can show.
        aggregate_kl: KL(q(z) || p(z)), the closed-form mean KL less the mutual information.
    """
    n_images = len(mu)
    z = mu + (0.5 * logvar).exp() * eps  # (M, k)
    own, pooled = z.new_empty(n_images), z.new_empty(n_images)  # ln q(z_n|x_n), ln q(z_n)
    for start in range(0, n_images, CHUNK):
        rows = slice(start, start + CHUNK)
        densities = log_densities(z[rows], mu, logvar)  # (CHUNK, M)
        own[rows] = densities.diagonal(start)
        pooled[rows] = densities.logsumexp(dim=1) - math.log(n_images)
    mutual_information = (own - pooled).mean().item()
    return {
        "mutual_information": mutual_information,
        "mutual_information_ceiling": math.log(n_images),
        "aggregate_kl": objective.gaussian_kl(mu, logvar).sum(dim=1).mean().item() - mutual_information,
    }


def log_densities(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """ln N(z_i; mu_j, exp(logvar_j)) + (k/2)·ln 2π for all pairs: (B, k), (M, k), (M, k) -> (B, M).

    By the square written out, as two matrix products instead of B·M·k terms. That loses digits to cancellation, about
    max(z²/var) times the rounding of one: float64 only.
    """
    assert z.dtype == torch.float64, z.dtype
    precision = (-logvar).exp()  # (M, k)
    constant = (mu.square() * precision + logvar).sum(dim=1)  # (M,)
    return (z @ (mu * precision).T).sub_(0.5 * (z.square() @ precision.T + constant))


def moments(mu: Tensor, logvar: Tensor) -> dict[str, float]:
    """Mean and covariance of the aggregate posterior, against 0 and I of the prior: (M, k), (M, k) float64.

    Returns:
        aggregate_mean_norm: |E z|; up to sqrt(k/M) from the sampling of images alone.
        aggregate_variance_min, _mean, _max: over the dimensions, of Var z = Var mu + E var.
        aggregate_gaussian_kl: KL(N(E z, Cov z) || N(0, I)); up to k(k + 3)/(4M) from the sampling of images alone.
    """
    mean = mu.mean(dim=0)  # (k,)
    centred = mu - mean
    covariance = centred.T @ centred / len(mu) + logvar.exp().mean(dim=0).diag()  # (k, k)
    variance = covariance.diagonal()  # (k,)
    gaussian_kl = 0.5 * (mean.square().sum() + variance.sum() - len(mean) - covariance.logdet())
    return {
        "aggregate_mean_norm": mean.norm().item(),
        "aggregate_variance_min": variance.min().item(),
        "aggregate_variance_mean": variance.mean().item(),
        "aggregate_variance_max": variance.max().item(),
        "aggregate_gaussian_kl": gaussian_kl.item(),
    }


def importance_weighted(
    stack: Stack, x: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, noise: list[torch.Generator], n_samples: int
) -> list[dict[str, float]]:
    """The importance-weighted bound on ln p(x|y) (Burda et al. 2016, equation 8), beta = 1 whatever the training's.

    Args:
        x, y: images (K, B, D) in [0, 1] and labels (K, B).
        mu, logvar: of their posteriors, (K, B, k) float64 each.
        noise: a generator a run.
        n_samples: S, z of each image.

    Returns:
        A dictionary a run: `iw_elbo`, the mean over images of ln (1/S)·sum of w_s with
        w_s = p(x|z_s, y)·p(z_s)/q(z_s|x, y), nats per image, pixels with density as in `elbo`; and `iw_gap`, by how
        much it exceeds the mean of ln w_s, the ELBO of the same images and samples: free of the spread between images.
    """
    input_dim = stack.arch.input_dim
    variances = [
        objective.decoder_variance(config, x_var, input_dim, stack.arch.z_dim)
        for config, x_var in zip(stack.configs, stack.log_x_var.double().exp().tolist(), strict=True)
    ]
    log_x_var = torch.tensor(variances, dtype=torch.float64, device=stack.device).log()[:, None]  # (K, 1)
    sigma = (0.5 * logvar).exp()
    log_w = torch.empty(len(mu), n_samples, mu.shape[1], dtype=torch.float64, device=stack.device)  # (K, S, B)
    for s in range(n_samples):
        eps = _normal(noise, mu.shape[1:])  # (K, B, k)
        z = mu + sigma * eps
        sse = objective.squared_error(x, stack.model.decode(z.to(x.dtype), y)).double()  # (K, B)
        log_likelihood = -sse / (2 * log_x_var.exp()) - objective.gaussian_constant(input_dim, log_x_var)
        # ln p(z)/q(z|x): the factors 2π cancel.
        log_w[:, s] = log_likelihood + 0.5 * (eps.square() + logvar - z.square()).sum(dim=-1)
    # Run by run, so that the last digits do not depend on the stack.
    bounds = [(w.logsumexp(dim=0) - math.log(n_samples)).mean().item() for w in log_w]
    return [{"iw_elbo": bound, "iw_gap": bound - w.mean().item()} for bound, w in zip(bounds, log_w, strict=True)]


def _normal(noise: list[torch.Generator], shape: torch.Size) -> Tensor:
    """Standard normal, each run's from its own generator: (K, *shape) float64."""
    return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in noise]).double()


def _note_alive(found: list[Tensor], layer: Any, inputs: Any, out: Tensor) -> None:
    found.append((out > 0).any(dim=1))  # (K, M, width) -> (K, width)


def dead_units(stack: Stack, x: Tensor, y: Tensor) -> list[dict[str, float | None]]:
    """Hidden units that are 0 for every image: dead ReLUs, which no gradient brings back.

    Args:
        x, y: images (K, M, D) in [0, 1] and labels (K, M).

    Returns:
        A dictionary a run: `encoder_dead_units` and `decoder_dead_units` (given z = mu), shares of all hidden units of
        that network. None where there are none to count: other activations, convolutions, no hidden layer.
    """
    names = ("encoder", "decoder")
    if stack.arch.activation != "relu" or not stack.arch.hidden:
        return [dict.fromkeys(f"{name}_dead_units" for name in names) for _ in stack.configs]
    alive: dict[str, list[Tensor]] = {name: [] for name in names}  # of each hidden layer, (K, width)
    hooks = []
    for name in names:
        net = getattr(stack.model, name).net
        assert isinstance(net, Mlp)
        for layer in list(net.layers)[:-1]:
            hooks.append(layer.register_forward_hook(partial(_note_alive, alive[name])))
    mu, _ = stack.model.encode(x, y)  # (K, M, k)
    stack.model.decode(mu, y)
    for hook in hooks:
        hook.remove()
    shares = {f"{name}_dead_units": (~torch.cat(units, dim=1)).double().mean(dim=1) for name, units in alive.items()}
    return [{name: share[k].item() for name, share in shares.items()} for k in range(stack.n_runs)]
