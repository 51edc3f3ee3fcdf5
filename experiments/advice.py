"""The setting that a report recommends, or why it recommends none; the rule is in outputs/README.md, "Advice".

Two errors are weighed, both on held-out images and the less the better: that of reconstructions (SSE per image, z
sampled) and that of samples (their feature Frechet distance to real images, FFD). The settings that no other beats in
both are the Pareto front; the one recommended is its knee, the setting furthest below the straight line (chord) between
the front's ends (Das 1999; Branke et al. 2004), each error in logarithms and scaled to run from 0 to 1 between the ends
(Satopaa et al. 2011). In logarithms it makes no difference whether an error is given as a square, its root or in
decibels, nor in which unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.report import Cell, Report, Run
from experiments.statistics import CONFIDENCE, Interval, wilson_interval
from experiments.tables import described, interval, metric, number, short
from vae.status import HOLE_ACCURACY

TRADE_OFF = {"test_sse": "SSE", "sample_ffd": "sample FFD"}
LIKELIHOOD = {"test_bits_per_dim": "bits per dimension"}  # where samples have no scores
DRAWS = 2000  # so that a share of 95 % is known to half a per cent
LISTED = 3  # settings named in one sentence

# What is said of settings to avoid, the worst first. A run that is not finished is no failure of its setting.
FAULTS = {
    "failed": "Failed (an error)",
    "diverged": "Diverged (no finite numbers)",
    "dead": "Dead (no better than a dark image or the mean image)",
    "collapsed": "Collapsed (the posterior equals the prior)",
    "hole": "Hole (good reconstructions, bad samples)",
    "class": "Samples that are not of the class asked for",
}


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


def knee(points: np.ndarray, eligible: np.ndarray) -> int | None:
    """The eligible point furthest below the chord of the front; None where none lies below it.

    Args:
        points: (settings, 2), the logarithms of the errors.
        eligible: (settings,), which of them may be picked. The others still make the front and its ends.

    Returns:
        Its index. A point that beats all other eligible ones needs no chord.
    """
    own = np.flatnonzero(eligible)
    own = own[pareto_front(points[own])]
    if len(own) < 2:
        return int(own[0]) if len(own) else None
    front = points[np.union1d(own, pareto_front(points))]
    low, high = front.min(axis=0), front.max(axis=0)
    depth = 1 - ((points[own] - low) / (high - low)).sum(axis=1)  # √2 times the distance; 0 at the ends
    best = int(np.argmax(depth))
    return int(own[best]) if depth[best] > 1e-9 else None


def choose(points: np.ndarray, eligible: np.ndarray) -> int | None:
    """The knee of two errors; of one error the least."""
    if points.shape[1] == 2:
        return knee(points, eligible)
    return int(np.argmin(np.where(eligible, points[:, 0], np.inf))) if eligible.any() else None


def shares(centre: np.ndarray, spread: np.ndarray, n: np.ndarray, eligible: np.ndarray) -> dict[int | None, float]:
    """How often each setting is chosen if the means are drawn anew, the most often first.

    A mean of n runs is drawn as mean + spread·t, t of Student's distribution with n - 1 degrees of freedom: the
    distribution whose central 95 % is the interval that the report shows. The same arguments give the same shares.

    Args:
        centre, spread, n: (settings, errors): the means, their standard errors s/√n, the numbers of runs. The mean of
            one run does not vary here.
    """
    t = np.random.default_rng(0).standard_t(np.maximum(n - 1, 1), size=(DRAWS, *centre.shape))
    counts = Counter(choose(points, eligible) for points in centre + spread * t)
    return {chosen: count / DRAWS for chosen, count in counts.most_common()}


# ---------------------------------------------------------------------------------------------- settings


def outcome(run: Run) -> str | None:
    """What became of a run, for its setting: its health, None where it is not finished or cannot be read."""
    if run.usable:
        return run.health
    return {"missing": None, "unreadable": None, "failed": "failed"}.get(run.status, "diverged")


@dataclass(frozen=True)
class Option:
    """A setting as one to pick.

    Attributes:
        settings: those in which it differs from others, the dataset aside.
        scores: mean and interval over seeds of each error; n = 0 where it has none.
        given_label: whether the decoder of each run is given the label.
    """

    cell: Cell
    settings: dict[str, object]
    scores: tuple[Interval, ...]

    @property
    def name(self) -> str:
        return described(self.settings) or "the only setting"

    @property
    def scored(self) -> bool:
        return all(math.isfinite(s.mean) for s in self.scores) and (len(self.scores) < 2 or self.positive)

    @property
    def positive(self) -> bool:
        return all(s.mean > 0 for s in self.scores)

    @cached_property
    def outcomes(self) -> Counter[str]:
        """Of the finished runs."""
        return Counter(found for run in self.cell.runs if (found := outcome(run)) is not None)

    @cached_property
    def standing(self) -> str | None:
        """`ok` if more than half of the runs are, `hole` if so many are that or ok, else what most of the others are."""
        n = self.outcomes.total()
        if 2 * self.outcomes["ok"] > n:
            return "ok"
        if 2 * (self.outcomes["ok"] + self.outcomes["hole"]) > n:
            return "hole"
        others = [(count, fault) for fault, count in self.outcomes.items() if fault not in ("ok", "hole")]
        return max(others)[1] if others else None

    @property
    def trained(self) -> bool:
        return self.standing in ("ok", "hole")

    @property
    def given_label(self) -> bool:
        return all((run.result or {}).get("label_repeat_decoder") for run in self.cell.usable)

    @property
    def draws_class(self) -> bool:
        """Whether samples are of the class asked for nearly as often as real images are seen to be."""
        accuracy, judge = self.cell.mean("sample_accuracy"), self.cell.mean("judge_accuracy")
        return self.given_label and accuracy >= HOLE_ACCURACY * judge  # False for NaN


@dataclass(frozen=True)
class Advice:
    """What a report says of the settings of one dataset. All texts are plain sentences.

    Attributes:
        criteria: column and name of the errors.
        options: every setting.
        compared: indices of the options that make the front: trained, with scores, and with a label in the decoder
            where that is asked for.
        eligible: indices of those of them that may be picked: mostly ok, and drawing the class where that is asked for.
        front: indices on the Pareto front, by ascending SSE; empty without scores of samples.
        pick: index of the choice by the means alone, None where there is none.
        shares: how often each index is the choice within the noise of the seeds.
        verdict: the advice in a sentence.
        reasons: the figures behind it, and what else could be wanted.
        avoid: the settings that fail, a sentence for each way of failing.
    """

    dataset: str
    criteria: dict[str, str]
    options: list[Option]
    compared: list[int]
    eligible: list[int]
    front: list[int]
    pick: int | None
    shares: dict[int | None, float]
    verdict: str
    reasons: list[str]
    avoid: list[str]

    @property
    def decided(self) -> bool:
        """Whether the pick is recommended."""
        return self.verdict.startswith("Take ")


def advise(report: Report) -> list[Advice]:
    """The advice for each dataset of a report, in the order of its settings."""
    groups: dict[str, list[Cell]] = {}
    for cell in report.cells:
        groups.setdefault(cell.runs[0].dataset_hash, []).append(cell)
    return [_advise(report, dataset, cells) for dataset, cells in groups.items()]


def _advise(report: Report, dataset_hash: str, cells: Sequence[Cell]) -> Advice:
    runs = [run for cell in cells for run in cell.usable]
    judges = {(run.result or {}).get("judge") for run in runs if math.isfinite(run.value("sample_ffd"))}
    criteria = TRADE_OFF if len(judges) == 1 else LIKELIHOOD
    varied = [k for k in report.keys if k != "dataset" and len({str(cell.settings[k]) for cell in cells}) > 1]
    options = [
        Option(cell, {k: cell.settings[k] for k in varied}, tuple(metric(cell, column) for column in criteria))
        for cell in cells
    ]
    by_class = any(o.standing == "ok" and o.draws_class for o in options)
    compared = [
        i for i, o in enumerate(options) if o.trained and o.scored and (o.given_label or not by_class)
    ]  # fmt: skip
    eligible = [i for i in compared if options[i].standing == "ok" and (options[i].draws_class or not by_class)]
    front: list[int] = []
    pick, chosen = None, {}
    if eligible:
        centre, spread, n = _statistics([options[i] for i in compared], list(criteria))
        mask = np.isin(compared, eligible)
        found = choose(centre, mask)
        pick = None if found is None else compared[found]
        chosen = {None if k is None else compared[k]: s for k, s in shares(centre, spread, n, mask).items()}
        if len(criteria) == 2:
            front = [compared[i] for i in pareto_front(centre)]
    name = str(report.datasets[dataset_hash]["name"])
    advice = Advice(name, criteria, options, compared, eligible, front, pick, chosen, "", [], _avoid(options, by_class))
    verdict, reasons = _words(advice, report)
    if len(judges) > 1:
        reasons.append("The samples were judged by different classifiers, so their FFD cannot be compared.")
    return Advice(**{**vars(advice), "verdict": verdict, "reasons": reasons})


def _statistics(options: Sequence[Option], columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, their standard errors and the numbers of runs, (settings, errors); two errors in logarithms.

    The standard error of the logarithm of a mean is that of the mean over the mean, to first order.
    """
    values = [[np.array(o.cell.values(column)) for column in columns] for o in options]
    mean = np.array([[v.mean() for v in row] for row in values])
    error = np.array([[v.std(ddof=1) / math.sqrt(v.size) if v.size > 1 else 0.0 for v in row] for row in values])
    n = np.array([[v.size for v in row] for row in values])
    return (np.log(mean), error / mean, n) if len(columns) == 2 else (mean, error, n)


