"""What each swept setting does to the columns that an experiment asks about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd

from experiments.asked import comparable
from experiments.frame import Cell, Report, changed
from experiments.keys import is_number, mostly_numbers, reference_value, same
from experiments.statistics import Interval, paired_interval
from experiments.wording import SETTING
from vae.metrics import METRICS

MAX_TOLD = 4  # effects in the answer
MAX_CHANGES = 6  # the same, where each is of another setting


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
