"""Hypotheses about code that printed KL and reconstruction error: a bug, and conventions. Imports no torch.

Each has a closed form on the spectrum of the data (vae/bugs.py), so it predicts what the code prints without training.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vae import bugs
from vae.config import Dataset

SPECTRA = Path(__file__).parent / "spectra"
CHOICES = {
    "labels": ("none", "encoder", "both"),
    "pixels": ("sum", "mean"),
    "latents": ("sum", "mean"),
    "error": ("whole", "half"),
    "range": ("01", "-11"),
    "batch": ("mean", "sum"),
}
BATCH_SIZES = (16, 32, 50, 64, 100, 128, 200, 256, 512)  # tried where the user names none
USUAL_BATCH = 128
SAMPLING = ("correct", "variance_as_std", "half_kl", "double_kl", "broadcast_error", "no_noise")  # need a formula each

KL_FLOOR = 0.01  # nats: two KLs below it count as equal, since a trained one is never exactly 0
NOISE = 0.03  # relative error of values that fit: seeds, rounding, training that is not quite finished
LIKELIHOOD_RATIO = 6.0  # twice the difference in log likelihood from which hypotheses are told apart


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (D,) of the training covariance, of all images and within classes, and where they are from."""

    eigenvalues: np.ndarray
    eigenvalues_within: np.ndarray
    source: str


@dataclass(frozen=True)
class Row:
    """One trained model: its settings, and the two values that its code prints."""

    k: int
    beta: float
    x_var: float
    kl: float
    r: float


@dataclass(frozen=True)
class Hypothesis:
    """What the code may have done.

    Attributes:
        bug: `correct`, a key of `vae.bugs.BUGS`, or `batch_error`: one term averaged over the batch, the other summed.
        pixels, latents: whether the error and the KL are sums or means over these.
        error: whether the squared error is whole, or half of it.
        range: of the pixels, [0, 1] or [-1, 1].
        batch: mean or sum, or which term alone is a sum: error or kl.
        batch_size: of a sum over the batch, and of `broadcast_error`.
    """

    bug: str
    pixels: str = "sum"
    latents: str = "sum"
    error: str = "whole"
    range: str = "01"
    batch: str = "mean"
    batch_size: int = USUAL_BATCH

    @property
    def complexity(self) -> tuple[int, ...]:
        """Of two hypotheses that predict the same, the one with the smaller value is named first."""
        unusual = (self.bug != "correct") + (self.error != "whole") + (self.range != "01")
        return unusual, self.bug != "correct", self.batch != "mean", self.pixels != "sum", self.batch_size

    def weights(self, input_dim: int, k: int) -> tuple[float, float]:
        """The error and KL that the code computes, as multiples of SSE (pixels in [0, 1]) and of KL per image."""
        error = (1 / input_dim if self.pixels == "mean" else 1.0) * (0.5 if self.error == "half" else 1.0)
        error *= 4 if self.range == "-11" else 1
        error *= self.batch_size if self.batch in ("sum", "error") else 1
        if self.bug == "broadcast_error" and self.batch in ("sum", "error"):
            error *= self.batch_size  # a sum over B·B pairs
        kl = (1 / k if self.latents == "mean" else 1.0) * (self.batch_size if self.batch in ("sum", "kl") else 1)
        return error, kl

    def predicted(self, row: Row, spectrum: np.ndarray, between: float, printed: bool) -> tuple[float, float]:
        """KL and error of the closed form: as the code prints them, or as they are, per image."""
        error, kl = self.weights(spectrum.size, row.k)
        t = row.beta * row.x_var * kl / (2 * error)
        loss = bugs.Loss(spectrum, t, row.k, row.beta, self.batch_size, between)
        found = bugs.optimum(self.bug if self.bug in SAMPLING else "correct", loss)
        if not printed:
            return found.kl, found.sse
        return kl * found.printed_kl, error * found.printed_sse


def hypotheses(stated: dict[str, str], batch_size: int | None = None) -> list[Hypothesis]:
    """All that are tried: one bug at a time, under every usual convention that what is stated leaves open."""
    open_ = {name: (stated[name],) if name in stated else choices for name, choices in CHOICES.items()}
    sizes = BATCH_SIZES if batch_size is None else (batch_size,)
    mean_size = USUAL_BATCH if batch_size is None else batch_size
    batches = [("mean", mean_size)] * ("mean" in open_["batch"])
    batches += [("sum", size) for size in sizes] * ("sum" in open_["batch"])
    free = "pixels" not in stated or "latents" not in stated
    meant = [
        (pixels, latents)
        for pixels, latents in itertools.product(open_["pixels"], open_["latents"])
        if pixels == latents or not free
    ]  # a term that is averaged on its own is a bug, unless the user says that it is meant
    meant = meant or [(kind, kind) for name in ("pixels", "latents") if name in stated for kind in open_[name]]
    found = []
    for error, range_ in itertools.product(open_["error"], open_["range"]):
        for (pixels, latents), (batch, size) in itertools.product(meant, batches):
            found += [Hypothesis(bug, pixels, latents, error, range_, batch, size) for bug in SAMPLING]
        for batch, size in batches:
            for bug, pair in (("mean_error", ("mean", "sum")), ("mean_kl", ("sum", "mean"))):
                if pair not in meant:
                    found.append(Hypothesis(bug, *pair, error, range_, batch, size))
        for pair, batch, size in itertools.product(meant, ("error", "kl"), sizes):
            found.append(Hypothesis("batch_error", *pair, error, range_, batch, size))
    return sorted(found, key=lambda h: h.complexity)


