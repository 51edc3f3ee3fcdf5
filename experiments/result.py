"""result.json: the final numbers of a run, one flat row. The collector reads nothing else of a run.

The same run gives the same file whenever and however it is trained on one machine: times and machines are in
provenance.json.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from vae import config as cfg

if TYPE_CHECKING:  # these import torch, which whoever reads results can do without
    from experiments.sweep import Run
    from vae.data import Facts

SCHEMA_VERSION = 1

SCORES = {
    "sample_accuracy": "share of class-conditional samples to which the judge gives their class; null without labels",
    "sample_ffd": "feature Frechet distance, samples to held-out images; no Inception FID, compares under one judge",
    "reconstruction_ffd": "the same of reconstructions (z = mu) of those held-out images",
    "real_ffd": "the same of as many training images: what samples as good as real ones would have",
    "sample_density": "density of the samples (Naeem et al. 2020)",
    "sample_coverage": "coverage of the samples (Naeem et al. 2020)",
    "sample_sharpness": "variance of the Laplacian, mean over samples",
    "reconstruction_sharpness": "the same of reconstructions",
    "real_sharpness": "the same of held-out images",
    "judge": "hash of the frozen classifier that gave these scores",
    "judge_accuracy": "its own accuracy on held-out images; null where it is untrained",
}

_PER_SPLIT = {
    "sse": "squared error per image, z sampled",
    "sse_mean": "squared error per image, z = mu",
    "kl": "KL(q(z|x, y) || N(0, I)), nats per image",
    "kl_per_dim": "the same for each latent dimension, nats (a list)",
    "active_units": "latent dimensions whose mu has variance over 0.01 across images (Burda et al. 2016)",
    "loss": "the objective, per image",
    "elbo": "bound on ln p(x|y), nats per image, beta = 1, pixels in [0, 1]",
    "elbo_per_dim": "elbo over D, nats per pixel",
    "bits_per_dim": "-elbo/(D ln 2) + 8, for 8-bit pixels",
    "kl_offset": "study A's KL: kl + k/2",
    "r_half_sse": "study A's reconstruction: sse/2",
    "kld_loss": "study B's KLD: 128·kl/k",
    "r_loss": "study B's R: 128·sse/D",
    "baseline_zero": "squared error per image of the zero image",
    "baseline_mean": "squared error per image of the training mean image",
    "baseline_class_means": "squared error per image of the training class means",
}

DIAGNOSTICS = {
    "mutual_information": "I(x; z), nats, over M held-out images (Hoffman and Johnson 2016)",
    "mutual_information_ceiling": "ln M, the most that M images can show",
    "aggregate_kl": "KL(q(z) || p(z)), nats: kl less I(x; z), and at most this",
    "aggregate_gaussian_kl": "KL to the prior of the Gaussian with the moments of q(z), nats: at most KL(q(z) || p(z))",
    "aggregate_mean_norm": "|E z| under q(z)",
    "aggregate_variance_min": "least variance of a dimension under q(z)",
    "aggregate_variance_mean": "mean variance of a dimension under q(z)",
    "aggregate_variance_max": "greatest variance of a dimension under q(z)",
    "iw_elbo": "importance-weighted bound on ln p(x|y) with 64 samples, nats per image (Burda et al. 2016)",
    "iw_gap": "by how much it exceeds the ELBO of the same images and samples, nats",
    "encoder_dead_units": "share of the encoder's hidden ReLU units that are 0 for all images; null without any",
    "decoder_dead_units": "the same of the decoder, with z = mu",
}

COLUMNS: dict[str, str] = {
    "schema_version": "of this file",
    "run": "the run's folder",
    "status": "ok, or diverged where the loss or a parameter stopped being finite",
    "diverged_epoch": "the epoch in which it did, else null",
    "epochs_done": "whole epochs trained",
    "dataset": "name of the data",
    "dataset_source": "where the data come from",
    "dataset_hash": "SHA-256 of the data's content",
    "n_train": "training images",
    "n_test": "held-out images",
    "input_dim": "D, pixels times channels of an image",
    "z_dim": "k, latent dimensions, as chosen",
    "label_repeat_encoder": "times the one-hot label joins the encoder, as chosen",
    "label_repeat_decoder": "times the one-hot label joins the decoder, as chosen",
    "n_parameters": "trained numbers",
    "x_var": "variance of the decoder at the end",
    "effective_x_var": "b/(2a) of the loss a·SSE + b·KL",
    "theory_kl_low": "closed form of the linear VAE: KL, nats per image",
    "theory_kl_high": "the same; for label_placement=decoder the within-class and the unconditional case are the two",
    "theory_sse_low": "closed form: squared error per image, z sampled",
    "theory_sse_high": "the same; for label_placement=decoder neither KL nor SSE alone need lie between the two",
    "model_sha256": "of model.pt",
    **SCORES,
    **{f"{split}_{name}": f"{doc}; {split} images" for split in ("train", "test") for name, doc in _PER_SPLIT.items()},
    **{f"test_{name}": doc for name, doc in DIAGNOSTICS.items()},
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a run has that did not diverge.

    Attributes:
        x_var, effective_x_var: at the end of the training.
        model_sha256: of model.pt.
        train, test: what evaluate.evaluate gave, and diagnostics.diagnose for `test`.
        scores: the columns of SCORES.
    """

    x_var: float
    effective_x_var: float
    model_sha256: str
    train: dict[str, Any]
    test: dict[str, Any]
    scores: dict[str, Any]


