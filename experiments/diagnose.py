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
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.hypotheses import CHOICES, Diagnosis, Row, Spectrum, computed_spectrum, read_spectrum, shipped
from experiments.report.render import render
from vae import bugs
from vae.config import ConfigError, Dataset

NUMBERS = ("k", "beta", "x_var", "kl", "r")
PLACES = ("dataset", "dataset.size", "dataset.channels", "run", "output_dir")
KEYS = (*PLACES, *NUMBERS, *CHOICES, "batch_size")
FITS = 0.15  # misfit above which no hypothesis is said to fit
SHOWN = 12  # hypotheses listed, at most


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
