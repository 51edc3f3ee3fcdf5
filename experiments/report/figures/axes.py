"""What the panels show against what: measured quantities, limits, and a swept number as an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments.frame import Cell, Report
from experiments.keys import is_number
from experiments.report.figures.style import plain, spread
from experiments.wording import short, words
from vae.config import Config, settings

QUANTITIES = {
    "kl": "KL (nats per image)",
    "sse": "SSE (squared error per image)",
    "ratio": "SSE / closed form",
}


def measured(runs: pd.DataFrame, quantity: str) -> pd.Series:
    """A quantity of held-out images, or a column, by run; the ratio is to the closed form at the same settings."""
    if quantity in runs:
        return runs[quantity]
    if quantity == "ratio":
        return runs["test_sse"] / runs.get("test_theory_sse_high", math.nan)  # without theory.json there is none
    return runs[f"test_{quantity}"]


def living(cell: Cell) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The usable runs whose latents carry something, and those that died (dead or collapsed)."""
    died = cell.usable["outcome"].isin(("dead", "collapsed"))
    return cell.usable[~died], cell.usable[died]


def baseline(report: Report) -> dict[str, float]:
    """The held-out error without latents: of the class means where the decoder is given the label, else the mean."""
    found = {}
    for _, run in report.usable.iterrows():
        named = run["label_placement.kind"] in ("both", "decoder")
        found["class means" if named else "mean image"] = run[f"test_baseline_{'class_means' if named else 'mean'}"]
    return found


def limits(heights: Sequence[float], ends: Sequence[float], zoom: float = 0.1) -> tuple[tuple[float, float], bool]:
    """The range of an axis: around these heights, from zero if that costs little.

    Args:
        ends: of bars; those that lie far outside are cut.
        zoom: the least range, as a share of the highest value, so that small differences do not look large.

    Returns:
        The range and whether a bar is cut.
    """
    finite, ends = ([v for v in values if math.isfinite(v)] for values in (heights, ends))
    low, high = min(finite), max(finite)
    if low >= 0:  # what is measured cannot be negative, so no room for bars that are
        ends = [max(0.0, end) for end in ends]
    room = max(0.6 * (high - low), 0.05 * abs(high))
    inside = [end for end in ends if low - room <= end <= high + room]
    low, high = min([low, *inside]), max([high, *inside])
    missing = max(zoom * abs(high) - (high - low), 0.0) / 2
    low, high = low - missing, high + missing
    margin = 0.08 * (high - low) or 1.0
    bottom = -margin / 2 if 0 <= low < 0.4 * high else low - margin
    cut = any(not bottom <= end <= high + margin for end in ends)
    return (bottom, high + margin), cut


def log_ticks(ax: Axes, which: str, low: float, high: float) -> None:
    """The range of a logarithmic axis, and a few plain numbers along it."""
    ticks = list(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)) if high > 4 * low else ():
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [float(f"{d}e{e}") for e in decades for d in digits]
        if sum(low <= v <= high for v in ticks) >= 3:
            break
    ticks = [v for v in ticks if low <= v <= high]
    axis = ax.xaxis if which == "x" else ax.yaxis
    ticks = spread(ticks, 6 if which == "y" or high / low < 1e5 else 4)  # long numbers side by side need more room
    axis.set_ticks(ticks, [f"{v:g}" for v in ticks])
    axis.set_minor_locator(NullLocator())
    ax.set(**{f"{which}lim": (low, high)})


class NumberAxis:
    """The main setting as an axis of numbers. Values that are words stand apart, on its right."""

    def __init__(self, report: Report) -> None:
        assert report.main is not None
        self.key = report.main
        values = report.values(self.key)
        self.values = sorted(float(v) for v in values if is_number(v))
        self.log = self.values[0] > 0 and self.values[-1] / self.values[0] >= 10
        words = [v for v in values if not is_number(v)]
        self.words = {v: self.aside(self.values[-1], 20 * (i + 1)) for i, v in enumerate(words)}  # place by word

    def at(self, cell: Cell) -> float:
        value = cell.settings[self.key]
        return float(value) if is_number(value) else self.words[value]

    def pieces(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells that a line joins: those with a number in their order, and each other one alone."""
        numbers = sorted((c for c in cells if is_number(c.settings[self.key])), key=self.at)
        return [piece for piece in (numbers, *([c] for c in cells if c not in numbers)) if piece]

    def aside(self, x: float, steps: float) -> float:
        """A position some steps beside x, so that bars do not cover each other."""
        if self.log:
            return x * (self.values[-1] / self.values[0]) ** (0.012 * steps)
        return x + 0.012 * steps * (self.values[-1] - self.values[0])

    @property
    def label(self) -> str:
        units = {name: meta["unit"] for name, _, meta, _ in settings(Config())}
        unit = "variance of a pixel" if self.key == "x_var.value" else units.get(self.key)
        return plain(f"{short(self.key)} ({unit})" if unit else short(self.key))

    def decorate(self, ax: Axes) -> None:
        """Scale, label, and a tick at each swept value that has room for its number."""
        ax.set_xlabel(self.label)
        if self.log:
            ax.set_xscale("log")
        texts = {value: words(value) for value in self.values} | {x: plain(word) for word, x in self.words.items()}
        places = np.log([*texts]) if self.log else np.array([*texts])
        places = (places - places[0]) / max(places[-1] - places[0], 1e-300)  # 0 to 1
        ticks: dict[float, tuple[float, str]] = {}  # text by value, with its place
        for place, (value, text) in zip(places, texts.items(), strict=True):
            before, beside = max(ticks.values(), default=(-math.inf, ""))
            room = 0.035 * ((len(text) + len(beside)) / 2 + 1)  # of a panel that takes a third of the width
            if place - before >= room:
                ticks[value] = place, text
        ax.set_xticks([*ticks], [text for _, text in ticks.values()])
        ax.minorticks_off()