# ---------------------------------------------------------------------------------------------- in words


def _words(advice: Advice, report: Report) -> tuple[str, list[str]]:
    """The verdict, and the sentences that go with it."""
    options, shares_, pick = advice.options, advice.shares, advice.pick
    if not advice.eligible:
        return _nothing(advice), []
    if len(options) == 1:
        return "One setting was run, so there is nothing to choose from.", [f"It has {_figures(advice, 0)}."]
    unscored = [o for o in options if o.trained and not o.scored]
    notes = [f"{_settings(len(unscored))} without scores left out."] if unscored else []
    if len(advice.criteria) == 1:
        notes.insert(0, "Without comparable scores of samples this goes by the ELBO, and says nothing of how they look.")

    if len(advice.eligible) == 1:
        i = advice.eligible[0]
        verdict = f"Take {options[i].name}: no other setting is mostly ok" + (
            " and draws the class asked for." if any(o.standing == "ok" for j, o in enumerate(options) if j != i) else "."
        )
        return verdict, [f"It has {_figures(advice, i)}.", *_alternatives(advice, i), *notes]

    decisive = {*advice.front, *([] if pick is None else [pick])} if advice.front else set(advice.eligible)
    if single := [i for i in sorted(decisive) if min(s.n for s in options[i].scores) < 2]:
        where = "the settings have" if len(single) == len(decisive) else f"{_named(advice, single)} has"
        verdict = f"Undecided: {where} one seed each, which gives no interval."
        means = f"By the single values it would be {options[pick].name}: {_figures(advice, pick)}." if pick is not None else (
            "By the single values none is a compromise between the others."
        )
        return verdict, [means, "Run at least 3 seeds a setting.", *_alternatives(advice, pick), *notes]

    if pick is None:
        verdict = "Undecided: no setting is a compromise better than the line between the extremes, so choose by the use."
        between = report.main if report.main and report.is_number(report.main) and report.main in options[0].settings else None
        hint = [f"Values of {short(between)} in between may show one."] if between else []
        return verdict, [*_alternatives(advice, None), *hint, *notes]

    share = shares_.get(pick, 0.0)
    if share >= CONFIDENCE:
        why = f"It is {_reason(advice, pick)}, in {_percent(share)} of draws within the noise of the seeds."
        figures = _figures(advice, pick, relative=True)
        return f"Take {options[pick].name}: {figures}.", [why, *_alternatives(advice, pick), *notes]

    likely = [i for i, s in shares_.items() if s >= 1 - CONFIDENCE or i == pick]
    shown = [f"{'no knee at all' if i is None else options[i].name} ({_percent(shares_.get(i, 0.0))})" for i in likely[:LISTED]]
    more = f" or {len(likely) - LISTED} more" if len(likely) > LISTED else ""
    verdict = f"Undecided between {', '.join(shown[:-1])} and {shown[-1]}{more}."
    rivals = [i for i in likely if i is not None]
    details = [f"{options[i].name} has {_figures(advice, i)}." for i in rivals[:LISTED]]
    details.append("In brackets: how often each is the choice within the noise of the seeds.")
    if len(rivals) > 1:
        alike = all(
            _overlap(a, b) for i in rivals for a, b in zip(options[pick].scores, options[i].scores, strict=True)
        )
        names = " or ".join(advice.criteria.values())
        details.append(
            f"Their intervals overlap, so by {names} any of them will do."
            if alike
            else "They do differ: it is the choice between them that the seeds leave open."
        )
    details.append("More seeds decide it: four times as many halve the intervals.")
    return verdict, [*details, *_alternatives(advice, pick), *notes]


