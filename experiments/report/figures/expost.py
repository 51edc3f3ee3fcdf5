"""Samples of the prior, samples of a fit to the latents, and reconstructions side by side, from expost.npz."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from PIL import Image, ImageDraw

from experiments.frame import Cell, Report
from experiments.report.figures import style
from experiments.report.figures.sheets import FONT, LETTER, LINE, PIXELS, arrays, chosen, tiled

GROUPS = {"prior": "z from the prior", "gaussian": "z from the fitted Gaussian", "reconstructions": "reconstructions"}
ROWS, COLUMNS = 2, 5  # of images in a group
LEFT = 17 * LETTER  # pixels, at least, for the names of the settings


def expost(report: Report, must_show: Collection[Cell] = ()) -> style.Drawn | None:
    """A strip per setting; only where the experiment asks for the fits, as other experiments may share its runs."""
    if "expost_gaussian_ffd" not in report.runs:
        return None
    strips = []
    for cell in (cell for cells in chosen(report, must_show) for cell in cells):
        own = arrays(cell.first, "expost")  # type: ignore[arg-type]
        if GROUPS.keys() <= own.keys():
            strips.append((style.label(cell.settings) or "the only setting", own))
    if not strips:
        return None
    height, width = np.max([own["prior"].shape[2:] for _, own in strips], axis=0)
    scale = max(1, round(56 / width))
    columns = max(1, min(COLUMNS, ((PIXELS - LEFT + LINE) // len(GROUPS) - LINE) // (width * scale + 2)))
    group = columns * (width * scale + 2) + LINE  # pixels of the width
    left = PIXELS - len(GROUPS) * group + LINE
    strip = ROWS * (height * scale + 2) + LINE // 2
    canvas = Image.new("RGB", (PIXELS, LINE + 8 + len(strips) * strip), "white")
    draw = ImageDraw.Draw(canvas)
    for g, title in enumerate(GROUPS.values()):
        draw.text((left + g * group, 4), style.wrapped(title, group // LETTER, 1), fill="black", font=FONT)
    for i, (name, own) in enumerate(strips):
        top = LINE + 8 + i * strip
        text = style.wrapped(name, left // LETTER - 1, 4)
        draw.text((left - 12, top + strip // 2), text, fill="black", font=FONT, anchor="rm", align="right")
        for g, key in enumerate(GROUPS):
            picked = style.spread(range(len(own[key])), ROWS * columns)
            images = own[key][picked]  # (n, C, H, W)
            for r in range(0, len(picked), columns):
                row = Image.fromarray(tiled(images[None, r : r + columns], scale))
                canvas.paste(row, (left + g * group, top + r // columns * (height * scale + 2)))
    labelled = bool({"both", "decoder"} & set(report.usable["label_placement.kind"]))
    values = {"labelled": labelled, "shown": len(strips), "total": len(report.cells)}
    return style.Drawn(style.shrunk(canvas), "expost", values)
