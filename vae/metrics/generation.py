"""How good samples and reconstructions look, by the frozen classifier of vae/judge.py."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae.metrics.registry import Family, Metric, Subject

if TYPE_CHECKING:
    from vae.data import ImageData
    from vae.judge import Judge

generation = Family("generation", version=1)

METRICS = (
    Metric(
        "sample_accuracy",
        "",
        "share of samples that the judge assigns to the requested class; null without labels",
        "higher",
        "sample accuracy",
    ),
    Metric(
        "sample_ffd",
        "",
        "Fréchet distance of samples to held-out images, in features of the judge; comparable only for the same judge",
        "lower",
        "sample FFD",
    ),
    Metric(
        "reconstruction_ffd",
        "",
        "Fréchet distance of reconstructions (z = mu) to the same held-out images, in features of the judge",
        "lower",
        "reconstruction FFD",
    ),
    Metric(
        "real_ffd",
        "",
        "Fréchet distance between held-out images and as many training images that the judge has not seen: what "
        "perfect samples would reach",
        "",
        "real FFD",
    ),
    Metric("sample_density", "", "density of the samples (Naeem et al. 2020)", "higher", "density"),
    Metric("sample_coverage", "", "coverage of the samples (Naeem et al. 2020)", "higher", "coverage"),
    Metric(
        "sample_sharpness", "", "variance of the Laplacian (lower: blurrier), mean over samples", "", "sample sharpness"
    ),
    Metric(
        "reconstruction_sharpness",
        "",
        "variance of the Laplacian (lower: blurrier), mean over reconstructions",
        "",
        "reconstruction sharpness",
    ),
    Metric(
        "real_sharpness",
        "",
        "variance of the Laplacian (lower: blurrier), mean over held-out images",
        "",
        "real sharpness",
    ),
    Metric("judge", "", "hash of the frozen classifier that gave these scores", "", "judge"),
    Metric(
        "judge_accuracy",
        "",
        "accuracy of the judge on held-out images; null if it is untrained",
        "",
        "judge accuracy",
    ),
)


@generation.computes(*METRICS)
def quality(subject: Subject) -> dict[str, Any]:
    from vae.judge import MIN_SIZE, scores

    if min(subject.data.image_shape[1:]) < MIN_SIZE:
        return {metric.name: None for metric in METRICS}
    judge = judge_of(subject.data, subject.cache)
    images, labels = subject.images("test")
    x, y = images[judge.held_out], labels[judge.held_out]  # (n, C, H, W), (n,)
    samples = subject.model.sample(y, seed=subject.config.seed)  # (n, C, H, W)
    conditional = subject.config.label_placement.kind != "none"
    return {
        **scores(judge, samples, y if conditional else None, subject.model.reconstruct(x, y)),
        "judge": judge.hash,
        "judge_accuracy": judge.test_accuracy,
    }


@generation.computes(
    Metric(
        "val_sample_ffd",
        "",
        "Fréchet distance of samples to validation images, in features of the judge; for choosing settings",
        "lower",
        "sample FFD, validation",
    )
)
def distance_to_validation_images(subject: Subject) -> dict[str, float]:
    import torch

    from vae.judge import K_NEIGHBOURS, MIN_SIZE, N_SAMPLES, frechet_distance
    from vae.seeding import generator

    images, labels = subject.images("val")
    if len(images) <= K_NEIGHBOURS or min(subject.data.image_shape[1:]) < MIN_SIZE:
        return {}
    chosen = torch.randperm(len(images), generator=generator(0, "judge validation"))[:N_SAMPLES]  # (n,)
    samples = subject.model.sample(labels[chosen], seed=subject.config.seed)  # (n, C, H, W)
    if not samples.isfinite().all():
        return {}
    judge = judge_of(subject.data, subject.cache)
    real, drawn = judge.features(images[chosen]), judge.features(samples)  # (n, F) each
    return {"val_sample_ffd": frechet_distance(real.mean(0), real.T.cov(), drawn.mean(0), drawn.T.cov())}


@functools.lru_cache(maxsize=1)  # the runs of a sweep mostly share one dataset
def judge_of(data: ImageData, cache: Path) -> Judge:
    from vae.judge import Judge

    return Judge.of(data, cache)
