"""The criteria of the studies' claims (conf/claims/*.yaml), applied to reports: values in, verdicts out.

A criterion is a list of conditions, all of which must be met. A condition has one predicate and says of which runs:

    mean_within   {what, column, low, high}             the mean over seeds, with its interval, lies in the range
    about         {what, column, published, within}     the same for a published figure and the share of it allowed
    rate_above    {what, outcomes | condition, share}   the share of runs exceeds this, with Wilson's interval
    rate_all      {what, outcomes | condition}          all runs
    rate_some     {what, outcomes | condition}          at least one run
    rate_mixed    {what, outcomes | condition}          some runs, but not all
    equivalent    {columns: [{what, column, within, unit}]}   two one-sided tests at 5 % (Schuirmann 1987)
    differs       {what, column, unit, sign}            the difference, paired by seed, is `more` or `less` than 0
    arithmetic    {what, product, over, published}    of no runs: a ratio of numbers
    show          {what, column | outcomes}             a figure beside the verdict
    all_of, any_of: [conditions]

A column is an expression of columns, `test_sse / (2 * x_var)`; `select` says which it adds. A difference has the unit
`%` (of the first value), `points` (100 times the difference of two shares) or that of the column.

    of:    {runs, where, data, changing, reference, least, outcomes, pooled}   each of these settings; see `select`
    pairs: {runs, from, to, match, steps}                               each of these pairs; see `pairs`
    quantifier: some                                                    in one of them at least, instead of in each

Verdicts have three values: met, not met, open. A condition with an interval is open unless the whole interval says so;
one run has no interval. rate_all, rate_some and rate_mixed count the runs themselves, whatever the rate's interval.
Runs that are missing leave it open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.frame import Cell, Report, changed
from experiments.keys import is_number, same
from experiments.outcome import JUDGED
from experiments.statistics import CONFIDENCE, Interval, mean_interval, wilson_interval
from experiments.wording import described
from vae import bugs

Met = bool | None  # None: open
Reports = Mapping[str, Report]
ABOUT = 0.2  # a published figure that is said to be approximate is met within a fifth of it
PREDICATES = ("mean_within", "about", "rate_above", "rate_all", "rate_some", "rate_mixed", "equivalent", "differs",
              "arithmetic", "show")  # fmt: skip
NOTHING = Interval(math.nan, math.nan, math.nan, 0)


class Missing(LookupError):
    """Runs that a condition needs and that are not there; the message says which."""


@dataclass(frozen=True)
class Check:
    """One figure of a condition.

    Attributes:
        predicate: its name; `missing` if there are no runs.
        what: the name of the figure; for `missing` the reason.
        where: the setting, or what differs between the two that are compared, in words.
        value: the figure; a difference in its unit.
        needs: what the criterion says about it.
        met: whether it is met.
        lost, n: how many of the n runs have no numbers.
        report: the name of the report that the runs are from; empty if they are from several, or there are none.
    """

    predicate: str
    what: str
    where: str = ""
    value: Interval = NOTHING
    needs: Mapping[str, Any] | None = None
    met: Met = None
    lost: int = 0
    n: int = 0
    report: str = ""


def every(parts: Iterable[Met]) -> Met:
    """Kleene's conjunction; open if there are no parts."""
    found = list(parts)
    return False if False in found else None if None in found or not found else True


def some(parts: Iterable[Met]) -> Met:
    """Kleene's disjunction; open if there are no parts."""
    found = list(parts)
    return True if True in found else None if None in found or not found else False


def select(
    reports: Reports,
    runs: str | Sequence[str],
    where: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    changing: str = "",
    reference: bool = False,
    least: str = "",
    outcomes: Sequence[str] = (),
    pooled: bool = False,
) -> list[Cell]:
    """The runs of each setting that is asked for. Those whose code has a bug on purpose are left out.

    Their columns include `l_1` and `l_1_within`, the largest eigenvalues of the training data, and
    `variance_as_std_kl` and `variance_as_std_sse`, the closed form of the run's settings with that bug (vae/bugs.py).

    Args:
        runs: names of reports.
        where: settings by dotted name: a value, {at_least: value} or {below: value}. Runs with a bug need `bug.kind`.
        data: facts that the data must have.
        changing: only settings that change this one of the reference (or settings below it, `model`), and no other.
        reference: only the sweep's first setting; with `changing` that one too.
        least: only the setting with the smallest mean of this column.
        outcomes: only runs with one of these outcomes, of the settings that have such runs.
        pooled: all runs in one group.

    Raises:
        Missing: if there are none with numbers, or the data are others.
    """
    names = [runs] if isinstance(runs, str) else runs
    found: list[Cell] = []
    for name in names:
        if name not in reports:
            raise Missing(f"the report {name} is missing")
        report = reports[name]
        for facts in report.datasets.values():
            if any(facts[key] != value for key, value in (data or {}).items()):
                raise Missing(f"the study's figures are for other images than {facts['name']}")
        first = report.cells[0]
        for cell in report.cells:
            if changing or reference:
                keys = changed(cell, first)
                own = changing and all(k == changing or k.startswith(f"{changing}.") for k in keys)
                if not (own if keys else reference):
                    continue
            if "bug.kind" not in (where or {}) and _setting(cell, "bug.kind") not in (None, "none"):
                continue
            if all(_fits(_setting(cell, key), value) for key, value in (where or {}).items()):
                found.append(replace(cell, runs=_with_facts(cell.runs, report)))
    if outcomes:
        own = [replace(c, runs=c.runs[c.runs["outcome"].isin(outcomes) | ~c.runs["usable"]]) for c in found]
        found = own if pooled else [cell for cell in own if len(cell.usable)]
    if least and found:
        found = [min((c for c in found if len(c.usable)), key=lambda c: c.mean(least), default=found[0])]
    if not any(len(cell.usable) for cell in found):
        wanted = ["no", " or ".join(outcomes), "runs", f"with {_wanted(where)}" if where else ""]
        raise Missing(f"{' and '.join(names)}: {' '.join(filter(None, wanted))}")
    return [Cell({}, {}, pd.concat([cell.runs for cell in found]))] if pooled else found


