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


@dataclass(frozen=True)
class Entry:
    """One bug, or none.

    Attributes:
        bug: its name.
        how: how people come to write it; empty for none.
        cell: its runs; all that were measured count as usable.
        outcome: of most of its runs.
        measured: on training images, by the names in QUANTITIES. What code without a bug prints is the true value.
        predicted: the closed form of the same; NaN where it has none or is infinite.
    """

    bug: str
    how: str
    cell: Cell
    outcome: str
    measured: Mapping[str, Interval]
    predicted: Mapping[str, float]


@dataclass(frozen=True)
class Atlas:
    """All bugs of a report.

    Attributes:
        entries: in the order of the sweep.
        by_outcome: names of the bugs whose runs mostly end so, without `none`.
    """

    entries: Sequence[Entry]
    by_outcome: Mapping[str, Sequence[str]]


def atlas(report: Report) -> Atlas | None:
    """The atlas; None unless the report is about bugs alone."""
    if report.keys != ["bug.kind"]:
        return None
    entries = [_entry(cell) for cell in report.cells if len(cell.runs)]
    by_outcome: dict[str, list[str]] = {}
    for entry in entries:
        if entry.bug != "none":
            by_outcome.setdefault(entry.outcome, []).append(entry.bug)
    return Atlas(entries, by_outcome)


def _entry(cell: Cell) -> Entry:
    bug = str(cell.settings["bug.kind"])
    # Also of runs whose held-out error is out of bounds: with no_noise this is the symptom.
    cell = replace(cell, runs=cell.runs.assign(usable=cell.runs["train_kl"].notna()))
    own = {
        name: name if bug != "none" else {"printed_kl": "kl", "printed_r": "sse"}.get(name, name) for name in QUANTITIES
    }
    return Entry(
        bug,
        BUGS[bug].how if bug in BUGS else "",
        cell,
        Counter(cell.runs["outcome"]).most_common(1)[0][0],
        {name: cell.interval(f"train_{column}") for name, column in own.items()},
        {name: _middle(cell, f"train_theory_{column}") for name, column in own.items()},
    )


def _middle(cell: Cell, column: str) -> float:
    """The closed form; NaN where its two bounds differ, as for label_placement decoder."""
    low, high = cell.mean(f"{column}_low"), cell.mean(f"{column}_high")
    return low if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12) else math.nan
