"""A report's numbers compared with those of the reference reports that are shipped, outputs/reference/*/runs.csv.

Runs of one name have the same settings, data and training version, so their numbers must be the same, to the last digit
on the same processor and library versions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.frame import Report, setting_columns
from experiments.reading import REFERENCE
from experiments.report.render import render
from experiments.statistics import mean_interval
from vae.metrics import METRICS

UNFINISHED = ("failed", "missing")
SCORED = ("generation", "expost")  # families of metrics that the judge scores
ROUNDING = 1e-6  # numbers that do not depend on training, such as a closed form, may differ by this share


@dataclass(frozen=True)
class Comparison:
    """How the numbers of runs agree with those of the same runs in a reference report.

    Attributes:
        reference: the name of the reference report.
        n_runs, n_numbers, n_differ: how many runs both have, how many of their metrics and counts were compared, and
            how many of these differ in any digit.
        largest: the largest difference as a share of the larger of the two values; infinite where only one of the two
            has a value, 0 where none differs.
        column, run: where that is; empty where none differs.
        n_means, n_agree: how many means over the seeds of a setting were compared, and how many of these agree: the
            95 % interval of the difference, paired by seed, contains 0, or both are equal but for rounding.
        same_judge: whether one judge scored the samples of both. If not, its scores are not among these means: they
            differ by the same amount for all seeds.
    """

    reference: str
    n_runs: int
    n_numbers: int
    n_differ: int
    largest: float
    column: str
    run: str
    n_means: int = 0
    n_agree: int = 0
    same_judge: bool = True


def compare(report: Report, reference_root: Path = REFERENCE) -> Comparison | None:
    """Compares a report with the reference report that shares most runs with it; None if none shares any.

    Compared are the metrics and counts that both have as numbers. A file that cannot be read counts as no reference.
    """
    ours = report.runs[~report.runs["outcome"].isin(UNFINISHED)]
    best, name = pd.DataFrame(), ""
    for path in sorted(reference_root.glob("*/runs.csv")):
        try:
            found = pd.read_csv(path, dtype=str).set_index("run")  # numpy reads a number exactly; not every pandas does
        except (OSError, ValueError, KeyError):
            continue
        found = found.loc[found.index.intersection(ours.index)]
        if len(found) > len(best):
            best, name = found, path.parent.name
    if best.empty:
        return None
    shared = (
        ours.select_dtypes("number").columns.intersection(best.columns).difference(setting_columns(ours), sort=False)
    )
    theirs = {column: values for column in shared if (values := _numbers(best[column])) is not None}
    a = ours.loc[best.index, list(theirs)].to_numpy(float)  # (runs, columns)
    b = pd.DataFrame(theirs).to_numpy(float).reshape(a.shape)  # (runs, columns)
    compared = ~(np.isnan(a) & np.isnan(b))
    differ = compared & (a != b)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(differ, np.nan_to_num(np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)), nan=np.inf), 0.0)
    run, column = "", ""
    if differ.any():
        i, j = divmod(int(share.argmax()), len(theirs))
        run, column = str(best.index[i]), list(theirs)[j]
    largest = float(share.max(initial=0.0))
    judges = [set(runs.get("judge", pd.Series(dtype=str)).dropna()) for runs in (ours.loc[best.index], best)]
    same_judge = judges[0] == judges[1]
    meant = [same_judge or name not in METRICS or METRICS[name].family not in SCORED for name in theirs]
    ours_meant, theirs_meant = a[:, meant], b[:, meant]
    agree = [
        _agree(*pair)
        for cell in report.cells
        for pair in _seeds(ours_meant, theirs_meant, np.flatnonzero(best.index.isin(cell.runs.index)))
    ]
    return Comparison(
        name,
        len(best),
        int(compared.sum()),
        int(differ.sum()),
        largest,
        column,
        run,
        len(agree),
        sum(agree),
        same_judge,
    )


def _seeds(a: np.ndarray, b: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The values of each column in these rows that are finite in both, where at least two are."""
    for ours, theirs in zip(a[rows].T, b[rows].T, strict=True):  # (seeds,) each
        finite = np.isfinite(ours) & np.isfinite(theirs)
        if finite.sum() > 1:
            yield ours[finite], theirs[finite]


def _agree(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the means of two columns of values, paired by seed, agree."""
    return bool(np.allclose(ours, theirs, rtol=ROUNDING, atol=0)) or not mean_interval(ours - theirs).excludes_zero


def _numbers(texts: pd.Series) -> np.ndarray | None:
    """A column of a CSV as numbers; None if it holds other texts, as files of earlier versions do."""
    try:
        return texts.fillna("nan").to_numpy(str).astype(float)
    except ValueError:
        return None


def line(comparison: Comparison) -> str:
    """The comparison in a sentence or two, for a report and for the end of a sweep."""
    return render("compare.md.j2", c=comparison, infinity=math.inf).strip()
