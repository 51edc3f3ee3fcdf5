"""KL, SSE and the ratio to the closed form on held-out images, by setting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.frame import Cell, Report
from experiments.outcome import JUDGED
from experiments.report.figures import style
from experiments.report.figures.axes import QUANTITIES, NumberAxis, baseline, limits, living, measured
from experiments.report.figures.closed_form import Curve, curves
from experiments.statistics import Interval, mean_interval

MAX_LINES = 8
MAX_ROWS = 24
LEVEL = {"color": "0.6", "linewidth": 0.9, "linestyle": "-."}  # an error without latents
UNITY = {"color": "0.3", "linewidth": 0.9}  # where a ratio is 1
STEPS = [1, 2, 2.5, 5, 10]
SINGLE = {"linestyle": "none", "marker": ".", "alpha": 0.5, "markersize": 4}


def swept(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """Against the main setting if that is a number, else one row per setting."""
    if report.usable.empty:
        return None
    by_number = report.main is not None and report.is_number(report.main)
    with mpl.rc_context(style.STYLE):
        return _by_number(report, must_show) if by_number else _by_row(report, must_show)


def bar(value: Interval) -> float:
    """Half the interval's width; 0 where there is none."""
    return value.half if math.isfinite(value.half) else 0.0


def _drawn(png: bytes, report: Report, shown: Sequence[Cell], cut: bool) -> style.Drawn:
    placements = {run["label_placement.kind"] for cell in shown for _, run in cell.usable.iterrows()}
    values = {
        "kinds": sorted({c.kind for cell in shown for c in _forms(cell)}),
        "decoder": "decoder" in placements,
        "intervals": any(len(living(cell)[0]) > 1 for cell in shown),
        "cut": cut,
        "died": any(len(living(cell)[1]) for cell in shown),
        "shown": len(shown),
        "total": len(report.cells),
        "empty": sum(cell.usable.empty for cell in shown),
    }
    return style.Drawn(png, "swept", values)


def _forms(cell: Cell) -> list[Curve]:
    return curves(cell.first) if cell.first is not None else []


# ---------------------------------------------------------------------------------------------- a number


def _by_number(report: Report, must_show: Collection[Cell]) -> style.Drawn:
    axis = NumberAxis(report)
    must = [line for line in report.lines if any(cell in must_show for cell in line[1])]
    lines = style.spread(report.lines, MAX_LINES, must)
    figure = style.new_figure(3.4)
    cut = False
    levels: dict[str, float] = {}
    for ax, (quantity, name) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
        heights: list[float] = [1.0] if quantity == "ratio" else []
        ends: list[float] = []
        for i, (_, cells) in enumerate(lines):
            steps = (2 * i - len(lines) + 1) * min(1, 4 / len(lines))
            ordered = sorted(cells, key=axis.at)
            x = np.array([axis.aside(axis.at(cell), steps) for cell in ordered])
            split = [[measured(runs, quantity) for runs in living(cell)] for cell in ordered]
            means = [mean_interval(alive) for alive, _ in split]
            single = [(axis.aside(a, 1), v) for a, (alive, _) in zip(x, split, strict=True) for v in alive]
            dead = [(a, v) for a, (_, died) in zip(x, split, strict=True) for v in died]
            ax.errorbar(x, [m.mean for m in means], [bar(m) for m in means], capsize=3, **style.marks(i))
            ax.plot(*np.reshape(single, (-1, 2)).T, color=style.marks(i)["color"], **SINGLE)
            ax.plot(*np.reshape(dead, (-1, 2)).T, **{**style.DIED, "color": style.marks(i)["color"]})
            heights += [v for _, v in single + dead]
            ends += [end for m in means for end in (m.low, m.high)]
        if quantity == "ratio":
            ax.axhline(1, zorder=1, **UNITY)
        else:
            heights += _draw_closed_form(report, ax, axis, lines, quantity)
        view, was_cut = limits(heights, ends)
        cut |= was_cut
        ax.set_ylim(view)
        if quantity == "sse":
            levels = {k: v for k, v in baseline(report).items() if view[0] < v < view[1] + 0.35 * (view[1] - view[0])}
            for v in levels.values():
                ax.axhline(v, zorder=0, **LEVEL)
                ax.set_ylim(view[0], max(ax.get_ylim()[1], v + 0.05 * (view[1] - view[0])))
        axis.decorate(ax)
        ax.yaxis.set_major_locator(MaxNLocator(7, steps=STEPS))
        ax.set_ylabel(name)
    shown = [cell for _, cells in lines for cell in cells]
    handles = [style.handle(style.label(rest) or "mean over seeds", **{**style.marks(i), "linestyle": "-"})
               for i, (rest, _) in enumerate(lines)]  # fmt: skip
    style.legend(figure, handles, _more_handles(shown, levels))
    return _drawn(style.rendered(figure), report, shown, cut)


def _more_handles(shown: Sequence[Cell], levels: dict[str, float]) -> list[Line2D]:
    handles = []
    if any(len(living(cell)[0]) > 1 for cell in shown):
        handles.append(style.handle("single runs", **SINGLE | {"color": "0.5", "alpha": 1}))
    if any(len(living(cell)[1]) for cell in shown):
        handles.append(style.handle("dead or collapsed runs", **style.DIED))
    handles += style.closed_form_handles({curve.kind for cell in shown for curve in _forms(cell)})
    names = " and ".join(levels)
    return handles + ([style.handle(f"{names}, no latents", **LEVEL)] if levels else [])


