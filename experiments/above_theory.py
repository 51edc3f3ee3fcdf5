"""Settings and runs whose reconstruction is worse than that of the closed form at equal KL: they are trained badly."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.frame import Report
from experiments.outcome import LOST
from experiments.statistics import Interval
from experiments.wording import described

ROUNDING = 1e-5  # relative, of a closed form from the eigenvalues as a manifest keeps them, with six digits


@dataclass(frozen=True)
class AboveTheory:
    """Where reconstruction is worse than that of the closed form at equal KL, on training images.

    Attributes:
        settings: name and ratio of SSE of the settings whose interval lies above 1, worst first.
        single: name with seed, and ratio, of other runs above 1, worst first.
        n_settings: how many were compared.
        empty: settings where the closed form keeps no KL, which are not compared.
    """

    settings: list[tuple[str, Interval]]
    single: list[tuple[str, float]]
    n_settings: int
    empty: list[str]


def above_theory(report: Report) -> AboveTheory:
    """Which settings and single runs are worse than PCA; of one run per setting, none but single runs.

    Args:
        report: of the runs that use their latents (`survivors`).
    """
    worse, single, empty, n = [], [], [], 0
    for cell in report.cells:
        ratios, ratio = cell.values("sse_ratio"), cell.interval("sse_ratio")
        if cell.empty:
            empty.append(cell.name)
            continue
        if not len(ratios) or cell.usable["outcome"].isin(LOST).all():
            continue
        n += 1
        if ratio.low > 1 + ROUNDING:
            worse.append((cell.name, ratio))
        else:
            above = ratios[ratios > 1 + ROUNDING]
            single += [(described({**cell.settings, "seed": seed}), float(ratio)) for seed, ratio in above.items()]
    worse.sort(key=lambda pair: -pair[1].mean)
    single.sort(key=lambda pair: -pair[1])
    return AboveTheory(worse, single, n, empty)
