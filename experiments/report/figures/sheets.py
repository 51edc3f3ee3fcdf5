"""Contact sheets: samples and reconstructions of the lowest seed of each setting, from the arrays in pictures.npz."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from experiments.frame import Cell, Report
from experiments.report.figures.style import (
    DPI,
    FONT,
    MAX_BYTES,
    WIDTH,
    Drawn,
    compressed,
    label,
    plain,
    shrunk,
    spread,
)

MAX_CELLS = 12
MAX_ROWS = 10  # of samples
PIXELS = round(WIDTH * DPI)  # of the width
PAD = 18  # pixels around blocks
LINE = 24  # pixels, of a line of text
LABELS = 70  # pixels at most, for the classes beside a block
TILE = 84  # pixels that a reconstruction takes
Arrays = dict[str, np.ndarray]


def arrays(run: Mapping[str, Any] | pd.Series, name: str = "pictures") -> Arrays:
    """The arrays of a run's pictures.npz or gallery.npz; empty where they cannot be read. Executes nothing."""
    try:
        with np.load(Path(run["path"]) / f"{name}.npz", allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return {}


def chosen(report: Report, must_show: Collection[Cell] = ()) -> list[list[Cell]]:
    """At most MAX_CELLS settings that have runs to show, line by line."""
    lines = [[cell for cell in cells if cell.first is not None] for _, cells in report.lines]
    lines = [cells for cells in lines if cells]
    most = MAX_CELLS // min(3, max(map(len, lines), default=1))  # so that a line shows more than one value
    lines = spread(lines, most, [cells for cells in lines if any(cell in must_show for cell in cells)])
    each = MAX_CELLS // max(1, len(lines))
    return [spread(cells, each, must_show) for cells in lines]


# ---------------------------------------------------------------------------------------------- samples


def samples(report: Report, must_show: Collection[Cell] = ()) -> Drawn | None:
    """Blocks of samples, each under the name of its setting."""
    rows = []
    for cells in chosen(report, must_show):
        read = [(cell, arrays(cell.first)) for cell in cells]  # type: ignore[arg-type]
        rows.append([(label(c.settings), _numbers(own)) for c, own in read if "samples" in own])
    blocks = [block for row in rows for block in row]
    if not blocks:
        return None
    if len(rows) == 1 or max(map(len, rows)) in (1, len(blocks)):  # not a table, but a list: at most four side by side
        per_row = -(-len(blocks) // -(-len(blocks) // 4))
        rows = [blocks[i : i + per_row] for i in range(0, len(blocks), per_row)]
    n_rows = min(MAX_ROWS, max(len(own["samples"]) for _, own in blocks))
    while len(png := compressed(_tiled(rows, n_rows))) > MAX_BYTES and n_rows > 2:
        n_rows = max(2, min(n_rows - 1, n_rows * MAX_BYTES // len(png)))
    values = {
        "labelled": any(any(own["sample_labels"]) for _, own in blocks),
        "shown": len(blocks),
        "total": len(report.cells),
    }
    return Drawn(png if len(png) <= MAX_BYTES else shrunk(_tiled(rows, n_rows)), "samples", values)


def _numbers(own: Arrays) -> Arrays:
    return {"samples": own["samples"], "sample_labels": own["sample_labels"]}


def _tiled(rows: Sequence[Sequence[tuple[str, Arrays]]], n_rows: int) -> Image.Image:
    """Rows of blocks of images; before each row of a block stands the class that was asked for."""
    font, small = ImageFont.truetype(FONT, 19), ImageFont.truetype(FONT, 16)
    blocks = [own for row in rows for _, own in row]
    classes = [plain(str(name)) for own in blocks for name in own["sample_labels"]]
    strip = min(LABELS, math.ceil(max(map(small.getlength, classes), default=0)))
    strip += 6 * (strip > 0)
    per_row = max(map(len, rows))
    width = (PIXELS - PAD) // per_row - PAD  # of a block
    height, wide = (max(own["samples"].shape[axis] for own in blocks) for axis in (3, 4))  # of an image, in its pixels
    columns = max(own["samples"].shape[1] for own in blocks)
    scale = max(1, round(56 / wide))
    columns = max(1, min(columns, 8 if per_row > 1 else 16, (width - strip) // (wide * scale + 2)))
    while scale < 4 and strip + columns * (wide * (scale + 1) + 2) <= width:
        scale += 1
    titles = [[_lines(title, font, width) for title, _ in row] for row in rows]
    tops = [LINE * max(map(len, row)) + 4 for row in titles]
    shown = [max(min(n_rows, len(own["samples"])) for _, own in row) for row in rows]
    step_y, step_x = height * scale + 2, wide * scale + 2
    canvas = Image.new("RGB", (PIXELS, sum(tops) + sum(shown) * step_y + PAD * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    y = PAD // 2
    for row, lines, top, n in zip(rows, titles, tops, shown, strict=True):
        for i, (_, own) in enumerate(row):
            x = PAD + i * (width + PAD)
            for j, line in enumerate(lines[i]):
                draw.text((x, y + LINE * j), line, fill="black", font=font)
            for r, index in enumerate(spread(range(len(own["samples"])), n)):
                at = y + top + r * step_y
                name = _cut(plain(str(own["sample_labels"][index])), small, strip - 6)
                draw.text((x + strip - 6, at + step_y // 2), name, fill="dimgray", font=small, anchor="rm")
                for c, pixels in enumerate(own["samples"][index, :columns]):
                    canvas.paste(_image(pixels, scale), (x + strip + c * step_x, at))
        y += top + n * step_y + PAD
    return canvas


# ---------------------------------------------------------------------------------------------- reconstructions


def reconstructions(report: Report, must_show: Collection[Cell] = ()) -> Drawn | None:
    """Held-out images above what each setting makes of them."""
    found: list[tuple[str, np.ndarray]] = []
    before: bytes = b""
    n_cells = 0
    for cell in (cell for cells in chosen(report, must_show) for cell in cells):
        own = arrays(cell.first)  # type: ignore[arg-type]
        if not {"inputs", "reconstructions"} <= own.keys():
            continue
        picked = spread(range(len(own["inputs"])), 10)
        if (content := own["inputs"][picked].tobytes()) != before:  # other data have other inputs
            found.append(("input", own["inputs"][picked]))
            before = content
        found.append((label(cell.settings) or "output", own["reconstructions"][picked]))
        n_cells += 1
    if not found:
        return None
    font = ImageFont.truetype(FONT, 19)
    height, width = (max(images.shape[axis] for _, images in found) for axis in (2, 3))
    scale = max(1, round(TILE / max(height, width)))
    left = PIXELS - 10 * (width * scale + 4) - PAD
    if left < 200:  # of large images fewer fit
        left = 200
    columns = (PIXELS - left) // (width * scale + 4)
    names = [_lines(name, font, left - 2 * PAD) for name, _ in found]
    heights = [max(height * scale, LINE * len(lines)) + 4 for lines in names]
    canvas = Image.new("RGB", (PIXELS, sum(heights) + PAD), "white")
    draw = ImageDraw.Draw(canvas)
    y = PAD // 2
    for (_, images), lines, tall in zip(found, names, heights, strict=True):
        for j, line in enumerate(lines):
            draw.text(
                (PAD, y + tall / 2 + LINE * (j - (len(lines) - 1) / 2)), line, fill="black", font=font, anchor="lm"
            )
        for c, pixels in enumerate(images[:columns]):
            canvas.paste(_image(pixels, scale), (left + c * (width * scale + 4), y))
        y += tall
    return Drawn(shrunk(canvas), "reconstructions", {"shown": n_cells, "total": len(report.cells)})


# ---------------------------------------------------------------------------------------------- parts


def _image(pixels: np.ndarray, scale: int) -> Image.Image:
    """(C, H, W) uint8, enlarged by a whole factor."""
    levels = pixels.transpose(1, 2, 0)  # (H, W, C)
    image = Image.fromarray(np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else np.ascontiguousarray(levels))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """At most three lines of at most this width in pixels."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > 3:
        lines[2:] = [" ".join(lines[2:])]
    return [_cut(line, font, width) for line in lines]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, cut to this width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
