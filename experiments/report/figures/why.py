"""Why runs die: the rate by learning rate, and the first steps of a run that died beside one that did not."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from experiments.report.dying import ByRate, Pair, Why
from experiments.report.figures import style
from experiments.report.figures.axes import log_ticks
from experiments.statistics import wilson_interval

DIED, LIVED, RATE = style.COLOURS[1], style.COLOURS[0], style.COLOURS[2]
FIT = {"linestyle": "-", "color": RATE, "linewidth": 1.0}
LINES = {"encoder": "-", "decoder": style.DASHES[1]}


def why(found: Why) -> style.Drawn:
    """The panels that there are values for."""
    with mpl.rc_context(style.STYLE):
        figure = style.new_figure(3.3)
        n_panels = (1 if found.by_rate else 0) + (2 if found.pair else 0)
        axes = figure.subplots(1, n_panels, squeeze=False)[0]
        handles = []
        if found.by_rate is not None:
            _draw_rates(axes[0], found.by_rate)
            if found.by_rate.curve is not None:
                handles.append(style.handle("logistic fit", **FIT))
        if found.pair is not None:
            _draw_steps(axes[-2], axes[-1], found.pair)
            pair = (found.pair.died, DIED, "died"), (found.pair.lived, LIVED, "did not die")
            handles += [style.handle(f"seed {steps.seed}: {what}", linestyle="-", color=c) for steps, c, what in pair]
            handles += [style.handle(f"gradient of the {n}", linestyle=line, color="0.4") for n, line in LINES.items()]
        style.legend(figure, handles)
        return style.Drawn(style.rendered(figure), "why", {"why": found})


def _draw_rates(ax: Axes, found: ByRate) -> None:
    """Rates with Wilson's intervals, and the curve."""
    for rate, count, total in zip(found.rates, found.counts, found.totals, strict=True):
        value = wilson_interval(count, total)
        ends = [[100 * (value.mean - value.low)], [100 * (value.high - value.mean)]]
        ax.errorbar(rate, 100 * value.mean, yerr=ends, marker="o", color=RATE, capsize=3)
    if found.curve is not None:
        x = np.geomspace(found.rates[0], found.rates[-1], 200)
        ax.plot(x, 100 * found.curve.at(np.log(x)), zorder=1, **FIT)
    ax.set_xscale("log")
    log_ticks(ax, "x", found.rates[0] / 1.2, found.rates[-1] * 1.2)
    ax.set(ylim=(-4, 104), xlabel="learning rate", ylabel="dead or collapsed runs (%)")


def _draw_steps(kl: Axes, gradient: Axes, found: Pair) -> None:
    for steps, colour in ((found.lived, LIVED), (found.died, DIED)):
        at = np.arange(1, len(steps.kl) + 1)
        kl.plot(at, steps.kl, color=colour, linewidth=1.1)
        for network, line in LINES.items():
            gradient.plot(at, steps.gradients[network], color=colour, linestyle=line, linewidth=0.9)
    for ax, name in ((kl, "KL (nats per image)"), (gradient, "norm of the gradient")):
        ax.set_yscale("log")
        log_ticks(ax, "y", *ax.get_ylim())
        ax.set(xlabel="training step", ylabel=name)