def _draw_closed_form(
    report: Report, ax: Axes, axis: NumberAxis, lines: Sequence[tuple[dict, list[Cell]]], quantity: str
) -> list[float]:
    """Each closed form once: in the colour of its line, or grey where several lines share it. Returns its heights."""
    users: dict[tuple[str, tuple[float, ...], tuple[float, ...]], list[int]] = {}
    for i, (_, cells) in enumerate(lines):
        by_kind: dict[str, list[tuple[float, float, Curve]]] = {}  # (x, t, curve)
        for cell in sorted((cell for cell in cells if not cell.usable.empty), key=axis.at):
            for curve in _forms(cell):
                by_kind.setdefault(curve.kind, []).append((axis.at(cell), cell.mean("effective_x_var"), curve))
        for kind, points in by_kind.items():
            x, t = np.array([p[0] for p in points]), np.array([p[1] for p in points])
            y = np.array([curve.at(report, t_)[quantity] for _, t_, curve in points])
            one = len({curve for _, _, curve in points}) == 1
            if one and len(x) > 1 and (x > 0).all() and np.allclose(t / x, t[0] / x[0], rtol=1e-3):
                # x_var or beta is swept: t is in proportion to it, and the curve is known between the values too.
                dense = np.geomspace(x[0], x[-1], 200)
                x, y = dense, points[0][2].at(report, dense * t[0] / x[0])[quantity]
            key = (kind, tuple(x.tolist()), tuple(float(f"{v:.6g}") for v in y))
            users.setdefault(key, []).append(i)
    for (kind, x, y), own in users.items():
        colour = style.marks(own[0])["color"] if len(own) == 1 and len(lines) > 1 else "0.3"
        if len(x) > 1:
            ax.plot(x, y, linestyle=style.CLOSED_FORM[kind][0], color=colour, zorder=1)
        else:
            ax.plot(x, y, "_", color=colour, markersize=16)
    return [v for _, _, y in users for v in y]


# ---------------------------------------------------------------------------------------------- a row per setting


def _by_row(report: Report, must_show: Collection[Cell]) -> style.Drawn:
    cells = style.spread([cell for _, line in report.lines for cell in line], MAX_ROWS, must_show)
    names = [style.wrapped(style.label(cell.settings) or "all runs", 32) for cell in cells]
    figure = style.new_figure(1.6 + 0.3 * len(cells))
    cut = False
    levels: dict[str, float] = {}
    panels = figure.subplots(1, 3, sharey=True)
    for ax, (quantity, name) in zip(panels, QUANTITIES.items(), strict=True):
        heights: list[float] = [1.0] if quantity == "ratio" else []
        ends: list[float] = []
        for y, cell in enumerate(cells):
            alive, died = (measured(runs, quantity) for runs in living(cell))
            mean = mean_interval(alive)
            ax.errorbar(mean.mean, y, xerr=bar(mean), marker="o", capsize=3, color=style.COLOURS[0])
            if len(alive) > 1:
                ax.plot(alive, [y + 0.28] * len(alive), color=style.COLOURS[0], **SINGLE)
            ax.plot(died, [y + 0.28 * (len(alive) > 0)] * len(died), **style.DIED)
            heights += [*alive, *died]
            ends += [mean.low, mean.high]
            for curve in _forms(cell) if quantity != "ratio" else []:
                at = float(curve.at(report, cell.mean("effective_x_var"))[quantity])
                ax.vlines(at, y - 0.42, y + 0.42, linestyles=style.CLOSED_FORM[curve.kind][0], colors="0.3", zorder=1)
                heights.append(at)
        if quantity == "ratio":
            ax.axvline(1, zorder=1, **UNITY)
        view, was_cut = limits(heights, ends)
        cut |= was_cut
        if quantity == "sse":
            levels = {k: v for k, v in baseline(report).items() if view[0] < v < view[1]}
            for v in levels.values():
                ax.axvline(v, zorder=0, **LEVEL)
        ax.set_xlim(view)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
        ax.set_xlabel(name.replace(" (", "\n("))
        ax.grid(visible=False, axis="y")
    for y, (cell, following) in enumerate(itertools.pairwise([*cells, cells[-1]])):
        if cell.usable.empty:
            lost = ", ".join(f"{n} {o}" for o, n in cell.runs["outcome"].value_counts().items() if o not in JUDGED)
            panels[0].text(0.5, y, lost, transform=panels[0].get_yaxis_transform(), ha="center", va="center",
                           color="0.4", fontsize=9)  # fmt: skip
        if any(cell in line and following not in line for _, line in report.lines):
            for ax in panels:
                ax.axhline(y + 0.5, color="0.8", linewidth=0.8, zorder=0)
    panels[0].set_yticks(range(len(cells)), names)
    panels[0].set_ylim(len(cells) - 0.4, -0.6)
    several = "mean over seeds" if any(len(cell.usable) > 1 for cell in cells) else "run"
    style.legend(figure, [style.handle(several, marker="o", color=style.COLOURS[0]), *_more_handles(cells, levels)])
    return _drawn(style.rendered(figure), report, cells, cut)
