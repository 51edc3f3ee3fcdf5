"""What training minimizes, computed from what a batch gives. All values are means per image; beta weights the KL.

An objective of your own is a function, or a class whose instances are called. It is given `terms` (`vae.terms.Terms`:
SSE, KL, log-likelihoods and more of each image of the batch) and returns one number. It is named by
`objective.part={_target_: ...}` and may have two attributes. `samples` is the number of z per image (1 by default). If
`draws_prior` is true, `terms.noise` also holds random numbers for drawing from the prior.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from vae import buggy, parts
from vae.config import Beta, Config
from vae.terms import Objective, Terms


def elbo(terms: Terms) -> Tensor:
    """-ln p(x|z, y) + beta·KL (Kingma and Welling 2014; Higgins et al. 2017)."""
    return (terms.beta * terms.kl - terms.log_px.mean(dim=0)).mean()


def per_dim(terms: Terms) -> Tensor:
    """SSE/D + beta·KL/k."""
    return terms.sse.mean() / terms.x[0].numel() + terms.beta * terms.kl.mean() / terms.mu.shape[1]


class Iwae:
    """The negative importance-weighted bound with S samples (Burda et al. 2016, equation 8). It has no beta."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __call__(self, terms: Terms) -> Tensor:
        log_w = terms.log_px + terms.log_pz - terms.log_qz  # (S, B)
        return -(log_w.logsumexp(dim=0) - math.log(len(log_w))).mean()


class BetaTc:
    """beta weights only the total correlation (Chen et al. 2018, with alpha = gamma = 1).

    The KL is split into mutual information + total correlation + KLs of the dimensions. q(z) is estimated from the
    batch by minibatch-weighted sampling, as in the paper; its N is the number of training images.
    """

    def __init__(self, n_train: int) -> None:
        self.n_train = n_train

    def __call__(self, terms: Terms) -> Tensor:
        z, mu, logvar = terms.z[0], terms.mu, terms.logvar
        square = (z[:, None] - mu).square() * (-logvar).exp()  # (B, B, k): z of row i under the posterior of column j
        each = -0.5 * (square + logvar + math.log(2 * math.pi))
        log_nb = math.log(self.n_train * len(z))
        log_q = each.sum(dim=-1).logsumexp(dim=1) - log_nb  # ln q(z), (B,)
        log_marginals = (each.logsumexp(dim=1) - log_nb).sum(dim=-1)  # sum of ln q(z_i), (B,)
        information = terms.log_qz[0] - log_q
        correlation = log_q - log_marginals
        dimensions = log_marginals - terms.log_pz[0]
        return (information + terms.beta * correlation + dimensions - terms.log_px[0]).mean()


class Mmd:
    """-ln p + (1 - alpha)·KL + (alpha + weight - 1)·MMD² of q(z) and the prior (InfoVAE, Zhao et al. 2019).

    With alpha = 1, the KL drops out. The MMD's kernel is exp(-||z - z'||²/(2k)), where 2k is the mean squared distance
    between two draws from N(0, I). There is no beta.
    """

    draws_prior = True

    def __init__(self, alpha: float, weight: float) -> None:
        self.alpha, self.weight = alpha, weight

    def __call__(self, terms: Terms) -> Tensor:
        z = terms.z[0]  # (B, k)
        drawn = terms.prior.sample(terms.noise["prior"], terms.noise["chance"])  # (B, k)
        discrepancy = _kernel(z, z).mean() + _kernel(drawn, drawn).mean() - 2 * _kernel(z, drawn).mean()
        rest = (1 - self.alpha) * terms.kl - terms.log_px[0]  # (B,)
        return rest.mean() + (self.alpha + self.weight - 1) * discrepancy


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """exp(-||a_i - b_j||²/(2k)): (n, k), (m, k) -> (n, m)."""
    distance = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
    return (-distance.clamp(min=0) / (2 * a.shape[1])).exp()


class Capacity:
    """-ln p + gamma·|KL - C|, where C grows linearly from 0 to its final value (Burgess et al. 2018).

    Args:
        nats: the final C.
        ramp: share of the training during which C grows.
    """

    def __init__(self, gamma: float, nats: float, ramp: float) -> None:
        self.gamma, self.nats, self.ramp = gamma, nats, ramp

    def __call__(self, terms: Terms) -> Tensor:
        capacity = self.nats * (terms.progress / self.ramp).clamp(max=1)
        return self.gamma * (terms.kl.mean() - capacity).abs() - terms.log_px.mean()


def objective_of(config: Config, n_train: int) -> Objective:
    """The objective of a run, with its bug, if it has one on purpose.

    Args:
        n_train: number of training images.

    Raises:
        ConfigError: if a part of the user's own cannot be made.
    """
    objective = _without_bug(config, n_train)
    return objective if config.bug.kind == "none" else buggy.KINDS[config.bug.kind](objective)


def _without_bug(config: Config, n_train: int) -> Objective:
    o = config.objective
    match o.kind:
        case "elbo":
            return elbo
        case "per_dim":
            return per_dim
        case "iwae":
            assert o.samples is not None
            return Iwae(o.samples)
        case "beta_tc":
            return BetaTc(n_train)
        case "mmd":
            assert o.alpha is not None
            assert o.weight is not None
            return Mmd(o.alpha, o.weight)
        case "capacity":
            assert o.gamma is not None
            assert o.nats is not None
            assert o.ramp is not None
            return Capacity(o.gamma, o.nats, o.ramp)
        case _:
            assert o.part is not None
            found = parts.locate(str(o.part["_target_"]))
            if isinstance(found, type):
                return parts.make("objective.part", o.part)
            return parts.partial("objective.part", o.part, None)


def beta_schedule(beta: Beta, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """beta at each training step, (epochs·steps_per_epoch,).

    `warmup` grows linearly from 0 (Bowman et al. 2016); `cyclical` repeats a linear ramp and a plateau (Fu et al. 2019,
    equation 6).
    """
    step = np.arange(epochs * steps_per_epoch)
    if beta.kind == "warmup":
        assert beta.epochs is not None
        share = np.minimum(step / (beta.epochs * steps_per_epoch), 1.0)
    elif beta.kind == "cyclical":
        assert beta.cycles is not None
        assert beta.ramp is not None
        position = step * beta.cycles / len(step) % 1.0
        share = np.minimum(position / beta.ramp, 1.0)
    else:
        share = np.ones(len(step))
    return beta.value * share


def effective_x_var(config: Config, x_var: float | None, input_dim: int, z_dim: int) -> float | None:
    """b/(2a) for a loss a·SSE + b·KL: beta·x_var for `elbo`, beta·D/(2k) for `per_dim`, with the final value of beta.

    Of a loss with a bug, it is that of the loss that was meant.

    Args:
        x_var: the decoder's, at the end of training; None if it has no such number.

    Returns:
        None for any other loss, because it has no closed form.
    """
    if config.prior.kind != "standard" or config.likelihood.kind != "gaussian":
        return None
    if config.objective.kind == "per_dim":
        return config.beta.value * input_dim / (2 * z_dim)
    return None if x_var is None or config.objective.kind != "elbo" else config.beta.value * x_var
