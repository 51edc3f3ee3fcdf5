"""The runs of several reports on one dataset, on the one axis that their closed form depends on."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd

from experiments.frame import Report
from experiments.outcome import JUDGED
from experiments.report.closed_form import all_curves
from experiments.report.figures import style
from experiments.report.figures.axes import QUANTITIES, limits, log_ticks, measured

PLACEMENTS = {"both": "o", "decoder": "^", "encoder": "s", "none": "D"}
OTHER = "0.6"  # the colour of further numbers of latents


def joint(report: Report, others: Mapping[str, pd.DataFrame], dataset_hash: str) -> style.Drawn | None:
    """Held-out KL, SSE and its ratio to the closed form, by effective variance; None if the report has none to show.

    Args:
        others: the runs of other reports, by name.
    """
    own = {name: _usable(runs, dataset_hash) for name, runs in {report.name: report.runs, **others}.items()}
    own = {name: runs for name, runs in own.items() if not runs.empty}
    if report.name not in own:
        return None
    runs = pd.concat(own.values())
    runs = runs[~runs.index.duplicated()]
    z_dims = sorted({int(k) for k in runs["z_dim"]})
    coloured = dict(zip(style.spread(z_dims, len(style.COLOURS)), style.COLOURS, strict=False))
    forms = [curve for curve in all_curves(runs, report.datasets) if curve.z_dim in coloured]
    died = runs["outcome"].isin(("dead", "collapsed"))
    low, high = runs["effective_x_var"].min() / 1.5, runs["effective_x_var"].max() * 1.5
    grid = np.geomspace(low, high, 300)
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(3.6)
        for ax, (quantity, name) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
            for _, group in runs[~died].groupby(["label_placement.kind", "z_dim"]):
                marker, k = PLACEMENTS[group["label_placement.kind"].iloc[0]], int(group["z_dim"].iloc[0])
                ax.plot(group["effective_x_var"], measured(group, quantity), linestyle="none", markersize=5,
                        marker=marker, color=coloured.get(k, OTHER), markerfacecolor="none")  # fmt: skip
            ax.plot(runs[died]["effective_x_var"], measured(runs[died], quantity), **style.DIED)
            heights = [*measured(runs, quantity)]
            if quantity == "ratio":
                ax.axhline(1, color="0.3", linewidth=0.9, zorder=1)
                heights.append(1.0)
            else:
                for c in forms:
                    ax.plot(grid, c.at(grid)[quantity], linestyle=style.CLOSED_FORM[c.kind][0],
                            color=coloured[c.z_dim], zorder=1)  # fmt: skip
            ax.set_ylim(limits(heights, [])[0])
            ax.set_xscale("log")
            log_ticks(ax, "x", low, high)
            ax.set_xlabel("effective x_var")
            ax.set_ylabel(name)
        alive = set(runs[~died]["label_placement.kind"])
        shapes = [
            style.handle(f"labels: {p}", marker=m, markerfacecolor="none", color="0.3")
            for p, m in PLACEMENTS.items()
            if p in alive
        ]
        if died.any():
            shapes.append(style.handle("dead or collapsed runs", **style.DIED))
        swatches = [style.handle(f"z_dim {k}", color=c, linestyle="-", linewidth=4) for k, c in coloured.items()]
        if len(coloured) < len(z_dims):
            swatches.append(style.handle("other z_dim", color=OTHER, linestyle="-", linewidth=4))
        style.legend(figure, swatches, shapes, style.closed_form_handles({c.kind for c in forms}))
        values = {
            "dataset": report.datasets[dataset_hash]["name"],
            "reports": [*own],
            "runs": len(runs),
            "kinds": sorted({c.kind for c in forms}),
            "decoder": "decoder" in set(runs["label_placement.kind"]),
            "per_dim": "per_dim" in set(runs["objective.kind"]),
        }
        return style.Drawn(style.rendered(figure), "joint", values)


def _usable(runs: pd.DataFrame, dataset_hash: str) -> pd.DataFrame:
    told = runs.reindex(columns=["effective_x_var", "bug.kind"])
    sound = told["bug.kind"].isna() | (told["bug.kind"] == "none")  # a bug changes the effective variance
    here = runs["outcome"].isin(JUDGED) & (runs["dataset_hash"] == dataset_hash)
    return runs[here & sound & (told["effective_x_var"] > 0)]
