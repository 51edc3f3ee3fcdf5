"""The setting that a report recommends, or why it recommends none. Values only; templates word them.

Two errors are weighed on held-out images, and lower is better in both: that of reconstructions (SSE per image, z
sampled) and that of samples (their feature Fréchet distance to real images, FFD). The settings that no other beats in
both form the Pareto front. The choice is its knee, the setting furthest below the straight line (chord) between the
front's ends (Das 1999; Branke et al. 2004), each error in logarithms and scaled to run from 0 to 1 between the ends
(Satopaa et al. 2011). In logarithms it makes no difference whether an error is given as a square, its root or in
decibels, nor in which unit. Only settings that may be recommended form the front and its ends: a setting to avoid must
not stretch the chord.

A choice is recommended if it is the same in 95 % of redraws of the means within the noise of the seeds, and with each
other setting left out in turn. To leave out one of only three settings on the front leaves its two ends, which have no
knee: that says nothing about the choice and does not count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from experiments.findings import grouped
from experiments.frame import Cell, Report
from experiments.outcome import HOLE_ACCURACY
from experiments.statistics import CONFIDENCE, Interval
from experiments.wording import described

TRADE_OFF = ("test_sse", "sample_ffd")
LIKELIHOOD = ("test_bits_per_dim",)  # where samples have no scores
DRAWS = 2000  # so that a share of 95 % is known to half a per cent
FAULTS = ("failed", "diverged", "dead", "collapsed", "prior_hole", "class")  # worst first; `class`: `draws_class` fails

Verdict = Literal[
    "take",  # recommended
    "undecided",  # the noise of the seeds allows several
    "unsettled",  # leaving out another setting changes the choice
    "no_knee",  # no setting lies below the chord
    "single_seeds",  # a setting on the front has one run, and so no interval
    "one_setting",
    "no_numbers",  # no run is usable
    "no_scores",  # settings train, but none has the errors
    "none_ok",  # no setting trains in most of its runs
]


# ---------------------------------------------------------------------------------------------- the rule


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Indices of the points that no other beats, by ascending first error; of equal points one.

    Args:
        points: (settings, 2) errors. A point is beaten by one that is nowhere greater and somewhere less.
    """
    order = np.lexsort((points[:, 1], points[:, 0]))
    second = points[order, 1]
    before = np.minimum.accumulate(np.concatenate([[np.inf], second[:-1]]))
    return order[second < before]


def choose(points: np.ndarray) -> int | None:
    """The knee of the front of two errors: the point furthest below its chord. Of one error the least.

    Args:
        points: (settings, errors); of two errors the logarithms.

    Returns:
        Its index; None where no point lies below the chord. A point that beats all others needs no chord.
    """
    if points.shape[1] == 1:
        return int(np.argmin(points[:, 0])) if len(points) else None
    front = pareto_front(points)
    if len(front) < 2:
        return int(front[0]) if len(front) else None
    ends = points[front]
    low, high = ends.min(axis=0), ends.max(axis=0)
    depth = 1 - ((ends - low) / (high - low)).sum(axis=1)  # √2 times the distance; 0 at the ends
    best = int(np.argmax(depth))
    return int(front[best]) if depth[best] > 1e-9 else None


def shares(centre: np.ndarray, spread: np.ndarray, n: np.ndarray) -> dict[int | None, float]:
    """How often each setting is chosen if the means are drawn again, the most frequent first.

    A mean of n runs is drawn as mean + spread·t, t of Student's distribution with n - 1 degrees of freedom: the
    distribution whose central 95 % is the interval that the report shows. The same arguments give the same shares.

    Args:
        centre, spread, n: (settings, errors): the means, their standard errors s/√n, the numbers of runs, all > 1.
    """
    t = np.random.default_rng(0).standard_t(n - 1, size=(DRAWS, *centre.shape))
    counts = Counter(choose(points) for points in centre + spread * t)
    return {chosen: count / DRAWS for chosen, count in counts.most_common()}


def changed_by_omission(points: np.ndarray, pick: int) -> dict[int, int | None]:
    """What is chosen instead of the pick when another setting is left out, by the index of that setting."""
    found = {}
    for left_out in range(len(points)):
        if left_out == pick:
            continue
        rest = np.delete(np.arange(len(points)), left_out)
        at = choose(points[rest])
        choice = None if at is None else int(rest[at])
        comparable = choice is not None or len(pareto_front(points[rest])) > 2
        if choice != pick and comparable:
            found[left_out] = choice
    return found


