"""The figures of a report: legible in greyscale and at the width of a README, each at most 300 KB.

Lines of a figure differ in marker as well as in colour, and the colours in lightness. What is dashed or dotted is the
closed form of the linear VAE (vae/linear_theory.py), never a measurement. No pyplot: a figure leaves no state behind.
"""

from __future__ import annotations

import csv
import io
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
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from experiments.report import Cell, Report, Run
from experiments.tables import baseline, described, metric, short, words
from vae import linear_theory
from vae.config import Config, settings

WIDTH = 8.0  # inches
DPI = 150  # so 1200 pixels, shown at 800: what is 9 points here is 9 points there
MAX_BYTES = 300_000
MAX_CELLS = 12  # on a contact sheet
MAX_LINES = 8  # in one panel

STYLE = {
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
CLOSED_FORM = {"within": ("--", "closed form, within class"), "all": (":", "closed form, unconditional")}
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
        for colours in (256, 128, 64, 32, 16):
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


def axis_label(key: str) -> str:
    """A setting with its unit."""
    units = {name: meta["unit"] for name, _, meta, _ in settings(Config())}
    unit = units.get(key) or ("variance of a pixel" if key == "x_var.value" else "")
    return f"{short(key)} ({unit})" if unit else short(key)


def line_label(rest: dict[str, Any]) -> str:
    """The settings of a line; a word explains itself, a number needs its name."""
    if len(rest) == 1 and isinstance(value := next(iter(rest.values())), str):
        return value
    return described(rest)


def _spread(items: Sequence[Any], n: int) -> list[Any]:
    """At most n of the items, evenly, the first and the last among them."""
    if len(items) <= n:
        return list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, n).round().astype(int))]


def _left_out(kept: int, of: int, what: str) -> str:
    return f" Shown are {kept} of {of} {what}, evenly chosen." if kept < of else ""


def swept(report: Report) -> Drawn | None:
    """KL and SSE on held-out images against the main setting."""
    if not report.usable:
        return None
    key = report.main
    numeric = key is not None and report.is_number(key)
    values = sorted(report.values(key)) if numeric and key else report.values(key) if key else [None]
    log = numeric and values[0] > 0 and values[-1] / values[0] >= 10
    lines = _spread(report.lines, MAX_LINES)
    found: set[Curve] = {c for _, cells in lines for cell in cells if cell.first for c in curves(cell.first)}

    def position(cell: Cell, i: int) -> float:
        """Of the i-th line's marker: a little aside, so that bars do not cover each other."""
        aside = i - (len(lines) - 1) / 2
        value = cell.settings[key] if key else None
        if log:
            return value * (values[-1] / values[0]) ** (0.012 * aside)
        if numeric:
            return value + 0.012 * aside * (values[-1] - values[0])
        return values.index(value) + 0.6 * aside / max(len(lines), 4)

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, 2)
        for ax, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
            heights: list[float] = []
            for i, (_, cells) in enumerate(lines):
                shown = [cell for cell in cells if cell.usable]
                shown.sort(key=lambda cell: position(cell, i))
                points = [metric(cell, f"test_{quantity}") for cell in shown]
                x = [position(cell, i) for cell in shown]
                seeds = [(a, v) for a, c in zip(x, shown, strict=True) for v in c.values(f"test_{quantity}")]
                heights += [v for _, v in seeds]
                ax.plot(*_columns(seeds), ".", color=COLOURS[i], alpha=0.35, markersize=4, zorder=2)
                half = [p.half if math.isfinite(p.half) else 0.0 for p in points]
                ax.errorbar(
                    x, [p.mean for p in points], half, color=COLOURS[i], marker=MARKERS[i], capsize=3, zorder=3,
                    linestyle="-" if numeric else "none", markerfacecolor="white" if i % 2 else COLOURS[i],
                )  # fmt: skip
            heights += _draw_closed_form(report, ax, lines, quantity, numeric, values, key)
            _limits(ax, heights)
            if quantity == "sse":
                _draw_baselines(ax, report)
            if log:
                ax.set_xscale("log")
            _ticks(ax, values, numeric)
            ax.set_xlabel(axis_label(key) if key else "")
            ax.set_ylabel(label)
        handles = [
            Line2D([], [], color=COLOURS[i], marker=MARKERS[i], label=line_label(rest),
                   markerfacecolor="white" if i % 2 else COLOURS[i], linestyle="-" if numeric else "none")
            for i, (rest, _) in enumerate(lines) if rest
        ]  # fmt: skip
        handles += _closed_form_legend(found)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 3 if len(handles) > 5 else 5)
        )
        caption = (
            "KL and SSE on held-out images: mean over seeds with its 95 % interval (bars), single runs (dots), and the "
            "closed form of a linear VAE of the same latent size (dashed: within class, for label_placement both; "
            "dotted: unconditional, for encoder and none; decoder has no simple form)."
        )
        return Drawn(_png(figure), caption + _left_out(len(lines), len(report.lines), "lines"))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in points], [b for _, b in points]


