"""Losses with one of the classic bugs, made on purpose to see what they do. vae/bugs.py has their closed forms.

Two of the bugs are in how z is drawn, in vae/model.py: `variance_as_std` and `no_noise`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vae.likelihoods import Gaussian
from vae.terms import Objective, Terms, squared_error


class Buggy:
    """An objective as code with a bug computes it.

    Args:
        objective: the one that was meant.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __getattr__(self, name: str) -> Any:
        """`samples` and `draws_prior` are those of the objective that was meant."""
        return getattr(self.__dict__["objective"], name)

    def seen(self, terms: Terms) -> Terms:
        """What this code takes for the terms."""
        return terms

    def __call__(self, terms: Terms) -> Tensor:
        return self.objective(self.seen(terms))

    def printed(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Reconstruction error and KL of each image, as this code computes them: (B,) each."""
        seen = self.seen(terms)
        return seen.sse, seen.kl


class VarianceAsStd(Buggy):
    """z = mu + exp(logvar)·eps: the variance of z is exp(2·logvar), and the KL is computed with exp(logvar)."""

    def seen(self, terms: Terms) -> Terms:
        return terms.but(logvar=terms.logvar / 2)


class HalfKl(Buggy):
    """The KL has half its weight."""

    def seen(self, terms: Terms) -> Terms:
        return terms.but(kl=terms.kl / 2)


class DoubleKl(Buggy):
    """The KL has twice its weight."""

    def seen(self, terms: Terms) -> Terms:
        return terms.but(kl=2 * terms.kl)


class AsPrinted(Buggy):
    """The loss is the sum of the two values as they are printed, whatever was meant."""

    def __call__(self, terms: Terms) -> Tensor:
        error, kl = self.printed(terms)
        return error.mean() + terms.beta * kl.mean()


class MeanError(AsPrinted):
    """SSE/D + beta·KL, whatever was meant."""

    def printed(self, terms: Terms) -> tuple[Tensor, Tensor]:
        return terms.sse / terms.x[0].numel(), terms.kl


class MeanKl(AsPrinted):
    """SSE + beta·KL/k, whatever was meant."""

    def printed(self, terms: Terms) -> tuple[Tensor, Tensor]:
        return terms.sse, terms.kl / terms.mu.shape[1]


class BroadcastError(Buggy):
    """(B, 1, D) - (B, D): the error of every output against every image of the batch, averaged over all pairs.

    The mean of ||x_hat - x_j||² over the images j is ||x_hat - m||² plus the mean of ||x_j - m||², with their mean m.
    """

    def seen(self, terms: Terms) -> Terms:
        x_hat = terms.likelihood.mean(terms.parameters[0])  # (B, C, H, W)
        centre = terms.x.mean(dim=0).expand_as(x_hat)
        sse = squared_error(centre, x_hat) + squared_error(terms.x, centre).mean()  # (B,)
        assert isinstance(terms.likelihood, Gaussian)
        log_var = terms.likelihood.log_var(terms.parameters[0])  # (1,)
        log_px = terms.log_px - (sse - terms.sse) * (0.5 * (-log_var).exp())
        return terms.but(sse=sse, log_px=log_px)


KINDS: dict[str, type[Buggy]] = {
    "variance_as_std": VarianceAsStd,
    "half_kl": HalfKl,
    "double_kl": DoubleKl,
    "mean_error": MeanError,
    "mean_kl": MeanKl,
    "broadcast_error": BroadcastError,
    "no_noise": Buggy,
}
