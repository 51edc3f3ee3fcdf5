"""What the latents explain: whether the prior is to blame for bad samples, and how much class information z carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from experiments.findings import LOST, along, reference_value
from experiments.frame import Cell, Report
from experiments.keys import same
from experiments.statistics import Interval
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
    """One entry for each x_var; other settings have their default, or the first value. Empty without `probe_accuracy`.

    Runs that collapsed or died are left out.
    """
    key = "label_placement.kind"
    used = _using_latents(report)
    if key not in used.runs:
        return []
    found = []
    for rest, cells in along(used, key) if key in used.keys else [(used.rest(c, None), [c]) for c in used.cells]:
        others = {k: v for k, v in rest.items() if k != "x_var.value"}
        told = [cell for cell in cells if len(cell.values("probe_accuracy"))]
        if told and all(same(v, reference_value(k, report.values(k))) for k, v in others.items()):
            accuracies = [(str(_placement(cell)), cell.interval("probe_accuracy")) for cell in told]
            found.append(Leakage(rest, accuracies, told[0].mean("probe_chance")))
    return found


def _placement(cell: Cell) -> Any:
    return cell.usable["label_placement.kind"].iloc[0]


def _using_latents(report: Report) -> Report:
    """The report without the numbers of runs that collapsed or died."""
    usable = report.runs["usable"] & ~report.runs["outcome"].isin(LOST)
    return replace(report, runs=report.runs.assign(usable=usable))