def _setting(cell: Cell, column: str) -> Any:
    """The value of a setting, or of a number that is the same in all runs of a setting."""
    known = cell.runs.get(column, pd.Series(dtype=float)).dropna()
    return known.iloc[0] if len(known) else None


def _with_facts(runs: pd.DataFrame, report: Report) -> pd.DataFrame:
    """With what the data say of each run; see `select`."""
    facts = [report.datasets[content] for content in runs["dataset_hash"]]
    forms = [_variance_as_std(run, own) for (_, run), own in zip(runs.iterrows(), facts, strict=True)]
    return runs.assign(
        l_1=[f["eigenvalues"][0] for f in facts],
        l_1_within=[f["eigenvalues_within"][0] for f in facts],
        variance_as_std_kl=[kl for kl, _ in forms],
        variance_as_std_sse=[sse for _, sse in forms],
    )


def _variance_as_std(run: pd.Series, facts: Mapping[str, Any]) -> tuple[float, float]:
    """KL, as such code prints it, and SSE of the closed form; NaN where there is none."""
    t, placement = run.get("effective_x_var", math.nan), run["label_placement.kind"]
    if placement == "decoder" or not math.isfinite(t):
        return math.nan, math.nan
    spectrum = facts["eigenvalues_within" if placement == "both" else "eigenvalues"]
    found = bugs.optimum("variance_as_std", bugs.Loss(spectrum, t, int(run["z_dim"])))
    return found.printed_kl, found.sse


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return is_number(value) and wanted.get("at_least", -math.inf) <= value < wanted.get("below", math.inf)
    return same(value, wanted)


def _wanted(where: Mapping[str, Any]) -> str:
    """The settings in words: `x_var 0.1`, `epochs at least 20`."""
    texts = {
        k: " ".join(f"{word.replace('_', ' ')} {n:g}" for word, n in v.items()) if isinstance(v, Mapping) else v
        for k, v in where.items()
    }
    return described(texts)


def pairs(reports: Reports, spec: Mapping[str, Any]) -> list[tuple[Cell, Cell]]:
    """The settings that are compared: each of `to` with each of `from`, and none with itself.

    With `match`, only those in which this setting, or number, is the same. With `steps`, neighbours in the order of
    this setting.

    Raises:
        Missing: if there are none.
    """
    own = {"runs": spec["runs"]} if "runs" in spec else {}
    if key := spec.get("steps"):
        cells = [cell for cell in select(reports, **own) if len(cell.usable) and is_number(_setting(cell, key))]
        found = list(itertools.pairwise(sorted(cells, key=lambda cell: _setting(cell, key))))
    else:
        first, second = (select(reports, **own | spec[end]) for end in ("from", "to"))
        match = spec.get("match")
        found = [
            (a, b)
            for b in second
            for a in first
            if not a.runs.index.equals(b.runs.index) and (not match or same(_setting(a, match), _setting(b, match)))
        ]
    if not found:
        raise Missing("there are no runs to compare")
    return found


def changes(pair: tuple[Cell, Cell], column: str, unit: str) -> pd.Series:
    """The second setting's value less the first's for each seed that both have, in the unit."""
    first, second = (cell.values(column) for cell in pair)
    a, b = first.align(second, join="inner")
    found = {"%": 100 * (b / a - 1), "points": 100 * (b - a)}.get(unit, b - a)
    return found[np.isfinite(found)]


# ---------------------------------------------------------------------------------------------- predicates


def within(value: Interval, low: float, high: float) -> Met:
    """Whether the interval lies inside [low, high] (True) or outside (False)."""
    if value.n < 2:
        return None
    return True if low <= value.low and value.high <= high else False if value.high < low or value.low > high else None


def is_equivalent(values: Collection[float], margin: float) -> Met:
    """Whether paired differences are equivalent to none: two one-sided tests at 5 % (Schuirmann 1987).

    Returns:
        True if the 90 % interval lies inside ±margin, False if the 95 % interval lies outside, else None.
    """
    if within(mean_interval(values, 2 * CONFIDENCE - 1), -margin, margin):
        return True
    return False if within(mean_interval(values), -margin, margin) is False else None


