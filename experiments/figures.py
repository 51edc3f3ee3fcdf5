"""The figures of a report: legible in greyscale and at the width of a README, each at most 300 KB.

Lines of a figure differ in marker as well as in colour, and the colours in lightness. What is dashed or dotted is the
closed form of the linear VAE (vae/linear_theory.py), never a measurement. No pyplot: a figure leaves no state behind.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image, ImageDraw, ImageFont

from experiments.advice import Advice, finalists
from experiments.report import NONE, Cell, Report, Run, described, short, words
from experiments.statistics import wilson_interval
from experiments.tables import baseline, metric
from vae import linear_theory
from vae.config import Config, settings

WIDTH = 8.0  # inches
DPI = 150  # so 1200 pixels, shown at 800: what is 9 points here is 9 points there
MAX_BYTES = 300_000
MAX_CELLS = 12  # on a contact sheet
MAX_LINES = 8  # in one panel

STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 6,
}
COLOURS = ("#1b2a41", "#c8501e", "#2a9d8f", "#8a6fc0", "#b58900", "#56a0d3", "#7a7a7a", "#c97b9b")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
CLOSED_FORM: dict[str, tuple[Any, str]] = {
    "within": ("--", "closed form, within class"),
    "all": (":", "closed form, unconditional"),
}
OF_THE_PICK = {  # of the run's own pictures (vae/pictures.py)
    "traversals": "what each latent dimension does, those of most KL first",
    "neighbours": "samples, each beside its nearest training images: whether it copies",
}
PLACEMENTS = {"both": "o", "decoder": "^", "encoder": "s", "none": "D"}
QUANTITIES = {"kl": "KL (nats per image)", "sse": "SSE (squared error per image)"}


@dataclass(frozen=True)
class Drawn:
    """A figure as a PNG file and what is to be said under it."""

    png: bytes
    caption: str


def all_figures(report: Report) -> dict[str, Drawn]:
    """Every figure that the report's runs allow, by file name, in the report's order."""
    found = {
        "deaths": deaths(report),
        "swept": swept(report),
        "rate_distortion": rate_distortion(report),
        "learning": learning_curves(report),
        "samples": samples(report),
        "reconstructions": reconstructions(report),
    }
    return {f"{name}.png": drawn for name, drawn in found.items() if drawn is not None}


# ---------------------------------------------------------------------------------------------- files


def shrunk(image: Image.Image) -> bytes:
    """A PNG of at most 300 KB: fewer colours, and where they do not suffice fewer pixels."""
    while True:
        for colours in (256, 128, 64, 32, 24):
            buffer = io.BytesIO()
            image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
            if buffer.tell() <= MAX_BYTES:
                return buffer.getvalue()
        image = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return shrunk(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))


# ---------------------------------------------------------------------------------------------- closed form


@dataclass(frozen=True)
class Curve:
    """A closed form that runs can be compared with: a spectrum of their data and a number of latent dimensions.

    Attributes:
        kind: `within`, of the within-class covariance, or `all`, of the unconditional one.
    """

    dataset_hash: str
    kind: str
    z_dim: int

    def spectrum(self, report: Report) -> list[float]:
        data = report.datasets[self.dataset_hash]
        return data["eigenvalues_within" if self.kind == "within" else "eigenvalues"]

    def at(self, report: Report, ts: Any) -> dict[str, np.ndarray]:
        kl, sse = linear_theory.curve(self.spectrum(report), ts, self.z_dim)
        return {"kl": kl, "sse": sse}


def curves(run: Run) -> list[Curve]:
    """The closed form of a run; label_placement=decoder lies between two in the rate-distortion plane."""
    kinds = {"both": ["within"], "decoder": ["within", "all"]}.get((run.result or {})["label_placement.kind"], ["all"])
    return [Curve(run.dataset_hash, kind, int(run.value("z_dim"))) for kind in kinds]


def _closed_form_legend(found: Iterable[Curve]) -> list[Line2D]:
    kinds = {curve.kind for curve in found}
    return [
        Line2D([], [], color="0.3", linestyle=style, label=label)
        for kind, (style, label) in CLOSED_FORM.items()
        if kind in kinds
    ]


# ---------------------------------------------------------------------------------------------- the swept setting


def line_label(rest: dict[str, Any]) -> str:
    """Settings in short: a word explains itself, a number needs its name."""
    return ", ".join(v if isinstance(v, str) else described({k: v}) for k, v in rest.items())


def _spread(items: Sequence[Any], n: int) -> list[Any]:
    """At most n of the items, evenly, the first and the last among them."""
    if len(items) <= n:
        return list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, n).round().astype(int))]


def _left_out(kept: int, of: int, what: str) -> str:
    return f" Shown are {kept} of {of} {what}, evenly chosen." if kept < of else ""


def _style(i: int) -> dict[str, Any]:
    """Marker and colour of the i-th line."""
    return {"color": COLOURS[i], "marker": MARKERS[i], "markerfacecolor": "white" if i % 2 else COLOURS[i]}


LEGEND_WIDTH = 90  # letters that fit under the panels


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Under the panels, in as many rows as the labels need, to be read row by row."""
    if not handles:
        return
    widths = [len(str(handle.get_label())) + 7 for handle in handles]  # in letters, with the marker
    n_columns = len(handles)
    while n_columns > 1 and sum(max(widths[c::n_columns]) for c in range(n_columns)) > LEGEND_WIDTH:
        n_columns -= 1  # a column is as wide as its widest label
    n_rows = -(-len(handles) // n_columns)
    blank = Line2D([], [], linestyle="none", label=" ")
    padded = [*handles, *[blank] * (n_rows * n_columns - len(handles))]
    by_column = [padded[r * n_columns + c] for c in range(n_columns) for r in range(n_rows)]
    figure.legend(handles=by_column, loc="outside lower center", ncols=n_columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, n_rows - 2))  # not at the cost of the panels


