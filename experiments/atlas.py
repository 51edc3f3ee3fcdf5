"""What each of the classic bugs looks like, next to a VAE without one: values, no sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.frame import Cell, Report
from experiments.statistics import Interval
from vae.bugs import BUGS

QUANTITIES = ("kl", "sse", "printed_kl", "printed_r")
SYMPTOMS = ("unfinished", "constant", "noise", "samples", "reconstructions", "numbers")
MUCH = 2.0  # a convention: from this factor on, an error is much worse than without a bug
CONSTANT = 0.95  # a convention: from this share on, an error is that of the mean image


@dataclass(frozen=True)
class Entry:
    """One bug, or none.

    Attributes:
        bug: its name.
        how: how people come to write it; empty for none.
        cell: its runs; all that were measured count as usable.
        outcome: of most of its runs.
        symptom: by what it gives itself away, next to a VAE without a bug (`_symptom`); empty for none.
        measured: on training images, by the names in QUANTITIES. What code without a bug prints is the true value.
        predicted: the closed form of the same; NaN where it has none or is infinite.
    """

    bug: str
    how: str
    cell: Cell
    outcome: str
    symptom: str
    measured: Mapping[str, Interval]
    predicted: Mapping[str, float]


@dataclass(frozen=True)
class Atlas:
    """All bugs of a report.

    Attributes:
        entries: in the order of the sweep.
        by_symptom: names of the bugs with each symptom, in the order of SYMPTOMS.
    """

    entries: Sequence[Entry]
    by_symptom: Mapping[str, Sequence[str]]


def atlas(report: Report) -> Atlas | None:
    """The atlas; None unless the report compares bugs, and nothing else, with a VAE without one."""
    if report.keys != ["bug.kind"] or "train_kl" not in report.runs:
        return None
    cells = [_measured(cell) for cell in report.cells]
    correct = next((cell for cell in cells if cell.settings["bug.kind"] == "none"), None)
    if correct is None:
        return None
    entries = [_entry(cell, correct) for cell in cells]
    by_symptom = {symptom: [e.bug for e in entries if e.symptom == symptom] for symptom in SYMPTOMS}
    return Atlas(entries, {symptom: bugs for symptom, bugs in by_symptom.items() if bugs})


def _measured(cell: Cell) -> Cell:
    """The cell with all runs that have numbers: with no_noise, a held-out error out of bounds is the symptom."""
    return replace(cell, runs=cell.runs.assign(usable=cell.runs["train_kl"].notna()))


def _entry(cell: Cell, correct: Cell) -> Entry:
    bug = str(cell.settings["bug.kind"])
    own = {
        name: name if bug != "none" else {"printed_kl": "kl", "printed_r": "sse"}.get(name, name) for name in QUANTITIES
    }
    return Entry(
        bug,
        BUGS[bug].how if bug in BUGS else "",
        cell,
        Counter(cell.runs["outcome"]).most_common(1)[0][0],
        _symptom(cell, correct) if bug != "none" else "",
        {name: cell.interval(f"train_{column}") for name, column in own.items()},
        {name: _middle(cell, f"train_theory_{column}") for name, column in own.items()},
    )


def _symptom(cell: Cell, correct: Cell) -> str:
    """The first of SYMPTOMS that the means over seeds show.

    `constant`: the error with a sampled z is that of the mean image, or of the class means where the decoder receives
    the label, and reconstructions from z = mu are much worse than without the bug. `noise`: only the former. `samples`,
    `reconstructions`: their error, FFD or SSE, is much larger than without the bug. `numbers`: none of these.
    """

    def much_worse(column: str) -> bool:
        return cell.mean(column) >= MUCH * correct.mean(column)

    if cell.usable.empty:
        return "unfinished"
    with_label = cell.mean("label_repeat_decoder") > 0
    mean_image = cell.mean(f"train_baseline_{'class_means' if with_label else 'mean'}")
    if cell.mean("train_sse") >= CONSTANT * mean_image:
        return "constant" if much_worse("reconstruction_ffd") else "noise"
    if much_worse("sample_ffd") and not much_worse("train_sse"):
        return "samples"
    return "reconstructions" if much_worse("train_sse") else "numbers"


def _middle(cell: Cell, column: str) -> float:
    """The closed form; NaN where its two bounds differ, as for label_placement decoder."""
    low, high = cell.mean(f"{column}_low"), cell.mean(f"{column}_high")
    return low if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12) else math.nan
