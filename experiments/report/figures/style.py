"""What all figures share: size, colours, markers, legends, text from data, PNG files.

Figures are legible in greyscale and at the width of a README, each at most 300 KB. What is dashed or dotted is the
closed form of the linear VAE (vae/theory.py), never a measurement. No pyplot: a figure leaves no state behind.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from PIL import Image

from experiments.wording import labelled

WIDTH = 8.0  # inches
DPI = 150  # so 1200 pixels, shown at 800: what is 9 points here is 9 points there
MAX_BYTES = 300_000
FONT = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # comes with Matplotlib

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.parse_math": False,  # a class may be called $^$
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
COLOURS = ("#1b2a41", "#c8501e", "#2a9d8f", "#8a6fc0", "#b58900", "#56a0d3", "#7d4e3b", "#c97b9b")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
TIE = "\u00a0"  # a space at which textwrap ends no line
MORE_COLOURS = (*COLOURS, "#6b8e23", "#4059ad", "#b23a48", "#8d99a6")  # for marks, which differ in shape as well
MAX_STYLES = 2 * len(MORE_COLOURS)
CLOSED_FORM = {"within": ("--", "closed form, within class"), "all": (":", "closed form, unconditional")}
DIED: dict[str, Any] = {"linestyle": "none", "marker": "x", "color": "0.5", "markersize": 5, "zorder": 2}
LEGEND_WIDTH = 108  # letters that fit under the panels


@dataclass(frozen=True)
class Drawn:
    """A figure as a PNG file.

    Attributes:
        kind: the macro of templates/figure_captions.md.j2 that words the caption.
        values: what the macro needs.
    """

    png: bytes
    kind: str
    values: dict[str, Any]


Jobs = Mapping[str, Callable[[], Drawn | None]]  # what draws a figure, by its file name


def attempted(jobs: Jobs) -> tuple[dict[str, Drawn], dict[str, str]]:
    """Draws each figure, and goes on if one cannot be drawn.

    Returns:
        The figures that there are, by name, and the reasons why others could not be drawn.
    """
    found, reasons = {}, {}
    for name, draw in jobs.items():
        try:
            drawn = draw()
        except Exception as e:  # a report without one figure is better than no report
            reasons[name] = f"{type(e).__name__}: {e}"
        else:
            if drawn is not None:
                found[name] = drawn
    return found, reasons


# ---------------------------------------------------------------------------------------------- text


@functools.cache
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(str(FONT)).get_charmap())


def plain(text: str) -> str:
    """Text from data in one line that the font can draw; a character that it does not have becomes `?`."""
    return "".join(c if c.isprintable() and ord(c) in _characters() else "?" for c in " ".join(text.split()))


def label(settings: Mapping[str, Any]) -> str:
    """The short name of a setting, as the font can draw it."""
    return plain(labelled(settings))


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """The text in lines of at most `width` letters; what does not fit is cut.

    In a list, lines end after a comma if that fits, so that a setting stays with its value.
    """
    tied = re.sub(r"(?<!,) ", TIE, text)
    fits = max(map(len, tied.split(" "))) <= width and len(textwrap.wrap(tied, width)) <= lines
    found = textwrap.wrap(tied if fits else text, width, max_lines=lines, placeholder=" …")
    return "\n".join(found).replace(TIE, " ") or text


# ---------------------------------------------------------------------------------------------- selection


def spread(items: Sequence[Any], n: int, must: Collection[Any] = ()) -> list[Any]:
    """At most n of the items in their order: those that must be shown, and of the others some evenly spread."""
    if len(items) <= n:
        return list(items)
    kept = [i for i, item in enumerate(items) if item in must][:n]
    others = [i for i in range(len(items)) if i not in kept]
    places = np.linspace(0, len(others) - 1, n - len(kept)).round().astype(int)
    return [items[i] for i in sorted({*kept, *(others[p] for p in places)})]


# ---------------------------------------------------------------------------------------------- marks


def marks(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th of at most MAX_STYLES settings; the second half is hollow."""
    second, place = divmod(i, len(MORE_COLOURS))
    colour = MORE_COLOURS[place]
    return {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markerfacecolor": "white" if second else colour}


def handle(name: str, **style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=name, **{"linestyle": "none", **style})


def closed_form_handles(kinds: Collection[str]) -> list[Line2D]:
    return [handle(name, linestyle=line, color="0.3") for kind, (line, name) in CLOSED_FORM.items() if kind in kinds]


def new_figure(height: float) -> Figure:
    """To be used within `mpl.rc_context(STYLE)`."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def legend(figure: Figure, *groups: Sequence[Artist]) -> None:
    """Under the panels, to be read row by row; each group starts a new row."""
    groups = tuple(group for group in groups if group)
    if not groups:
        return
    for entry in (entry for group in groups for entry in group):
        name = textwrap.shorten(str(entry.get_label()), LEGEND_WIDTH - 8, placeholder=" …")
        entry.set_label(f" {name}" if name.startswith("_") else name)  # Matplotlib hides labels with an underscore
    n_columns = max(map(len, groups)) + 1
    widths = [LEGEND_WIDTH + 1]
    while n_columns > 1 and sum(widths) > LEGEND_WIDTH:
        n_columns -= 1  # a column is as wide as its widest label
        widths = [0] * n_columns  # in letters, with the marker
        for i, entry in ((i, entry) for group in groups for i, entry in enumerate(group)):
            widths[i % n_columns] = max(widths[i % n_columns], len(str(entry.get_label())) + 7)
    padded = [entry for group in groups for entry in (*group, *[handle(" ")] * (-len(group) % n_columns))]
    n_rows = len(padded) // n_columns
    by_column = [padded[r * n_columns + c] for c in range(n_columns) for r in range(n_rows)]
    figure.legend(handles=by_column, loc="outside lower center", ncols=n_columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, n_rows - 2))  # not at the cost of the panels


# ---------------------------------------------------------------------------------------------- files


def shrunk(image: Image.Image) -> bytes:
    """A PNG of at most MAX_BYTES, of an RGB image: grey or with 256 colours, else with 64, else with fewer pixels."""
    grey = image.convert("L")
    if grey.convert("RGB") == image:
        image = grey
    colours = 256
    while True:
        buffer = io.BytesIO()
        exact = image.mode == "L" and colours == 256
        small = image if exact else image.quantize(colours, dither=Image.Dither.NONE)
        small.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
        if colours == 64:
            image = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
        colours = 64


def rendered(figure: Figure) -> bytes:
    canvas, layout = FigureCanvasAgg(figure), figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)  # twice, as ticks depend on the size of the panels, and that on the ticks' labels
    canvas.draw()
    return shrunk(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
