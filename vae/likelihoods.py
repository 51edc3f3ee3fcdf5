"""p(x|z, y): the distribution of the image x that the decoder's outputs describe.

Pixels are in [0, 1], and log-likelihoods are in nats per image.

A likelihood of your own is a class like these, named by `likelihood.kind=custom likelihood.part={_target_: ...}`. It
has the attribute `n_parameters`, the number p of decoder outputs for each pixel and channel, and two methods, which
take the parameters, (B, p·C, H, W):

    log_prob(x (B, C, H, W), parameters) -> (B,)
    mean(parameters) -> (B, C, H, W)

The optional attribute `measure` says what log_prob measures: `density`, `levels` (the probability of 8-bit values) or
`binary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae import parts

LEVELS = 256
MIN_LOG_VAR = math.log(1e-4)  # of a pixel's variance: without this bound, it goes to 0 for pixels that are always black

OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda h: h,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
}


class Likelihood(nn.Module):
    """The base of all likelihoods.

    Attributes:
        n_parameters: p, the number of decoder outputs for each pixel and channel.
        measure: what log_prob measures. `density`: a density of pixels scaled to [0, 1]; `levels`: the probability of
            8-bit levels; `binary`: the probability of black and white pixels; `other`: anything else. Only the first
            two give bits per dimension.
        binarizes: whether training replaces each pixel x by 1 with probability x, and by 0 otherwise. The pixels are
            drawn again at every step (Burda et al. 2016).
    """

    n_parameters = 1
    measure = "other"
    binarizes = False

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """ln p(x|z, y): (B, C, H, W), (B, p·C, H, W) -> (B,)."""
        raise NotImplementedError

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z, y]: (B, p·C, H, W) -> (B, C, H, W)."""
        raise NotImplementedError


class _Located(Likelihood):
    """A location and a variance for each pixel.

    The location is the decoder's output h after the function `output`. With `signed`, h is first replaced by (h + 1)/2,
    except for a sigmoid, whose values are in [0, 1] already. The variance is fixed, learned as one number, or the
    second output for each pixel.
    """

    def __init__(
        self, x_var: str = "fixed", value: float | None = 0.1, output: str = "identity", signed: bool = False
    ) -> None:
        super().__init__()
        self.n_parameters = 2 if x_var == "per_pixel" else 1
        self.output, self.shifted = OUTPUTS[output], signed and output != "sigmoid"
        if x_var != "per_pixel":
            assert value is not None
            log_x_var = torch.tensor([math.log(value)])  # (1,)
            if x_var == "learned":
                self.log_x_var = nn.Parameter(log_x_var)
            else:
                self.register_buffer("log_x_var", log_x_var)

    def location(self, parameters: Tensor) -> Tensor:
        """The location of each pixel: (B, p·C, H, W) -> (B, C, H, W)."""
        h = parameters.chunk(2, dim=1)[0] if self.n_parameters == 2 else parameters
        return self.output((h + 1) / 2 if self.shifted else h)

    def mean(self, parameters: Tensor) -> Tensor:
        return self.location(parameters)

    def log_var(self, parameters: Tensor) -> Tensor:
        """ln of the variance: (1,), or (B, C, H, W) if it is per pixel."""
        if self.n_parameters == 1:
            return self.log_x_var
        # A smooth lower bound (as in Rybkin et al. 2021), at MIN_LOG_VAR.
        return MIN_LOG_VAR + F.softplus(parameters.chunk(2, dim=1)[1] - MIN_LOG_VAR)


class Gaussian(_Located):
    """N(location, x_var): -ln p = (x - location)²/(2·x_var) + ½·ln(2π·x_var) for each pixel."""

    measure = "density"

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_var = self.log_var(parameters)
        square = (x - self.location(parameters)).square()  # (B, C, H, W)
        if self.n_parameters == 1:
            constant = 0.5 * x[0].numel() * (math.log(2 * math.pi) + log_var)
            return -0.5 * (-log_var).exp() * square.flatten(1).sum(dim=1) - constant  # (B,)
        terms = square * (-log_var).exp() + log_var + math.log(2 * math.pi)
        return -0.5 * terms.flatten(1).sum(dim=1)


