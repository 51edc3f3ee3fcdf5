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
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from experiments.report import Cell, Report, Run, described, short
from experiments.statistics import CONFIDENCE, Interval, wilson_interval
from experiments.tables import interval, metric, number
from vae.status import HOLE_ACCURACY

TRADE_OFF = {"test_sse": "SSE", "sample_ffd": "sample FFD"}
LIKELIHOOD = {"test_bits_per_dim": "bits per dimension"}  # where samples have no scores
DRAWS = 2000  # so that a share of 95 % is known to half a per cent
LISTED = 3  # settings named in one sentence

# What is said of settings to avoid, the worst first. A run that is not finished is no failure of its setting.
FAULTS = {
    "failed": "Failed (an error)",
    "diverged": "Diverged (no usable numbers)",
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
        eligible: (settings,), which of them may be picked. The others still make the front and its ends, unless one
            point beats all: then the eligible ones have a front of their own.

    Returns:
        Its index. A point that beats all other eligible ones needs no chord.
    """
    own = np.flatnonzero(eligible)
    own = own[pareto_front(points[own])]
    if len(own) < 2:
        return int(own[0]) if len(own) else None
    front = pareto_front(points)
    ends = points[front if len(front) > 1 else own]
    low, high = ends.min(axis=0), ends.max(axis=0)
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
        return Counter(found for run in self.cell.runs if (found := outcome(run)) is not None)

    @cached_property
    def standing(self) -> str | None:
        """`ok` if more than half of the runs are, `hole` if so many are that or ok, else what most others are."""
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
        """Whether the decoder is."""
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
        compared: indices of the options that make the front: trained, with scores, and with the label in the decoder
            where another setting draws the class asked for.
        eligible: indices of those of them that may be picked: mostly ok, and drawing the class where another does.
        front: indices on the Pareto front, by ascending SSE; empty without scores of samples.
        pick: index of the choice by the means alone, None where there is none.
        shares: how often each index is the choice within the noise of the seeds.
        avoid: the settings that fail, a sentence for each way of failing.
        recommended: whether the pick is the advice.
        verdict: the advice in a sentence.
        reasons: the figures behind it.
        alternatives: what to take if one of the two errors is all that matters.
    """

    dataset: str
    criteria: dict[str, str]
    options: list[Option]
    compared: list[int]
    eligible: list[int]
    front: list[int]
    pick: int | None
    shares: dict[int | None, float]
    avoid: list[str]
    recommended: bool = False
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


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
    compared = [i for i, o in enumerate(options) if o.trained and o.scored and (o.given_label or not by_class)]
    eligible = [i for i in compared if options[i].standing == "ok" and (options[i].draws_class or not by_class)]
    front: list[int] = []
    pick, found = None, {}
    if eligible:
        centre, error, n = _statistics([options[i] for i in compared], list(criteria))
        mask = np.isin(compared, eligible)
        at = choose(centre, mask)
        pick = None if at is None else compared[at]
        found = {None if at is None else compared[at]: s for at, s in shares(centre, error, n, mask).items()}
        if len(criteria) == 2:
            front = [compared[i] for i in pareto_front(centre)]
    name = str(report.datasets[dataset_hash]["name"])
    advice = Advice(name, criteria, options, compared, eligible, front, pick, found, _avoid(options, by_class))
    recommended, verdict, reasons = _words(advice, report.main)
    if len(judges) > 1:
        reasons.append("The samples were judged by different classifiers: their FFD cannot be compared.")
    elif not judges and runs:
        reasons.append("No samples were scored.")
    if len(criteria) == 1 and eligible and len(options) > 1:
        reasons.append("So this goes by the ELBO, and says nothing of how samples look.")
    if unscored := [o for o in options if o.trained and not o.scored]:
        reasons.append(f"Without scores, and so left out: {_settings(len(unscored))}.")
    return replace(
        advice,
        recommended=recommended,
        verdict=verdict,
        reasons=tuple(reasons),
        alternatives=tuple(_alternatives(advice)),
    )


def finalists(advice: Advice) -> list[int]:
    """The choice and its runner-up: indices of at most two of the settings to choose from, the choice first.

    The choice is the pick, or where there is none the most frequent one in the redraws; the runner-up is the most
    frequent other one, or where no redraw has another, what the rule would choose if the choice were not there.
    """
    likely = [i for i in dict.fromkeys([advice.pick, *advice.shares]) if i is not None]
    left = [i for i in advice.eligible if i not in likely]
    if len(likely) < 2 and left:
        centre, _, _ = _statistics([advice.options[i] for i in advice.compared], list(advice.criteria))
        at = choose(centre, np.isin(advice.compared, left))
        likely += [left[0] if at is None else advice.compared[at]]
    return likely[:2]


def _statistics(options: Sequence[Option], columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, their standard errors and the numbers of runs, (settings, errors); of two errors in logarithms.

    The standard error of the logarithm of a mean is that of the mean over the mean, to first order.
    """
    values = [[np.array(o.cell.values(column)) for column in columns] for o in options]
    mean = np.array([[v.mean() for v in row] for row in values])
    error = np.array([[v.std(ddof=1) / math.sqrt(v.size) if v.size > 1 else 0.0 for v in row] for row in values])
    n = np.array([[v.size for v in row] for row in values])
    return (np.log(mean), error / mean, n) if len(columns) == 2 else (mean, error, n)


# ---------------------------------------------------------------------------------------------- in words


def _words(advice: Advice, main: str | None) -> tuple[bool, str, list[str]]:
    """Whether the pick is recommended, the verdict, and the sentences that go with it.

    Args:
        main: the report's setting on the x axis.
    """
    options, pick = advice.options, advice.pick
    if len(options) == 1:
        figures = [f"It has {_figures(advice, 0)}."] if options[0].cell.usable else []
        return False, "One setting was run, so there is nothing to choose from.", figures
    if not advice.eligible:
        return False, _nothing(options), []
    decisive = set(advice.front) if pick is None else {*advice.front, pick}
    if single := [i for i in advice.compared if i in decisive and min(s.n for s in options[i].scores) < 2]:
        return False, *_single_seeds(advice, single)
    if pick is None:
        rivals = [i for i in advice.front if i in advice.eligible]
        if len(rivals) > 1 and _alike(advice, rivals):
            names = ", ".join(options[i].name for i in rivals[:-1]) + f" and {options[rivals[-1]].name}"
            return False, f"Undecided between {names}.", [_any_will_do(advice)]
        numeric = main in options[0].settings and isinstance(options[0].settings[main], int | float)
        hint = [f"Values of {short(main)} between theirs may hold one."] if main and numeric else []
        verdict = "Undecided: the front has no knee, so that what the model is for has to decide."
        return False, verdict, hint
    if advice.shares.get(pick, 0.0) >= CONFIDENCE:
        return True, *_recommendation(advice, pick)
    return False, *_undecided(advice)


def _nothing(options: Sequence[Option]) -> str:
    """Why there is no advice."""
    if not any(o.cell.usable for o in options):
        return "Nothing to recommend: no run has usable numbers."
    if any(o.standing == "ok" for o in options):
        return "Nothing to recommend: no setting that trains has scores to compare it by."
    return f"Nothing to recommend: none of {_settings(len(options))} is ok in most of its runs."


def _single_seeds(advice: Advice, single: Sequence[int]) -> tuple[str, list[str]]:
    names = ", ".join(advice.options[i].name for i in single[:LISTED])
    more = f" and {len(single) - LISTED} more" if len(single) > LISTED else ""
    verdict = f"Undecided: one run gives no interval, and there is but one at {names}{more}."
    if advice.pick is None:
        means = "By the single values the front has no knee."
    else:
        name = advice.options[advice.pick].name
        means = f"By the single values it would be {name} ({_figures(advice, advice.pick)})."
    return verdict, [means, "At least 3 seeds a setting would tell."]


def _recommendation(advice: Advice, pick: int) -> tuple[str, list[str]]:
    option = advice.options[pick]
    sure = f"so it is in {percent(advice.shares[pick])} of redraws of the means within the noise of the seeds"
    verdict = f"Take {option.name}: {_figures(advice, pick)}."
    if len(advice.eligible) == 1:
        condition = "mostly ok" + (" and draws the class asked for" if option.draws_class else "")
        why = f"It alone is {condition}."
    elif len(advice.criteria) == 1:
        why = f"It has the least {next(iter(advice.criteria.values()))}; {sure}."
    elif all(_least(advice, k, advice.eligible) == pick for k in range(2)):
        why = f"It is the best in both errors of the settings to choose from; {sure}."
    else:
        why = f"It is the knee of the trade-off between reconstructions and samples; {sure}."
    return verdict, [why, *_compared(advice, pick)]


def _undecided(advice: Advice) -> tuple[str, list[str]]:
    options = advice.options
    likely = list(advice.shares)[: max(2, sum(share >= 1 - CONFIDENCE for share in advice.shares.values()))]
    names = [
        f"{'no knee at all' if i is None else options[i].name} ({percent(advice.shares[i])})" for i in likely[:LISTED]
    ]
    more = f", or {len(likely) - LISTED} more" if len(likely) > LISTED else ""
    verdict = f"Undecided between {', '.join(names[:-1])} and {names[-1]}{more}."
    rivals = [i for i in likely if i is not None]
    reasons = ["In brackets: how often each is the choice in redraws of the means within the noise of the seeds."]
    reasons += [f"{options[i].name} has {_figures(advice, i)}." for i in rivals[:LISTED]]
    if len(rivals) > 1:
        differ = "Their intervals do not all overlap: they differ, and which of them is the choice is open."
        reasons.append(_any_will_do(advice) if _alike(advice, rivals) else differ)
    reasons.append("More seeds decide it: four times as many halve the intervals.")
    return verdict, reasons


def line(advices: Sequence[Advice]) -> str:
    """The verdicts in one line, for the index."""
    return " ".join(f"On {a.dataset}: {a.verdict}" if len(advices) > 1 else a.verdict for a in advices)


def _settings(n: int) -> str:
    return f"{n} setting" + "s" * (n != 1)


def percent(share: float) -> str:
    """Rounded down, so that 95 % is no less."""
    return f"{math.floor(100 * share + 1e-9)} %"


def _alike(advice: Advice, indices: Sequence[int]) -> bool:
    """Whether the intervals of these settings have a common point, in each error."""
    scores = zip(*(advice.options[i].scores for i in indices), strict=True)
    return all(max(s.low for s in found) <= min(s.high for s in found) for found in scores)


def _any_will_do(advice: Advice) -> str:
    return f"Their intervals overlap in {' and in '.join(advice.criteria.values())}, so by these any of them will do."


def _least(advice: Advice, k: int, among: Sequence[int]) -> int:
    """The setting of the least k-th error."""
    return min(among, key=lambda i: advice.options[i].scores[k].mean)


def _figures(advice: Advice, i: int) -> str:
    """A setting's errors and its failures."""
    option = advice.options[i]
    scores = zip(advice.criteria.values(), option.scores, strict=True)
    parts = [f"{name} {interval(score)}" for name, score in scores]
    if kinds := [f"{fault} in {option.outcomes[fault]}" for fault in FAULTS if option.outcomes[fault]]:
        parts.append(f"{' and '.join(kinds)} of {option.outcomes.total()} runs")
    return ", ".join(parts)


def _compared(advice: Advice, pick: int) -> list[str]:
    """The pick's errors against the least of each, and its samples against real images."""
    option, parts = advice.options[pick], []
    if len(advice.criteria) == 1:
        return []
    for k, name in enumerate(advice.criteria.values()):
        best = advice.options[_least(advice, k, advice.compared)]
        ratio = option.scores[k].mean / best.scores[k].mean
        much = f"{ratio:.1f} times" if ratio >= 2 else f"{100 * (ratio - 1):.0f} % above"
        parts.append(f"its {name} is {'the least' if best is option else f'{much} the least ({best.name})'}")
    text = " and ".join(parts)
    if math.isfinite(floor := option.cell.mean("real_ffd")):
        text += f"; real images have FFD {number(floor, 2)}"
    found = [text[0].upper() + text[1:] + "."]
    if option.draws_class:
        accuracy, judge = (100 * option.cell.mean(column) for column in ("sample_accuracy", "judge_accuracy"))
        found.append(
            f"The judge sees the class asked for in {accuracy:.0f} % of its samples, in {judge:.0f} % of real images."
        )
    return found


def _alternatives(advice: Advice) -> list[str]:
    """What to take if one of the two errors is all that matters."""
    found = []
    if len(advice.criteria) == 1 or len(advice.options) == 1 or not advice.eligible:
        return found
    for k, among, what in ((1, advice.eligible, "samples"), (0, advice.compared, "reconstructions")):
        if (best := _least(advice, k, among)) != advice.pick:
            found.append(f"If only {what} matter: {advice.options[best].name} ({_figures(advice, best)}).")
    return found


def _avoid(options: Sequence[Option], by_class: bool) -> list[str]:
    """A sentence for each way of failing: at which settings, and in how many of their runs."""
    faults = [_fault(o, by_class) for o in options]
    found = []
    for fault, what in FAULTS.items():
        # A setting's value all of whose options are to be avoided can be named for the one fault of their samples.
        others = [fault == "class" and f not in ("ok", None) for f in faults]
        groups = _groups(options, [f == fault for f in faults], others)
        parts = [f"{name} ({_how_often(members, fault)})" for name, members in groups[:LISTED]]
        if more := sum(len(members) for _, members in groups[LISTED:]):
            parts.append(f"and {_settings(more)} more")
        if parts:
            found.append(f"{what}: {'; '.join(parts)}.")
    return found


def _fault(option: Option, by_class: bool) -> str | None:
    """Why a setting is to be avoided; None or ok if it is not."""
    return "class" if option.standing == "ok" and by_class and not option.draws_class else option.standing


def _how_often(options: Sequence[Option], fault: str) -> str:
    if fault == "class":
        columns = ("sample_accuracy", "judge_accuracy")
        accuracy, judge = (100 * sum(o.cell.mean(c) for o in options) / len(options) for c in columns)
        return f"{accuracy:.0f} % are, of real images {judge:.0f} %" if math.isfinite(accuracy) else "not scored"
    outcomes = sum((o.outcomes for o in options), Counter[str]())
    count, n = outcomes[fault], outcomes.total()
    ends = wilson_interval(count, n)
    return f"{count} of {n} runs, {100 * ends.low:.0f}–{100 * ends.high:.0f} %"


def _groups(options: Sequence[Option], hit: Sequence[bool], others: Sequence[bool]) -> list[tuple[str, list[Option]]]:
    """The hit options by name, the most first: those of one value of a setting together where all of them are hit.

    Args:
        others: options that do not stand in the way of that though they are not hit.
    """
    aside = [o for o, other in zip(options, others, strict=True) if other]
    left = [o for o, h in zip(options, hit, strict=True) if h]
    if len(left) == len(options) > 1:
        return [("every setting", left)]
    groups: list[tuple[str, list[Option]]] = []
    keys = options[0].settings
    for key in keys if len(keys) > 1 else ():
        for value in {str(o.settings[key]): o.settings[key] for o in options}.values():
            same = [o for o in options if o.settings[key] == value]
            own = [o for o in same if o in left]
            if len(own) > 1 and all(o in left or o in aside for o in same):
                groups.append((described({key: value}), own))
                left = [o for o in left if o not in own]
    groups += [(o.name, [o]) for o in left]
    return sorted(groups, key=lambda group: -len(group[1]))
