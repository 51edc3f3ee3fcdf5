"""KL and reconstruction error of a trained VAE, compared with the closed forms of classic bugs.

    python -m experiments.diagnose dataset=cifar10 k=100 beta=0.1,0.05,0.01 kl=11,20,64 r=2.5,2.2,1.0
    python -m experiments.diagnose run=RUN

kl and r are the two terms as your code prints them, for a loss r/x_var + beta·kl. k, beta and x_var take one value, or
one per row. What you know about the code narrows the search: pixels=sum|mean, latents=sum|mean, error=whole|half,
range=01|-11, batch=mean|sum, batch_size=128, labels=none|encoder|both. dataset is a spectrum that ships with the
package, or the path of a folder of pictures or an .npz file. Nothing is trained.
"""

from __future__ import annotations

import difflib
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from experiments.report.render import render
from vae import bugs
from vae.config import ConfigError, Dataset

SPECTRA = Path(__file__).parent / "spectra"
CHOICES = {
    "labels": ("none", "encoder", "both"),
    "pixels": ("sum", "mean"),
    "latents": ("sum", "mean"),
    "error": ("whole", "half"),
    "range": ("01", "-11"),
    "batch": ("mean", "sum"),
}
NUMBERS = ("k", "beta", "x_var", "kl", "r")
PLACES = ("dataset", "dataset.size", "dataset.channels", "run", "output_dir")
KEYS = (*PLACES, *NUMBERS, *CHOICES, "batch_size")
BATCH_SIZES = (16, 32, 50, 64, 100, 128, 200, 256, 512)  # tried where the user names none
USUAL_BATCH = 128
SAMPLING = ("correct", "variance_as_std", "half_kl", "double_kl", "broadcast_error", "no_noise")  # need a formula each

KL_FLOOR = 0.01  # nats: two KLs below it count as equal, since a trained one is never exactly 0
NOISE = 0.03  # relative error of values that fit: seeds, rounding, training that is not quite finished
FITS = 0.15  # misfit above which no hypothesis is said to fit
LIKELIHOOD_RATIO = 6.0  # twice the difference in log likelihood from which hypotheses are told apart
SHOWN = 12  # hypotheses listed, at most


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


def report(rows: Sequence[Row], diagnosis: Diagnosis, source: str) -> str:
    """The text of a diagnosis."""
    misfits = diagnosis.misfits(np.array([(row.kl, row.r) for row in rows]))
    ranking = diagnosis.ranking(misfits)
    limit = misfits[diagnosis.indistinguishable(misfits)].max()
    return render(
        "diagnose.md.j2",
        rows=rows,
        source=source,
        tried=len(diagnosis.hypotheses),
        fits=ranking[0].misfit <= FITS,
        limit=FITS,
        close=[r for r in ranking if r.misfit <= limit],
        shown=SHOWN,
        by_bug=diagnosis.best_of_bug(misfits),
        how={name: bug.how for name, bug in bugs.BUGS.items()},
    )


# --- where values and spectra come from


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


def _spectrum_of(given: dict[str, str]) -> Spectrum:
    name = given.get("dataset")
    if name is None:
        raise ConfigError(f"dataset: must be given; allowed: {', '.join(shipped())}, or a path")
    if name in shipped():
        return read_spectrum(name)
    if not Path(name).expanduser().exists():
        raise ConfigError(f"dataset={name}: no such spectrum or path; allowed: {', '.join(shipped())}, or a path")
    if name.endswith(".npz"):
        return computed_spectrum(Dataset(kind="npz", root=name))
    size, channels = _numbers(given, "dataset.size", 32)[0], _numbers(given, "dataset.channels", 3)[0]
    return computed_spectrum(Dataset(kind="image_folder", root=name, size=int(size), channels=int(channels)))


