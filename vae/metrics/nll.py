"""The negative log-likelihood by importance sampling with many samples, as tables in the literature print it."""

from __future__ import annotations

import math

from vae.metrics.registry import Family, Metric, Subject

SAMPLES = 5000
BATCH = 500  # images at a time: 500 x 5000 weights in double precision are 20 MB

nll = Family("nll", version=1, on_request=True)


@nll.computes(
    Metric(
        "test_nll",
        "nats",
        "-ln p(x|y) per held-out image, estimated from 5,000 importance samples (Burda et al. 2016, section 5)",
        "lower",
        "NLL (nats)",
    )
)
def negative_log_likelihood(subject: Subject) -> float:
    """An upper bound on -ln p(x|y) in expectation, tight with many samples (Burda et al. 2016, theorem 1)."""
    from vae.metrics.likelihood import log_weights
    from vae.seeding import generator

    images, labels = subject.images("test")
    noise = generator(subject.config.seed, "nll")
    total = 0.0
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        mu, logvar = subject.model.encode(x, y)  # (B, k) each
        log_w = log_weights(subject, x, y, mu.double(), logvar.double(), noise, SAMPLES)  # (S, B)
        total -= (log_w.logsumexp(dim=0) - math.log(SAMPLES)).sum().item()
    return total / len(images)
