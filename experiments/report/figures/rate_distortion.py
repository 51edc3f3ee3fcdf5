"""SSE against KL on held-out images: every run, the closed form's curve, and the ratio of the two at equal KL."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from experiments.frame import Cell, Report
from experiments.report.closed_form import Curve, compared, curves
from experiments.report.figures import style
from experiments.report.figures.axes import QUANTITIES

OTHER = {"marker": ".", "color": "0.7", "markersize": 4}  # settings without a look of their own


def rate_distortion(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    if report.usable.empty:
        return None
    styles, handles = identified(report, must_show)
    every = {curve for _, run in report.usable.iterrows() for curve in compared(run, report.datasets)}
    found = sorted(every, key=lambda curve: (curve.z_dim, curve.kind))
    whole = {curve: curve.whole() for curve in found}
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(4.4)
        plane, against = figure.subplots(1, 2, width_ratios=(3, 2))
        for cell in report.cells:
            if cell.usable.empty:
                continue
            look: dict[str, Any] = {"linestyle": "none", "zorder": 3, "alpha": 0.8, **styles.get(id(cell), OTHER)}
            kl = cell.usable["test_kl"]
            plane.plot(kl, cell.usable["test_sse"], **look)
            # Without a simple form of its own, decoder is compared with the unconditional one, which comes last.
            own = compared(cell.first, report.datasets)[-1:]  # type: ignore[arg-type]
            for line in (whole[curve] for curve in own):
                against.plot(kl, cell.usable["test_sse"] / np.interp(kl.clip(lower=0), line["kl"], line["sse"]), **look)
        crosses = _draw_curves(plane, report, whole)
        plane.set_ylabel(f"distortion: {QUANTITIES['sse']}")
        against.axhline(1, color="0.3", linewidth=0.9, zorder=1)
        against.set_ylabel("SSE / closed form at equal KL")
        for ax in (plane, against):
            ax.set_xlabel(f"rate: {QUANTITIES['kl']}")
            ax.set_xlim(plane.get_xlim())
        if len(styles) < sum(not cell.usable.empty for cell in report.cells):
            handles[-1].append(style.handle("other settings", **OTHER))
        theory = style.closed_form_handles({curve.kind for curve in found})
        if crosses:
            theory.append(style.handle("closed form at the same settings", marker="+", color="0.3"))
        style.legend(figure, *handles, theory)
        values = {
            "kinds": sorted({curve.kind for curve in found}),
            "decoder": "decoder" in set(report.usable["label_placement.kind"]),
            "crosses": crosses,
            "z_dims": sorted({curve.z_dim for curve in found}),
            "shown": len(styles),
            "total": len(report.cells),
        }
        return style.Drawn(style.rendered(figure), "rate_distortion", values)


def identified(
    report: Report, must_show: Collection[Cell] = ()
) -> tuple[dict[int, dict[str, Any]], list[list[Artist]]]:
    """How the markers of each setting look, by id of its cell, and the groups of the style.legend that name them.

    With several lines the colour tells the line and the marker the value of the main setting; else both tell the cell.
    Settings beyond what can be told apart have no look.
    """
    cells = [cell for cell in report.cells if not cell.usable.empty]
    if report.main is None or len(report.lines) == 1 or len(cells) <= len(style.MARKERS):
        shown = style.spread(cells, style.MAX_STYLES, must_show)
        styles = {id(cell): style.marks(i) for i, cell in enumerate(shown)}
        names = [style.label(cell.settings) or "single runs" for cell in shown]
        return styles, [[style.handle(name, **style.marks(i)) for i, name in enumerate(names)]]
    main = report.main
    must_values = {repr(cell.settings[main]) for cell in must_show}
    must_lines = [line for line in report.lines if any(cell in must_show for cell in line[1])]
    values = style.spread([repr(v) for v in report.values(main)], len(style.MARKERS), must_values)
    lines = style.spread(report.lines, len(style.COLOURS), must_lines)
    styles, by_value = {}, {}
    swatches: list[Artist] = []
    for i, (rest, own) in enumerate(lines):
        fill = "white" if i % 2 else style.COLOURS[i]
        swatches.append(Patch(facecolor=fill, edgecolor=style.COLOURS[i], linewidth=1.4, label=style.label(rest)))
        for cell in own:
            if not cell.usable.empty and repr(cell.settings[main]) in values:
                marker = style.MARKERS[values.index(repr(cell.settings[main]))]
                styles[id(cell)] = {"color": style.COLOURS[i], "marker": marker, "markerfacecolor": fill}
                by_value[marker] = style.label({main: cell.settings[main]})
    shapes = [
        style.handle(by_value[m], marker=m, color="0.4", markerfacecolor="none") for m in style.MARKERS if m in by_value
    ]
    return styles, [swatches, [*shapes]]


def _draw_curves(ax: Axes, report: Report, whole: Mapping[Curve, dict[str, np.ndarray]]) -> bool:
    """The closed form as far as the runs reach, its point at each of their settings, and the number of latents.

    Returns:
        Whether there are such points in view.
    """
    kl, sse = report.usable["test_kl"], report.usable["test_sse"]
    right, top = 1.15 * kl.max() + 0.5, sse.max() + 0.3 * (sse.max() - sse.min()) + 0.05 * sse.max()
    bottom, crosses = sse.min(), False
    for curve in whole:
        runs = report.usable[[curve in curves(run, report.datasets) for _, run in report.usable.iterrows()]]
        if runs.empty:
            continue
        at = curve.at(sorted(set(runs["effective_x_var"].round(9))))
        near = (at["kl"] < 1.5 * right) & (at["sse"] < 1.3 * top)
        ax.plot(at["kl"][near], at["sse"][near], "+", color="0.3", markersize=9, zorder=2)
        crosses |= bool(near.any())
        right, top = max([right, *1.05 * at["kl"][near]]), max([top, *1.05 * at["sse"][near]])
    ends: dict[int, float] = {}  # SSE on the right, by number of latents
    for curve, line in whole.items():
        keep = (line["kl"] <= right) & (line["sse"] <= top)
        ax.plot(line["kl"][keep], line["sse"][keep], linestyle=style.CLOSED_FORM[curve.kind][0], color="0.3", zorder=1)
        bottom = min([bottom, *line["sse"][keep]])
        ends |= {curve.z_dim: line["sse"][keep][-1]} if keep.any() else {}
    bottom -= 0.1 * (top - bottom)
    ax.set_xlim(0.8 * kl.min() if kl.min() > 0.3 * right else min(0.0, kl.min()) - 0.03 * right, right)
    ax.set_ylim(bottom, top)
    place = -math.inf
    for z_dim, end in sorted(ends.items(), key=lambda item: item[1]) if len(ends) > 1 else ():
        place = max(end, place + 0.05 * (top - bottom))  # clear of the one below
        ax.annotate(f"z_dim {z_dim}", (1.01, place), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8.5,
                    color="0.3")  # fmt: skip
    return crosses
