"""What became of a run: exactly one of OUTCOMES, judged from its files' numbers alone. Imports no torch.

ok          None of the others.
collapsed   The posterior equals the prior, so z carries nothing: KL and active units are at the floor. The decoder is
            left with a constant image, the class mean where it receives the label.
dead        Worse than the mean image: where z carries nothing, the error is closer to that of the zero image, the
            "completely dark image", than to that of the mean image.
prior_hole  Reconstructions are good and samples are not: the aggregate posterior differs from the prior, and z from
            the prior falls where the decoder was never trained.
diverged    The loss, a parameter or a held-out figure is not a finite number; or the held-out error exceeds D, which
            means that every pixel is wrong by its whole range.
failed      An error ended the training, or the files of the run cannot be read.
missing     Not finished.

Errors, KL and scores are those of held-out images: SSE per image with z sampled, KL in nats per image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

OUTCOMES = ("ok", "collapsed", "dead", "prior_hole", "diverged", "failed", "missing")
LOST = ("collapsed", "dead")  # the outcomes of runs that do not use their latents
JUDGED = ("ok", "collapsed", "dead", "prior_hole")  # the outcomes of runs that have usable numbers

# A collapsed posterior keeps a little KL, the jitter of the optimizer: up to 0.03 nats in runs that a high learning
# rate killed (mnist_5k, three hidden layers, lr 0.01). By rate-distortion R nats lower the error of a Gaussian variable
# by the factor exp(-2R) at most: 0.05 nats by a tenth of l_1, 1 % of the whole error of MNIST, which no picture shows.
KL_FLOOR = 0.05

# Where much KL is available its jitter is larger too: with no active unit, less than a hundredth of it counts as none.
KL_SHARE = 0.01

# Up to this factor an error counts as that of the mean image. Collapsed runs ended 0.3 to 1 % above the baseline of the
# same held-out images, by the same jitter in the decoder.
BASELINE = 1.05

# With q(z) = p(z) samples and reconstructions would be draws of one decoder from one distribution, and their Fréchet
# distances would be equal (0.9 to 1.1 times were measured at x_var >= 1 with labels). The distance is a square: four
# times means that the samples lie twice as far from the real images as the decoder can come.
HOLE_FFD = 4.0

# That alone need not spoil the samples where reconstructions are excellent. It has when less than half of the real
# images have a sample as near as their fifth neighbour (real ones reach 1 - 2^-5: Naeem et al. 2020, section 3.3),
HOLE_COVERAGE = 0.5 * (1 - 2**-5)

# or when the judge no longer sees the requested class in one of four samples of those in which it would see it in a
# real image. Both are conventions, set where a reader stops recognising digits: on mnist_5k they are legible at an
# accuracy of 0.86 and a coverage of 0.67, and smeared at 0.61 and 0.42.
HOLE_ACCURACY = 0.75


def judge(row: Mapping[str, Any]) -> tuple[str, str]:
    """The outcome of a finished run, and the reason where it has no usable numbers.

    Args:
        row: the run's numbers by column; a column may be missing, None or NaN. Without scores of the samples a prior
            hole cannot be seen.
    """
    if row["status"] == "diverged":
        return "diverged", f"the loss or a parameter stopped being finite in epoch {row['diverged_epoch']:.0f}"
    sse, kl, input_dim = (_number(row, name) for name in ("test_sse", "test_kl", "input_dim"))
    if not (math.isfinite(sse) and math.isfinite(kl)):
        return "diverged", "the held-out SSE or KL is not finite"
    if sse > input_dim:
        return (
            "diverged",
            f"the held-out SSE {sse:.3g} exceeds D = {input_dim:.0f}: the error per pixel is larger than the range",
        )
    zero, mean, units = (_number(row, f"test_{name}") for name in ("baseline_zero", "baseline_mean", "active_units"))
    floor = max(KL_FLOOR, KL_SHARE * max(0.0, _number(row, "train_theory_kl_low", 0.0)))
    empty = kl <= floor and units == 0  # z carries nothing
    if sse >= (max((mean + zero) / 2, BASELINE * mean) if empty else BASELINE * mean):
        return "dead", ""
    if empty:
        return "collapsed", ""
    return ("prior_hole" if _has_hole(row) else "ok"), ""


def _has_hole(row: Mapping[str, Any]) -> bool:
    """Whether the samples are bad though the reconstructions are good."""
    ffd, reached, real = (_number(row, f"{name}_ffd") for name in ("sample", "reconstruction", "real"))
    if not (math.isfinite(ffd) and math.isfinite(reached)):
        return False
    far = ffd >= HOLE_FFD * max(reached, real)  # no decoder need come nearer than real images do
    if far and _number(row, "sample_coverage") < HOLE_COVERAGE:
        return True
    # A decoder without the label cannot draw the requested class, wherever its samples come from.
    accuracy, reference = _number(row, "sample_accuracy"), _number(row, "judge_accuracy")
    if not row.get("label_repeat_decoder") or math.isnan(accuracy) or math.isnan(reference):
        return False
    # Sharp samples of the wrong class lie near the real images too. Blurred ones can be unreadable without a hole,
    # where the reconstructions are as blurred.
    legible = reached < HOLE_FFD * real
    return (far or legible) and accuracy < HOLE_ACCURACY * reference


def _number(row: Mapping[str, Any], column: str, default: float = math.nan) -> float:
    value = row.get(column)
    return default if value is None or math.isnan(value) else float(value)
