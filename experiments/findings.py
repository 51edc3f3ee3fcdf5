"""What the runs of a report show, as values: effects of settings (`effects`), rates of outcomes, and failures.

A mean is over the runs of a setting that use their latents: those that collapsed or died are counted, not averaged with
the others. Rates are per setting, never over a mixture of settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.above_theory import AboveTheory, above_theory
from experiments.asked import asked_outcomes, survivors, without_bugs
from experiments.effects import KeyFinding, controls, key_findings
from experiments.frame import Cell, Report
from experiments.keys import same
from experiments.outcome import JUDGED, OUTCOMES
from experiments.statistics import Interval, rate_difference, wilson_interval
from experiments.wording import described

# ---------------------------------------------------------------------------------------------- rates


@dataclass(frozen=True)
class RateRow:
    """How often the runs of one setting have one of some outcomes.

    Attributes:
        rate: with Wilson's interval, among the runs that have numbers.
        against: name of the control (`controls`); None for the first.
        change: the rate less the control's, with Newcombe's interval.
        expected: whether the closed form keeps no KL there, so that collapse is the optimum.
        diverged: how many runs diverged, which are not part of the rate.
    """

    name: str
    rate: Interval
    against: str | None
    change: Interval | None
    expected: bool
    diverged: int

    @property
    def prevents(self) -> bool:
        """Whether no run has these outcomes or diverges, measurably fewer than with the control."""
        return self.rate.mean == 0 and not self.diverged and self.change is not None and self.change.high < 0

    @property
    def causes(self) -> bool:
        """Whether every run has them, measurably more than with the control, although the closed form is not empty."""
        return self.rate.mean == 1 and self.change is not None and self.change.low > 0 and not self.expected


@dataclass(frozen=True)
class Rates:
    """The rate of some outcomes, taken together, by setting."""

    outcomes: tuple[str, ...]
    rows: list[RateRow]


def rates(report: Report, outcomes: Sequence[str]) -> Rates:
    """How often runs end with one of these outcomes, by setting, each compared with its control."""
    cells = [cell for cell in report.cells if len(cell.usable)]
    rows = [RateRow(cell.name, cell.rate(*outcomes), None, None, cell.empty, cell.count("diverged")) for cell in cells]
    for i, (cell, base) in enumerate(controls(cells), start=1):
        change = rate_difference(base.count(*outcomes), len(base.usable), cell.count(*outcomes), len(cell.usable))
        rows[i] = replace(rows[i], against=base.name, change=change)
    return Rates(tuple(outcomes), rows)


@dataclass(frozen=True)
class Failure:
    """Where one outcome other than ok occurs.

    Attributes:
        everywhere: names of the settings whose runs all have it; settings that share a value are one name (`grouped`).
        sometimes: name and rate (Wilson) of the others, the most frequent first.
        rates: of every setting, by its name.
    """

    outcome: str
    rates: dict[str, Interval]
    everywhere: list[str]
    sometimes: list[tuple[str, Interval]]


def failures(report: Report) -> list[Failure]:
    """Outcomes other than ok, in the order of OUTCOMES. Those without numbers are counted among all runs."""
    found = []
    occurring = set(report.runs["outcome"])
    for outcome in [outcome for outcome in OUTCOMES[1:] if outcome in occurring]:
        own = {
            cell.name: wilson_interval(cell.count(outcome), len(cell.usable if outcome in JUDGED else cell.runs))
            for cell in report.cells
        }
        everywhere = [cell for cell in report.cells if own[cell.name].mean == 1]
        sometimes = sorted(((name, r) for name, r in own.items() if 0 < r.mean < 1), key=lambda pair: -pair[1].mean)
        found.append(Failure(outcome, own, grouped(report.cells, everywhere), sometimes))
    return found


def grouped(everyone: Sequence[Cell], cells: Sequence[Cell]) -> list[str]:
    """The names of cells: one name for all cells that share a value of a key, if they are all there."""
    if len(cells) == len(everyone) > 1:
        return ["every setting"]
    left, names = list(cells), []
    keys = list(everyone[0].settings)
    for key in keys if len(keys) > 1 else ():
        for value in dict.fromkeys(cell.settings[key] for cell in everyone):
            own = [cell for cell in everyone if same(cell.settings[key], value)]
            if len(own) > 1 and all(cell in cells for cell in own) and any(cell in left for cell in own):
                names.append(described({key: value}))
                left = [cell for cell in left if cell not in own]
    return names + [cell.name for cell in left]


# ---------------------------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Findings:
    """What the report says, apart from advice.

    Attributes:
        keys: what each swept setting changes, the most important first.
        rates: of the outcomes that the experiment asks about; None where it asks about none.
        evaluation: by family of metrics and reason, how many runs could not be evaluated.
    """

    keys: list[KeyFinding]
    rates: Rates | None
    failures: list[Failure]
    above: AboveTheory
    evaluation: list[tuple[str, str, int]]

    @property
    def rates_first(self) -> bool:
        """Whether the rates are the main finding: the experiment asks about them, and they are not all 0."""
        return self.rates is not None and any(row.rate.mean > 0 for row in self.rates.rows)


def findings(report: Report) -> Findings:
    """All findings of a report."""
    alive = survivors(report)
    outcomes = asked_outcomes(report)
    counts = Counter((family, reason) for own in report.runs["failures"] for family, reason in own.items())
    return Findings(
        key_findings(alive),
        rates(report, outcomes) if outcomes else None,
        failures(report),
        above_theory(without_bugs(alive)),
        [(family, reason, n) for (family, reason), n in sorted(counts.items())],
    )