def row(run: Run, n_parameters: int, epochs_done: int, measured: Measured | None) -> dict[str, Any]:
    """The content of result.json: settings under their dotted names, then the columns of COLUMNS.

    Args:
        measured: None for a run that diverged, whose numbers are then null or left out.
    """
    from vae import linear_theory  # it imports numpy, which whoever needs the names of the columns alone can do without

    config, arch, data, facts = run.config, run.arch, run.data, run.facts
    theory = ()
    if measured is not None:
        spectra = facts.eigenvalues, facts.eigenvalues_within
        theory = linear_theory.prediction(*spectra, config.label_placement.kind, measured.effective_x_var, arch.z_dim)
    settings = {name: value for name, value, meta, _ in cfg.settings(config) if meta["affects_result"]}
    result = {
        "schema_version": SCHEMA_VERSION,
        "run": run.folder.name,
        "status": "ok" if measured else "diverged",
        "diverged_epoch": None if measured else epochs_done,
        "epochs_done": epochs_done,
        "dataset": data.name,
        "dataset_source": data.source,
        "dataset_hash": data.content_hash,
        "n_train": len(data.train_x),
        "n_test": len(data.test_x),
        "input_dim": arch.input_dim,
        "z_dim": arch.z_dim,
        "label_repeat_encoder": arch.encoder_repeat,
        "label_repeat_decoder": arch.decoder_repeat,
        "n_parameters": n_parameters,
        "x_var": measured.x_var if measured else None,
        "effective_x_var": measured.effective_x_var if measured else None,
        "model_sha256": measured.model_sha256 if measured else None,
        "theory_kl_low": min((p.kl for p in theory), default=None),
        "theory_kl_high": max((p.kl for p in theory), default=None),
        "theory_sse_low": min((p.sse for p in theory), default=None),
        "theory_sse_high": max((p.sse for p in theory), default=None),
    }
    baselines = {
        "baseline_zero": facts.sse_zero,
        "baseline_mean": facts.sse_mean,
        "baseline_class_means": facts.sse_class_means,
    }
    for split in ("train", "test"):
        metrics = getattr(measured, split) if measured else {}
        result |= {f"{split}_{name}": value for name, value in metrics.items()}
        result |= {f"{split}_{name}": values[split] for name, values in baselines.items()}
    return {**settings, **result, **(measured.scores if measured else dict.fromkeys(SCORES))}


def facts_json(facts: Facts) -> dict[str, Any]:
    """A dataset's facts as a report's manifest carries them; six digits are more than any figure shows."""
    return {
        key: [float(f"{v:.6g}") for v in value] if hasattr(value, "tolist") else value
        for key, value in ((f.name, getattr(facts, f.name)) for f in dataclasses.fields(facts))
    }