def _nothing(advice: Advice) -> str:
    """Why there is no advice."""
    options = advice.options
    if not any(o.cell.usable for o in options):
        return "Nothing to recommend: no run has usable numbers."
    if any(o.standing == "ok" for o in options):
        return "Nothing to recommend: no setting that is mostly ok has the scores to compare it by."
    return f"Nothing to recommend: none of {_settings(len(options))} is ok in most of its runs."


def _settings(n: int) -> str:
    return f"{n} setting" + "s" * (n != 1)


def _named(advice: Advice, indices: Sequence[int]) -> str:
    names = [advice.options[i].name for i in indices[:LISTED]]
    more = f" and {len(indices) - LISTED} more" if len(indices) > LISTED else ""
    return "; ".join(names) + more


def _percent(share: float) -> str:
    """Rounded down, so that 95 % is no less."""
    return f"{math.floor(100 * share + 1e-9)} %"


def _overlap(a: Interval, b: Interval) -> bool:
    return a.low <= b.high and b.low <= a.high


def _least(advice: Advice, k: int, among: Sequence[int]) -> int:
    """The setting of the least k-th error."""
    return min(among, key=lambda i: advice.options[i].scores[k].mean)


def _reason(advice: Advice, pick: int) -> str:
    if len(advice.criteria) == 1:
        return f"the setting of the least {next(iter(advice.criteria.values()))}"
    if all(_least(advice, k, advice.eligible) == pick for k in range(2)):
        return "the best in both errors of the settings that can be recommended"
    return "the knee of the trade-off between reconstruction and samples"


