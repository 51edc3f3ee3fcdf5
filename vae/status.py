"""What became of a run: `ok`, `collapsed`, `dead`, `hole` or `diverged`, judged from its result.json alone.

Every comparison is with something known: the error of the simplest guesses, the closed form of a linear VAE
(linear_theory.py), the same run's reconstructions, or real images. Errors, KL and scores are those of held-out images:
SSE per image with z sampled, KL in nats per image.

collapsed   The posterior equals the prior, so z tells nothing: KL and active units at the floor. What is left to the
            decoder is a constant image, the class mean where it is given the label (or, worse, the mean of all images,
            where it has not learned to use it).
dead        Not even that was learned: the error is nearer to that of the zero image than to that of the mean image, the
            "completely dark image". Or z does carry something, and still the mean image is the better guess.
hole        The reconstructions are good and the samples are not: z from the prior falls where the decoder was never
            trained, or never for the class asked for: into the gap between aggregate posterior and prior, which
            diagnostics.py measures.
diverged    The loss, a parameter or a held-out figure is not a finite number; or the held-out error exceeds D, each
            pixel wrong by its whole range, for which exp(logvar) of a single image can suffice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# A collapsed posterior keeps a little KL, the jitter of the optimizer: up to 0.03 nats in runs that a high learning
# rate killed (mnist_5k, three hidden layers, lr 0.01). By rate-distortion R nats lower the error of a Gaussian variable
# by the factor exp(-2R) at most: 0.05 nats by a tenth of l_1, 1 % of the whole error of MNIST, which no picture shows.
KL_FLOOR = 0.05

# Where much KL is to be had, its jitter is larger too: with no unit active, less than a hundredth of it counts as none.
KL_SHARE = 0.01

# Up to this factor an error counts as that of the mean image. The same jitter in the decoder: collapsed runs ended 0.3
# to 1 % above the baseline of the same held-out images.
BASELINE = 1.05

# With q(z) = p(z) samples and reconstructions would be draws of one decoder from one distribution, so their Frechet
# distances would be equal (0.9 to 1.1 times were measured at x_var >= 1 with labels). The distance is a square: four
# times means that the samples lie twice as far from the real images as what the decoder can do.
HOLE_FFD = 4.0

# That alone need not spoil the samples, where the reconstructions are excellent. It has where less than half of the
# real images have a sample as near as their fifth neighbour (real ones reach 1 - 2^-5: Naeem et al. 2020, section 3.3),
HOLE_COVERAGE = 0.5 * (1 - 2**-5)

# or where the judge no longer sees the class asked for in one of four samples of those in which it would see it in a
# real image. Both are conventions, set where a reader of samples.png stops to read digits: on mnist_5k they are legible
# at an accuracy of 0.86 and a coverage of 0.67, smeared at 0.61 and 0.42, half and half at a coverage of 0.44 to 0.49.
HOLE_ACCURACY = 0.75


def status(result: Mapping[str, Any]) -> tuple[str, str]:
    """The status of a finished run and the reason, one sentence with the figures.

    Args:
        result: the row of result.json (experiments/result.py: COLUMNS). Scores may be None or missing; then a hole
            cannot be seen, and the reason says so.
    """
    if result["status"] == "diverged":
        return "diverged", f"the loss or a parameter stopped being finite in epoch {result['diverged_epoch']}"
    sse, kl = result["test_sse"], result["test_kl"]
    if not (_finite(sse) and _finite(kl)):
        return "diverged", f"held-out SSE {sse} and KL {kl} are not both finite"
    zero, mean = result["test_baseline_zero"], result["test_baseline_mean"]
    if sse > result["input_dim"]:
        return "diverged", f"held-out SSE {sse:.3g}, which exceeds D = {result['input_dim']}, each pixel all wrong"
    units = result["test_active_units"]
    floor = max(KL_FLOOR, KL_SHARE * (result["theory_kl_low"] or 0.0))
    told_nothing = kl <= floor and units == 0
    carried = f"KL {kl:.3g} nats in {_count(units, 'active unit')}"

    if sse >= (max((mean + zero) / 2, BASELINE * mean) if told_nothing else BASELINE * mean):
        return "dead", f"SSE {sse:.3g}, that of a zero image is {zero:.3g} and of the mean image {mean:.3g}; {carried}"
    if told_nothing:
        return "collapsed", f"{carried}, SSE {sse:.3g}, {_without_z(result)}; {_closed_form(result)}"
    good = f"SSE {sse:.3g}, {_without_z(result)}; {carried}"
    if not (_finite(result.get("sample_ffd")) and _finite(result.get("reconstruction_ffd"))):
        return "ok", f"{good}; samples were not scored"
    hole, scores = _samples(result)
    return ("hole" if hole else "ok"), f"{good}; {scores}"


def _samples(result: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the samples are no good though the reconstructions are, and the figures."""
    ffd, reached, floor = (result[name] for name in ("sample_ffd", "reconstruction_ffd", "real_ffd"))
    coverage, accuracy, reference = (result[name] for name in ("sample_coverage", "sample_accuracy", "judge_accuracy"))
    far = ffd >= HOLE_FFD * max(reached, floor)  # no decoder need come nearer than real images do
    figures = (
        f"feature Frechet distance of samples {ffd:.3g}, of reconstructions {reached:.3g}; coverage {coverage:.2f}"
    )
    hole = far and coverage < HOLE_COVERAGE
    # A decoder that is not given the label cannot draw the class asked for, wherever its samples come from.
    if result["label_repeat_decoder"] and accuracy is not None and reference is not None:
        figures += f", class seen in {accuracy:.0%} of samples, {reference:.0%} of real images"
        # Sharp samples of the wrong class lie near the real images too. Blurred ones can be unreadable without a hole,
        # where the reconstructions are as blurred.
        legible = reached < HOLE_FFD * floor
        hole = hole or ((far or legible) and accuracy < HOLE_ACCURACY * reference)
    return hole, figures


def _without_z(result: Mapping[str, Any]) -> str:
    """The best that a decoder can do without z."""
    if result["label_repeat_decoder"]:
        return f"the class means' is {result['test_baseline_class_means']:.3g}"
    return f"the mean image's is {result['test_baseline_mean']:.3g}"


def _closed_form(result: Mapping[str, Any]) -> str:
    """Whether a collapse is what theory predicts (linear_theory.prediction), at the run's effective x_var."""
    low, high, t = (result[name] for name in ("theory_kl_low", "theory_kl_high", "effective_x_var"))
    if high == 0:
        return f"as the closed form has it: effective x_var {t:.3g} is not below the largest eigenvalue"
    if low == 0:  # label in the decoder only: t lies between the largest eigenvalues within classes and over all
        return f"the closed form leaves it open at effective x_var {t:.3g}: KL 0 to {high:.3g} nats"
    return f"the closed form keeps KL {low:.3g} nats at effective x_var {t:.3g}, so it is the training that failed"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + "s" * (n != 1)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