@dataclass(frozen=True)
class XAxis:
    """The main setting as an axis: of numbers, or of categories at 0, 1, 2, ...

    Attributes:
        key: None where nothing but the seed is swept.
        values: ascending, if numbers.
    """

    key: str | None
    values: list[Any]
    numeric: bool

    @classmethod
    def of(cls, report: Report) -> XAxis:
        if report.main is None:
            return cls(None, [None], False)
        values, numeric = report.values(report.main), report.is_number(report.main)
        return cls(report.main, sorted(values) if numeric else values, numeric)

    @property
    def log(self) -> bool:
        return self.numeric and self.values[0] > 0 and self.values[-1] / self.values[0] >= 10

    def value(self, cell: Cell) -> Any:
        return cell.settings[self.key] if self.key else None

    def at(self, cell: Cell) -> float:
        return float(self.value(cell)) if self.numeric else float(self.values.index(self.value(cell)))

    def aside(self, x: float, steps: float) -> float:
        """A position some steps beside x, so that bars do not cover each other."""
        if self.log:
            return x * (self.values[-1] / self.values[0]) ** (0.012 * steps)
        if self.numeric:
            return x + 0.012 * steps * (self.values[-1] - self.values[0])
        return x + 0.09 * steps

    @property
    def label(self) -> str:
        if self.key is None:
            return ""
        units = {name: meta["unit"] for name, _, meta, _ in settings(Config())}
        unit = "variance of a pixel" if self.key == "x_var.value" else units.get(self.key)
        return f"{short(self.key)} ({unit})" if unit else short(self.key)

    @property
    def depth(self) -> float:
        """Inches that words below the axis take, where they are set aslant."""
        longest = max((len(words(v)) for v in self.values), default=0) if not self.numeric and self.key else 0
        return 0.045 * max(0, longest - 12)

    def decorate(self, ax: Axes) -> None:
        """Scale, label, and ticks at the swept values where there are not too many."""
        ax.set_xlabel(self.label)
        if self.log:
            ax.set_xscale("log")
        if not self.numeric:
            labels = [words(v) for v in self.values] if self.key else ["all runs"]
            long = sum(map(len, labels)) > 40
            ax.set_xticks(range(len(labels)), labels, rotation=30 if long else 0, ha="right" if long else "center")
            ax.set_xlim(-0.6, len(labels) - 0.4)
        elif len(self.values) <= 8:
            ax.set_xticks(self.values, [words(v) for v in self.values])
            ax.minorticks_off()
        elif self.log:
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def deaths(report: Report) -> Drawn | None:
    """How often training dies in each setting, where it does in any and there are enough runs to call it a rate."""
    cells = [cell for cell in report.cells if len(cell.usable) >= 5]
    counts = [sum(run.died for run in cell.usable) for cell in cells]
    if len(cells) < 2 or not any(counts):
        return None
    cells, counts = cells[: 2 * MAX_CELLS], counts[: 2 * MAX_CELLS]
    rates = [wilson_interval(count, len(cell.usable)) for count, cell in zip(counts, cells, strict=True)]
    expected = [cell.mean("theory_kl_high") == 0 for cell in cells]  # the closed form collapses there too
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.27 * len(cells)), dpi=DPI, layout="constrained")
        ax = figure.subplots()
        for y, (rate, count, cell, by_theory) in enumerate(zip(rates, counts, cells, expected, strict=True)):
            colour = "0.5" if by_theory else COLOURS[count > 0]
            ends = [[100 * (rate.mean - rate.low)], [100 * (rate.high - rate.mean)]]
            ax.errorbar(100 * rate.mean, y, xerr=ends, fmt=MARKERS[count > 0], color=colour, capsize=3)
            ax.annotate(f"{count}/{len(cell.usable)}", (1.01, y), xycoords=ax.get_yaxis_transform(), va="center")
        ax.set_yticks(range(len(cells)), [line_label(cell.settings) or "all runs" for cell in cells])
        ax.invert_yaxis()
        ax.set_xlim(-3, 103)
        ax.set_xlabel("runs that end with nothing in z (%)")
        handles = [
            Line2D([], [], linestyle="none", marker=MARKERS[0], color=COLOURS[0], label="none died"),
            Line2D([], [], linestyle="none", marker=MARKERS[1], color=COLOURS[1], label="some or all died"),
        ]
        if any(expected):
            label = "as the closed form has it"
            handles.append(Line2D([], [], linestyle="none", marker=MARKERS[1], color="0.5", label=label))
        _legend(figure, handles)
        caption = (
            "Share of runs that are dead or collapsed at the end, with Wilson's 95 % interval and the number of runs."
        )
        return Drawn(_png(figure), caption + _left_out(len(cells), len(report.cells), "settings"))