def _figures(advice: Advice, i: int, relative: bool = False) -> str:
    """A setting's errors, against the least of those compared and the floor of FFD, and its failures."""
    option = advice.options[i]
    parts = []
    for k, (column, name) in enumerate(advice.criteria.items()):
        text, notes = f"{name} {interval(option.scores[k])}", []
        best = _least(advice, k, advice.compared)
        if relative and len(advice.criteria) == 2:
            notes.append(_above(option.scores[k].mean, advice.options[best]) if best != i else "the least")
            if column == "sample_ffd" and math.isfinite(floor := option.cell.mean("real_ffd")):
                notes.append(f"that of real images is {number(floor, 2)}")
        parts.append(text + (f" ({'; '.join(notes)})" if notes else ""))
    if relative and option.draws_class:
        parts.append(f"the class asked for in {option.cell.mean('sample_accuracy'):.0%} of samples".replace("%", " %"))
    if failing := _rate(option.outcomes):
        parts.append(failing)
    return ", ".join(parts)


def _above(value: float, best: Option) -> str:
    """How much more than the least."""
    least = next(s.mean for s in best.scores if s.mean <= value)
    return f"{value / least:.1f} times the least" if value >= 2 * least else f"{100 * (value / least - 1):.0f} % above"


def _alternatives(advice: Advice, pick: int | None) -> list[str]:
    """What to take if one of the two errors is all that matters."""
    if len(advice.criteria) == 1:
        return []
    found = []
    for k, among, what in ((1, advice.eligible, "samples"), (0, advice.compared, "reconstructions")):
        if (best := _least(advice, k, among)) != pick:
            found.append(f"If only {what} matter: {advice.options[best].name} ({_figures(advice, best)}).")
    return found


def _rate(outcomes: Counter[str]) -> str:
    """How many of the runs are not ok, by kind; empty if all are."""
    n = outcomes.total()
    kinds = [f"{fault} in {outcomes[fault]}" for fault in FAULTS if outcomes[fault]]
    return f"{' and '.join(kinds)} of {n} runs" if kinds else ""


def _avoid(options: Sequence[Option], by_class: bool) -> list[str]:
    """A sentence for each way of failing: at which settings, and in how many of their runs."""
    faults = [_fault(o, by_class) for o in options]
    found = []
    for fault, what in FAULTS.items():
        groups = _groups(options, [f == fault for f in faults])
        if not groups:
            continue
        parts = []
        for name, members in groups[:LISTED]:
            if fault == "class":
                accuracy, judge = (
                    float(np.mean([o.cell.mean(column) for o in members]))
                    for column in ("sample_accuracy", "judge_accuracy")
                )
                parts.append(f"{name} ({100 * accuracy:.0f} % are, of real images {100 * judge:.0f} %)")
            else:
                outcomes = sum((o.outcomes for o in members), Counter[str]())
                count, n = outcomes[fault], outcomes.total()
                ends = wilson_interval(count, n)
                parts.append(f"{name} ({count} of {n} runs, {100 * ends.low:.0f}–{100 * ends.high:.0f} %)")
        more = sum(len(members) for _, members in groups[LISTED:])
        found.append(f"{what}: {'; '.join(parts)}{f'; and {_settings(more)} more' if more else ''}.")
    return found


def _fault(option: Option, by_class: bool) -> str | None:
    """Why a setting is to be avoided, None if it is not."""
    if option.standing != "ok":
        return option.standing
    return "class" if by_class and not option.draws_class else None


def _groups(options: Sequence[Option], hit: Sequence[bool]) -> list[tuple[str, list[Option]]]:
    """The hit options with a name each; as one where all options of a setting's value are hit. The largest first."""
    left = [o for o, h in zip(options, hit, strict=True) if h]
    if left and len(left) == len(options) > 1:
        return [("every setting", left)]
    groups: list[tuple[str, list[Option]]] = []
    for key in options[0].settings if len(options[0].settings) > 1 else ():
        for value in {str(o.settings[key]): o.settings[key] for o in options}.values():
            same = [o for o in options if o.settings[key] == value]
            if len(same) > 1 and all(o in left for o in same):
                groups.append((described({key: value}), same))
                left = [o for o in left if o not in same]
    groups += [(o.name, [o]) for o in left]
    return sorted(groups, key=lambda group: -len(group[1]))