def measured(predicate: str, subject: Any, needs: Mapping[str, Any]) -> tuple[Interval, Met]:
    """The figure of a predicate and whether it is met.

    Args:
        subject: a setting; for `equivalent` and `differs` a pair of them; for `arithmetic` nothing.
        needs: what the criterion says.
    """
    published, share = needs.get("published", math.nan), needs.get("within", ABOUT)
    around = published * (1 - share), published * (1 + share)
    if predicate == "equivalent":
        values = changes(subject, needs["column"], needs["unit"])
        return mean_interval(values), is_equivalent(values, needs["within"])
    if predicate == "differs":
        value = mean_interval(changes(subject, needs["column"], needs["unit"]))
        return value, (value.mean > 0) == (needs["sign"] == "more") if value.excludes_zero else None
    if predicate == "arithmetic":
        value = math.prod(needs["product"]) / needs["over"]
        return Interval(value, value, value, 1), around[0] <= value <= around[1]
    if "column" in needs:
        value = mean_interval(subject.values(needs["column"]))
        ends = around if predicate == "about" else (needs.get("low", -math.inf), needs.get("high", math.inf))
        return value, None if predicate == "show" else within(value, *ends)
    if "outcomes" in needs:
        rate = subject.rate(*needs["outcomes"])
        if _of_all_runs(needs):
            rate = wilson_interval(subject.count(*needs["outcomes"]), len(subject.runs))
    else:
        rate = wilson_interval(int(subject.values(needs["condition"]).sum()), len(subject.usable))
    if predicate == "rate_above":
        return rate, True if rate.low > needs["share"] else False if rate.high < needs["share"] else None
    if predicate == "rate_all":  # a majority of a few runs leaves it open, either way
        return rate, {0.0: False, 1.0: True}.get(rate.mean) if rate.n > 1 else None
    if predicate == "rate_some":
        return rate, rate.mean > 0 if rate.n else None
    if predicate == "rate_mixed":  # where all do, more runs might show one that does not
        return rate, rate.mean > 0 if rate.n and rate.mean < 1 else None
    return rate, None


def _of_all_runs(needs: Mapping[str, Any]) -> bool:
    """Whether a figure is a share of all runs: that of an outcome of runs without numbers."""
    return not set(needs.get("outcomes", ())) <= set(JUDGED)


def judged(condition: Mapping[str, Any], reports: Reports) -> tuple[Met, list[Check]]:
    """Whether a condition is met, and its figures."""
    for word, combined in (("all_of", every), ("any_of", some)):
        if word in condition:
            parts = [judged(part, reports) for part in condition[word]]
            return combined(met for met, _ in parts), [check for _, checks in parts for check in checks]
    predicate, needs = next((key, condition[key]) for key in condition if key in PREDICATES)
    try:
        if "pairs" in condition:
            subjects: Sequence[Any] = pairs(reports, condition["pairs"])
        else:
            subjects = select(reports, **condition["of"]) if "of" in condition else [None]
    except Missing as e:
        return None, [Check("missing", str(e))]
    runs = {**condition.get("pairs", {}), **condition.get("of", {})}.get("runs")
    report = runs if isinstance(runs, str) else ""
    found = [[replace(c, report=report) for c in _checks(predicate, subject, needs)] for subject in subjects]
    combined = some if condition.get("quantifier") == "some" else every
    return combined(every(c.met for c in checks) for checks in found), [c for checks in found for c in checks]


def _in_words(cells: Sequence[Cell]) -> str:
    """`x_var 0.1`; of two what both have, and what differs: `label_repeat 5: label_placement both → decoder`."""
    first, last = (cells[i].settings if cells else {} for i in (0, -1))
    differ = [key for key in first if key in last and not same(first[key], last[key])]
    common = described({key: value for key, value in first.items() if key in last and key not in differ})
    ends = " → ".join(described({key: own[key] for key in differ}) for own in (first, last) if differ)
    return ": ".join(filter(None, (common, ends)))


def _checks(predicate: str, subject: Any, needs: Mapping[str, Any]) -> list[Check]:
    cells: Sequence[Cell] = subject if isinstance(subject, tuple) else [subject] if subject else []
    where, runs = _in_words(cells), cells[-1].runs if cells else pd.DataFrame({"usable": []})
    n, usable = len(runs), int(runs["usable"].sum())
    checks = []
    for own in needs.get("columns", [needs]):
        value, met = measured(predicate, subject, own)
        lost = 0 if _of_all_runs(own) else n - usable
        checks.append(Check(predicate, own["what"], where, value, own, met, lost, n))
    if predicate != "equivalent":
        return checks
    checks = [c for c in checks if c.value.n]  # data without labels have no class in their samples
    if usable < n or not checks:  # a run that diverged is a difference; one that failed or is missing says nothing
        met = False if (runs["outcome"] == "diverged").any() else None
        checks.append(Check("rate_all", "runs with numbers", where, wilson_interval(usable, n), {}, met))
    return checks