def _draw_closed_form(
    report: Report,
    ax: Axes,
    lines: Sequence[tuple[dict[str, Any], list[Cell]]],
    quantity: str,
    numeric: bool,
    values: Sequence[Any],
    key: str | None,
) -> list[float]:
    """Each closed form once: in the colour of its line, or dark where several lines share it. Returns its heights."""
    drawn: dict[tuple[str, tuple[float, ...], tuple[float, ...]], list[int]] = {}
    for i, (_, cells) in enumerate(lines):
        usable = [cell for cell in cells if cell.first]
        by_kind: dict[str, list[tuple[float, float, Curve]]] = {}
        for cell in usable:
            assert cell.first is not None
            x = cell.settings[key] if key and numeric else values.index(cell.settings[key] if key else None)
            for curve in curves(cell.first):
                by_kind.setdefault(curve.kind, []).append((x, cell.mean("effective_x_var"), curve))
        for kind, points in by_kind.items():
            points.sort(key=lambda point: point[0])
            x, t = np.array([p[0] for p in points], float), np.array([p[1] for p in points])
            same = len({p[2] for p in points}) == 1
            if numeric and same and len(x) > 1 and np.allclose(t / x, t[0] / x[0], rtol=1e-3):
                # x_var or beta is swept: t is in proportion to it, and the curve can be drawn between the values.
                x = np.geomspace(x[0], x[-1], 200)
                y = points[0][2].at(report, x * t[0] / points[0][0])[quantity]
            else:
                y = np.array([p[2].at(report, p[1])[quantity] for p in points])
            identity = (kind, tuple(x.round(6)), tuple(float(f"{v:.5g}") for v in y))
            drawn.setdefault(identity, []).append(i)
    for (kind, x, y), users in drawn.items():
        colour = COLOURS[users[0]] if len(users) == 1 and len(lines) > 1 else "0.3"
        style = CLOSED_FORM[kind][0]
        if numeric and len(x) > 1:
            ax.plot(x, y, linestyle=style, color=colour, zorder=1)
        elif numeric:
            ax.plot(x, y, "_", color=colour, markersize=16)
        else:
            ax.hlines(y, np.array(x) - 0.38, np.array(x) + 0.38, linestyles=style, colors=colour, linewidth=1.4)
    return [v for _, _, y in drawn for v in y]


def _limits(ax: Axes, heights: Sequence[float]) -> None:
    """From the single runs and the closed form, from zero if that costs little; a bar may leave the panel."""
    low, high = min(heights), max(heights)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = 0.0 if 0 <= low < 0.4 * high else low - margin
    ax.set_ylim(bottom - (margin / 2 if bottom == 0 else 0), high + margin)


def _draw_baselines(ax: Axes, report: Report) -> None:
    """The error without latents, where the panel reaches it or comes near."""
    low, high = ax.get_ylim()
    for name, value in {baseline(run) for run in report.usable}:
        if math.isfinite(value) and low < value < high + 0.35 * (high - low):
            ax.axhline(value, color="0.55", linewidth=0.8, zorder=0)
            ax.annotate(name, (1, value), (-2, 2), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                        ha="right", va="bottom", color="0.4", fontsize=9)  # fmt: skip
            ax.set_ylim(low, max(ax.get_ylim()[1], value + 0.1 * (high - low)))


def _ticks(ax: Axes, values: Sequence[Any], numeric: bool) -> None:
    """At the swept values themselves, where there are not too many."""
    if numeric and len(values) <= 8:
        ax.set_xticks(values, [words(v) for v in values], minor=False)
        ax.minorticks_off()
    elif not numeric:
        long = max(len(words(v)) for v in values) * len(values) > 45
        labels = [words(v) if v is not None else "all runs" for v in values] if values != [None] else ["all runs"]
        ax.set_xticks(range(len(values)), labels, rotation=30 if long else 0, ha="right" if long else "center")
        ax.set_xlim(-0.6, len(values) - 0.4)


