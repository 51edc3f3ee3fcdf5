"""What the latents explain: whether the prior is to blame for bad samples, and how much class information z carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from experiments.frame import Cell, Report
from experiments.keys import same
from experiments.outcome import LOST
from experiments.statistics import Interval
from experiments.wording import SETTING
from vae.metrics.expost import FITS

GAP = "sample_ffd - reconstruction_ffd"


@dataclass(frozen=True)
class PriorShare:
    """How much of the gap in FFD between samples and reconstructions closes when z comes from a fit to the latents.

    Attributes:
        name: of the setting.
        prior, reconstruction: FFD of samples from the prior, and of reconstructions.
        gap: their difference within each run; its interval lies above 0.
        fits: FFD of samples from each fit, by name.
        closed: (prior - fit)/(prior - reconstruction), computed for each run; 1 where the prior explains all of the
            gap.
    """

    name: str
    prior: Interval
    reconstruction: Interval
    gap: Interval
    fits: dict[str, Interval]
    closed: dict[str, Interval]


def prior_shares(report: Report) -> list[PriorShare]:
    """The settings with a measurable gap, the largest first. Runs that collapsed, died or diverged are left out.

    Empty without the family `expost`, and where no setting has two runs.
    """
    found = []
    for cell in _using_latents(report).cells:
        gap, fits = cell.interval(GAP), {fit: cell.interval(f"expost_{fit}_ffd") for fit in FITS}
        if not gap.low > 0 or not all(own.n for own in fits.values()):
            continue
        closed = {fit: cell.interval(f"(sample_ffd - expost_{fit}_ffd) / ({GAP})") for fit in FITS}
        ffds = cell.interval("sample_ffd"), cell.interval("reconstruction_ffd")
        found.append(PriorShare(cell.name, *ffds, gap, fits, closed))
    return sorted(found, key=lambda share: -share.gap.mean)


@dataclass(frozen=True)
class Leakage:
    """The accuracy of a linear probe for the class on z, by label placement.

    Attributes:
        rest: the other settings that vary.
        accuracies: by label placement, or of the only one.
        chance: of a probe that sees nothing.
    """

    rest: dict[str, Any]
    accuracies: list[tuple[str, Interval]]
    chance: float


def leakage(report: Report) -> list[Leakage]:
    """One entry for each x_var; other settings have their reference values. Empty without `probe_accuracy`.

    Runs that collapsed or died are left out.
    """
    used = _using_latents(report)
    usual = report.usual
    # By the values of x_var and of other settings than these two that are varied: the settings by label placement.
    found: dict[str, tuple[dict[str, Any], dict[str, Cell]]] = {}
    for cell in used.cells:
        if not len(cell.values("probe_accuracy")):
            continue
        placement = cell.usable["label_placement.kind"].iloc[0]
        rest = {k: v for k, v in used.rest(cell, "label_placement.kind").items() if k != SETTING}
        rest = {k: usual[k] if v is None else v for k, v in rest.items()}  # one that plays no part matches any
        others = {k: v for k, v in rest.items() if k != "x_var.value"}
        if all(same(v, usual[k]) for k, v in others.items()):
            # Of a sweep that changes one thing at a time, the first setting with this placement.
            found.setdefault(repr(rest), (rest, {}))[1].setdefault(str(placement), cell)
    return [
        Leakage(
            rest,
            [(placement, cell.interval("probe_accuracy")) for placement, cell in cells.items()],
            next(iter(cells.values())).mean("probe_chance"),
        )
        for rest, cells in found.values()
    ]


def _using_latents(report: Report) -> Report:
    """The report without the numbers of runs that collapsed or died."""
    usable = report.runs["usable"] & ~report.runs["outcome"].isin(LOST)
    return replace(report, runs=report.runs.assign(usable=usable))
