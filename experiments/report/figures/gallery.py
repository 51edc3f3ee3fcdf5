"""Pictures of one run from its gallery.npz: what its latents do, and whether its samples copy training images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from experiments.report.arrays import arrays
from experiments.report.figures.style import Drawn, Jobs, shrunk
from vae.sheet import Sheet

SHOWN = ("traversals", "neighbours")


def gallery(run: Mapping[str, Any] | pd.Series, setting: str) -> Jobs:
    """What draws them, by file name, as far as the run has them.

    Args:
        setting: of the run, in words, for the caption.
    """
    stored = arrays(run, "gallery")
    values = {"setting": setting, "seed": int(run["seed"])}

    def draw(name: str) -> Drawn:
        return Drawn(shrunk(Sheet.read(stored, name).draw()), name, values)

    return {f"{name}.png": partial(draw, name) for name in SHOWN if name in stored}
