"""What the closed form of a linear VAE predicts for a run (vae/theory.py): a pair of values that brackets it.

The two differ for label_placement=decoder only, where neither KL nor SSE alone need lie between them.
"""

from __future__ import annotations

import math

from vae.metrics.registry import Family, Metric, Subject

theory = Family("theory", version=2)


@theory.computes(
    Metric("x_var", "", "variance of the decoder at the end of training; null if it is not one number", "", "x_var"),
    Metric(
        "effective_x_var",
        "",
        "b/(2a) if the loss is a·SSE + b·KL, a bug apart; null for any other loss",
        "",
        "effective x_var",
    ),
)
def variances(subject: Subject) -> dict[str, float | None]:
    return {"x_var": subject.model.x_var, "effective_x_var": effective_x_var(subject)}


@theory.computes(
    *(
        Metric(
            f"{split}_theory_{name}_{bound}",
            unit,
            f"closed form of {meaning}, {bound}er value; evaluated on {images} images",
            "",
            f"{heading} of the linear VAE, {images}, {bound}",
        )
        for split, images in (("train", "training"), ("test", "held-out"))
        for name, unit, meaning, heading in (
            ("kl", "nats", "KL per image", "KL (nats)"),
            ("sse", "", "squared error per image, z sampled", "SSE"),
        )
        for bound in ("low", "high")
    ),
    *(
        Metric(
            f"train_theory_printed_{name}_{bound}",
            unit,
            f"closed form of train_printed_{name}, {bound}er value; only for a run with a bug",
            "",
            f"{heading} as printed, of the linear VAE, {bound}",
        )
        for name, unit, heading in (("kl", "nats", "KL (nats)"), ("r", "", "SSE"))
        for bound in ("low", "high")
    ),
)
def closed_form(subject: Subject) -> dict[str, float]:
    from vae.theory import prediction

    if subject.config.bug.kind != "none":
        return _of_a_bug(subject)
    facts, z_dim, t = subject.facts, subject.model.arch.z_dim, effective_x_var(subject)
    if t is None:
        return {}
    placement = subject.config.label_placement.kind
    given = facts.eigenvalues, facts.eigenvalues_within, placement, t, z_dim
    trained = prediction(*given)
    tested = prediction(*given, facts.test_variances, facts.test_variances_within)
    return {
        f"{split}_theory_{name}_{bound}": pick(getattr(optimum, name) for optimum in optima)
        for split, optima in (("train", trained), ("test", tested))
        for name in ("kl", "sse")
        for bound, pick in (("low", min), ("high", max))
    }


def _of_a_bug(subject: Subject) -> dict[str, float]:
    """What a linear VAE with the run's bug converges to, on training images."""
    from vae import bugs

    config, facts, z_dim = subject.config, subject.facts, subject.model.arch.z_dim
    t = effective_x_var(subject)
    if t is None:
        return {}
    loss = {"t": t, "z_dim": z_dim, "beta": config.beta.value, "batch_size": config.trainer.batch_size}
    placement = config.label_placement.kind
    optima = bugs.prediction(config.bug.kind, facts.eigenvalues, facts.eigenvalues_within, placement, loss)
    names = {"kl": "kl", "sse": "sse", "printed_kl": "printed_kl", "printed_r": "printed_sse"}
    return {
        f"train_theory_{column}_{bound}": value
        for column, name in names.items()
        for bound, pick in (("low", min), ("high", max))
        if math.isfinite(value := pick(getattr(optimum, name) for optimum in optima))
    }


def effective_x_var(subject: Subject) -> float | None:
    from vae import objectives

    arch = subject.model.arch
    return objectives.effective_x_var(subject.config, subject.model.x_var, arch.input_dim, arch.z_dim)