def swept(report: Report) -> Drawn | None:
    """KL and SSE on held-out images against the main setting."""
    if not report.usable:
        return None
    axis = XAxis.of(report)
    lines = _spread(report.lines, MAX_LINES)
    cut = False
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.7 + axis.depth), dpi=DPI, layout="constrained")
        for ax, (quantity, label) in zip(figure.subplots(1, 2), QUANTITIES.items(), strict=True):
            heights: list[float] = []
            bars: list[float] = []
            for i, (_, cells) in enumerate(lines):
                shown = sorted((cell for cell in cells if cell.usable), key=axis.at)
                x = [axis.aside(axis.at(cell), (2 * i - len(lines) + 1) * min(1, 4 / len(lines))) for cell in shown]
                means = [metric(cell, f"test_{quantity}") for cell in shown]
                seeds = [
                    (axis.aside(a, 1), v) for a, c in zip(x, shown, strict=True) for v in c.values(f"test_{quantity}")
                ]
                heights += [v for _, v in seeds]
                bars += [end for m in means for end in (m.low, m.high)]
                ax.errorbar(
                    x,
                    [m.mean for m in means],
                    [m.half if math.isfinite(m.half) else 0.0 for m in means],
                    linestyle="-" if axis.numeric else "none",
                    capsize=3,
                    **_style(i),
                )
                ax.plot(*_columns(seeds), ".", color=COLOURS[i], alpha=0.5, markersize=4)
            heights += _draw_closed_form(report, ax, axis, lines, quantity)
            cut |= _limits(ax, heights, bars)
            if quantity == "sse":
                _draw_baselines(ax, report)
            axis.decorate(ax)
            ax.set_ylabel(label)
        solid = "-" if axis.numeric else "none"
        names = [line_label(rest) or "mean over seeds" for rest, _ in lines]
        handles = [Line2D([], [], linestyle=solid, label=name, **_style(i)) for i, name in enumerate(names)]
        handles.append(Line2D([], [], linestyle="none", marker=".", color="0.5", label="single runs"))
        found = {c for _, cells in lines for cell in cells if cell.first for c in curves(cell.first)}
        _legend(figure, [*handles, *_closed_form_legend(found)])
        caption = (
            "KL and SSE on held-out images: mean over seeds with its 95 % interval (bars), single runs (dots), and the "
            "closed form of a linear VAE of the same latent size, dashed within class (label_placement both), dotted "
            "unconditional (encoder and none); decoder has no simple form."
        )
        caption += " A bar that leaves its panel is longer than shown." if cut else ""
        return Drawn(_png(figure), caption + _left_out(len(lines), len(report.lines), "lines"))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in points], [b for _, b in points]


def _draw_closed_form(
    report: Report, ax: Axes, axis: XAxis, lines: Sequence[tuple[dict[str, Any], list[Cell]]], quantity: str
) -> list[float]:
    """Each closed form once: in the colour of its line, or grey where several lines share it. Returns its heights."""
    users: dict[tuple[str, tuple[float, ...], tuple[float, ...]], list[int]] = {}
    for i, (_, cells) in enumerate(lines):
        by_kind: dict[str, list[tuple[float, float, Curve]]] = {}  # (x, t, curve)
        for cell in sorted((cell for cell in cells if cell.first), key=axis.at):
            assert cell.first is not None
            for curve in curves(cell.first):
                by_kind.setdefault(curve.kind, []).append((axis.at(cell), cell.mean("effective_x_var"), curve))
        for kind, points in by_kind.items():
            x, t = np.array([p[0] for p in points]), np.array([p[1] for p in points])
            y = np.array([curve.at(report, t_)[quantity] for _, t_, curve in points])
            one = len({curve for _, _, curve in points}) == 1
            if axis.numeric and one and len(x) > 1 and (x > 0).all() and np.allclose(t / x, t[0] / x[0], rtol=1e-3):
                # x_var or beta is swept: t is in proportion to it, and the curve is known between the values too.
                dense = np.geomspace(x[0], x[-1], 200)
                x, y = dense, points[0][2].at(report, dense * t[0] / x[0])[quantity]
            key = (kind, tuple(x.tolist()), tuple(float(f"{v:.6g}") for v in y))
            users.setdefault(key, []).append(i)
    for (kind, x, y), own in users.items():
        colour = COLOURS[own[0]] if len(own) == 1 and len(lines) > 1 else "0.3"
        style = CLOSED_FORM[kind][0]
        if not axis.numeric:
            ax.hlines(y, np.array(x) - 0.38, np.array(x) + 0.38, linestyles=style, colors=colour, linewidth=1.4)
        elif len(x) > 1:
            ax.plot(x, y, linestyle=style, color=colour, zorder=1)
        else:
            ax.plot(x, y, "_", color=colour, markersize=16)
    return [v for _, _, y in users for v in y]


def _limits(ax: Axes, heights: Sequence[float], bars: Sequence[float] = ()) -> bool:
    """Around these heights, from zero if that costs little, and the ends of the bars that do not lie far outside.

    Returns:
        Whether a bar leaves the panel.
    """
    low, high = min(heights), max(heights)
    room = max(0.6 * (high - low), 0.05 * abs(high))
    inside = [end for end in bars if low - room <= end <= high + room]
    low, high = min([low, *inside]), max([high, *inside])
    short_of = max(0.1 * abs(high) - (high - low), 0.0) / 2  # no zoom into differences of a few per cent
    low, high = low - short_of, high + short_of
    margin = 0.08 * (high - low) or 1.0
    ax.set_ylim(-margin / 2 if 0 <= low < 0.4 * high else low - margin, high + margin)
    return any(not low - margin <= end <= high + margin for end in bars if math.isfinite(end))


def _draw_baselines(ax: Axes, report: Report) -> None:
    """The error without latents, where the panel reaches it or comes near."""
    low, high = ax.get_ylim()
    room = 0.35 * (high - low)
    for name, value in sorted({baseline(run) for run in report.usable}):
        if low < value < high + room:
            ax.axhline(value, color="0.55", linewidth=0.8, zorder=0)
            text = "mean image" if name == "mean" else name
            ax.annotate(text, (0, value), (4, 2), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                        ha="left", va="bottom", color="0.4", fontsize=9)  # fmt: skip
            ax.set_ylim(low, max(ax.get_ylim()[1], value + room / 3))


# ---------------------------------------------------------------------------------------------- rate and distortion


