"""The figures of a report, drawn from its runs' files: PNGs, and values for templates/figure_captions.md.j2."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from experiments.frame import Cell, Report
from experiments.report.figures.against import against
from experiments.report.figures.atlas import atlas
from experiments.report.figures.deaths import deaths
from experiments.report.figures.expost import expost
from experiments.report.figures.learning import learning
from experiments.report.figures.rate_distortion import rate_distortion
from experiments.report.figures.sheets import reconstructions, samples
from experiments.report.figures.spectrum import spectrum
from experiments.report.figures.style import Drawn, attempted
from experiments.report.figures.swept import swept

FIGURES = (
    atlas, against, deaths, swept, rate_distortion, spectrum, learning, samples, reconstructions, expost,
)  # fmt: skip


def all_figures(report: Report, must_show: Collection[Cell] = ()) -> tuple[dict[str, Drawn], dict[str, str]]:
    """Every figure that the runs of a report allow, in the report's order.

    Args:
        must_show: settings of `report.cells` that the text is about: where there is room for some only, they are there.

    Returns:
        The figures by file name, and by file name the reasons why others could not be drawn.
    """
    return attempted({f"{draw.__name__}.png": partial(draw, report, must_show) for draw in FIGURES})
