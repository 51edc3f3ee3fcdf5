"""A study's figures against hypotheses about its code: each prediction divided by what the study printed."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib as mpl
import numpy as np

from experiments.frame import Cell, Report
from experiments.published import BUG, CORRECT, Line, published
from experiments.report.figures import style
from experiments.wording import words

SHOWN = {
    CORRECT: ("correct VAE", style.COLOURS[0], "o", -0.14),
    BUG: ("variance as standard deviation", style.COLOURS[1], "^", 0.14),
}
TICKS = (0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5)


def against(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """Two panels, KLD and R: closed form (hollow) and trained networks (filled, with intervals) over the published."""
    found = published(report)
    if found is None:
        return None
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(3.5)
        panels = figure.subplots(1, 2, sharey=True)
        for i, (ax, title) in enumerate(zip(panels, ("KLD", "R"), strict=True)):
            ax.axhline(1, color="0.2", linewidth=1)
            for bug, (_, colour, marker, shift) in SHOWN.items():
                xs = np.arange(len(found.lines)) + shift
                closed = [line.by_bug[bug].closed[i] / line.published[i] for line in found.lines]
                ax.plot(xs, closed, marker=marker, color=colour, markerfacecolor="white", linestyle="none", zorder=3)
                for x, line in zip(xs, found.lines, strict=True):
                    trained = line.by_bug[bug].trained
                    if trained is not None:
                        ratio = trained[i].mean / line.published[i]
                        ax.plot(x + 0.12, ratio, marker=marker, color=colour, linestyle="none", zorder=4)
            ax.set_yscale("log")
            ax.set_yticks(TICKS, [f"{t:g}" for t in TICKS])
            ax.minorticks_off()
            ax.set_title(f"{title}, divided by the published {title}")
            ax.set_xticks(range(len(found.lines)), [_name(line) for line in found.lines])
            ax.set_xlabel("z_dim, beta")
            ax.grid(axis="x", visible=False)
        panels[0].set_ylabel("ratio to the published figure")
        names = [style.handle(name, color=c, marker=m) for name, c, m, _ in SHOWN.values()]
        kinds = [style.handle("closed form", color="0.4", marker="o", markerfacecolor="white")]
        if found.trained:
            kinds.append(style.handle("trained networks", color="0.4", marker="o"))
        style.legend(figure, [*names, *kinds])
        return style.Drawn(style.rendered(figure), "against", {"trained": bool(found.trained)})


def _name(line: Line) -> str:
    read = "*" if line.read_as else ""
    return f"{line.settings['z_dim.value']}, {words(line.settings['beta.value'])}{read}"
