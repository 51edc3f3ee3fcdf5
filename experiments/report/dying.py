"""Why runs die, as values: the first steps of a run that died beside one that did not, and the rate by learning rate.

Of the first setting, in the sweep's order, in which some runs died and others did not, it takes the lowest seed of each
kind. Settings where the closed form keeps no KL are left out: there, collapse is the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import logistic
from experiments.asked import asked_outcomes
from experiments.evaluate import evaluate
from experiments.frame import Cell, Report
from experiments.keys import same
from experiments.outcome import KL_FLOOR, LOST
from experiments.report.arrays import arrays
from experiments.statistics import Interval
from experiments.store import RunFolder
from experiments.wording import described

FAMILY, NETWORKS = "early_steps", ("encoder", "decoder")
RATE = "trainer.lr"
ENOUGH = 3  # learning rates for a curve
LATE = 50  # steps, the last of the early ones


@dataclass(frozen=True, eq=False)
class Steps:
    """The first steps of a run, (S,) each: KL in nats, and the norms of the gradients by network."""

    seed: int
    kl: np.ndarray
    gradients: Mapping[str, np.ndarray]

    @property
    def empty_from(self) -> int | None:
        """The step from which on KL is at the floor of a collapsed posterior; None if it is not at the end."""
        above = np.flatnonzero(self.kl > KL_FLOOR)
        first = int(above[-1]) + 2 if len(above) else 1
        return first if first <= len(self.kl) else None

    def late(self, network: str) -> float:
        """The median norm of a network's gradient over the last steps."""
        return float(np.median(self.gradients[network][-LATE:]))


@dataclass(frozen=True)
class Pair:
    """A run that died and one that did not, of one setting."""

    setting: str
    died: Steps
    lived: Steps

    @property
    def encoder_starves(self) -> bool:
        """Whether, late, dying has at least halved the encoder's gradient, but not the decoder's."""
        encoder, decoder = (self.died.late(name) / self.lived.late(name) for name in NETWORKS)
        return encoder < 0.5 < decoder


@dataclass(frozen=True)
class ByRate:
    """How many runs died at each learning rate, all other settings the same.

    Attributes:
        setting: the others in words, as far as they are not those of the report's first setting.
        rates: ascending, those at which runs have numbers.
        counts, totals: of runs that died, and of runs with numbers.
        lost: the learning rates at which no run has numbers.
        curve: over ln(rate); None if all runs ended in the same way.
    """

    setting: str
    rates: Sequence[float]
    counts: Sequence[int]
    totals: Sequence[int]
    lost: Sequence[float]
    curve: logistic.Logistic | None

    @property
    def half(self) -> Interval | None:
        """The learning rate at which half of the runs die; None if it is not known to lie among the rates."""
        if self.curve is None:
            return None
        at = self.curve.half
        if not math.log(self.rates[0]) <= at.mean <= math.log(self.rates[-1]):
            return None
        return Interval(math.exp(at.mean), math.exp(at.low), math.exp(at.high), at.n)

    @property
    def gap(self) -> tuple[float, float] | None:
        """The two neighbours between which the rate jumps from none to all; None if it does not."""
        dying = [k / n for k, n in zip(self.counts, self.totals, strict=True)]
        if dying != sorted(dying) or set(dying) != {0, 1}:
            return None
        i = dying.index(1)
        return self.rates[i - 1], self.rates[i]


@dataclass(frozen=True)
class Why:
    """What is known of why runs of a report die; either can be missing."""

    pair: Pair | None
    by_rate: ByRate | None


def why(report: Report) -> Why | None:
    """Why runs die, if the experiment asks about runs that do. It trains the first steps of two runs again.

    Runs of a GPU have no first steps here, because a CPU draws other random numbers.
    """
    if not set(asked_outcomes(report)) & set(LOST):
        return None
    found = Why(_pair(report), _by_rate(report))
    return found if found.pair or found.by_rate else None


def _pair(report: Report) -> Pair | None:
    for cell in report.cells:
        died = cell.usable["outcome"].isin(LOST)
        if cell.empty or died.all() or not died.any():
            continue
        runs = [cell.usable[kind].iloc[0] for kind in (died, ~died)]  # sorted by seed
        if any(report.provenance[str(run.name)].get("device") != "cpu" for run in runs):
            continue
        evaluate([RunFolder(Path(run["path"])) for run in runs], [FAMILY])
        steps = [_steps(run) for run in runs]
        if steps[0] and steps[1]:
            return Pair(cell.name, steps[0], steps[1])
        return None
    return None


def _steps(run: pd.Series) -> Steps | None:
    """None if the family failed or says nothing about the run."""
    stored = arrays(run, FAMILY)
    if not stored:
        return None
    return Steps(int(run["seed"]), stored["kl"], {name: stored[f"{name}_gradient"] for name in NETWORKS})


def _by_rate(report: Report) -> ByRate | None:
    """The settings that differ from one another in the learning rate only, where there are most of them."""
    groups: dict[str, list[Cell]] = {}
    for cell in report.cells:
        if RATE in cell.point and not cell.empty:
            groups.setdefault(repr(sorted(_rest(cell).items())), []).append(cell)
    cells = sorted(max(groups.values(), key=len, default=[]), key=lambda cell: cell.point[RATE])
    known = [cell for cell in cells if len(cell.usable)]
    if len(known) < ENOUGH:
        return None
    rates = [float(cell.point[RATE]) for cell in known]
    counts, totals = [cell.count(*LOST) for cell in known], [len(cell.usable) for cell in known]
    mixed = 0 < sum(counts) < sum(totals)
    curve = logistic.fit([math.log(rate) for rate in rates], counts, totals) if mixed else None
    first = report.cells[0].point
    others = {k: v for k, v in _rest(cells[0]).items() if not same(v, first.get(k))}
    lost = [float(cell.point[RATE]) for cell in cells if cell not in known]
    return ByRate(described(others), rates, counts, totals, lost, curve)


def _rest(cell: Cell) -> dict[str, Any]:
    return {k: v for k, v in cell.point.items() if k not in (RATE, "seed") and v is not None}