# ---------------------------------------------------------------------------------------------- rate and distortion


def rate_distortion(report: Report) -> Drawn | None:
    """SSE against KL: every run, and the closed form's curve."""
    if not report.usable:
        return None
    lines = _spread(report.lines, MAX_LINES)
    found = sorted({c for run in report.usable for c in curves(run)}, key=lambda c: (c.z_dim, c.kind, c.dataset_hash))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.4), dpi=DPI, layout="constrained")
        ax = figure.subplots()
        labelled: list[tuple[str, float, float]] = []
        kls = [run.value("test_kl") for run in report.usable]
        sses = [run.value("test_sse") for run in report.usable]
        width, height = max(kls) - min(kls) or 1.0, max(sses) - min(sses) or 1.0
        for i, (_, cells) in enumerate(lines):
            for cell in cells:
                if not cell.usable:
                    continue
                ax.plot(cell.values("test_kl"), cell.values("test_sse"), linestyle="none", alpha=0.75, zorder=3,
                        **_line_style(i))  # fmt: skip
                text = words(cell.settings[report.main]) if report.main else ""
                x, y = cell.mean("test_kl"), cell.mean("test_sse")
                near = any(
                    t == text and abs(a - x) < 0.08 * width and abs(b - y) < 0.12 * height for t, a, b in labelled
                )
                if text and not near:
                    labelled.append((text, x, y))
                    ax.annotate(text, (x, y), (9, 8), textcoords="offset points", fontsize=9, zorder=4)
        ts = [run.value("effective_x_var") for run in report.usable]
        for curve in found:
            top = max(curve.spectrum(report)[0], max(ts))
            line = curve.at(report, np.geomspace(min(ts) / 2, top, 400))
            keep = line["kl"] <= max(kls) * 1.15 + 1
            ax.plot(line["kl"][keep], line["sse"][keep], linestyle=CLOSED_FORM[curve.kind][0], color="0.3", zorder=1)
            own = [r.value("effective_x_var") for r in report.usable if curve in curves(r)]
            marks = curve.at(report, np.unique(np.round(own, 9)))
            ax.plot(marks["kl"], marks["sse"], "+", color="0.3", markersize=8, zorder=2)
            if len({c.z_dim for c in found}) > 1:
                at = int(np.flatnonzero(keep)[0])
                ax.annotate(f"k = {curve.z_dim}", (line["kl"][at], line["sse"][at]), (4, 2), color="0.3",
                            textcoords="offset points", fontsize=9)  # fmt: skip
        ax.set_xlabel(f"rate: {QUANTITIES['kl']}")
        ax.set_ylabel(f"distortion: {QUANTITIES['sse']}")
        handles = [
            Line2D([], [], color=COLOURS[i], marker=MARKERS[i], linestyle="none", label=line_label(rest),
                   markerfacecolor="none" if i % 2 else COLOURS[i])
            for i, (rest, _) in enumerate(lines) if rest
        ]  # fmt: skip
        handles += _closed_form_legend(found)
        handles.append(
            Line2D([], [], color="0.3", marker="+", linestyle="none", label="closed form at the runs' setting")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3))
        caption = (
            "Rate against distortion on held-out images, a marker a run"
            + (f", numbers are {short(report.main)}" if report.main else "")
            + ". The dashed and dotted curves are what a linear VAE reaches over all effective variances, the crosses "
            "where it lies at the settings of the runs. Below and left of the curve is better."
        )
        return Drawn(_png(figure), caption + _left_out(len(lines), len(report.lines), "groups"))


# ---------------------------------------------------------------------------------------------- learning curves


def history(run: Run) -> dict[str, list[float]]:
    """The columns of history.csv; empty where it cannot be read."""
    try:
        with open(run.path / "history.csv", newline="") as f:
            rows = list(csv.DictReader(f))
        return {name: [float(row[name]) for row in rows] for name in ("epoch", "train_sse", "train_kl")} if rows else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _mean_history(cell: Cell, column: str) -> tuple[list[float], list[float]]:
    """The mean over a cell's runs for each epoch that every run has."""
    histories = [h for run in cell.usable if (h := history(run))]
    if not histories:
        return [], []
    n = min(len(h["epoch"]) for h in histories)
    return histories[0]["epoch"][:n], list(np.mean([h[column][:n] for h in histories], axis=0))