def rate_distortion(report: Report) -> Drawn | None:
    """SSE against KL: every run, and the closed form's curve."""
    if not report.usable:
        return None
    lines = _spread(report.lines, MAX_LINES)
    found = sorted({c for run in report.usable for c in curves(run)}, key=lambda c: (c.z_dim, c.kind, c.dataset_hash))
    kls, sses = ([run.value(f"test_{q}") for run in report.usable] for q in QUANTITIES)
    ts = [run.value("effective_x_var") for run in report.usable]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), dpi=DPI, layout="constrained")
        ax = figure.subplots()
        for i, (_, cells) in enumerate(lines):
            for cell in cells:
                x, y = cell.values("test_kl"), cell.values("test_sse")
                ax.plot(x, y, linestyle="none", alpha=0.8, zorder=3, **_style(i))
        crosses: list[float] = []
        for curve in found:
            line = curve.at(report, np.geomspace(min(ts) / 3, max(curve.spectrum(report)[0], *ts), 400))
            own = {round(run.value("effective_x_var"), 9) for run in report.usable if curve in curves(run)}
            at = curve.at(report, sorted(own))
            crosses += at["sse"].tolist()
            ends = [*kls, *at["kl"]]
            keep = (line["kl"] <= 1.1 * max(ends) + 1) & (line["kl"] >= 0.85 * min(ends) - 1)
            ax.plot(line["kl"][keep], line["sse"][keep], linestyle=CLOSED_FORM[curve.kind][0], color="0.3", zorder=1)
            ax.plot(at["kl"], at["sse"], "+", color="0.3", markersize=9, zorder=2)
            if len({c.z_dim for c in found}) > 1:
                end = int(np.flatnonzero(keep)[0])
                above = curve.z_dim < max(c.z_dim for c in found)  # the more latents, the lower the curve
                ax.annotate(f"k = {curve.z_dim}", (line["kl"][end], line["sse"][end]), (0, 4 if above else -4),
                            color="0.3", textcoords="offset points", fontsize=9, ha="right",
                            va="bottom" if above else "top")  # fmt: skip
        ax.margins(x=0.06)
        near = [1.05 * sse for sse in crosses if sse < 2.5 * max(sses)]
        top = max([max(sses) + 0.45 * (max(sses) - min(sses)) + 1, *near])
        ax.set_ylim(top=min(ax.get_ylim()[1], top))
        ax.set_xlabel(f"rate: {QUANTITIES['kl']}")
        ax.set_ylabel(f"distortion: {QUANTITIES['sse']}")
        handles = [
            Line2D([], [], linestyle="none", label=line_label(r), **_style(i)) for i, (r, _) in enumerate(lines) if r
        ]
        if report.main and _label_cells(figure, ax, report, lines):
            handles.append(Line2D([], [], linestyle="none", label=f"(labels: {short(report.main)})"))
        cross = Line2D([], [], color="0.3", marker="+", linestyle="none", label="closed form at the same settings")
        _legend(figure, [*handles, *_closed_form_legend(found), cross])
        caption = (
            "Rate against distortion on held-out images, a marker a run. The dashed and dotted curves are what a "
            "linear VAE reaches over all effective variances, the crosses where it lies at the settings of the runs. "
            "Below and left of the curve is better."
        )
        return Drawn(_png(figure), caption + _left_out(len(lines), len(report.lines), "groups"))


def _label_cells(figure: Figure, ax: Axes, report: Report, lines: Sequence[tuple[dict[str, Any], list[Cell]]]) -> bool:
    """Writes the main setting's value beside each cell, once where cells of one value lie together.

    Labels stay inside, clear of each other and of other cells' markers, and of the closed form as far as they can.
    Where there is no room for one, or cells of one line lie too close together, there is none.

    Returns:
        Whether there is any label.
    """
    assert report.main is not None
    figure.draw_without_rendering()  # so that the axes have their place
    labels: list[Box] = []
    drawn = [line.get_xydata() for line in ax.get_lines() if line.get_linestyle() != "None"]
    curve = np.concatenate([ax.transData.transform(xy) for xy in drawn]) if drawn else np.empty((0, 2))  # in pixels
    named: list[tuple[str, float, float]] = []  # cells that have a label, in pixels
    runs = [(run, ax.transData.transform((run.value("test_kl"), run.value("test_sse")))) for run in report.usable]
    for _, cells in lines:
        usable = [cell for cell in cells if cell.usable]
        points = [ax.transData.transform((c.mean("test_kl"), c.mean("test_sse"))) for c in usable]
        for cell, (x, y) in zip(usable, points, strict=True):
            text = words(cell.settings[report.main])
            if text == NONE or any(t == text and math.hypot(a - x, b - y) < 60 for t, a, b in named):
                continue
            if sum(math.hypot(a - x, b - y) < 40 for a, b in points) > 1:  # itself, and a neighbour
                continue
            free: list[tuple[int, int, Box]] = []  # how much it covers, the place, the box
            for place, (dx, dy) in enumerate(((18, 22), (-18, -24), (18, -24), (-18, 22), (18, 46))):
                box = _box(text, x + dx, y + dy, 1 if dx > 0 else -1)
                crossed = int(((curve > box[:2]) & (curve < box[2:])).all(axis=1).any())
                hidden = [run for run, (a, b) in runs if _meet(box, (a - 8, b - 8, a + 8, b + 8))]
                others = any(run not in cell.runs for run in hidden) or any(_meet(box, other) for other in labels)
                if _inside(ax, box) and not others:
                    free.append((100 * crossed + len(hidden), place, box))
            if free:
                _, _, box = min(free)
                labels.append(box)
                named.append((text, x, y))
                _write(ax, text, box)
    return bool(labels)


# ---------------------------------------------------------------------------------------------- the trade-off

RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 15,
    "markerfacecolor": "none",
    "color": COLOURS[1],
    "markeredgewidth": 1.8,
}


