"""How often training fails in each setting."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib as mpl

from experiments.frame import Cell, Report
from experiments.outcome import JUDGED
from experiments.report.figures import style
from experiments.statistics import wilson_interval

ENOUGH = 5  # runs of a setting, to call it a rate
MAX_ROWS = 24
LOSSES = ("diverged", "failed")
KINDS = {
    "none": ("no run died", style.MARKERS[0], style.COLOURS[0]),
    "some": ("some or all runs died", style.MARKERS[1], style.COLOURS[1]),
    "expected": ("died, as the closed form predicts", style.MARKERS[2], "0.5"),
    "diverged": ("diverged (share of all runs)", "x", style.COLOURS[3]),
}


def deaths(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """Where runs die, diverge or fail in any setting, and there are enough runs per setting to call it a rate."""
    cells = [cell for cell in report.cells if len(cell.runs) >= ENOUGH]
    if len(cells) < 2 or not any(cell.count("dead", "collapsed", *LOSSES) for cell in cells):
        return None
    shown = style.spread(cells, MAX_ROWS, must_show)
    kinds = set()
    lost = hollow = False
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(1.3 + 0.28 * len(shown))
        ax = figure.subplots()
        for y, cell in enumerate(shown):
            rate = cell.rate("dead", "collapsed")
            others = {o: n for o, n in cell.runs["outcome"].value_counts().items() if o not in JUDGED}
            said = [f"{round(rate.mean * rate.n)} of {rate.n} died"] if rate.n else []
            said += [f"{n} {outcome}" for outcome, n in others.items()]
            ax.annotate(", ".join(said), (1.01, y), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9)
            lost |= bool(others)
            diverged = cell.count("diverged")
            marks = [("diverged", wilson_interval(diverged, len(cell.runs)))] if diverged else []
            if rate.mean > 0:
                marks.append(("expected" if cell.empty else "some", rate))
            elif rate.n and not diverged:  # without deaths among the rest, a setting that diverges is still no good one
                marks.append(("none", rate))
            for kind, value in marks:
                kinds.add(kind)
                _, marker, colour = KINDS[kind]
                ends = [[100 * (value.mean - value.low)], [100 * (value.high - value.mean)]]
                open_here = bool(others) and kind != "diverged"
                hollow |= open_here
                ax.errorbar(100 * value.mean, y, xerr=ends, marker=marker, color=colour, capsize=3,
                            markerfacecolor="white" if open_here else colour)  # fmt: skip
        ax.set_yticks(range(len(shown)), [style.wrapped(style.label(cell.settings), 52) for cell in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlim(-3, 103)
        ax.set_xlabel("runs (%)" if "diverged" in kinds else "dead or collapsed runs (%)")
        handles = [style.handle(name, marker=m, color=c) for kind, (name, m, c) in KINDS.items() if kind in kinds]
        if hollow:
            handles.append(
                style.handle("hollow: some runs have no numbers", marker="o", color="0.5", markerfacecolor="white")
            )
        style.legend(figure, handles)
        values = {
            "lost": lost,
            "expected": "expected" in kinds,
            "diverged": "diverged" in kinds,
            "shown": len(shown),
            "total": len(report.cells),
        }
        return style.Drawn(style.rendered(figure), "deaths", values)
