"""Pictures from arrays: a sheet of images, and a scatter plot of latents. Imports no torch.

Both can be stored among the arrays of an npz file and read from it: the images or points under a name, and everything
else as JSON under `<name>_meta`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 2
SHOWN = 56  # pixels: an image is enlarged by a whole factor to about this size
LINE = 16  # pixels, of a line of small text


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of images.

    Attributes:
        images: (R, N, C, H, W) uint8.
        labels: one before each row.
        columns: one above each column, cut to its width; may be empty.
        captions: R rows of N, one under each image; may be empty.
        note: a paragraph under the sheet.
    """

    images: np.ndarray
    labels: Sequence[str]
    columns: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()
    note: str = ""

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What `read` needs, for an npz file."""
        meta = {"labels": self.labels, "columns": self.columns, "captions": self.captions, "note": self.note}
        return {name: self.images, f"{name}_meta": np.array(json.dumps(meta))}

    @classmethod
    def read(cls, arrays: Mapping[str, Any], name: str) -> Sheet:
        return cls(arrays[name], **json.loads(arrays[f"{name}_meta"].item()))

    def draw(self) -> Image.Image:
        n_rows, n_columns, _, height, width = self.images.shape
        factor = max(1, round(SHOWN / height))
        font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=12)
        left = 8 + max(round(font.getlength(label)) for label in self.labels) + 8 if any(self.labels) else GAP
        top = GAP + LINE * bool(self.columns)
        h, w = height * factor + GAP + LINE * bool(self.captions), width * factor + GAP
        right = left + n_columns * w
        lines = _wrapped(self.note, small, right - 2 * GAP)
        canvas = Image.new("RGB", (right, top + n_rows * h + LINE * len(lines) + GAP * bool(lines)), "white")
        draw = ImageDraw.Draw(canvas)

        def centred(text: str, column: int, y: int) -> None:
            middle = left + column * w + width * factor / 2
            draw.text((middle, y), _cut(text, small, w), fill="black", font=small, anchor="ma")

        for n, heading in enumerate(self.columns):
            centred(heading, n, 1)
        for r in range(n_rows):
            draw.text((8, top + r * h + height * factor // 2), self.labels[r], fill="black", font=font, anchor="lm")
            for n in range(n_columns):
                pixels = self.images[r, n].transpose(1, 2, 0)  # (H, W, C)
                image = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
                image = image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
                canvas.paste(image, (left + n * w, top + r * h))
                if self.captions:
                    centred(self.captions[r][n], n, top + r * h + height * factor)
        for i, line in enumerate(lines):
            draw.text((GAP, top + n_rows * h + GAP + LINE * i), line, fill="black", font=small)
        return canvas


def _cut(text: str, font: Any, width: float) -> str:
    """The text, cut to this width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}..") > width:
        text = text[:-1]
    return f"{text}.."


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    """Lines of at most this width in pixels, broken at blanks."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass(frozen=True, eq=False)
class Scatter:
    """Points in a plane of the latent space, coloured by class; circles show 1 and 2 standard deviations of the prior.

    Attributes:
        points: (n, 2) float32.
        y: classes of the points, (n,) integers; those without a name in `classes` are grey.
        classes: names for the legend, at most 20.
        n_classes: of the dataset.
        axes: labels of the two axes.
        title: above the plot.
    """

    points: np.ndarray
    y: np.ndarray
    classes: Sequence[str]
    n_classes: int
    axes: Sequence[str]
    title: str

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What `read` needs, for an npz file."""
        meta = {"classes": self.classes, "n_classes": self.n_classes, "axes": self.axes, "title": self.title}
        return {f"{name}_mu": self.points, f"{name}_y": self.y, f"{name}_meta": np.array(json.dumps(meta))}

    @classmethod
    def read(cls, arrays: Mapping[str, Any], name: str) -> Scatter:
        return cls(arrays[f"{name}_mu"], arrays[f"{name}_y"], **json.loads(arrays[f"{name}_meta"].item()))

    def draw(self) -> Image.Image:
        import matplotlib as mpl  # here, because the import takes long and most pictures need no plot
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Circle

        n_named = len(self.classes)
        colours = mpl.colormaps["tab10" if n_named <= 10 else "tab20"].colors  # type: ignore[attr-defined]
        figure = Figure(figsize=(7, 5.6), dpi=110, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        ax = figure.subplots()
        own = [colours[c] if c < n_named else (0.8, 0.8, 0.8) for c in self.y.tolist()]
        ax.scatter(*self.points.T, s=9, alpha=0.7, linewidths=0, c=own)
        for radius in (1, 2):
            ax.add_patch(Circle((0, 0), radius, fill=False, linestyle="--", edgecolor="0.4"))
        if n_named > 1:
            handles = [ax.scatter([], [], s=30, color=colours[c], label=name) for c, name in enumerate(self.classes)]
            more = f"\n(grey: {self.n_classes - n_named} more)" if self.n_classes > n_named else ""
            figure.legend(handles=handles, title=f"class{more}", loc="outside right center", frameon=False)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_xlabel(self.axes[0])
        ax.set_ylabel(self.axes[1])
        ax.set_title(self.title, fontsize=9)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
