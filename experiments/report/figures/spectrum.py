"""The KL of each latent dimension next to the closed form, for sweeps of x_var or beta."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.evaluate import read_metrics
from experiments.frame import Cell, Report
from experiments.keys import same
from experiments.report.closed_form import curves
from experiments.report.figures import style
from experiments.report.figures.axes import living, log_ticks
from experiments.store import RunFolder
from vae.conventions import ACTIVE_KL

SWEPT = ("x_var.value", "beta.value")
MAX_PANELS = 6
MAX_LINES = 4
FLOOR = 1e-3  # nats, of the panels
THRESHOLD = {"color": "0.6", "linewidth": 0.9, "linestyle": "-."}


def spectrum(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """A panel per value of x_var or beta, a colour per line of the sweep."""
    main = report.main
    if main not in SWEPT:
        return None
    must_lines = [line for line in report.lines if any(cell in must_show for cell in line[1])]
    coloured = list(enumerate(style.spread(report.lines, len(style.COLOURS), must_lines)))  # as in the other figures
    lines = style.spread(coloured, MAX_LINES, [own for own in coloured if own[1] in must_lines])
    known = [(i, cell, kl) for i, (_, cells) in lines for cell in cells if (kl := _sorted_kl(cell)).size]
    shown = [v for v in report.values(main) if any(same(cell.settings[main], v) for _, cell, _ in known)]
    values = style.spread(shown, MAX_PANELS, {cell.settings[main] for cell in must_show})
    panels = [(v, [own for own in known if same(own[1].settings[main], v)]) for v in values]
    if not panels:
        return None
    drawn = [own for _, cells in panels for own in cells]
    kinds = set()
    with mpl.rc_context(style.STYLE):
        n_columns = 2 if len(panels) == 4 else min(3, len(panels))
        n_rows = -(-len(panels) // n_columns)
        figure = style.new_figure(0.9 + 2.2 * n_rows)
        axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
        for ax, (value, cells) in zip(axes.flat, panels, strict=False):
            kinds |= _draw_closed_form(ax, report, [(i, cell) for i, cell, _ in cells], len(lines) > 1)
            for i, _, kl in cells:
                _draw(ax, kl, style.COLOURS[i])
            ax.axhline(ACTIVE_KL, zorder=0, **THRESHOLD)
            ax.set_title(style.label({main: value}))
            ax.set_yscale("log")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        log_ticks(axes[0, 0], "y", FLOOR, 2 * max(kl.max() for _, _, kl in drawn))
        for ax in axes[:, 0]:
            ax.set_ylabel("KL (nats)")
        for ax in axes.flat[len(panels) - n_columns : len(panels)]:  # those with no panel below
            ax.set_xlabel("latent dimension")
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        handles = [
            style.handle(style.label(rest) or "trained", linestyle="-", color=style.COLOURS[i])
            for i, (rest, _) in lines
        ]
        threshold = style.handle("threshold of active units", **THRESHOLD)
        style.legend(figure, handles, [*style.closed_form_handles(kinds), threshold])
        told = {
            "kinds": sorted(kinds),
            "decoder": any("decoder" in set(cell.usable["label_placement.kind"]) for _, cell, _ in drawn),
            "seeds": any(len(kl) > 1 for _, _, kl in drawn),
            "floor": FLOOR,
            "died": any(len(living(cell)[1]) for _, cell, _ in drawn),
            "shown": len(drawn),
            "total": sum(not cell.usable.empty for cell in report.cells),
        }
        return style.Drawn(style.rendered(figure), "spectrum", told)


def _sorted_kl(cell: Cell) -> np.ndarray:
    """KL of each latent dimension on training images, descending: (runs, k); empty without such runs."""
    paths = [RunFolder(Path(path)) for path in living(cell)[0]["path"]]
    found = [read_metrics(run, ["reconstruction"])[0].get("train_kl_per_dim") for run in paths]
    known = [np.sort(kl)[::-1] for kl in found if kl]
    return np.array([kl for kl in known if len(kl) == len(known[0])])


def _draw(ax: Axes, kl: np.ndarray, colour: str) -> None:
    """The mean over the runs, and their range: (runs, k)."""
    at = np.arange(1, kl.shape[1] + 1)
    ax.plot(at, kl.mean(axis=0), color=colour, zorder=3)
    if len(kl) > 1:
        ax.fill_between(at, kl.min(axis=0), kl.max(axis=0), color=colour, alpha=0.25, linewidth=0)


def _draw_closed_form(ax: Axes, report: Report, cells: Sequence[tuple[int, Cell]], several: bool) -> set[str]:
    """Each closed form once: in the colour of its line, or grey where several lines share it. Returns their kinds."""
    users: dict[tuple[str, tuple[float, ...]], list[int]] = {}
    for i, cell in cells:
        for curve in curves(cell.first, report.datasets):  # type: ignore[arg-type]
            kl = curve.spectrum(float(f"{cell.mean('effective_x_var'):.9g}"))
            users.setdefault((curve.kind, tuple(kl[kl > 0])), []).append(i)
    for (kind, kl), own in users.items():
        colour = style.COLOURS[own[0]] if len(own) == 1 and several else "0.3"
        ax.plot(range(1, len(kl) + 1), kl, linestyle=style.CLOSED_FORM[kind][0], color=colour, zorder=2)
    return {kind for kind, _ in users}
