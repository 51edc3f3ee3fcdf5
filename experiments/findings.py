"""What the runs of a report show, as values: effects of settings, rates of outcomes, and what is worth knowing.

A mean is over the runs of a setting that use their latents: those that collapsed or died are counted, not averaged with
the others. Rates are per setting, never over a mixture of settings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd

from experiments.above_theory import AboveTheory, above_theory
from experiments.frame import Cell, Report, changed
from experiments.keys import is_number, mostly_numbers, reference_value, same
from experiments.outcome import JUDGED, LOST, OUTCOMES
from experiments.statistics import Interval, paired_interval, rate_difference, wilson_interval
from experiments.wording import SETTING, described
from vae.metrics import METRICS

DEFAULT_COLUMNS = ("test_kl", "test_sse", "sample_accuracy", "sample_ffd")
MAX_TOLD = 4  # effects in the answer
MAX_CHANGES = 6  # the same, where each is of another setting


# ---------------------------------------------------------------------------------------------- what is asked


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


# ---------------------------------------------------------------------------------------------- effects


def _direction(column: str) -> str:
    return METRICS[column].direction if column in METRICS else ""


@dataclass(frozen=True)
class Effect:
    """How one column differs between two settings that differ in one key.

    Attributes:
        first, second: the two values of the key; for a sweep that changes one thing at a time, the settings' names.
        start, end: the column there.
        change: end less start, paired by seed.
        typical: half the interval of a usual change of that column; a smaller one is luck with few seeds.
    """

    column: str
    first: Any
    second: Any
    start: Interval
    end: Interval
    change: Interval
    typical: float = 0.0

    @property
    def importance(self) -> float:
        """Size of the change relative to its interval; 0 without one."""
        half = max(self.change.half, self.typical)
        if not math.isfinite(self.change.half) or self.change.mean == 0:
            return 0.0
        return abs(self.change.mean) / half if half else math.inf

    @property
    def better(self) -> bool | None:
        """Whether the change is an improvement; None where the column has no better direction."""
        direction = _direction(self.column)
        return (self.change.mean < 0) == (direction == "lower") if direction else None


@dataclass(frozen=True)
class Elsewhere:
    """A column at other values of the other settings: at the reference value of a key and where it differs."""

    rest: dict[str, Any]
    start: Interval
    values: list[tuple[Any, Interval]]


@dataclass(frozen=True)
class KeyFinding:
    """What one setting does to the columns that the experiment asks about.

    Attributes:
        key: the setting, by dotted name.
        numeric: whether `clear` goes from one end of the key's values to the other; else from the reference value to
            the value where the column changes most.
        rest: the other settings, which are held.
        clear: effects whose interval excludes 0, the most important first.
        by_key: for a sweep that changes one thing at a time, the clearest effect of each thing it changes.
        ends: of one run per setting, which `clear` can say nothing about, the columns at both ends.
        unclear: columns without such an effect; for a sweep that changes one thing at a time the settings without one.
        values: the most important column at each value of the key, in the sweep's order.
        alike: the values at which that column does not differ measurably from the reference value's.
        best: by column, the value of the key between the ends where it is better than at both, and the column there.
        elsewhere: for other values of `rest`, what of `alike` makes a measurable difference there.
        testable: whether two settings share at least two seeds.
    """

    key: str
    numeric: bool
    rest: dict[str, Any]
    clear: list[Effect]
    by_key: list[Effect]
    ends: list[Effect]
    unclear: list[str]
    values: list[tuple[Any, Interval]]
    alike: list[Any]
    best: dict[str, tuple[Any, Interval]]
    testable: bool
    elsewhere: list[Elsewhere] = field(default_factory=list)

    @property
    def importance(self) -> float:
        return self.clear[0].importance if self.clear else 0.0

    @property
    def told(self) -> list[Effect]:
        """The effects that the answer states."""
        if self.key == SETTING and not self.values:
            return (self.clear if len(self.clear) <= MAX_TOLD else self.by_key)[:MAX_CHANGES]
        return self.clear[:MAX_TOLD]

    @property
    def trade_off(self) -> bool:
        """Whether some columns improve from one end to the other while others get worse."""
        return self.numeric and {True, False} <= {effect.better for effect in self.clear}


def compare(column: str, first: Cell, second: Cell, key: str = SETTING, typical: float = 0.0) -> Effect:
    """The effect of going from one cell to another."""
    change = paired_interval(first.values(column).to_dict(), second.values(column).to_dict())
    values = first.settings.get(key), second.settings.get(key)
    return Effect(column, *values, first.interval(column), second.interval(column), change, typical)


def _typical(report: Report, column: str) -> float:
    """The median of half the interval over the changes from each cell's control; 0 without any."""
    halves = pd.Series([compare(column, base, cell).change.half for cell, base in controls(report.cells)], dtype=float)
    return float(halves.median()) if halves.notna().any() else 0.0