def tradeoff(advices: Sequence[Advice]) -> Drawn | None:
    """Sample FFD against SSE, a marker a setting, with the Pareto front and its knee; a panel a dataset."""
    shown = [advice for advice in advices if advice.front and len(advice.compared) > 1][:4]
    if not shown:
        return None
    n_rows = -(-len(shown) // 2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.4 if n_rows == 1 else 3.6 * n_rows), dpi=DPI, layout="constrained")
        panels = list(figure.subplots(n_rows, min(2, len(shown)), squeeze=False).flat)
        for ax in panels[len(shown) :]:
            ax.remove()
        for ax, advice in zip(panels, shown, strict=False):
            _draw_tradeoff(ax, advice)
            if len(advices) > 1:
                ax.set_title(advice.dataset)
        for ax, advice in zip(panels, shown, strict=False):
            _label_options(figure, ax, advice)
        handles = [
            Line2D([], [], linestyle="none", marker="o", color="0.25", label="to choose from"),
            Line2D([], [], linestyle="none", marker="o", color="0.25", markerfacecolor="white", label="to avoid"),
            Line2D([], [], color=COLOURS[0], label="Pareto front"),
            Line2D([], [], color="0.6", linewidth=0.8, label="chord"),
        ]
        if any(advice.pick is not None for advice in shown):
            handles.append(Line2D([], [], linestyle="none", label="choice", **RING))
        _legend(figure, handles)
        caption = (
            "Samples against reconstructions on held-out images, both the less the better: mean over seeds with its "
            "95 % interval (bars), logarithmic axes. No setting beats those on the front in both; the knee is the one "
            "furthest below the chord between the front's ends. To avoid are settings that mostly have a hole, and "
            "those whose samples are not of the class asked for where others' are."
        )
        left_out = sum(len(advice.options) - len(_points(advice)) for advice in shown)
        caption += f" Settings that mostly fail or have no scores, left out: {left_out}." if left_out else ""
        return Drawn(_png(figure), caption + _left_out(len(shown), len(advices), "datasets"))


def _points(advice: Advice) -> dict[int, tuple[float, float]]:
    """SSE and FFD of the settings that train and have both."""
    return {i: (o.scores[0].mean, o.scores[1].mean) for i, o in enumerate(advice.options) if o.trained and o.scored}


def _draw_tradeoff(ax: Axes, advice: Advice) -> None:
    points = _points(advice)
    front = [points[i] for i in advice.front]
    if len(front) > 1:
        ax.plot(*_columns([front[0], front[-1]]), color="0.6", linewidth=0.8, zorder=1)
        ax.plot(*_columns(front), color=COLOURS[0], linewidth=1.1, zorder=2)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for i, (x, y) in points.items():
        bars = [[[score.half if score.n > 1 else 0.0]] * 2 for score in advice.options[i].scores]
        ax.errorbar(x, y, bars[1], bars[0], marker="o", color="0.25", ecolor="0.6", capsize=2, elinewidth=1, zorder=3,
                    markerfacecolor="0.25" if i in advice.eligible else "white")  # fmt: skip
    if advice.pick is not None:
        ax.plot(*points[advice.pick], linestyle="none", zorder=4, **RING)
    for k, (limits, axis) in enumerate(((ax.set_xlim, ax.xaxis), (ax.set_ylim, ax.yaxis))):
        means = [point[k] for point in points.values()]
        low, high = min(means), max(means)
        room = max(1.12, (high / low) ** 0.15)  # a bar that is longer leaves the panel
        limits(low / room, high * room)
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"reconstruction: {QUANTITIES['sse']}")
    ax.set_ylabel("samples: feature Frechet distance")


Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels

# From a marker to the middle of the near side of its label, in pixels; -1, 0, 1: to the left, centred, to the right.
PLACES = ((1, 16, 0), (1, 14, 14), (1, 14, -14), (-1, -14, 14), (-1, -14, -14), (-1, -16, 0), (0, 0, 24), (0, 0, -24))
MAX_NAMES = 12  # with more settings those on the front and the choice alone are named


def _label_options(figure: Figure, ax: Axes, advice: Advice) -> None:
    """Names the choice, and other settings where there is room beside them, those on the front first.

    A name keeps clear of markers and other names, and of bars and lines as far as it can.
    """
    figure.draw_without_rendering()  # so that the axes have their place
    points = {i: ax.transData.transform(point) for i, point in _points(advice).items()}
    taken: list[Box] = [(x - 8, y - 8, x + 8, y + 8) for x, y in points.values()]
    light: list[Box] = []
    for i, (x, y) in points.items():
        highs = [s.high if s.n > 1 else s.mean for s in advice.options[i].scores]
        width, height = ax.transData.transform(highs) - (x, y)
        light += [(x - width, y - 3, x + width, y + 3), (x - 3, y - height, x + 3, y + height)]
    front = [points[i] for i in advice.front]
    for start, end in [*itertools.pairwise(front), *zip(front[:1], front[-1:], strict=True)]:
        light += [(x - 2, y - 2, x + 2, y + 2) for x, y in np.linspace(start, end, 60)]
    names = {i: line_label(advice.options[i].settings) for i in points}
    first = [i for i in points if i == advice.pick] + advice.front
    for i in dict.fromkeys(first + (list(points) if len(points) <= MAX_NAMES else [])):
        x, y = points[i]
        free: list[tuple[int, int, Box]] = []  # how much it covers, the place, the box
        for place, (side, dx, dy) in enumerate(PLACES):
            shift = 8 if i == advice.pick else 0  # for the ring
            box = _box(names[i], x + dx + side * shift, y + dy, side)
            hidden = sum(_meet(box, other) for other in taken)
            if _inside(ax, box) and (not hidden or i == advice.pick):
                free.append((100 * hidden + sum(_meet(box, other) for other in light), place, box))
        if free:
            _, _, box = min(free)
            taken.append(box)
            _write(ax, names[i], box)


def _inside(ax: Axes, box: Box) -> bool:
    return ax.bbox.x0 <= box[0] and box[2] <= ax.bbox.x1 and ax.bbox.y0 <= box[1] and box[3] <= ax.bbox.y1


def _box(text: str, x: float, y: float, side: int) -> Box:
    """Of a label that starts at x (side 1), ends there (-1) or has it in the middle (0); y is its middle."""
    width = 10.5 * len(text)
    left = x + (side - 1) / 2 * width
    return (left, y - 11, left + width, y + 11)