# ---------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True, eq=False)
class Option:
    """A setting as one to choose.

    Attributes:
        settings: those in which the settings differ, the dataset aside.
        scores: mean and interval over seeds of each error; n = 0 where it has none.
    """

    cell: Cell
    settings: dict[str, object]
    scores: tuple[Interval, ...]

    @property
    def name(self) -> str:
        return described(self.settings) or "the only setting"

    @property
    def scored(self) -> bool:
        """Whether it has all errors, two of them positive, for their logarithms."""
        return all(math.isfinite(s.mean) and (s.mean > 0 or len(self.scores) == 1) for s in self.scores)

    @cached_property
    def outcomes(self) -> Counter[str]:
        """Of the finished runs."""
        return Counter(found for found in self.cell.runs["outcome"] if found != "missing")

    @cached_property
    def standing(self) -> str | None:
        """`ok` or `prior_hole`, if more than half of the runs are that or ok; else the most common fault."""
        n, ok = self.outcomes.total(), self.outcomes["ok"]
        if 2 * ok > n:
            return "ok"
        if 2 * (ok + self.outcomes["prior_hole"]) > n:
            return "prior_hole"
        return max(FAULTS[:4], key=lambda fault: self.outcomes[fault]) if n else None

    @property
    def trained(self) -> bool:
        return self.standing in ("ok", "prior_hole")

    @property
    def given_label(self) -> bool:
        """Whether the decoder receives the label."""
        return bool(self.cell.values("label_repeat_decoder").astype(bool).all())

    @property
    def draws_class(self) -> bool:
        """Whether samples show the requested class nearly as often as real images are seen to be."""
        accuracy, judge = self.cell.mean("sample_accuracy"), self.cell.mean("judge_accuracy")
        return self.given_label and accuracy >= HOLE_ACCURACY * judge  # False for NaN


@dataclass(frozen=True, eq=False)
class Advice:
    """What a report says about the settings of one dataset.

    Attributes:
        dataset: its name.
        criteria: columns of the errors.
        by_elbo: why the errors are not SSE and FFD: `no_scores` or `several_judges`; else "".
        options: every setting.
        compared: indices of the options that make the trade-off: trained, with scores, and with the label in the
            decoder where another setting draws the requested class.
        eligible: indices of those of them that may be recommended: ok in most runs, and drawing the class
            where another setting does.
        front: indices of the eligible options on the Pareto front, by ascending SSE; empty for one error.
        pick: index of the choice by the means alone, None where there is none.
        shares: how often each index is the choice within the noise of the seeds; empty where a mean has no interval.
        omissions: what the choice becomes when an option is left out, by index of that option, where it changes.
        avoid: names of the settings that fail, by fault, worst first.
    """

    dataset: str
    criteria: tuple[str, ...]
    by_elbo: str
    options: list[Option]
    compared: list[int]
    eligible: list[int]
    front: list[int]
    pick: int | None
    shares: dict[int | None, float]
    omissions: dict[int, int | None]
    avoid: dict[str, list[str]]

    @property
    def verdict(self) -> Verdict:
        if len(self.options) == 1:
            return "one_setting"
        if not any(len(o.cell.usable) for o in self.options):
            return "no_numbers"
        if not self.eligible:
            return "no_scores" if any(o.standing == "ok" for o in self.options) else "none_ok"
        if not self.shares:
            return "single_seeds"
        if self.pick is None:
            return "no_knee"
        if self.shares.get(self.pick, 0.0) < CONFIDENCE:
            return "undecided"
        return "unsettled" if self.omissions else "take"

    @property
    def on_validation(self) -> bool:
        """Whether the choice was made on other images than those that measure it."""
        return self.criteria[0].startswith("val_")

    @property
    def recommended(self) -> bool:
        return self.verdict == "take"

    @property
    def best(self) -> Option | None:
        """The choice by the means alone."""
        return None if self.pick is None else self.options[self.pick]

    @property
    def rivals(self) -> list[int | None]:
        """Settings (None: no knee) that are the choice in at least 5 % of the redraws; at least two where there are."""
        often = sum(share >= 1 - CONFIDENCE for share in self.shares.values())
        return list(self.shares)[: max(2, often)]

    def least(self, k: int, among: Sequence[int]) -> int:
        """The setting with the least k-th error."""
        return min(among, key=lambda i: self.options[i].scores[k].mean)

    def alike(self, indices: Sequence[int | None]) -> bool:
        """Whether the intervals of these settings have a common point, in each error."""
        scores = zip(*(self.options[i].scores for i in indices if i is not None), strict=True)
        return all(max(s.low for s in found) <= min(s.high for s in found) for found in scores)


