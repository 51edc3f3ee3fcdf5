"""Contact sheets: samples and reconstructions of the lowest seed of each setting, from the arrays in pictures.npz."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.frame import Cell, Report
from experiments.report.arrays import arrays
from experiments.report.figures import style

MAX_CELLS = 12
MAX_ROWS = 10  # of samples
COLUMNS = 10  # of reconstructions
PIXELS = round(style.WIDTH * style.DPI)  # of the width
BUDGET = 360_000  # pixels of all samples before they are enlarged; more make the file too large
LINE = 24  # pixels, of a line of text
LETTER = 11  # pixels that a letter takes
FONT = ImageFont.truetype(style.FONT, 18)


def chosen(report: Report, must_show: Collection[Cell] = ()) -> list[list[Cell]]:
    """At most MAX_CELLS settings that have runs to show, line by line."""
    lines = [[cell for cell in cells if cell.first is not None] for _, cells in report.lines]
    lines = [cells for cells in lines if cells]
    most = MAX_CELLS // min(3, max(map(len, lines), default=1))  # so that a line shows more than one value
    lines = style.spread(lines, most, [cells for cells in lines if any(cell in must_show for cell in cells)])
    each = MAX_CELLS // max(1, len(lines))
    return [style.spread(cells, each, must_show) for cells in lines]


def samples(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """Blocks of samples, each under the name of its setting."""
    rows = []
    for cells in chosen(report, must_show):
        read = [(style.label(cell.settings), arrays(cell.first)) for cell in cells]  # type: ignore[arg-type]
        rows.append([(name, own) for name, own in read if "samples" in own])
    blocks = [block for row in rows for block in row]
    if not blocks:
        return None
    if len(rows) == 1 or max(map(len, rows)) in (1, len(blocks)):  # not a table, but a list: at most four side by side
        per_row = -(-len(blocks) // -(-len(blocks) // 4))
        rows = [blocks[i : i + per_row] for i in range(0, len(blocks), per_row)]
    width = PIXELS // max(map(len, rows))  # of a block
    labelled = any(any(own["sample_labels"]) for _, own in blocks)
    left = 6 * LETTER if labelled else 0
    height, wide = np.max([own["samples"].shape[3:] for _, own in blocks], axis=0)
    scale = max(1, round(56 / wide))
    columns = max(1, min((width - left - LINE) // (wide * scale + 2), 16 if width == PIXELS else 8))
    n_rows = max(2, min(MAX_ROWS, BUDGET // (len(blocks) * columns * height * wide)))
    canvas = Image.new("RGB", (PIXELS, 0), "white")
    for row in rows:
        top, titles = canvas.height, [style.wrapped(name, width // LETTER - 2, 3) for name, _ in row]
        head = top + LINE * max(title.count("\n") + 1 for title in titles) + 8
        canvas = canvas.crop((0, 0, PIXELS, head + n_rows * (height * scale + 2) + LINE // 2))
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, top, PIXELS, canvas.height), fill="white")
        for i, (title, (_, own)) in enumerate(zip(titles, row, strict=True)):
            draw.text((i * width + LINE // 2, top + 4), title, fill="black", font=FONT)
            picked = style.spread(range(len(own["samples"])), n_rows)
            names = [style.wrapped(style.plain(str(name)), 6, 1) for name in own["sample_labels"][picked]]
            block = labelled_rows(own["samples"][picked, :columns], names, left, scale)
            canvas.paste(block, (i * width + LINE // 2, head))
    values = {"labelled": labelled, "shown": len(blocks), "total": len(report.cells)}
    return style.Drawn(style.shrunk(canvas), "samples", values)


def reconstructions(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """Held-out images above what each setting makes of them."""
    found: list[tuple[str, np.ndarray]] = []
    before: bytes = b""
    n_cells = 0
    for cell in (cell for cells in chosen(report, must_show) for cell in cells):
        own = arrays(cell.first)  # type: ignore[arg-type]
        if not {"inputs", "reconstructions"} <= own.keys():
            continue
        picked = style.spread(range(len(own["inputs"])), COLUMNS)
        if (content := own["inputs"][picked].tobytes()) != before:  # other data have other inputs
            found.append(("input", own["inputs"][picked]))
            before = content
        found.append((style.label(cell.settings) or "output", own["reconstructions"][picked]))
        n_cells += 1
    if not found:
        return None
    shape = np.max([images.shape for _, images in found], axis=0)  # of the largest: (N, C, H, W)
    images = np.full((len(found), *shape), 255, np.uint8)
    for i, (_, own) in enumerate(found):
        n, _, height, width = own.shape
        images[i, :n, :, :height, :width] = own
    scale = max(1, round(84 / max(shape[2:])))
    left = max(250, PIXELS - COLUMNS * (shape[3] * scale + 2))
    columns = (PIXELS - left) // (shape[3] * scale + 2)  # of large images fewer fit
    names = [style.wrapped(name, left // LETTER - 2, 3) for name, _ in found]
    canvas = labelled_rows(images[:, :columns], names, left, scale)
    return style.Drawn(style.shrunk(canvas), "reconstructions", {"shown": n_cells, "total": len(report.cells)})


def labelled_rows(images: np.ndarray, labels: Sequence[str], left: int, scale: int) -> Image.Image:
    """Rows of images (R, N, C, H, W) uint8, enlarged by a whole factor, with `left` pixels for their labels."""
    picture = tiled(images, scale)
    canvas = Image.new("RGB", (left + picture.shape[1], len(picture)), "white")
    canvas.paste(Image.fromarray(picture), (left, 0))
    for i, label in enumerate(labels):
        y = (i + 0.5) * len(picture) / len(images)
        ImageDraw.Draw(canvas).text((left - 8, y), label, fill="black", font=FONT, anchor="rm", align="right")
    return canvas


def tiled(images: np.ndarray, scale: int) -> np.ndarray:
    """Rows of images (R, N, C, H, W) as one picture (R·(scale·H+2), N·(scale·W+2), 3) with white gaps."""
    large = images.repeat(scale, axis=3).repeat(scale, axis=4)
    framed = np.pad(large, [(0, 0)] * 3 + [(0, 2)] * 2, constant_values=255)
    n_rows, n_columns, channels, height, width = framed.shape
    picture = framed.transpose(0, 3, 1, 4, 2).reshape(n_rows * height, n_columns * width, channels)
    return picture.repeat(3 // channels, axis=2)