def learning_curves(report: Report) -> Drawn | None:
    """KL and SSE of the training by epoch, a column of panels for each line of the sweep."""
    lines = [line for line in report.lines if any(_mean_history(c, "train_kl")[0] for c in line[1])]
    if not lines:
        return None
    lines, n_lines = _spread(lines, 4), len(lines)
    one = len(lines) == 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.3 if one else 5.2), dpi=DPI, layout="constrained")
        panels = figure.subplots(1 if one else 2, 2 if one else len(lines), sharex=True, sharey=False if one else "row",
                                 squeeze=False)  # fmt: skip
        for j, (rest, cells) in enumerate(lines):
            shown = _spread([c for c in cells if c.usable], MAX_LINES)
            for q, (quantity, label) in enumerate(QUANTITIES.items()):
                ax = panels[0, q] if one else panels[q, j]
                ends = []
                for i, cell in enumerate(shown):
                    x, y = _mean_history(cell, f"train_{quantity}")
                    if not x:
                        continue
                    style = ("-", "--", "-.", ":")[i % 4] if len(shown) > 1 else "-"
                    ax.plot(x, y, color=COLOURS[i], linestyle=style, marker="." if len(x) == 1 else None)
                    text = words(cell.settings[report.main]) if report.main else ""
                    ends.append((x[-1], y[-1], text, COLOURS[i]))
                ax.margins(x=0.02)
                _label_ends(figure, ax, ends)
                if one or j == 0:
                    ax.set_ylabel(f"training {label.replace(' (', chr(10) + '(')}")
                if one or q == 1:
                    ax.set_xlabel("epoch")
                if not one and q == 0:
                    ax.set_title(line_label(rest))
        caption = (
            "Learning curves: means over an epoch's training batches, and over seeds"
            + (f"; the numbers at the lines are {short(report.main)}" if report.main else "")
            + "."
        )
        return Drawn(_png(figure), caption + _left_out(len(lines), n_lines, "groups"))


