"""The atlas of bugs: for each one, its numbers next to the closed form, reconstructions and samples."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.atlas import Entry
from experiments.atlas import atlas as values_of
from experiments.frame import Cell, Report
from experiments.report.figures import style
from experiments.report.figures.sheets import PIXELS, arrays, tiled
from experiments.wording import number

SMALL = ImageFont.truetype(style.FONT, 17)
BOLD = ImageFont.truetype(style.FONT.with_name("DejaVuSans-Bold.ttf"), 19)
LEFT = 470  # pixels of the numbers
GAP = 26
N = 5  # images of each kind
HEAD = 26
COLUMNS = (230, 330, 430)  # right ends of the columns of numbers


def atlas(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """A row per bug: measured and predicted numbers, held-out images with reconstructions below, and samples."""
    found = values_of(report)
    shown = [(e, arrays(e.cell.first)) for e in found.entries if e.cell.first is not None] if found else []
    shown = [(e, own) for e, own in shown if {"inputs", "reconstructions", "samples"} <= own.keys()]
    if not shown:
        return None
    height, wide = shown[0][1]["inputs"].shape[2:]
    scale = max(1, ((PIXELS - LEFT - GAP) // (2 * N) - 2) // wide)
    block = max(2 * (height * scale + 2), 116)
    canvas = Image.new("RGB", (PIXELS, HEAD + GAP // 2 + len(shown) * (block + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    right = LEFT + N * (wide * scale + 2) + GAP
    for x, text in ((LEFT, "inputs, reconstructions"), (right, "samples")):
        draw.text((x, 18), text, fill="black", font=SMALL, anchor="ls")
    for x, text in zip(COLUMNS[1:], ("measured", "predicted"), strict=True):
        draw.text((x, 18), text, fill="#555555", font=SMALL, anchor="rs")
    for i, (entry, own) in enumerate(shown):
        top = HEAD + GAP // 2 + i * (block + GAP)
        draw.line((0, top - GAP // 2, PIXELS, top - GAP // 2), fill="#dddddd")
        _numbers(draw, top, entry)
        picked = style.spread(range(len(own["inputs"])), N)
        pairs = np.stack([own["inputs"][picked], own["reconstructions"][picked]])  # (2, N, C, H, W)
        canvas.paste(Image.fromarray(tiled(pairs, scale)), (LEFT, top))
        drawn = own["samples"].swapaxes(0, 1)  # (z, class, C, H, W), so that all classes are seen
        drawn = drawn.reshape(-1, *drawn.shape[2:])[: 2 * N]
        canvas.paste(Image.fromarray(tiled(drawn.reshape(2, -1, *drawn.shape[1:]), scale)), (right, top))
    return style.Drawn(style.shrunk(canvas), "atlas", {"shown": len(shown), "total": len(report.cells)})


def _numbers(draw: ImageDraw.ImageDraw, top: int, entry: Entry) -> None:
    draw.text((0, top), entry.bug if entry.bug != "none" else "no bug", fill="black", font=BOLD)
    if entry.outcome != "ok":
        draw.text((COLUMNS[1], top + 2), entry.outcome, fill="#c8501e", font=SMALL, anchor="ra")
    lines = [("KL", "kl"), ("SSE", "sse")]
    lines += [("prints KL", "printed_kl"), ("prints R", "printed_r")] if entry.bug != "none" else []
    for row, (text, name) in enumerate(lines):
        y = top + 26 + 22 * row
        measured, predicted = entry.measured[name].mean, entry.predicted[name]
        draw.text((COLUMNS[0] - 10, y), text, fill="black", font=SMALL, anchor="ra")
        draw.text((COLUMNS[1], y), _short(measured), fill="black", font=SMALL, anchor="ra")
        draw.text((COLUMNS[2], y), _short(predicted), fill="#555555", font=SMALL, anchor="ra")


def _short(value: float) -> str:
    return "< 0.01" if 0 < value < 0.01 else number(value, 3)