def controls(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Each cell but the first with its control, the earlier cell that differs in the fewest settings.

    Where changes are crossed with other keys, rather one with the same values of these.
    """

    def distance(cell: Cell, other: Cell) -> tuple[int, int]:
        crossed = [k for k in cell.settings if k != SETTING and not same(cell.settings[k], other.settings[k])]
        return len(changed(cell, other)), len(crossed) if SETTING in cell.settings else 0

    return [(cell, min(cells[:i], key=partial(distance, cell))) for i, cell in enumerate(cells) if i > 0]


def along(report: Report, key: str) -> list[tuple[dict[str, Any], list[Cell]]]:
    """The cells along a setting, for each combination of the others. A setting that plays no part matches any."""

    def fits(cell: Cell, rest: dict[str, Any]) -> bool:
        return all(cell.settings[k] is None or same(cell.settings[k], v) for k, v in rest.items())

    rests = [report.rest(cell, key) for cell in report.cells]
    unique = [rest for i, rest in enumerate(rests) if rest not in rests[:i]]
    return [(rest, [c for c in report.cells if len(c.usable) and fits(c, rest)]) for rest in unique]


def key_findings(report: Report) -> list[KeyFinding]:
    """What each swept setting changes, the most important first.

    Of several lines along a setting, the one where the other settings have their reference values is taken; where the
    reader has a setting to pick, rather one with a trade-off.

    Args:
        report: of the runs that use their latents (`survivors`).
    """
    columns = {column: _typical(report, column) for column in comparable(report)}
    if not columns:
        return []
    if report.keys == [SETTING]:
        return [_by_change(report, columns)]

    def rank(f: KeyFinding) -> tuple[bool, bool, float]:
        at_reference = all(same(v, report.usual[k]) for k, v in f.rest.items())
        return f.trade_off and report.study.get("pick", True), at_reference, f.importance

    found = []
    for key in report.keys:
        if key != "dataset" and len([v for v in report.values(key) if v is not None]) > 1:
            lines = [f for rest, cells in along(report, key) if (f := _on_line(key, rest, cells, columns))]
            best = max(lines, key=rank, default=None)
            found += [replace(best, elsewhere=_elsewhere(report, best))] if best else []
    return sorted(found, key=lambda f: -f.importance)


def _elsewhere(report: Report, found: KeyFinding) -> list[Elsewhere]:
    if not (found.values and found.alike and found.clear):
        return []
    column, usual = found.clear[0].column, found.clear[0].first
    more = []
    for rest, cells in along(report, found.key):
        base = next((cell for cell in cells if cell.settings[found.key] == usual), None)
        if base is None or rest == found.rest:
            continue
        others = [cell for cell in cells if cell.settings[found.key] in found.alike]
        clear = [cell for cell in others if compare(column, base, cell).change.excludes_zero]
        values = [(cell.settings[found.key], cell.interval(column)) for cell in clear]
        more += [Elsewhere(rest, base.interval(column), values)] if values else []
    return more


def _on_line(key: str, rest: dict[str, Any], cells: Sequence[Cell], columns: Mapping[str, float]) -> KeyFinding | None:
    cells = [cell for cell in cells if cell.settings[key] is not None]
    if len(cells) < 2:
        return None
    numeric = mostly_numbers([cell.settings[key] for cell in cells])
    if numeric:
        cells = [cell for cell in cells if is_number(cell.settings[key])]
        descending = bool(cells[0].settings[key] > cells[-1].settings[key])
        cells = sorted(cells, key=lambda cell: cell.settings[key], reverse=descending)
    usual = reference_value(key, [cell.settings[key] for cell in cells])
    first = cells[0] if numeric else next(cell for cell in cells if cell.settings[key] == usual)
    others = [cells[-1]] if numeric else [cell for cell in cells if cell is not first]
    effects = [
        max((compare(column, first, cell, key, typical) for cell in others), key=lambda e: e.importance)
        for column, typical in columns.items()
    ]
    effects = [effect for effect in effects if effect.start.n and effect.end.n]
    if not effects:
        return None
    clear = sorted((e for e in effects if e.change.excludes_zero), key=lambda e: -e.importance)
    top = clear[0].column if clear else next(iter(columns))
    testable = any(e.change.n > 1 for e in effects)
    return KeyFinding(
        key,
        numeric,
        rest,
        clear,
        [],
        effects if numeric and not testable else [],
        [e.column for e in effects if e not in clear],
        [(cell.settings[key], cell.interval(top)) for cell in cells],
        [c.settings[key] for c in others if (d := compare(top, first, c).change).n > 1 and not d.excludes_zero],
        _between(key, cells, [e.column for e in clear]) if numeric else {},
        testable,
    )


def _between(key: str, cells: Sequence[Cell], columns: Sequence[str]) -> dict[str, tuple[Any, Interval]]:
    """By column the cell between the ends that is better than both beyond the interval."""
    found = {}
    for column in columns:
        direction = _direction(column)
        inner = [cell for cell in cells[1:-1] if len(cell.values(column))]
        if not direction or not inner:
            continue
        best = (min if direction == "lower" else max)(inner, key=lambda cell: cell.mean(column))
        effects = [compare(column, end, best) for end in (cells[0], cells[-1])]
        if all(effect.better and effect.change.excludes_zero for effect in effects):
            found[column] = best.settings[key], best.interval(column)
    return found


def _by_change(report: Report, columns: Mapping[str, float]) -> KeyFinding:
    """For a sweep that changes one thing at a time: the clearest effect of each change, on its nearest control."""
    clear: list[Effect] = []
    first: dict[frozenset[str], Effect] = {}
    unclear, testable = [], False
    for cell, base in controls([cell for cell in report.cells if len(cell.usable)]):
        effects = [compare(column, base, cell, typical=typical) for column, typical in columns.items()]
        testable |= any(e.change.n > 1 for e in effects)
        best = max((e for e in effects if e.change.excludes_zero), key=lambda e: e.importance, default=None)
        if best is not None:
            clear.append(best)
            what = frozenset(changed(cell, base))
            first[what] = max(first.get(what, best), best, key=lambda e: e.importance)
        elif any(e.start.n and e.end.n for e in effects):
            unclear.append(cell.name)
    clear.sort(key=lambda e: -e.importance)
    by_key = sorted(first.values(), key=lambda e: -e.importance)
    return KeyFinding(SETTING, False, {}, clear, by_key, [], unclear, [], [], {}, testable)


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
