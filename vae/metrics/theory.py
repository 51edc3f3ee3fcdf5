"""What the closed form of a linear VAE predicts for a run (vae/theory.py): a pair of values that brackets it.

The two differ for label_placement=decoder only, where neither KL nor SSE alone need lie between them.
"""

from __future__ import annotations

from vae.metrics.registry import Family, Metric, Subject

theory = Family("theory", version=2)


@theory.computes(
    Metric("x_var", "", "variance of the decoder at the end of training; null if it is not one number", "", "x_var"),
    Metric("effective_x_var", "", "b/(2a) of the loss a·SSE + b·KL; null for another loss", "", "effective x_var"),
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
    )
)
def closed_form(subject: Subject) -> dict[str, float]:
    from vae.theory import prediction

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


def effective_x_var(subject: Subject) -> float | None:
    from vae import objectives

    arch = subject.model.arch
    return objectives.effective_x_var(subject.config, subject.model.x_var, arch.input_dim, arch.z_dim)