@dataclass(frozen=True)
class Ranked:
    """A hypothesis with how far it is off.

    Attributes:
        misfit: root-mean-square log ratio of predicted to given values.
        predicted: (kl, r) of each row.
        same: other hypotheses that predict the same values.
    """

    hypothesis: Hypothesis
    misfit: float
    predicted: list[tuple[float, float]]
    same: list[Hypothesis]


class Diagnosis:
    """All hypotheses and their predictions for the settings of some rows, to be compared with values.

    Args:
        rows: their kl and r do not enter the predictions.
        labels: none, encoder or both: where the network receives the label.
        stated, batch_size: what the user says of the code.
        printed: whether values are as the code prints them, rather than as this framework measures them.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        spectrum: Spectrum,
        labels: str = "none",
        stated: dict[str, str] | None = None,
        batch_size: int | None = None,
        printed: bool = True,
    ) -> None:
        self.rows, self.printed = rows, printed
        self.hypotheses = hypotheses(stated or {}, batch_size)
        own = spectrum.eigenvalues_within if labels == "both" else spectrum.eigenvalues
        between = float(spectrum.eigenvalues.sum() - own.sum())
        self.predicted = np.array([[h.predicted(r, own, between, printed) for r in rows] for h in self.hypotheses])
        self.input_dim = own.size

    @cached_property
    def floor(self) -> np.ndarray:
        """(H, n): KLs below it count as equal, in the units that each hypothesis prints."""
        factor = {"half_kl": 0.5, "double_kl": 2.0}
        scale = [
            [h.weights(self.input_dim, row.k)[1] * factor.get(h.bug, 1.0) if self.printed else 1.0 for row in self.rows]
            for h in self.hypotheses
        ]
        return KL_FLOOR * np.array(scale)

    def misfits(self, given: np.ndarray) -> np.ndarray:
        """Root-mean-square log ratio of each hypothesis (H,), for given values (n, 2) of kl and r."""
        kl = np.log(np.maximum(self.predicted[..., 0], self.floor) / np.maximum(given[:, 0], self.floor))  # (H, n)
        r = np.log(np.maximum(self.predicted[..., 1], 1e-12) / given[:, 1])
        return np.sqrt((kl**2 + r**2).mean(axis=1) / 2)

    def indistinguishable(self, misfits: np.ndarray) -> np.ndarray:
        """(H,) bool: which hypotheses the values cannot tell from the best one."""
        best = misfits.min()
        chi = 2 * len(self.rows) * (misfits**2 - best**2) / max(NOISE, best) ** 2
        return chi <= LIKELIHOOD_RATIO

    def ranking(self, misfits: np.ndarray) -> list[Ranked]:
        """All hypotheses by misfit. Those that predict the same are one entry, under the simplest of them."""
        found: dict[tuple[str, ...], Ranked] = {}
        for ranked in self._in_order(misfits):
            key = tuple(f"{value:.4e}" for pair in ranked.predicted for value in pair)
            if key in found:
                found[key].same.append(ranked.hypothesis)
            else:
                found[key] = ranked
        return list(found.values())

    def best_of_bug(self, misfits: np.ndarray) -> list[Ranked]:
        """The best hypothesis of each bug, by misfit."""
        found: dict[str, Ranked] = {}
        for ranked in self._in_order(misfits):
            found.setdefault(ranked.hypothesis.bug, ranked)
        return list(found.values())

    def _in_order(self, misfits: np.ndarray) -> list[Ranked]:
        order = np.argsort(np.round(misfits, 6), kind="stable")  # equal ones stay in order of complexity
        return [Ranked(self.hypotheses[i], float(misfits[i]), self.predicted[i].tolist(), []) for i in order]


def shipped() -> list[str]:
    """The datasets whose spectra are part of the package."""
    return sorted(path.stem for path in SPECTRA.glob("*.npz"))


def read_spectrum(name: str) -> Spectrum:
    """A spectrum of `shipped`."""
    with np.load(SPECTRA / f"{name}.npz") as stored:
        values, within = (stored[key].astype(np.float64) for key in ("eigenvalues", "eigenvalues_within"))
        return Spectrum(values, within, str(stored["source"]))


def computed_spectrum(config: Dataset) -> Spectrum:
    """The spectrum of the user's own images.

    Raises:
        ConfigError: if they cannot be read.
    """
    from vae.data import facts, load  # torch

    data = load(config)
    known = facts(data)
    return Spectrum(known.eigenvalues, known.eigenvalues_within, data.source)
