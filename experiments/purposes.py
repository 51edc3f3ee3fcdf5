"""Which setting is best for what: for several columns, the best settings in each, as far as seeds can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.asked import comparable
from experiments.frame import Cell, Report
from experiments.statistics import Interval, paired_interval
from experiments.wording import SETTING, labelled
from vae.metrics import METRICS


@dataclass(frozen=True)
class Purpose:
    """A column, and the settings with the best values in it.

    Attributes:
        column: name of the metric.
        lowest: whether the lowest value is the best one.
        best: names of the best settings. The one with the best mean is first; the others follow if the interval of
            their difference from it contains 0.
        value: value of the first setting.
        without: names of the settings that have no value in this column.
    """

    column: str
    lowest: bool
    best: list[str]
    value: Interval
    without: list[str]


def purposes(report: Report) -> list[Purpose]:
    """One entry for each comparable column that has a better direction; none unless options are compared.

    A single column needs no list, since the finding about it names its best setting. With one seed per setting there
    are no intervals, so each column has one best setting.
    """
    if report.main in (None, SETTING) or report.is_number(report.main):
        return []
    found = [_purpose(column, report.cells) for column in comparable(report)]
    best = [purpose for purpose in found if purpose is not None]
    return best if len(best) > 1 else []


def _purpose(column: str, cells: Sequence[Cell]) -> Purpose | None:
    direction = METRICS[column].direction if column in METRICS else ""
    having = [cell for cell in cells if cell.interval(column).n]
    if not direction or len(having) < 2:
        return None
    lowest = direction == "lower"
    ranked = sorted(having, key=lambda cell: cell.mean(column) if lowest else -cell.mean(column))
    first = ranked[0].values(column).to_dict()
    equal = []
    for cell in ranked[1:]:
        difference = paired_interval(first, cell.values(column).to_dict())
        if difference.n > 1 and difference.low <= 0 <= difference.high:
            equal.append(labelled(cell.settings))
    without = [labelled(cell.settings) for cell in cells if not cell.interval(column).n]
    return Purpose(column, lowest, [labelled(ranked[0].settings), *equal], ranked[0].interval(column), without)
