"""The trials of a search: two objectives against each other, or one against the order of the trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.report.figures import style
from experiments.report.figures.axes import log_ticks

DOTS: dict[str, Any] = {"marker": "o", "color": "0.35"}
BROKEN: dict[str, Any] = {"marker": "o", "color": "0.6", "markerfacecolor": "white"}
BEST: dict[str, Any] = {"color": style.COLOURS[1], "linestyle": "-"}


def search(
    trials: Sequence[Any],
    objectives: Mapping[str, str],
    best: Sequence[Any],
    constraints: Collection[Mapping[str, Any]] = (),
) -> style.Drawn | None:
    """The front of two objectives, or the best so far of one.

    Args:
        trials: each with `number` (from 1, in the order in which they were proposed), `values` of the objectives,
            `usable` (all values are finite) and `allowed` (it keeps the constraints too).
        objectives: columns, each with `minimize` or `maximize`.
        best: the front in order, or the best trial.
        constraints: for the caption: column, sign and limit of each.
    """
    usable = [trial for trial in trials if trial.usable]
    if not usable:
        return None
    two = len(objectives) == 2
    names = [*objectives] if two else ["trial", *objectives]
    allowed = [trial for trial in usable if trial.allowed]
    broken = [trial for trial in usable if not trial.allowed]

    def places(of: Sequence[Any]) -> tuple[list[float], list[float]]:
        return [t.values[0] if two else t.number for t in of], [t.values[-1] for t in of]

    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(4.2)
        ax = figure.subplots()
        handles = []
        for own, name, look in ((allowed, "trial", DOTS), (broken, "trial that breaks a constraint", BROKEN)):
            if own:
                ax.plot(*places(own), linestyle="none", **look)
                handles.append(style.handle(name, **look))
        if two and best:
            ax.plot(*places(best), marker="o", **BEST)
            handles.append(style.handle("Pareto front", marker="o", **BEST))
        elif allowed:
            numbers, values = places(allowed)
            least = [*objectives.values()] == ["minimize"]
            so_far = (np.minimum if least else np.maximum).accumulate(values)
            ax.step([*numbers, usable[-1].number], [*so_far, so_far[-1]], where="post", **BEST)
            handles.append(style.handle("best so far", **BEST))
        for which, name, numbers in zip(("x", "y"), names, places(usable), strict=True):
            low, high = min(numbers), max(numbers)
            if name != "trial" and low > 0 and high / low > 10:
                ax.set(**{f"{which}scale": "log"})
                log_ticks(ax, which, low / 1.2, high * 1.2)
            ax.set(**{f"{which}label": style.plain(name)})
        style.legend(figure, handles)
        values = {"objectives": dict(objectives), "constraints": [*constraints], "any": bool(best)}
        return style.Drawn(style.rendered(figure), "search", values)
