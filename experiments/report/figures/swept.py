"""KL, SSE and the ratio to the closed form, or the column of the main finding, on held-out images, by setting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.asked import survivors
from experiments.effects import key_findings
from experiments.frame import Cell, Report
from experiments.outcome import JUDGED
from experiments.report.closed_form import Curve, curves
from experiments.report.figures import style
from experiments.report.figures.axes import QUANTITIES, NumberAxis, baseline, limits, living, measured
from experiments.report.render import metric
from experiments.statistics import mean_interval

MAX_LINES = 8
MAX_ROWS = 24
LEVEL = {"color": "0.6", "linewidth": 0.9, "linestyle": "-."}  # an error without latents
UNITY = {"color": "0.3", "linewidth": 0.9, "zorder": 1}  # where a ratio is 1
FORMS = ("kl", "sse")  # what the closed form gives
ALONE: dict[str, Any] = {"marker": "_", "markersize": 16}  # a closed form that is no curve
_Heights = tuple[list[float], list[float]]
SINGLE = {"linestyle": "none", "marker": ".", "alpha": 0.5, "markersize": 4}


def swept(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """Against the main setting if that is a number, else one row per setting."""
    if report.usable.empty:
        return None
    with mpl.rc_context(style.STYLE):
        if report.main is not None and report.is_number(report.main):
            must = [line for line in report.lines if any(cell in must_show for cell in line[1])]
            return _by_number(report, style.spread(report.lines, MAX_LINES, must))
        return _by_row(report, style.spread([cell for _, line in report.lines for cell in line], MAX_ROWS, must_show))


def _by_number(report: Report, lines: Sequence[tuple[dict[str, Any], list[Cell]]]) -> style.Drawn:
    axis = NumberAxis(report)
    figure = style.new_figure(3.4)
    panels = Panels(report, [cell for _, cells in lines for cell in cells], upright=True)
    for ax, (quantity, name) in zip(figure.subplots(1, len(panels.shows)), panels.shows.items(), strict=True):
        heights = _draw_closed_form(report, ax, axis, lines, quantity) if quantity in FORMS else []
        ends: list[float] = []
        for i, (_, cells) in enumerate(lines):
            steps = (2 * i - len(lines) + 1) * min(1, 4 / len(lines))
            for ordered in axis.pieces(cells):
                places = [axis.aside(axis.at(cell), steps) for cell in ordered]
                beside = [axis.aside(x, 1) for x in places]
                own = panels.draw(ax, quantity, ordered, places, beside, style.marks(i))
                heights, ends = heights + own[0], ends + own[1]
                panels.apart |= len(ordered) == 1 and bool(_forms(report, ordered[0]))
        panels.scale(ax, quantity, heights, ends)
        axis.decorate(ax)
        ax.set_ylabel(name)
    handles = [style.handle(style.label(rest) or "mean over seeds", **{**style.marks(i), "linestyle": "-"})
               for i, (rest, _) in enumerate(lines)]  # fmt: skip
    return panels.drawn(figure, handles)


def _by_row(report: Report, cells: Sequence[Cell]) -> style.Drawn:
    figure = style.new_figure(1.6 + 0.3 * len(cells))
    panels = Panels(report, cells, upright=False)
    look = {"marker": "o", "linestyle": "none", "color": style.COLOURS[0]}
    rows = range(len(cells))
    axes = figure.subplots(1, len(panels.shows), sharey=True)
    for ax, (quantity, name) in zip(axes, panels.shows.items(), strict=True):
        heights, ends = panels.draw(ax, quantity, cells, rows, [y + 0.28 for y in rows], look)
        for y, cell in enumerate(cells) if quantity in FORMS else ():
            for curve in _forms(report, cell):
                at = float(curve.at(cell.mean("effective_x_var"))[quantity])
                ax.vlines(at, y - 0.42, y + 0.42, linestyles=style.CLOSED_FORM[curve.kind][0], colors="0.3", zorder=1)
                heights.append(at)
        panels.scale(ax, quantity, heights, ends)
        ax.set_xlabel(name.replace(" (", "\n("))
        ax.grid(visible=False, axis="y")
        for y, (cell, following) in enumerate(itertools.pairwise(cells)):
            if any(cell in line and following not in line for _, line in report.lines):
                ax.axhline(y + 0.5, color="0.8", linewidth=0.8, zorder=0)
    for y, cell in enumerate(cells):
        if cell.usable.empty:
            lost = ", ".join(f"{n} {o}" for o, n in cell.runs["outcome"].value_counts().items() if o not in JUDGED)
            axes[0].text(0.5, y, lost, transform=axes[0].get_yaxis_transform(), ha="center", va="center",
                         color="0.4", fontsize=9)  # fmt: skip
    axes[0].set_yticks(rows, [style.wrapped(style.label(cell.settings) or "all runs", 32) for cell in cells])
    axes[0].set_ylim(len(cells) - 0.4, -0.6)
    several = "mean over seeds" if any(len(cell.usable) > 1 for cell in cells) else "run"
    return panels.drawn(figure, [style.handle(several, **look)])


class Panels:
    """What the two layouts share.

    Args:
        shown: the settings that the figure shows.
        upright: whether the quantities are on the y axes.
    """

    def __init__(self, report: Report, shown: Sequence[Cell], upright: bool) -> None:
        self.report, self.shown, self.upright = report, shown, upright
        self.intervals = any(len(living(cell)[0]) > 1 for cell in shown)
        self.died = any(len(living(cell)[1]) for cell in shown)
        self.kinds = {curve.kind for cell in shown for curve in _forms(report, cell)}
        self.shows = _quantities(report, shown)
        self.cut = False
        self.apart = False  # whether a closed form is drawn as a dash beside the curve
        self.levels: dict[str, float] = {}

    def draw(self, ax: Axes, quantity: str, cells: Sequence[Cell], places: Any, beside: Any, look: Any) -> _Heights:
        """Means with their intervals, single runs beside them and runs that died; returns heights and ends of bars."""

        def xy(along: Any, values: Any) -> tuple[Any, Any]:
            return (along, values) if self.upright else (values, along)

        split = [[measured(runs, quantity) for runs in living(cell)] for cell in cells]
        means = [mean_interval(alive) for alive, _ in split]
        bars = {"yerr" if self.upright else "xerr": [m.half if math.isfinite(m.half) else 0.0 for m in means]}
        ax.errorbar(*xy(places, [m.mean for m in means]), **bars, capsize=3, **look)
        for place, aside, (alive, died) in zip(places, beside, split, strict=True):
            if len(alive) > 1:
                ax.plot(*xy([aside] * len(alive), alive), color=look["color"], **SINGLE)
            ax.plot(*xy([place] * len(died), died), **{**style.DIED, "color": look["color"]})
        return [v for both in split for runs in both for v in runs], [end for m in means for end in (m.low, m.high)]

    def scale(self, ax: Axes, quantity: str, heights: Sequence[float], ends: Sequence[float]) -> None:
        """The range of the quantity, and lines at what it is compared with."""
        rule = ax.axhline if self.upright else ax.axvline
        view, cut = limits([*heights, 1.0] if quantity == "ratio" else heights, ends)
        self.cut |= cut
        room = view[1] - view[0]
        if quantity == "ratio":
            rule(1, **UNITY)
        elif quantity == "sse":
            known = baseline(self.report)
            self.levels = {name: v for name, v in known.items() if view[0] < v < view[1] + 0.35 * room}
            for v in self.levels.values():
                rule(v, zorder=0, **LEVEL)
            view = view[0], max([view[1], *(v + 0.05 * room for v in self.levels.values())])
        ax.set(**{"ylim" if self.upright else "xlim": view})
        axis = ax.yaxis if self.upright else ax.xaxis
        axis.set_major_locator(MaxNLocator(7 if self.upright else 4, steps=[1, 2, 2.5, 5, 10]))

    def drawn(self, figure: Figure, handles: Sequence[Line2D]) -> style.Drawn:
        more = []
        if self.intervals:
            more.append(style.handle("single runs", **SINGLE | {"color": "0.5", "alpha": 1}))
        if self.died:
            colour = handles[0].get_color() if len(handles) == 1 else "0.5"
            more.append(style.handle("dead or collapsed runs", **style.DIED | {"color": colour}))
        more += style.closed_form_handles(self.kinds)
        if self.apart:
            more.append(style.handle("closed form, single setting", color="0.3", **ALONE))
        if self.levels:
            more.append(style.handle(f"{' and '.join(self.levels)}, no latents", **LEVEL))
        style.legend(figure, handles, more)
        values = {
            "kinds": sorted(self.kinds),
            "quantities": [name.partition(" (")[0] for name in self.shows.values()],
            "decoder": "ratio" in self.shows
            and any("decoder" in set(cell.usable["label_placement.kind"]) for cell in self.shown),
            "intervals": self.intervals,
            "cut": self.cut,
            "died": self.died,
            "aside": self.upright and len(handles) > 1,
            "shown": len(self.shown),
            "total": len(self.report.cells),
            "empty": sum(cell.usable.empty for cell in self.shown),
        }
        return style.Drawn(style.rendered(figure), "swept", values)


def _quantities(report: Report, shown: Sequence[Cell]) -> dict[str, str]:
    """What the panels show, by name: KL, SSE, and its ratio to the closed form.

    If most settings have no closed form, the third panel has the column of the main finding instead.
    """
    usable = [cell for cell in shown if not cell.usable.empty]
    if 2 * sum(bool(_forms(report, cell)) for cell in usable) > len(usable):
        return QUANTITIES
    own = {name: QUANTITIES[name] for name in FORMS}
    effects = [effect.column for found in key_findings(survivors(report))[:1] for effect in found.clear]
    more = [column for column in effects if column not in ("test_kl", "test_sse")][:1]
    return own | {column: metric(column).heading for column in more}


def _forms(report: Report, cell: Cell) -> list[Curve]:
    return curves(cell.first, report.datasets) if cell.first is not None else []


def _draw_closed_form(
    report: Report, ax: Axes, axis: NumberAxis, lines: Sequence[tuple[dict, list[Cell]]], quantity: str
) -> list[float]:
    """Each closed form once: in the colour of its line, or grey where several lines share it. Returns its heights."""
    users: dict[tuple[str, tuple[float, ...], tuple[float, ...]], list[int]] = {}
    for i, piece in [(i, piece) for i, (_, cells) in enumerate(lines) for piece in axis.pieces(cells)]:
        found = [(axis.at(c), c.mean("effective_x_var"), curve) for c in piece for curve in _forms(report, c)]
        for kind in {curve.kind for _, _, curve in found}:
            points = [point for point in found if point[2].kind == kind]
            x, t = np.array([point[:2] for point in points]).T
            y = np.array([curve.at(t_)[quantity] for _, t_, curve in points])
            one = len({curve for _, _, curve in points}) == 1
            if one and len(x) > 1 and x[0] > 0 and np.allclose(t / x, t[0] / x[0], rtol=1e-3):
                # x_var or beta is swept: t is in proportion to it, and the curve is known between the values too.
                dense = np.geomspace(x[0], x[-1], 200)
                x, y = dense, points[0][2].at(dense * t[0] / x[0])[quantity]
            key = (kind, tuple(x.tolist()), tuple(float(f"{v:.6g}") for v in y))
            users.setdefault(key, []).append(i)
    for (kind, x, y), own in users.items():
        colour = style.marks(own[0])["color"] if len(own) == 1 and len(lines) > 1 else "0.3"
        point = ALONE if len(x) == 1 else {}
        ax.plot(x, y, linestyle=style.CLOSED_FORM[kind][0], color=colour, zorder=1, **point)
    return [v for _, _, y in users for v in y]