def _label_ends(figure: Figure, ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each line's label at its end, moved apart where two would overlap."""
    if not ends:
        return
    low, high = ax.get_ylim()
    gap = (high - low) * 0.075
    placed: list[float] = []
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        at = max(y, placed[-1] + gap) if placed else y
        placed.append(at)
        ax.annotate(text, (x, at), (4, 0), textcoords="offset points", va="center", color=colour, fontsize=9,
                    annotation_clip=False)  # fmt: skip


# ---------------------------------------------------------------------------------------------- contact sheets

GAP = 2  # pixels between the images of a run's sheet (vae/pictures.py)
SHEET_COLUMNS = 10
SHEET_SHOWN = 56


@dataclass(frozen=True)
class Sheet:
    """The images of a run's samples.png or reconstructions.png, at their own size.

    Attributes:
        images: images[row][column].
    """

    images: list[list[Image.Image]]


def read_sheet(path: Path, image_shape: Sequence[int], n_columns: int = SHEET_COLUMNS) -> Sheet | None:
    """Takes a sheet of vae/pictures.py apart; None where there is none or it cannot be read.

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
    except (OSError, UnidentifiedImageError):
        return None
    left, n_rows = sheet.width - n_columns * w, (sheet.height - GAP) // h
    if left < 0 or n_rows < 1:
        return None

    def image(row: int, column: int) -> Image.Image:
        x, y = left + column * w, GAP + row * h
        return sheet.crop((x, y, x + w - GAP, y + h - GAP)).resize((width, height), Image.Resampling.NEAREST)

    return Sheet([[image(r, c) for c in range(n_columns)] for r in range(n_rows)])


def _grid(report: Report) -> tuple[list[Any], list[tuple[dict[str, Any], dict[str, Cell]]]]:
    """The sheet's columns, values of the main setting, and its rows, the lines: at most MAX_CELLS cells."""
    lines = _spread(report.lines, MAX_CELLS)
    values = report.values(report.main) if report.main else [None]
    if report.main and report.is_number(report.main):
        values = sorted(values, reverse=values[0] == max(values))
    values = _spread(values, max(1, MAX_CELLS // len(lines)))
    return values, [
        (rest, {words(c.settings[report.main]) if report.main else words(None): c for c in cells})
        for rest, cells in lines
    ]


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def samples(report: Report) -> Drawn | None:
    """Samples of the lowest seed of each cell, side by side: a row a class."""
    values, lines = _grid(report)
    shapes = {h: d["image_shape"] for h, d in report.datasets.items()}
    blocks: list[tuple[str, Image.Image | None]] = []
    n_images = max(3, min(8, 800 // (len(values) * (min(s[2] for s in shapes.values()) + 1))))
    if len(lines) == 1 and len(values) > 6:
        n_images = 6
    for rest, cells in lines:
        for value in values:
            cell = cells.get(words(value))
            main = {report.main: value} if report.main and value is not None else {}
            title = described({**main, **rest}) or report.name
            run = cell.first if cell else None
            sheet = read_sheet(run.path / "samples.png", shapes[run.dataset_hash]) if run else None
            blocks.append((title, _block(sheet, n_images) if sheet else None))
    if all(block is None for _, block in blocks):
        return None
    per_row = len(values) if len(lines) > 1 else min(len(values), 6)
    image = _tiled(blocks, per_row)
    n_cells = len(report.cells)
    caption = (
        f"Samples from the prior, decoder means, of the lowest seed of each cell: a row a class, a column one z "
        f"throughout, the first {n_images} columns of the runs' own sheets."
    )
    return Drawn(shrunk(image), caption + _left_out(len(blocks), n_cells, "cells"))


def _block(sheet: Sheet, n_columns: int, max_rows: int = 10) -> Image.Image:
    rows = [row[:n_columns] for row in sheet.images[:max_rows]]
    width, height = rows[0][0].size
    block = Image.new("RGB", (len(rows[0]) * (width + 1) - 1, len(rows) * (height + 1) - 1), "white")
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            block.paste(image, (c * (width + 1), r * (height + 1)))
    return block


def _tiled(blocks: Sequence[tuple[str, Image.Image | None]], per_row: int) -> Image.Image:
    """Blocks in rows, each under its title, about 1600 pixels wide so that they show at 800."""
    width = max(b.width for _, b in blocks if b)
    height = max(b.height for _, b in blocks if b)
    scale = max(1, round(1560 / (per_row * (width + 8))))
    w, h, pad = width * scale, height * scale, 24
    font = _font(24)
    titles = [_wrapped(title, font, w) for title, _ in blocks]
    head = 30 * max(len(t) for t in titles) + 6
    n_rows = -(-len(blocks) // per_row)
    canvas = Image.new("RGB", (pad + per_row * (w + pad), n_rows * (head + h + 14) + 10), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (title, (_, block)) in enumerate(zip(titles, blocks, strict=True)):
        x, y = pad + (i % per_row) * (w + pad), (i // per_row) * (head + h + 14) + 6
        for j, line in enumerate(title):
            draw.text((x, y + head - 8 - 30 * (len(title) - j)), line, fill="black", font=font)
        if block is None:
            draw.rectangle((x, y + head, x + w, y + head + h), outline="gray")
            draw.text((x + w // 2, y + head + h // 2), "no run", fill="gray", font=font, anchor="mm")
        else:
            big = block.resize((block.width * scale, block.height * scale), Image.Resampling.NEAREST)
            canvas.paste(big, (x, y + head))
    return canvas


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Lines of at most that many pixels, broken after a comma where one is."""
    lines: list[str] = []
    for part in text.split(", "):
        if lines and font.getlength(f"{lines[-1]}, {part}") <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def reconstructions(report: Report) -> Drawn | None:
    """Held-out images above what the lowest seed of each cell makes of them."""
    values, lines = _grid(report)
    rows: list[tuple[str, list[Image.Image]]] = []
    before: list[bytes] | None = None
    n_cells = 0
    for rest, cells in lines:
        for value in values:
            cell = cells.get(words(value))
            if cell is None or cell.first is None:
                continue
            data = report.datasets[cell.first.dataset_hash]
            n_columns = min(SHEET_COLUMNS, data["n_test"] if data["n_test"] < 2 * SHEET_COLUMNS else SHEET_COLUMNS)
            sheet = read_sheet(cell.first.path / "reconstructions.png", data["image_shape"], n_columns)
            if sheet is None or len(sheet.images) < 2:
                continue
            inputs, outputs = _picked(sheet, 0), _picked(sheet, 1)
            if (key := [i.tobytes() for i in inputs]) != before:  # other data have other inputs
                rows.append(("input", inputs))
                before = key
            main = {report.main: value} if report.main else {}
            rows.append((described({**main, **rest}) or "output", outputs))
            n_cells += 1
    if not rows:
        return None
    font = _font(24)
    size = max(1, round(112 / max(i.height for _, images in rows for i in images)))
    labels = [_wrapped(text, font, 380) for text, _ in rows]
    left = 24 + int(max(font.getlength(line) for lines in labels for line in lines)) + 16
    heights = [max(images[0].height * size, 30 * len(text)) for (_, images), text in zip(rows, labels, strict=True)]
    width = max(len(images) * (images[0].width * size + 4) for _, images in rows)
    canvas = Image.new("RGB", (left + width + 10, sum(heights) + 4 * len(rows) + 20), "white")
    draw = ImageDraw.Draw(canvas)
    y = 10
    for (_, images), text, height in zip(rows, labels, heights, strict=True):
        for j, line in enumerate(text):
            draw.text((20, y + height // 2 + 30 * j - 15 * (len(text) - 1)), line, fill="black", font=font, anchor="lm")
        for c, image in enumerate(images):
            big = image.resize((image.width * size, image.height * size), Image.Resampling.NEAREST)
            canvas.paste(big, (left + c * (big.width + 4), y))
        y += height + 4
    caption = "Held-out images and their reconstructions from z = μ, of the lowest seed of each cell."
    return Drawn(shrunk(canvas), caption + _left_out(n_cells, len(report.cells), "cells"))


def _picked(sheet: Sheet, offset: int) -> list[Image.Image]:
    """Ten images over all classes: every other one of both rows of the sheet."""
    if len(sheet.images) < 4:
        return sheet.images[offset]
    return [image for row in (offset, offset + 2) for image in sheet.images[row][::2]]


# ---------------------------------------------------------------------------------------------- all experiments


def joint(reports: Sequence[Report], dataset_hash: str) -> Drawn | None:
    """KL and SSE of all runs of all experiments on one dataset, on the one axis of the effective variance."""
    found: dict[str, tuple[Report, Run]] = {}
    for report in reports:
        for run in report.usable:
            if run.dataset_hash == dataset_hash and run.value("effective_x_var") > 0:
                found.setdefault(run.name, (report, run))
    if not found:
        return None
    runs = [run for _, run in found.values()]
    report = next(iter(found.values()))[0]
    z_dims = sorted({int(run.value("z_dim")) for run in runs})
    ts = [run.value("effective_x_var") for run in runs]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, 2)
        shown = _spread(z_dims, 4)
        drawn = sorted({c for run in runs for c in curves(run) if c.z_dim in shown}, key=lambda c: (c.z_dim, c.kind))
        for ax, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
            for placement, marker in PLACEMENTS.items():
                for k in z_dims:
                    colour = COLOURS[z_dims.index(k) % len(COLOURS)]
                    own = [
                        (r.value("effective_x_var"), r.value(f"test_{quantity}"))
                        for r in runs
                        if (r.result or {})["label_placement.kind"] == placement and int(r.value("z_dim")) == k
                    ]
                    ax.plot(*_columns(own), marker, color=colour, markerfacecolor="none", markersize=5, zorder=3)
            grid = np.geomspace(min(ts) / 1.5, max(ts) * 1.5, 300)
            for curve in drawn:
                colour = COLOURS[z_dims.index(curve.z_dim) % len(COLOURS)]
                ax.plot(grid, curve.at(report, grid)[quantity], linestyle=CLOSED_FORM[curve.kind][0], color=colour)
            _limits(ax, [r.value(f"test_{quantity}") for r in runs])
            ax.set_xscale("log")
            ax.set_xlabel("effective x_var (variance of a pixel)")
            ax.set_ylabel(label)
        handles = [
            Line2D([], [], color="0.3", marker=m, linestyle="none", markerfacecolor="none", label=p)
            for p, m in PLACEMENTS.items()
            if any((r.result or {})["label_placement.kind"] == p for r in runs)
        ]
        handles += [
            Line2D([], [], color=COLOURS[z_dims.index(k) % len(COLOURS)], linewidth=4, label=f"k = {k}") for k in shown
        ]
        handles += _closed_form_legend(drawn)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
        names = sorted({r.name for r, _ in found.values()})
        caption = (
            f"All {len(runs)} runs on {report.datasets[dataset_hash]['name']} of {len(names)} reports on the one axis that the "
            "closed form (dashed within class, dotted unconditional) depends on: effective x_var = beta·x_var, and "
            "beta·D/(2k) under per_dim. Held-out images."
        )
        return Drawn(_png(figure), caption)
