"""What an experiment asks about, and the runs that its answer is about."""

from __future__ import annotations

from dataclasses import replace

from experiments.frame import Report
from experiments.outcome import LOST, OUTCOMES
from vae.metrics import METRICS

DEFAULT_COLUMNS = ("test_kl", "test_sse", "sample_accuracy", "sample_ffd")


def asked(report: Report) -> list[str]:
    """The columns of metrics that the experiment asks about, those that its runs have."""
    wanted = report.study.get("columns") or DEFAULT_COLUMNS
    return [c for c in wanted if c in report.runs and report.usable[c].notna().any()]


def uncompared(report: Report) -> list[str]:
    """The columns asked about that hold log-likelihoods of different things, densities and probabilities."""
    kinds = report.usable["likelihood_of"].nunique() if "likelihood_of" in report.usable else 0
    return [c for c in asked(report) if kinds > 1 and c in METRICS and METRICS[c].family in ("likelihood", "nll")]


def comparable(report: Report) -> list[str]:
    """The columns asked about whose values can be compared."""
    left = uncompared(report)
    return [column for column in asked(report) if column not in left]


def asked_outcomes(report: Report) -> list[str]:
    """The outcomes whose rate the experiment asks about."""
    return [c for c in report.study.get("columns") or () if c in OUTCOMES]


def survivors(report: Report) -> Report:
    """The report without the numbers of runs that collapsed or died, where runs of the same setting did not.

    Means over both kinds would describe neither.
    """
    runs = report.runs.copy()
    for cell in report.cells:
        if cell.count(*LOST) < len(cell.usable):
            runs.loc[cell.runs.index[cell.runs["outcome"].isin(LOST)], "usable"] = False
    return replace(report, runs=runs)


def without_bugs(report: Report) -> Report:
    """The report without the runs that have a bug on purpose: nobody picks one of these. All runs, if all have one."""
    sound = report.runs[report.runs["bug.kind"] == "none"] if "bug.kind" in report.keys else report.runs
    return replace(report, runs=sound) if len(sound) else report