def _write(ax: Axes, text: str, box: Box) -> None:
    """A label in a box in pixels."""
    middle = ax.transData.inverted().transform(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    ax.annotate(text, tuple(middle), fontsize=9, ha="center", va="center", zorder=5, bbox=behind)


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# ---------------------------------------------------------------------------------------------- learning curves


def history(run: Run, columns: Sequence[str] = ("epoch", "train_sse", "train_kl")) -> dict[str, list[float]]:
    """Columns of history.csv; empty where they cannot be read."""
    try:
        with open(run.path / "history.csv", newline="") as f:
            rows = list(csv.DictReader(f))
        return {name: [float(row[name]) for row in rows] for name in columns} if rows else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def mean_history(cell: Cell) -> dict[str, list[float]]:
    """The means over a cell's runs, for the epochs that all of them have; empty without any."""
    histories = [h for run in cell.usable if (h := history(run))]
    n = min((len(h["epoch"]) for h in histories), default=0)
    names = histories[0] if histories else ()
    return {name: np.mean([h[name][:n] for h in histories], axis=0).tolist() for name in names}


def learning_curves(report: Report) -> Drawn | None:
    """KL and SSE of the training by epoch, a column of panels for each line of the sweep."""
    axis = XAxis.of(report)
    values = _spread(axis.values, MAX_LINES)
    means = [(rest, [(axis.value(c), mean_history(c)) for c in cells]) for rest, cells in report.lines]
    means = [(rest, [(v, h) for v, h in cells if h and v in values]) for rest, cells in means]
    means = [(rest, cells) for rest, cells in means if cells]
    if not means:
        return None
    shown = _spread(means, 4)
    one = len(shown) == 1
    dashes = ["-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1))]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6 if one else 5.4), dpi=DPI, layout="constrained")
        shape = (1, 2) if one else (2, len(shown))
        panels = figure.subplots(*shape, sharex=True, sharey=False if one else "row", squeeze=False)
        written: list[tuple[Axes, list[tuple[float, float, str, str]]]] = []
        for j, (rest, cells) in enumerate(shown):
            for q, (quantity, label) in enumerate(QUANTITIES.items()):
                ax = panels[0, q] if one else panels[q, j]
                ends = []
                for value, columns in cells:
                    i = values.index(value)
                    x, y = columns["epoch"], columns[f"train_{quantity}"]
                    marker = "o" if len(x) == 1 else None
                    ax.plot(x, y, color=COLOURS[i], linestyle=dashes[i % len(dashes)], marker=marker)
                    ends.append((x[-1], y[-1], words(value) if axis.key else "", COLOURS[i]))
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                written.append((ax, ends))
                if one or j == 0:
                    ax.set_ylabel(f"training {label.replace(' (', chr(10) + '(')}")
                if one or q == 1:
                    ax.set_xlabel("epoch")
                if not one and q == 0:
                    ax.set_title(line_label(rest))
        for ax, ends in written:  # once the panels of a row have their common scale
            _label_ends(ax, ends)
        if axis.key:
            styles = [{"color": COLOURS[i], "linestyle": dashes[i % len(dashes)]} for i in range(len(values))]
            names = [described({axis.key: value}) for value in values]
            _legend(figure, [Line2D([], [], label=n, **s) for n, s in zip(names, styles, strict=True)])
        caption = "Learning curves: means over the batches of an epoch, while the weights change, and over seeds."
        kept = sum(len(cells) for _, cells in shown)
        return Drawn(_png(figure), caption + _left_out(kept, len([c for c in report.cells if c.usable]), "settings"))


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each line's label at its end, (x, y, text, colour), a little moved where two would overlap.

    Where lines end too close together for that, the legend has to do.
    """
    low, high = ax.get_ylim()
    gap = 0.075 * (high - low)
    ordered = sorted(ends, key=lambda end: end[1])
    places: list[float] = []
    for _, y, _, _ in ordered:
        places.append(max(y, places[-1] + gap) if places else y)
    if any(place - end[1] > gap for place, end in zip(places, ordered, strict=True)):
        return
    for place, (x, _, text, colour) in zip(places, ordered, strict=True):
        ax.annotate(text, (x, place), (4, 0), textcoords="offset points", va="center", color=colour, fontsize=9)


# ---------------------------------------------------------------------------------------------- contact sheets

GAP = 2  # pixels between the images of a run's sheet (vae/pictures.py)
SHEET_COLUMNS = 10
SHEET_SHOWN = 56
SHEET_WIDTH = 1200  # pixels at most, where images are small; shown at 800
PAD = 20  # pixels between blocks
PIXELS = {1: 380_000, 3: 220_000}  # by channels: so much of small noisy images fits into MAX_BYTES


def read_sheet(path: Path, image_shape: Sequence[int], n_columns: int = SHEET_COLUMNS) -> list[list[Image.Image]]:
    """The images of a sheet of vae/pictures.py at their own size, row by row; empty if it cannot be read.

    Args:
        image_shape: (C, H, W) of the data.
        n_columns: images a row.
    """
    _, height, width = image_shape
    factor = max(1, round(SHEET_SHOWN / height))
    h, w = height * factor + GAP, width * factor + GAP
    try:
        with Image.open(path) as opened:
            sheet = opened.convert("RGB")
    except (OSError, SyntaxError):  # the latter is what Pillow says of some broken files
        return []
    left = sheet.width - n_columns * w
    if left < 0:
        return []

    def image(row: int, column: int) -> Image.Image:
        x, y = left + column * w, GAP + row * h
        return sheet.crop((x, y, x + w - GAP, y + h - GAP)).resize((width, height), Image.Resampling.NEAREST)

    return [[image(r, c) for c in range(n_columns)] for r in range((sheet.height - GAP) // h)]


def _grid(report: Report) -> tuple[list[tuple[str, Cell | None]], int]:
    """Titles and cells of a contact sheet, at most MAX_CELLS, line by line, and the number of values a line."""
    axis = XAxis.of(report)
    values = report.values(report.main) if report.main else [None]
    values = _spread(values, max(3, MAX_CELLS // len(report.lines)))
    lines = _spread(report.lines, MAX_CELLS // len(values))
    grid = []
    for rest, cells in lines:
        by_value = {words(axis.value(cell)): cell for cell in cells}
        for value in values:
            main = {axis.key: value} if axis.key else {}
            grid.append((line_label({**main, **rest}), by_value.get(words(value))))
    return grid, len(values)


def _font() -> Any:
    return ImageFont.load_default(size=20)  # 13 pixels where the sheet is shown at 800


LINE = 25  # pixels, of a line of text


def samples(report: Report) -> Drawn | None:
    """Samples of the lowest seed of each cell, side by side."""
    grid, per_row = _grid(report)
    sheets = []
    for title, cell in grid:
        run = cell.first if cell else None
        shape = report.datasets[run.dataset_hash]["image_shape"] if run else []
        sheets.append((title, read_sheet(run.path / "samples.png", shape) if run else []))
    read = [sheet for _, sheet in sheets if sheet]
    if not read:
        return None
    if per_row in (1, len(sheets)):  # no table, but a list: at most four side by side
        per_row = -(-len(sheets) // -(-len(sheets) // 4))
    area = max(sheet[0][0].width * sheet[0][0].height for sheet in read)
    channels = max(data["image_shape"][0] for data in report.datasets.values())
    each = PIXELS[channels] // (area * len(read))  # images a cell
    n_rows = min(10, max(map(len, read)), max(4, 20 * per_row // len(sheets)))
    width = max(sheet[0][0].width for sheet in read)
    fitting = int((SHEET_WIDTH / per_row - PAD) / (width * max(1, round(SHEET_SHOWN / width)) + 2))
    n_columns = max(3, min(8, each // n_rows, fitting))
    n_rows = max(3, min(n_rows, each // n_columns))
    blocks = [(title, [row[:n_columns] for row in _spread(sheet, n_rows)]) for title, sheet in sheets]
    caption = (
        f"Samples from the prior (decoder means) of the lowest seed of each setting{_by(report)}: {n_rows} rows and "
        f"{n_columns} columns of the run's own sheet. Where the decoder is given the label, a row is a class and a "
        "column one z."
    )
    shown = sum(1 for _, cell in grid if cell)
    return Drawn(shrunk(_tiled(blocks, per_row)), caption + _left_out(shown, len(report.cells), "settings"))


def _tiled(blocks: Sequence[tuple[str, list[list[Image.Image]]]], per_row: int) -> Image.Image:
    """Blocks of images, each under its title; a block without images says so."""
    n_rows, n_columns = max(len(b) for _, b in blocks), max(len(b[0]) for _, b in blocks if b)
    size = max(b[0][0].width for _, b in blocks if b), max(b[0][0].height for _, b in blocks if b)
    scale = max(1, round(SHEET_SHOWN / size[0]))
    step = size[0] * scale + 2, size[1] * scale + 2
    width, height = n_columns * step[0], n_rows * step[1]
    font = _font()
    titles = [_wrapped(title, font, width) for title, _ in blocks]
    head = LINE * max(map(len, titles)) + 8
    canvas = Image.new(
        "RGB", (PAD + per_row * (width + PAD), 10 + -(-len(blocks) // per_row) * (head + height + 14)), "white"
    )
    draw = ImageDraw.Draw(canvas)
    for i, (title, (_, rows)) in enumerate(zip(titles, blocks, strict=True)):
        x, y = PAD + i % per_row * (width + PAD), 6 + i // per_row * (head + height + 14)
        for j, line in enumerate(title):
            draw.text((x, y + head - 8 - LINE * (len(title) - j)), line, fill="black", font=font)
        if not rows:
            draw.rectangle((x, y + head, x + width - 2, y + head + height - 2), outline="gray")
            draw.text((x + width // 2, y + head + height // 2), "no pictures", fill="gray", font=font, anchor="mm")
        for r, row in enumerate(rows):
            for c, image in enumerate(row):
                canvas.paste(_enlarged(image, scale), (x + c * step[0], y + head + r * step[1]))
    return canvas


def _enlarged(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Lines of at most that many pixels, broken after commas or, where a part is too long, at blanks."""
    lines = [""]
    for part in text.split(", "):
        pieces = [part] if font.getlength(part) <= width else part.split(" ")
        for i, piece in enumerate(pieces):
            joint = ", " if i == 0 else " "
            if lines[-1] and font.getlength(f"{lines[-1]}{joint}{piece}") <= width:
                lines[-1] += f"{joint}{piece}"
            else:
                lines.append(piece)
    return [line for line in lines if line] or [""]


def reconstructions(report: Report) -> Drawn | None:
    """Held-out images above what the lowest seed of each cell makes of them."""
    rows: list[tuple[str, list[Image.Image]]] = []
    before: list[bytes] = []
    n_cells = 0
    for title, cell in _grid(report)[0]:
        run = cell.first if cell else None
        if run is None:
            continue
        data = report.datasets[run.dataset_hash]
        n_columns = SHEET_COLUMNS if data["n_test"] >= 2 * SHEET_COLUMNS else data["n_test"]
        sheet = read_sheet(run.path / "reconstructions.png", data["image_shape"], n_columns)
        if len(sheet) < 2:
            continue
        inputs, outputs = _picked(sheet, 0), _picked(sheet, 1)
        if (content := [image.tobytes() for image in inputs]) != before:  # other data have other inputs
            rows.append(("input", inputs))
            before = content
        rows.append((title or "output", outputs))
        n_cells += 1
    if not rows:
        return None
    font = _font()
    scale = max(1, round(84 / max(images[0].height for _, images in rows)))
    labels = [_wrapped(text, font, 300) for text, _ in rows]
    left = 20 + int(max(font.getlength(line) for lines in labels for line in lines)) + 20
    heights = [max(i[0].height * scale, LINE * len(t)) + 4 for (_, i), t in zip(rows, labels, strict=True)]
    width = max(len(images) * (images[0].width * scale + 4) for _, images in rows)
    canvas = Image.new("RGB", (left + width + 10, sum(heights) + 20), "white")
    draw = ImageDraw.Draw(canvas)
    y = 10
    for (_, images), lines, height in zip(rows, labels, heights, strict=True):
        for j, line in enumerate(lines):
            middle = y + height / 2 + LINE * (j - (len(lines) - 1) / 2)
            draw.text((20, middle), line, fill="black", font=font, anchor="lm")
        for c, image in enumerate(images):
            canvas.paste(_enlarged(image, scale), (left + c * (image.width * scale + 4), y))
        y += height
    caption = f"Held-out images and their reconstructions from z = μ, of the lowest seed of each setting{_by(report)}."
    return Drawn(shrunk(canvas), caption + _left_out(n_cells, len(report.cells), "settings"))


def _by(report: Report) -> str:
    names = [short(key) for key in report.keys if len(report.values(key)) > 1]
    return f" of {', '.join(names)}" if names else ""


def _picked(sheet: list[list[Image.Image]], offset: int) -> list[Image.Image]:
    """Ten images over all classes: every other one of the sheet's two pairs of rows."""
    return [image for row in sheet[offset::2] for image in row[:: 2 if len(sheet) == 4 else 1]]


# ---------------------------------------------------------------------------------------------- more pictures of runs


def representatives(report: Report) -> list[Run]:
    """The runs whose samples are shown: the lowest seed of each cell on the contact sheet."""
    return [run for _, cell in _grid(report)[0] if cell and (run := cell.first)]


def headline_runs(advices: Sequence[Advice]) -> dict[str, Run]:
    """The lowest seed of each dataset's pick and of its runner-up, by the setting's name."""
    found = {}
    for advice in advices:
        for option in (advice.options[i] for i in finalists(advice)):
            if (run := option.cell.first) is not None:
                found[f"{advice.dataset}: {option.name}" if len(advices) > 1 else option.name] = run
    return found


def of_the_pick(advices: Sequence[Advice]) -> dict[str, Drawn]:
    """Pictures of the first headline run, by file name, as far as its folder has them."""
    found = {}
    for setting, run in list(headline_runs(advices).items())[:1]:
        for name, text in OF_THE_PICK.items():
            try:
                with Image.open(run.path / f"{name}.png") as image:
                    png = shrunk(image.convert("RGB"))
            except (OSError, SyntaxError):  # absent, or broken
                continue
            found[f"{name}.png"] = Drawn(png, f"At {setting}, seed {run.seed}: {text}.")
    return found


# ---------------------------------------------------------------------------------------------- all experiments


def joint(reports: Sequence[Report], dataset_hash: str) -> Drawn | None:
    """KL and SSE of all runs of all reports on one dataset, on the one axis of the effective variance."""
    found: dict[str, Run] = {}
    names = set()
    for report in reports:
        for run in report.usable:
            if run.dataset_hash == dataset_hash and run.value("effective_x_var") > 0:
                found[run.name] = run
                names.add(report.name)
    if not found:
        return None
    runs = list(found.values())
    report = next(r for r in reports if dataset_hash in r.datasets)
    ts = [run.value("effective_x_var") for run in runs]
    z_dims = sorted({int(run.value("z_dim")) for run in runs})
    colours = {k: COLOURS[i % len(COLOURS)] for i, k in enumerate(z_dims)}
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((str((run.result or {})["label_placement.kind"]), int(run.value("z_dim"))), []).append(run)
    shown = _spread(z_dims, 4)
    drawn = sorted({c for run in runs for c in curves(run) if c.z_dim in shown}, key=lambda c: (c.z_dim, c.kind))
    lowest = {c.z_dim: c for c in drawn}.values()  # of each k: the one within classes, where there is one
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0), dpi=DPI, layout="constrained")
        for ax, (quantity, label) in zip(figure.subplots(1, 2), QUANTITIES.items(), strict=True):
            for (placement, k), own in groups.items():
                points = [(run.value("effective_x_var"), run.value(f"test_{quantity}")) for run in own]
                ax.plot(
                    *_columns(points), PLACEMENTS[placement], color=colours[k], markerfacecolor="none", markersize=5
                )
            room = max(1.5, (max(ts) / min(ts)) ** 0.25)  # on the left, for the names of the curves
            grid = np.geomspace(min(ts) / room, max(ts) * 1.5, 300)
            for c in drawn:
                y = c.at(report, grid)[quantity]
                ax.plot(grid, y, linestyle=CLOSED_FORM[c.kind][0], color=colours[c.z_dim])
                if quantity == "sse" and c in lowest and len(lowest) > 1:
                    ax.annotate(f"k = {c.z_dim}", (grid[0], y[0]), (0, -4), textcoords="offset points", fontsize=9,
                                va="top", color=colours[c.z_dim])  # fmt: skip
            _limits(ax, [run.value(f"test_{quantity}") for run in runs])
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.set_xlabel("effective x_var (variance of a pixel)")
            ax.set_ylabel(label)
        placements = [p for p in PLACEMENTS if any(p == placement for placement, _ in groups)]
        style: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "none", "color": "0.3"}
        handles = [Line2D([], [], marker=PLACEMENTS[p], label=p, **style) for p in placements]
        handles += [Line2D([], [], color=colours[k], linewidth=4, label=f"k = {k}") for k in z_dims[:MAX_LINES]]
        _legend(figure, [*handles, *_closed_form_legend(drawn)])
        caption = (
            f"All {len(runs)} runs on {report.datasets[dataset_hash]['name']}, of {len(names)} "
            f"{'report' if len(names) == 1 else 'reports'}, held-out images, on the one axis that the closed form "
            "(dashed within class, dotted unconditional) depends on: effective x_var = beta·x_var, and beta·D/(2k) "
            "under per_dim."
        )
        return Drawn(_png(figure), caption)
