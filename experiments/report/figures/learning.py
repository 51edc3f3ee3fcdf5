"""KL and SSE of the training by epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.ticker import MaxNLocator

from experiments.frame import Cell, Report
from experiments.outcome import KL_FLOOR
from experiments.report.figures import style
from experiments.report.figures.axes import QUANTITIES, living, log_ticks
from experiments.store import RunFolder

MAX_VALUES = 8
MAX_LINES = 4
FAR = 30  # times the median: a value that needs a logarithmic axis
LAST = 5  # epochs over which a slope is taken


def mean_history(cell: Cell) -> pd.DataFrame:
    """Means over a cell's runs by epoch, for the epochs that all of them have; of dead runs only if all died."""
    alive, died = living(cell)
    found = [RunFolder(Path(path)).history() for path in (died if alive.empty else alive)["path"]]
    found = [history for history in found if history]
    names = ("epoch", "train_sse", "train_kl")
    rows = {name: [value for history in found for value in history[name]] for name in names}
    together = pd.DataFrame(rows, dtype=float).groupby("epoch")
    return together.mean()[together.size() == len(found)]


def learning(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """A line per value of the main setting, a column of panels per line of the sweep."""
    must_lines = [line for line in report.lines if any(cell in must_show for cell in line[1])]
    lines = []
    for rest, cells in style.spread(report.lines, MAX_LINES, must_lines):
        means = [(cell, mean_history(cell)) for cell in cells]
        lines.append((rest, {_value(report, cell): own for cell, own in means if not own.empty}))
    lines = [(rest, own) for rest, own in lines if own]
    if not lines:
        return None
    names = (
        {repr(v): style.label({report.main: v}) for v in report.values(report.main)} if report.main else {"None": ""}
    )
    used = [v for v in names if any(v in own for _, own in lines)]
    values = style.spread(used, MAX_VALUES, {_value(report, cell) for cell in must_show})
    one = len(lines) == 1
    drawn = [own[value] for _, own in lines for value in values if value in own]
    log = {quantity: ends for quantity in ("kl", "sse") if (ends := _decades(drawn, f"train_{quantity}"))}
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(3.5 if one else 5.4)
        shape = (1, 2) if one else (2, len(lines))
        panels = figure.subplots(*shape, sharex=True, sharey=False if one else "row", squeeze=False)
        for j, (rest, own) in enumerate(lines):
            for q, quantity in enumerate(("kl", "sse")):
                ax = panels[0, q] if one else panels[q, j]
                for i, value in enumerate(values):
                    if value in own:
                        y = own[value][f"train_{quantity}"]
                        look = _style(i) if report.main else {"color": style.COLOURS[0]}
                        ax.plot(y.index, y, marker="o" if len(y) == 1 else None, **look)
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                if quantity in log:
                    ax.set_yscale("log")
                    log_ticks(ax, "y", *log[quantity])
                if one or j == 0:
                    ax.set_ylabel(f"training {QUANTITIES[quantity].replace(' (', chr(10) + '(')}")
                if one or q == 1:
                    ax.set_xlabel("epoch")
                if not one and q == 0:
                    ax.set_title(style.wrapped(style.label(rest), 90 // len(lines)))
        if report.main:
            style.legend(figure, [style.handle(names[value], **_style(i)) for i, value in enumerate(values)])
        told = {
            "log": [*log],
            "died": any(len(living(cell)[1]) for cell in report.cells),
            "seeds": report.usable["seed"].nunique() > 1,
            "slopes": slopes([means for _, own in lines for means in own.values()]),
            "shown": sum(value in own for _, own in lines for value in values),
            "total": sum(not cell.usable.empty for cell in report.cells),
        }
        return style.Drawn(style.rendered(figure), "learning", told)


def _decades(histories: Sequence[pd.DataFrame], column: str) -> tuple[float, float] | None:
    """The range of a logarithmic axis, where a few values would press all others together; None where none does."""
    y = pd.concat([history[column] for history in histories])
    if not (y > 0).all() or y.max() < FAR * y.median():
        return None
    return float(y.min()) / 1.2, float(y.max()) * 1.2


def slopes(histories: Sequence[pd.DataFrame]) -> dict[str, tuple[float, float]]:
    """By quantity, the smallest and the largest change in the last epochs (LAST), in per cent, over some settings.

    Settings with fewer epochs, and KL where there is next to none, are left out.
    """
    found = {}
    for quantity, floor in (("sse", 0.0), ("kl", KL_FLOOR)):
        own = [h[f"train_{quantity}"] for h in histories if len(h) > LAST]
        changes = [100 * (y.iloc[-1] / y.iloc[-1 - LAST] - 1) for y in own if y.iloc[-1 - LAST] > floor]
        if changes:
            found[quantity] = min(changes), max(changes)
    return found


def _value(report: Report, cell: Cell) -> str:
    return repr(cell.settings[report.main] if report.main else None)


def _style(i: int) -> dict[str, Any]:
    return {"color": style.COLOURS[i], "linestyle": style.DASHES[i % len(style.DASHES)]}