class Laplace(_Located):
    """A Laplace distribution with variance x_var = 2b²: -ln p = |x - location|/b + ln 2b for each pixel."""

    measure = "density"

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_b = 0.5 * (self.log_var(parameters) - math.log(2))
        terms = (x - self.location(parameters)).abs() * (-log_b).exp() + log_b + math.log(2)
        return -terms.flatten(1).sum(dim=1)


class DiscretizedLogistic(_Located):
    """The probability of one of 256 levels under a logistic density (Kingma et al. 2016).

    The distribution function is σ((x - location)/s) with s² = 3·x_var/π². A level x has the probability of the bin
    x ± 1/510. The first and the last bin extend to -∞ and +∞, so that the probabilities sum to 1.
    """

    measure = "levels"

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_s = 0.5 * (self.log_var(parameters) + math.log(3 / math.pi**2))
        half = 0.5 / (LEVELS - 1)
        centred, inverse = x - self.location(parameters), (-log_s).exp()
        upper, lower = (centred + half) * inverse, (centred - half) * inverse  # (B, C, H, W)
        # σ(a) - σ(b) = σ(a)·σ(-b)·(1 - exp(b - a)), which loses no digits in the tails.
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * half * inverse))
        first, last = x < half, x > 1 - half
        terms = torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside))
        return terms.flatten(1).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of the levels, to half a level: that of the logistic variable, clipped to [0, 1].

        It is the integral of P(X > t) over [0, 1]. The location can leave [0, 1] far behind, as black pixels like it.
        """
        log_s = 0.5 * (self.log_var(parameters) + math.log(3 / math.pi**2))
        location, s = self.location(parameters), log_s.exp()
        return s * (F.softplus(location / s) - F.softplus((location - 1) / s))


class Bernoulli(Likelihood):
    """ln p = x·l - ln(1 + exp l) for each pixel, where the decoder's output l is the logit.

    Args:
        targets: `pixels`: x is the pixel itself; this is the cross-entropy that is often used as a loss, and not a
            probability. `binarized`: x is drawn at every step (Burda et al. 2016).
    """

    measure = "binary"

    def __init__(self, targets: str = "pixels") -> None:
        super().__init__()
        self.binarizes = targets == "binarized"

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(parameters, x, reduction="none").flatten(1).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        return torch.sigmoid(parameters)


class ContinuousBernoulli(Likelihood):
    """A density of pixels in [0, 1] (Loaiza-Ganem and Cunningham 2019): the Bernoulli's term plus ln C.

    For the logit l, C = l/tanh(l/2), and the mean is ½ + ½/tanh(l/2) - 1/l.
    """

    measure = "density"

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        near = parameters.abs() < 0.02  # where both parts of the quotient vanish: ln C = ln 2 + l²/12 + O(l⁴)
        safe = torch.where(near, 1.0, parameters)
        log_c = torch.where(near, math.log(2) + parameters.square() / 12, (safe / torch.tanh(safe / 2)).log())
        terms = log_c - F.binary_cross_entropy_with_logits(parameters, x, reduction="none")
        return terms.flatten(1).sum(dim=1)

    def mean(self, parameters: Tensor) -> Tensor:
        near = parameters.abs() < 0.02
        safe = torch.where(near, 1.0, parameters)
        return torch.where(near, 0.5 + parameters / 12, 0.5 + 0.5 / torch.tanh(safe / 2) - 1 / safe)


KINDS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "laplace": Laplace,
    "discretized_logistic": DiscretizedLogistic,
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
}


def likelihood_of(spec: Mapping[str, Any]) -> Likelihood:
    """The likelihood of a specification: its kind with arguments, or `part` with `_target_`.

    Raises:
        ConfigError: if a part of the user's own cannot be made.
    """
    own = {key: value for key, value in spec.items() if key != "kind"}
    if spec["kind"] == "custom":
        return parts.make("likelihood.part", own["part"])
    return KINDS[spec["kind"]](**own)
