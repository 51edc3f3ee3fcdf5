"""What SSE and KL are called elsewhere: the studies' columns, and the bound on the likelihood. Imports no torch."""

from __future__ import annotations

import math

STUDY_BATCH = 128  # the batch over which study B sums its losses
ACTIVE_VARIANCE = 0.01  # a unit is active if Var over x of its mu exceeds this (Burda et al. 2016, section 5.2)


def study_columns(sse: float, kl: float, input_dim: float, z_dim: float) -> dict[str, float]:
    """The two studies' own columns.

    kl_offset: KL + k/2, whose minimum at k = 100 is study A's 50.0. r_half_sse: SSE/2. kld_loss and r_loss: study B's
    sums over a batch of 128, of KL/k and of SSE/D.
    """
    return {
        "kl_offset": kl + z_dim / 2,
        "r_half_sse": sse / 2,
        "kld_loss": STUDY_BATCH * kl / z_dim,
        "r_loss": STUDY_BATCH * sse / input_dim,
    }


def normalised_elbo(sse: float, kl: float, x_var: float, input_dim: int) -> dict[str, float]:
    """The bound on ln p(x|y) under a decoder of variance x_var, with beta = 1 whatever the training's.

    Returns:
        elbo: nats per image, for pixels in [0, 1] with density. elbo_per_dim: nats per pixel.
        bits_per_dim: the same bound for 8-bit pixels, -elbo/(D·ln 2) + 8, lower is better; the 8 is log2 of the 256
        levels that [0, 1] is divided into (Theis et al. 2016, section 3.1).
    """
    elbo = -(sse / (2 * x_var) + 0.5 * input_dim * math.log(2 * math.pi * x_var) + kl)
    return {
        "elbo": elbo,
        "elbo_per_dim": elbo / input_dim,
        "bits_per_dim": 8 - elbo / (input_dim * math.log(2)),
    }