def advise(report: Report) -> list[Advice]:
    """The advice for each dataset of a report, in the order of its settings; none where there is nothing to pick."""
    if not report.study.get("pick", True):
        return []
    groups: dict[str, list[Cell]] = {}
    for cell in report.cells:
        groups.setdefault(cell.runs["dataset_hash"].iloc[0], []).append(cell)
    return [_advise(report, cells) for cells in groups.values()]


def _advise(report: Report, cells: Sequence[Cell]) -> Advice:
    judges = {judge for cell in cells for judge in _judges(cell)}
    by_elbo = "no_scores" if not judges else "several_judges" if len(judges) > 1 else ""
    criteria = _on_validation(LIKELIHOOD if by_elbo else TRADE_OFF, cells)
    varied = [k for k in report.keys if k != "dataset" and len({str(cell.settings[k]) for cell in cells}) > 1]
    options = [
        Option(cell, {k: cell.settings[k] for k in varied}, tuple(cell.interval(column) for column in criteria))
        for cell in cells
    ]
    by_class = any(o.standing == "ok" and o.draws_class for o in options)
    compared = [i for i, o in enumerate(options) if o.trained and o.scored and (o.given_label or not by_class)]
    eligible = [i for i in compared if options[i].standing == "ok" and (options[i].draws_class or not by_class)]
    centre, error, n = _statistics([options[i] for i in eligible], criteria)
    index: dict[int | None, int | None] = {None: None, **dict(enumerate(eligible))}  # among all options
    at = choose(centre)
    two, redrawn = len(criteria) == 2 and len(eligible) > 0, len(eligible) > 0 and n.min() > 1
    omissions = changed_by_omission(centre, at) if two and at is not None else {}
    return Advice(
        dataset=str(cells[0].runs["dataset"].iloc[0]),
        criteria=criteria,
        by_elbo=by_elbo,
        options=options,
        compared=compared,
        eligible=eligible,
        front=[eligible[i] for i in pareto_front(centre)] if two else [],
        pick=index[at],
        shares={index[i]: share for i, share in shares(centre, error, n).items()} if redrawn else {},
        omissions={eligible[i]: index[choice] for i, choice in omissions.items()},
        avoid=_avoid(options, by_class),
    )


def _judges(cell: Cell) -> set[str]:
    scored = cell.usable.reindex(columns=["judge", "sample_ffd"]).dropna(subset=["sample_ffd"])
    return set(scored["judge"].astype(str))


def _on_validation(columns: tuple[str, ...], cells: Sequence[Cell]) -> tuple[str, ...]:
    """The same columns on validation images if the runs have them."""
    own = tuple(f"val_{column.removeprefix('test_')}" for column in columns)
    return own if all(any(len(cell.values(column)) for cell in cells) for column in own) else columns


def _statistics(options: Sequence[Option], columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, their standard errors and the numbers of runs, (settings, errors); of two errors in logarithms.

    The standard error of the logarithm of a mean is that of the mean over the mean, to first order.
    """
    values = [[option.cell.values(column) for column in columns] for option in options]
    mean, error, n = (
        np.array([[statistic(v) for v in row] for row in values], float).reshape(-1, len(columns))
        for statistic in (pd.Series.mean, pd.Series.sem, len)
    )
    return (np.log(mean), error / mean, n) if len(columns) == 2 else (mean, error, n)


def _avoid(options: Sequence[Option], by_class: bool) -> dict[str, list[str]]:
    """The names of the settings that fail, by fault."""
    faults: dict[str, list[Cell]] = {fault: [] for fault in FAULTS}
    for option in options:
        fault = "class" if option.standing == "ok" and by_class and not option.draws_class else option.standing
        if fault in faults:
            faults[fault].append(option.cell)
    return {fault: grouped([o.cell for o in options], cells) for fault, cells in faults.items() if cells}