def _from_run(given: dict[str, str]) -> tuple[Diagnosis, str]:
    """The diagnosis of a run, by its values on training images.

    Raises:
        ConfigError: if there is no such run, or it has no values.
    """
    from experiments.evaluate import read_metrics, runs_of
    from experiments.settings import read_settings

    where = f"run={given['run']}"
    try:
        (folder,) = runs_of([given["run"]], given.get("output_dir", "outputs"))
    except (ValueError, OSError) as e:
        raise ConfigError(f"{where}: not one run ({e}); allowed: the name of a run") from None
    values, result = read_metrics(folder, ("reconstruction", "theory"))[0], folder.result() or {}
    if any(values.get(key) is None for key in ("train_kl", "train_sse", "effective_x_var")):
        raise ConfigError(f"{where}: it has no metrics; allowed: a trained run, after python -m experiments.evaluate")
    settings = result["settings"]
    labels, kind = settings["label_placement.kind"], settings["dataset.kind"]
    if labels not in CHOICES["labels"]:
        raise ConfigError(f"{where}: label_placement={labels} has no closed form; allowed: both, encoder, none")
    if kind in shipped() and not settings.get("dataset.validation"):
        spectrum = read_spectrum(kind)
    else:
        spectrum = computed_spectrum(read_settings(folder.path).dataset)
    k, reduction = result["z_dim"], "mean" if settings["objective.kind"] == "per_dim" else "sum"
    stated = {"pixels": reduction, "latents": reduction, "error": "whole", "range": "01", "batch": "mean"}
    # The row's x_var is the one that gives this loss the effective variance of the run.
    x_var = 2 * values["effective_x_var"] * (k / spectrum.eigenvalues.size if reduction == "mean" else 1)
    row = Row(k, 1.0, x_var, values["train_kl"], values["train_sse"])
    batch_size = settings["trainer.batch_size"]
    return Diagnosis([row], spectrum, labels, stated, batch_size, printed=False), spectrum.source


def _numbers(given: dict[str, str], key: str, default: float | None = None) -> list[float]:
    """The values of a setting, separated by commas.

    Raises:
        ConfigError: if one is missing or out of range.
    """
    whole = key in ("k", "batch_size") or key.startswith("dataset.")
    allowed = "whole numbers >= 1" if whole else f"numbers {'>=' if key == 'kl' else '>'} 0"
    if key not in given:
        if default is None:
            raise ConfigError(f"{key}: must be given; allowed: {allowed}, separated by commas")
        return [default]
    found = []
    for text in given[key].split(","):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        good = value >= 0 if key == "kl" else value > 0
        if not (math.isfinite(value) and good and (not whole or value == int(value))):
            raise ConfigError(f"{key}={given[key]}: {text or 'an empty value'} cannot be used; allowed: {allowed}")
        found.append(value)
    return found


def _from_values(given: dict[str, str]) -> tuple[Diagnosis, str]:
    """The diagnosis of values on the command line."""
    columns = {key: _numbers(given, key, 1.0 if key in ("beta", "x_var") else None) for key in NUMBERS}
    n = len(columns["kl"])
    for key, values in columns.items():
        if len(values) != n and (len(values) > 1 or key == "r"):
            raise ConfigError(f"{key}={given[key]}: {len(values)} given, but {n} of kl; allowed: as many as of kl")
    rows = [
        Row(int(k), beta, x_var, kl, r)
        for k, beta, x_var, kl, r in zip(*(v * n if len(v) == 1 else v for v in columns.values()), strict=True)
    ]
    stated = {key: given[key] for key in CHOICES if key in given}
    for key, value in stated.items():
        if value not in CHOICES[key]:
            raise ConfigError(f"{key}={value}: not an option; allowed: {', '.join(CHOICES[key])}")
    labels = stated.pop("labels", "none")
    size = int(_numbers(given, "batch_size")[0]) if "batch_size" in given else None
    spectrum = _spectrum_of(given)
    return Diagnosis(rows, spectrum, labels, stated, size), spectrum.source


def _parsed(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    seen = set()
    for text in argv:
        key, equals, value = text.partition("=")
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{text}: no such setting{hint}; allowed: {', '.join(KEYS)}")
        if not equals or not value or key in seen:
            raise ConfigError(f"{text}: {'given twice' if key in seen else 'has no value'}; allowed: {key}=VALUE, once")
        seen.add(key)
        yield key, value


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or set(argv) & {"-h", "--help"}:
        print(__doc__)
        return 0
    try:
        given = dict(_parsed(argv))
        if "run" in given and (more := [key for key in given if key not in ("run", "output_dir")]):
            raise ConfigError(f"{more[0]}={given[more[0]]}: not together with run; allowed: run and output_dir")
        diagnosis, source = _from_run(given) if "run" in given else _from_values(given)
    except ConfigError as e:
        print(f"diagnose: {e}", file=sys.stderr)
        return 2
    print(report(diagnosis.rows, diagnosis, source), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
