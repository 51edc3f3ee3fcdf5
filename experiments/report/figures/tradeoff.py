"""Samples against reconstructions: the trade-off between the two errors, with its Pareto front and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from experiments.report.figures import style
from experiments.report.figures.axes import log_ticks

MAX_PANELS = 4
RING: dict[str, Any] = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "color": "0.2",
                        "markeredgewidth": 1.6, "linestyle": "none"}  # fmt: skip
FRONT: dict[str, Any] = {"color": "0.2", "linewidth": 1.1, "linestyle": "-", "zorder": 2}
CHORD: dict[str, Any] = {"color": "0.6", "linewidth": 0.9, "linestyle": "-", "zorder": 1}
NAMES = {"sse": "reconstruction: SSE (squared error per image)", "ffd": "samples: FFD (Fréchet feature distance)"}


def tradeoff(advices: Sequence[Any]) -> style.Drawn | None:
    """A panel per dataset, a marker per setting that trains and has both errors.

    Args:
        advices: for each dataset `options`, the settings, each with `settings`, `trained`, `scored` and `scores`, the
            intervals of SSE and FFD; and by their index `eligible`, those that may be recommended, `front`, of these
            the Pareto front by ascending SSE, and `pick`, the choice by the means alone, with `recommended`, whether
            the report recommends it.
    """
    shown = [advice for advice in advices if advice.front and len(_points(advice)) > 1][:MAX_PANELS]
    if not shown:
        return None
    names = list(dict.fromkeys(_name(advice.options[i]) for advice in shown for i in _points(advice)))
    first = {_name(advice.options[i]) for advice in shown for i in advice.front}
    named = style.spread(names, style.MAX_STYLES, first)
    n_rows = -(-len(shown) // 2)
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(4.4 if n_rows == 1 else 3.6 * n_rows)
        panels = list(figure.subplots(n_rows, min(2, len(shown)), squeeze=False).flat)
        for ax in panels[len(shown) :]:
            ax.remove()
        cut = False
        for ax, advice in zip(panels, shown, strict=False):
            cut |= _draw(ax, advice, named)
            if len(advices) > 1:
                ax.set_title(style.plain(advice.dataset))
        filled = {_name(advice.options[i]) for advice in shown for i in advice.eligible}
        faces = [
            {"markerfacecolor": style.marks(i)["color"] if name in filled else "white"} for i, name in enumerate(named)
        ]
        settings = [style.handle(name, **style.marks(i) | faces[i]) for i, name in enumerate(named)]
        if len(named) < len(names):
            settings.append(style.handle("other settings", marker=".", color="0.6"))
        others = [style.handle("Pareto front", **FRONT)] if any(len(advice.front) > 1 for advice in shown) else []
        others += (
            [style.handle("line between its ends", **CHORD)] if any(len(advice.front) > 2 for advice in shown) else []
        )
        hollow = any(len(_points(advice)) > len(advice.eligible) for advice in shown)
        if hollow:
            others.append(
                style.handle("hollow: cannot be recommended", marker="o", color="0.4", markerfacecolor="white")
            )
        if any(advice.pick is not None for advice in shown):
            sure = all(advice.recommended for advice in shown if advice.pick is not None)
            others.append(style.handle("recommended" if sure else "best by the means alone", **RING))
        style.legend(figure, settings, others)
        values = {
            "datasets": [advice.dataset for advice in shown],
            "total": len(advices),
            "chord": any(len(advice.front) > 2 for advice in shown),
            "hollow": hollow,
            "cut": cut,
            "absent": sum(len(advice.options) - len(_points(advice)) for advice in shown),
        }
        return style.Drawn(style.rendered(figure), "tradeoff", values)


def _name(option: Any) -> str:
    return style.label(option.settings) or "the only setting"


def _points(advice: Any) -> dict[int, tuple[float, float]]:
    """SSE and FFD by index of the settings that train and have both."""
    found = {i: o for i, o in enumerate(advice.options) if o.trained and o.scored and len(o.scores) == 2}
    return {i: (o.scores[0].mean, o.scores[1].mean) for i, o in found.items()}


def _draw(ax: Axes, advice: Any, named: Sequence[str]) -> bool:
    """Draws a panel; returns whether a bar leaves it."""
    points = _points(advice)
    front = np.array([points[i] for i in advice.front])
    ax.set_xscale("log")
    ax.set_yscale("log")
    if len(front) > 2:
        ax.plot(*front[[0, -1]].T, **CHORD)
    if len(front) > 1:
        ax.plot(*front.T, **FRONT)
    for i, (x, y) in points.items():
        name = _name(advice.options[i])
        look: dict[str, Any] = style.marks(named.index(name)) if name in named else {"color": "0.6", "marker": "."}
        look["markerfacecolor"] = look["color"] if i in advice.eligible else "white"
        bars = [[[score.half if score.n > 1 else 0.0]] * 2 for score in advice.options[i].scores]
        ax.errorbar(x, y, bars[1], bars[0], capsize=2, elinewidth=0.8, ecolor="0.7", zorder=3, **look)
    if advice.pick is not None:
        ax.plot(*points[advice.pick], zorder=4, **RING)
    cut = False
    for k, which in enumerate(("x", "y")):
        values = [point[k] for point in points.values()]
        room = max(1.12, (max(values) / min(values)) ** 0.15)  # a bar that is longer leaves the panel
        low, high = min(values) / room, max(values) * room
        log_ticks(ax, which, low, high)
        scores = [advice.options[i].scores[k] for i in points]
        cut |= any(score.low < low or score.high > high for score in scores)
    ax.set_xlabel(NAMES["sse"])
    ax.set_ylabel(NAMES["ffd"])
    return cut
