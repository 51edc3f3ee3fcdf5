"""A report's numbers compared with those of the reference reports that are shipped, outputs/reference/*/runs.csv.

A run's name holds the hash of its settings, its data and the training version, so runs of one name must have the same
numbers, to the last digit on the same processor and library versions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.frame import SETTINGS, Report
from experiments.report.render import render

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"
UNFINISHED = ("failed", "missing")


@dataclass(frozen=True)
class Comparison:
    """How the numbers of runs agree with those of the same runs in a reference report.

    Attributes:
        reference: the name of the reference report.
        n_runs: of the report's runs, how many the reference has too.
        n_numbers: how many metrics and counts were compared.
        n_differ: how many of them differ in any digit.
        largest: the largest difference as a share of the reference's value; infinite where only one of the two has a
            value, 0 where none differs.
        column, run: where that is; empty where none differs.
    """

    reference: str
    n_runs: int
    n_numbers: int
    n_differ: int
    largest: float
    column: str
    run: str


def compare(report: Report, reference_root: Path = REFERENCE) -> Comparison | None:
    """Compares a report with the reference report that shares most runs with it; None if none shares any.

    Compared are the metrics and counts that both have. A file that cannot be read counts as no reference.
    """
    ours = report.runs[~report.runs["outcome"].isin(UNFINISHED)]
    best: pd.DataFrame | None = None
    name = ""
    for path in sorted(reference_root.glob("*/runs.csv")):
        try:
            found = pd.read_csv(path, dtype=str).set_index("run")  # numpy reads a number exactly; not every pandas does
        except (OSError, ValueError, KeyError):
            continue
        found = found.loc[found.index.intersection(ours.index)]
        if len(found) > (0 if best is None else len(best)):
            best, name = found, path.parent.name
    if best is None:
        return None
    numbers = ours.select_dtypes("number").columns.intersection(best.columns)
    columns = numbers.difference([*SETTINGS, "seed"], sort=False)
    a = ours.loc[best.index, columns].to_numpy(float)  # (runs, columns)
    b = best[columns].fillna("nan").to_numpy(str).astype(float)  # (runs, columns)
    compared = ~(np.isnan(a) & np.isnan(b))
    differ = compared & (a != b)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(differ, np.nan_to_num(np.abs(a - b) / np.abs(b), nan=np.inf), 0.0)
    row, column = divmod(int(share.argmax()), len(columns)) if differ.any() else (0, 0)
    return Comparison(
        reference=name,
        n_runs=len(best),
        n_numbers=int(compared.sum()),
        n_differ=int(differ.sum()),
        largest=float(share.max(initial=0.0)),
        column=str(columns[column]) if differ.any() else "",
        run=str(best.index[row]) if differ.any() else "",
    )


def line(comparison: Comparison) -> str:
    """The comparison in a sentence or two, for a report and for the end of a sweep."""
    return render("compare.md.j2", c=comparison, infinity=math.inf).strip()
