"""The claims report: each claim of the two studies against runs of this project.

    python -m experiments.claims [dataset=A,B] [setting=value ...]

trains what is missing of the experiments that the claims need, study A's on the dataset A and study B's on B, and
writes outputs/reports/claims/report.md. A claim's criterion stands in `CLAIMS` beside the code that applies it, and in
outputs/README.md, "Claims"; both were written before these runs. Imports no torch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from experiments.collect import index
from experiments.launch.cli import USAGE, rewrite
from experiments.launch.grid import plain_text
from experiments.report import Cell, Report, ReportError, Run, described, read, reports, reports_dir
from experiments.statistics import CONFIDENCE, Interval, mean_interval, wilson_interval
from experiments.store import write_atomic, write_json
from experiments.tables import Rate, changed, escape, interval, metric, number, rate, same, shown, signed, study_theory
from vae.status import HOLE_ACCURACY

MARGIN = 0.10  # "does not matter": SSE and KL change by less than a tenth,
ACCURACY_MARGIN = 0.05  # and the share of samples of the class asked for by less than 5 points
ABOUT = 0.20  # a published figure that is said to be approximate is met within a fifth
EMBEDDED = ["mnist_5k", "photos"]  # the data of study A and study B that need no files
CIFAR10 = {"image_shape": [3, 32, 32], "n_train": 50_000, "n_classes": 10}

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"


# ---------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Part:
    """One thing that must be so for a claim to hold: a sentence with its figures, and whether it is (None: open)."""

    text: str
    met: bool | None


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim.

    Attributes:
        parts: all must be met for the claim to hold; one that is not met refutes it.
        also: figures beside the criterion.
        theory: the closed form's word, where it has one.
        study: what the study probably did, where our figures say so.
    """

    parts: list[Part]
    also: str = ""
    theory: str = ""
    study: str = ""

    @property
    def verdict(self) -> str:
        return {True: HOLDS, False: FAILS, None: OPEN}[both(part.met for part in self.parts)]


def mostly(count: int, n: int) -> bool | None:
    """Whether more than half: True or False where Wilson's interval lies on one side of a half."""
    ends = wilson_interval(count, n)
    return True if ends.low > 0.5 else False if ends.high < 0.5 else None


def within(value: Interval, low: float, high: float) -> bool | None:
    """Whether the interval lies inside [low, high] (True) or outside (False); one value has none, and tells nothing."""
    if value.n < 2:
        return None
    return True if low <= value.low and value.high <= high else False if value.high < low or value.low > high else None


def about(value: Interval, published: float) -> bool | None:
    """Whether a published figure is met within ABOUT."""
    return within(value, published * (1 - ABOUT), published * (1 + ABOUT))


def changes(first: Cell, second: Cell, column: str, *, relative: bool) -> list[float]:
    """Seed by seed, the second cell's value less the first's, or over the first's value less 1."""
    a, b = ({run.seed: run.value(column) for run in cell.usable} for cell in (first, second))
    pairs = [(a[s], b[s]) for s in a if math.isfinite(a[s] - b.get(s, math.nan))]
    return [y / x - 1 if relative else y - x for x, y in pairs]


def equivalent(values: Sequence[float], margin: float) -> bool | None:
    """Whether paired differences are equivalent to none: two one-sided tests at 5 % (Schuirmann 1987).

    Returns:
        True if the 90 % interval lies inside ±margin, False if the 95 % interval lies outside, else None.
    """
    if within(mean_interval(values, 2 * CONFIDENCE - 1), -margin, margin):
        return True
    return False if within(mean_interval(values), -margin, margin) is False else None


def both(parts: Iterable[bool | None]) -> bool | None:
    """True if all are, False if one is not, else None."""
    found = list(parts)
    return False if False in found else None if None in found or not found else True


def unchanged(name: str, first: Cell, second: Cell) -> Part:
    """Whether a setting does not matter: SSE, KL and the class of the samples are equivalent."""
    texts, met = [], []
    for column, what, margin in (
        ("test_sse", "SSE", MARGIN),
        ("test_kl", "KL", MARGIN),
        ("sample_accuracy", "class seen in samples", ACCURACY_MARGIN),
    ):
        relative = column != "sample_accuracy"
        values = changes(first, second, column, relative=relative)
        if not values:
            continue
        change = mean_interval(100 * v for v in values)
        met.append(equivalent(values, margin))
        word = {True: "equivalent", False: "different", None: "open"}[met[-1]]
        texts.append(f"{what} {signed(change)} {'%' if relative else 'points'} ({word})")
    health = [sum(run.health != "ok" for run in cell.usable) for cell in (first, second)]
    ill = f"; {health[1]} of {len(second.usable)} runs not ok" if health[1] > health[0] else ""
    missing = len(second.runs) - len(second.usable)
    lost = f"; {missing} of {len(second.runs)} runs without numbers" if missing else ""
    return Part(f"{name}: {', '.join(texts) or 'no runs to compare'}{ill}{lost}", False if missing else both(met))


def differs(name: str, values: Sequence[float], unit: str, *, rises: bool) -> Part:
    """Whether a paired difference has the sign claimed."""
    change = mean_interval(values)
    met = None if not change.excludes_zero else (change.mean > 0) == rises
    return Part(f"{name} {signed(change)}{unit}", met)


# ---------------------------------------------------------------------------------------------- what was measured


class Missing(LookupError):
    """A report or a setting that a claim needs and that is not there."""


@dataclass
class Studies:
    """The reports that the claims are judged by, under the names of `parts`."""

    found: dict[str, Report] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Report:
        if name not in self.found:
            raise Missing(f"the report {name} is missing")
        return self.found[name]


def cells(report: Report, **settings: Any) -> list[Cell]:
    """The cells with these settings, `x_var__value` for x_var.value."""
    wanted = {key.replace("__", "."): value for key, value in settings.items()}
    return [c for c in report.cells if all(same(report.setting(c, k), v) for k, v in wanted.items())]


def cell(report: Report, **settings: Any) -> Cell:
    """The one cell with these settings.

    Raises:
        Missing: if there is none with numbers.
    """
    found = [c for c in cells(report, **settings) if c.usable]
    if not found:
        wanted = ", ".join(f"{k.replace('__', '.')} {v}" for k, v in settings.items())
        raise Missing(f"{report.name} has no runs with {wanted}")
    return found[0]


def one_change(report: Report, key: str) -> list[Cell]:
    """The cells that change this setting of the reference, and nothing else."""
    found = [(changed(c, report.cells[0]), c) for c in report.cells]
    return [c for keys, c in found if keys and all(k == key or k.startswith(f"{key}.") for k in keys)]


def died(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.usable and run.died]


def _means(runs: Sequence[Run], column: str) -> Interval:
    return mean_interval(v for run in runs if math.isfinite(v := run.value(column)))


# ---------------------------------------------------------------------------------------------- study A


def a1(s: Studies) -> Finding:
    plain, death = cell(s["xvar"], x_var__value=1), s["death"]
    tried = [c for c in cells(death, x_var__value=1) if c.usable]
    mixed = [c for c in tried if 0 < len(died(c.usable)) < len(c.usable)]
    certain = [c for c in tried if len(died(c.usable)) == len(c.usable)]
    listed = "; ".join(f"{described(c.settings)}: {_died(c)}" for c in mixed[:4])
    more = f"; and {len(mixed) - 4} settings more" if len(mixed) > 4 else ""
    count = (
        f"of {len(tried)} settings of death at x_var = 1 every seed dies in {len(certain)}, none in "
        f"{len(tried) - len(certain) - len(mixed)}, some in {len(mixed)}{f' ({listed}{more})' if mixed else ''}; "
        f"x_var = 1 as xvar has it: {_died(plain)}"
    )
    parts = [Part(count, True if mixed else None if certain else False)]
    lost = died(run for c in [plain, *tried] for run in c.usable)
    if not lost:
        return Finding(parts, theory=_critical(death))
    kl, half, sse = (_means(lost, c) for c in ("test_kl_offset", "test_r_half_sse", "test_sse"))
    dark, least = sum(run.health == "dead" for run in lost), lost[0].value("z_dim") / 2
    parts += [
        Part(f"KL + k/2 of the {len(lost)} runs that died: {interval(kl)}", within(kl, least, least + 0.5)),
        Part(f"their SSE/2: {interval(half)} (published: near 40)", about(half, 40)),
        Part(f"a dark image (dead, not collapsed): {rate(Rate(dark, len(lost)))}", mostly(dark, len(lost))),
    ]
    data = next(iter(death.datasets.values()))
    zero, means = (number(data[f"sse_{name}"]["test"] / 2, 3) for name in ("zero", "class_means"))
    study = (
        f"A dark image has SSE/2 = {zero}: then not even the mean image was learned. Our runs that died fall back on "
        f"the class means, whose SSE/2 is {means}; their R is near 40 only if it is SSE without the half "
        f"({interval(sse)})."
    )
    fixed = {k: v for k, v in death.cells[0].point.items() if k != "seed" and v is not None}
    also = f"The reference of death is {described(fixed)}"
    gone = [
        f"{len(c.runs) - len(c.usable)}/{len(c.runs)} at {described(c.settings)}" for c in tried if c.usable != c.runs
    ]
    also += f"; without numbers, so neither dead nor alive, are {'; '.join(gone)}." if gone else "."
    return Finding(parts, also, _critical(death), study)


def _died(c: Cell) -> str:
    return rate(Rate(len(died(c.usable)), len(c.usable)))


def _critical(report: Report) -> str:
    data = next(iter(report.datasets.values()))
    within_class, over_all = data["eigenvalues_within"][0], data["eigenvalues"][0]
    return (
        f"A linear VAE collapses for certain from x_var = l_1 on: {number(within_class, 3)} within classes, "
        f"{number(over_all, 3)} over all. x_var = 1 is below, so its death is not the optimum's but the training's."
    )


def _good(s: Studies, x_var: float) -> Finding:
    c = cell(s["xvar"], x_var__value=x_var)
    lost = died(c.usable)
    alive = [run for run in c.usable if run not in lost]
    ok = sum(run.health == "ok" for run in alive)
    text = f"reconstructions and samples good (ok): {rate(Rate(ok, len(alive)))} of the runs that did not die"
    also = (
        f"Class asked for seen in {interval(_means(alive, 'sample_accuracy'))} of samples, in "
        f"{number(c.mean('judge_accuracy'), 3)} of real images. FFD of samples "
        f"{interval(_means(alive, 'sample_ffd'))}, of reconstructions {interval(_means(alive, 'reconstruction_ffd'))}, "
        f"of real images {number(c.mean('real_ffd'), 3)}."
    )
    return Finding([Part(text, mostly(ok, len(alive)))], also)


def a4(s: Studies) -> Finding:
    good, bad = (cell(s["xvar"], x_var__value=v) for v in (0.1, 0.01))
    holes, n = sum(run.health == "hole" for run in bad.usable), len(bad.usable)
    kl, linear = metric(bad, "test_kl_offset"), bad.mean("theory_kl_low") + bad.mean("z_dim") / 2
    far = changes(good, bad, "test_aggregate_gaussian_kl", relative=False)
    return Finding(
        [
            Part(f"reconstructions good, samples not (hole): {rate(Rate(holes, n))}", mostly(holes, n)),
            Part(f"KL + k/2: {interval(kl)} (published: about 170)", about(kl, 170)),
            differs("KL of q(z)'s moments to N(0, I), against x_var = 0.1:", far, " nats", rises=True),
        ],
        theory=f"A linear VAE has KL + k/2 = {number(linear, 4)} at x_var = 0.01.",
    )


def a5(s: Studies) -> Finding:
    report = s["xvar"]
    ordered = sorted((c for c in report.cells if c.usable), key=lambda c: c.settings["x_var.value"])
    parts = []
    for small, large in itertools.pairwise(ordered):
        ends = " to ".join(f"{c.settings['x_var.value']:g}" for c in (small, large))
        for column, what in (("sample_sharpness", "samples"), ("reconstruction_sharpness", "reconstructions")):
            values = [100 * v for v in changes(small, large, column, relative=True)]
            parts.append(differs(f"sharpness of {what}, x_var {ends}:", values, " %", rises=False))
    return Finding(
        parts, theory="At a larger x_var fewer components are active: what has variance below it is left out."
    )


def a6(s: Studies) -> Finding:
    conventions = {
        "KL + k/2 and SSE/2": ("test_kl_offset", lambda run: run.value("test_r_half_sse")),
        "KL + k/2 and SSE/(2·x_var)": ("test_kl_offset", lambda run: run.value("test_sse") / (2 * run.value("x_var"))),
        "KL and SSE": ("test_kl", lambda run: run.value("test_sse")),
    }
    found: list[tuple[bool | None, str]] = []
    for name, (kl_column, r) in conventions.items():
        outside, met = [], []
        for c in s["xvar"].cells:
            values = metric(c, kl_column), mean_interval(r(run) for run in c.usable)
            inside = [within(v, 10, 100) for v in values]
            met.append(both(inside))
            if False in inside:
                outside.append(f"{described(c.settings)}: {interval(values[0])} and {interval(values[1])}")
        text = f"{name}: " + ("; ".join(f"outside at {line}" for line in outside) or "between 10 and 100 everywhere")
        found.append((both(met), text))
    # The claim names no convention: it stands with any under which it is true, and falls if it is false under each.
    met = True if any(m for m, _ in found) else False if all(m is False for m, _ in found) else None
    return Finding(
        [Part(". ".join(text for _, text in found), met)],
        theory="KL goes from 0 at l_1 to as much as one likes as x_var goes to 0, and SSE to 0 with it.",
        study="The study's own KL of about 170 at x_var = 0.01 (A4) lies outside.",
    )


def a7(s: Studies) -> Finding:
    report = s["training"]
    target = cell(report, x_var__value=0.01, beta__value=1)
    ten, hundredth = (cell(report, x_var__value=1, beta__value=b) for b in (10, 0.01))
    claimed = unchanged("beta = 10 at x_var = 1, against x_var = 0.01 at beta = 1", target, ten)
    other = unchanged("beta = 0.01 at x_var = 1, against the same", target, hundredth)
    return Finding(
        [claimed],
        f"{other.text}.",
        "x_var = 0.01 is beta = 0.01, not 10: the optimum depends on effective x_var = beta·x_var alone, and beta = 10 "
        "at x_var = 1 is above l_1, where nothing but collapse is optimal.",
        "1/(2·x_var) is the weight of the error, so that x_var = 0.01 weighs the error up a hundredfold; beta is that "
        "of the other term.",
    )


def a8(s: Studies) -> Finding:
    report = s["labels"]
    reference = cell(report, label_placement="both", label_repeat__value=5)
    others = [c for c in cells(report, label_placement="both") if c is not reference and c.usable]
    return Finding([unchanged(f"{described(_repeat(c))} against 5", reference, c) for c in others], _size(report))


def _size(report: Report) -> str:
    return f"Here z_dim is {_values(report, 'z_dim')}; the study's is 100."


def _values(report: Report, column: str) -> str:
    """The whole numbers that a column has."""
    return ", ".join(map(str, sorted({int(run.value(column)) for run in report.usable})))


def _repeat(c: Cell) -> dict[str, Any]:
    return {k: v for k, v in c.settings.items() if k.startswith("label_repeat")}


def a9(s: Studies) -> Finding:
    report = s["labels"]
    pairs = [
        (cell(report, label_placement="both", label_repeat__value=n), c)
        for c in cells(report, label_placement="decoder")
        if (n := report.setting(c, "label_repeat.value")) is not None and c.usable
    ]
    return Finding(
        [unchanged(f"decoder only against both, {described(_repeat(c))}", reference, c) for reference, c in pairs],
        _size(report),
        "The encoder's label takes what is known of the class out of z. Without it the optimum lies between the "
        "within-class and the unconditional case, and z carries the class too, so that a label need not be obeyed.",
    )


def a10(s: Studies) -> Finding:
    report = s["labels"]
    data = next(iter(report.datasets.values()))
    chance = 1 / data["n_classes"]
    parts = []
    for c in cells(report, label_placement="encoder"):
        seen = metric(c, "sample_accuracy")
        met = within(seen, 0, chance + ACCURACY_MARGIN)
        parts.append(
            Part(f"{described(_repeat(c))}: class asked for seen in {interval(seen)}; chance is {chance:g}", met)
        )
    return Finding(
        parts,
        _size(report),
        "A decoder that is not told the class cannot draw it; the optimum is the unconditional one.",
    )


def a11_rate(s: Studies) -> Finding:
    return _matters(s, ["trainer.lr"])


def a11_network(s: Studies) -> Finding:
    return _matters(s, ["model.hidden", "model"])


def _matters(s: Studies, keys: Sequence[str]) -> Finding:
    report = s["training"]
    reference = report.cells[0]
    parts = [
        unchanged(f"{described(c.settings)} against {_reference_value(report, keys[0])}", reference, c)
        for c in _changes_of(report, keys)
    ]
    death = s["death"]
    deaths = [c for c in _changes_of(death, keys) if c.usable]
    rates = "; ".join(f"{described(c.settings)}: {_died(c)}" for c in [death.cells[0], *deaths])
    return Finding(parts, f"How many die in death: {rates}." if deaths else "")


def _changes_of(report: Report, keys: Sequence[str]) -> list[Cell]:
    """The cells that change one of these settings, each once."""
    return list({id(c): c for key in keys for c in one_change(report, key)}.values())


def _reference_value(report: Report, key: str) -> str:
    return described({key: report.setting(report.cells[0], key)})


def a11_epochs(s: Studies) -> Finding:
    report = s["training"]
    tried = [report.cells[0], *one_change(report, "trainer.epochs")]
    parts, fewer = [], []
    for c in sorted(tried, key=lambda c: report.setting(c, "trainer.epochs")):
        ok = sum(run.value("sample_accuracy") >= HOLE_ACCURACY * run.value("judge_accuracy") for run in c.usable)
        n, seen = len(c.usable), interval(metric(c, "sample_accuracy"))
        epochs = report.setting(c, "trainer.epochs")
        text = f"{epochs} epochs: legible in {rate(Rate(ok, n))}, class asked for seen in {seen} of samples"
        if epochs < 20:
            fewer.append(text)
        else:
            parts.append(Part(text, all_alike(ok, n)))
    n_train = next(iter(report.datasets.values()))["n_train"]
    also = f"An epoch is {n_train:,} images here; the study's is 60,000."
    return Finding(parts, " ".join([*(f"{text}." for text in fewer), also]))


def all_alike(count: int, n: int) -> bool | None:
    """Whether all of a few runs are; a majority either way is left open."""
    return True if count == n > 1 else False if count == 0 and n > 1 else None


# ---------------------------------------------------------------------------------------------- study B


def is_cifar10(report: Report) -> bool:
    return all(all(data[k] == v for k, v in CIFAR10.items()) for data in report.datasets.values())


def b1(index: int) -> Callable[[Studies], Finding]:
    """A row of study B's table."""

    def judge(s: Studies) -> Finding:
        report = s["beta"]
        row = report.manifest["study"]["published"][index]
        c = cell(report, z_dim__value=row["z_dim.value"], beta__value=row["beta.value"])
        parts = []
        for column, what in (("kld_loss", "KLD"), ("r_loss", "R")):
            value = metric(c, f"test_{column}")
            met = about(value, row[column]) if is_cifar10(report) else None
            parts.append(Part(f"{what} {interval(value)} (published: about {row[column]})", met))
        if not is_cifar10(report):
            parts.append(
                Part("these are not CIFAR-10's images, so the figures cannot be held against each other", None)
            )
        theory = f"KLD {shown(study_theory(c, 'kld_loss'))}, R {shown(study_theory(c, 'r_loss'))}."
        ratio = mean_interval(run.value("test_r_loss") / run.value("test_kld_loss") for run in c.usable)
        also = (
            "The factor 128 takes the study's figures as sums over a batch of 128. Whatever the batch, R/KLD is "
            f"{interval(ratio)} here, {row['r_loss'] / row['kld_loss']:.2g} in the study."
        )
        near = min((other for other in report.cells if other.usable), key=lambda other: _distance(other, row))
        study = ""
        if near is not c and is_cifar10(report):
            study = f"Of our grid the row is nearest to {described(near.settings)}: {_b_figures(near)}."
        return Finding(parts, also, theory, study)

    return judge


def _distance(c: Cell, row: dict[str, Any]) -> float:
    return math.hypot(*(math.log(c.mean(f"test_{k}") / row[k]) for k in ("kld_loss", "r_loss")))


def _b_figures(c: Cell) -> str:
    return f"KLD {interval(metric(c, 'test_kld_loss'))}, R {interval(metric(c, 'test_r_loss'))}"


def b2(s: Studies) -> Finding:
    report = s["beta"]
    parts = []
    for small, large in (((10, 0.01), (100, 0.1)), ((10, 0.005), (100, 0.05))):
        a, b = (cell(report, z_dim__value=k, beta__value=beta) for k, beta in (small, large))
        t = number(a.mean("effective_x_var"), 3)
        for column, what in (("test_sse", "SSE"), ("sample_ffd", "FFD of samples")):
            values = [100 * v for v in changes(b, a, column, relative=True)]
            parts.append(differs(f"z_dim 10 against 100 at effective x_var {t}, {what}:", values, " %", rises=True))
    active = number(cell(report, z_dim__value=100, beta__value=0.1).mean("test_active_units"), 3)
    return Finding(
        parts,
        theory=f"At equal effective x_var fewer dimensions can only lose; at (100, 0.1) {active} of 100 are active.",
        study="At equal beta the two z_dim have different effective x_var (beta·D/(2k)), so that rows of the study's "
        "table with different z_dim differ in both.",
    )


def b3(s: Studies) -> Finding:
    normalised, plain = s["beta"], s["beta_sum"]
    parts, shares = [], []
    for c in plain.cells:
        if not c.usable:
            continue
        beta = plain.setting(c, "beta.value")
        reference = cell(normalised, z_dim__value=100, beta__value=beta)
        sse, kl = c.mean("test_sse"), beta * c.mean("test_kl")
        parts.append(Part(f"beta {beta:g}: SSE {number(sse, 3)} against beta·KL {number(kl, 3)}", sse > kl))
        error = reference.mean("test_sse") / reference.mean("input_dim")
        rest = beta * reference.mean("test_kl") / reference.mean("z_dim")
        shares.append(f"{number(sse / kl, 2)} and {number(error / rest, 2)} at beta {beta:g}")
        for column, what, rises in (("test_sse", "SSE", False), ("test_kl", "KL", True)):
            values = [100 * v for v in changes(reference, c, column, relative=True)]
            parts.append(
                differs(f"beta {beta:g}, not normalised against normalised, {what}:", values, " %", rises=rises)
            )
    return Finding(
        parts,
        "The error as a multiple of the other term, without and with normalising: " + "; ".join(shares) + ". "
        "Where it is the larger one either way, the magnitudes alone do not tell the two apart.",
        "What decides is the ratio of the weights, effective x_var: SSE + beta·KL has beta/2, normalised it is "
        "beta·D/(2k). The magnitudes of the terms follow from it. Any balance can be had without normalising, by beta.",
    )


def b4(s: Studies) -> Finding:
    poor, fine = (cell(s["beta"], z_dim__value=100, beta__value=b) for b in (0.1, 0.005))
    values = {c: [100 * v for v in changes(poor, fine, c, relative=True)] for c in ("test_sse", "sample_ffd")}
    return Finding(
        [
            differs("beta 0.005 against 0.1, SSE:", values["test_sse"], " %", rises=False),
            differs("beta 0.005 against 0.1, FFD of samples:", values["sample_ffd"], " %", rises=True),
        ],
        f"FFD of samples {interval(metric(poor, 'sample_ffd'))} and {interval(metric(fine, 'sample_ffd'))}, of real "
        f"images {number(poor.mean('real_ffd'), 3)}: good and poor are relative, and the judge is right on "
        f"{number(100 * poor.mean('judge_accuracy'), 3)} % of held-out images. {_further(s)}",
    )


def _further(s: Studies) -> str:
    """The trade-off at the smaller effective x_var of the loss that is not normalised."""
    found = [c for c in s["beta_sum"].cells if c.usable]
    listed = "; ".join(
        f"{number(c.mean('effective_x_var'), 3)}: SSE {interval(metric(c, 'test_sse'))}, FFD "
        f"{interval(metric(c, 'sample_ffd'))}"
        for c in sorted(found, key=lambda c: -c.mean("effective_x_var"))
    )
    return f"Beyond this grid, without normalising, by effective x_var: {listed}."


def b5(s: Studies) -> Finding:
    ratio = 32 * 32 * 3 / 100
    text = f"32·32·3/100 = {ratio:.1f} numbers of the image for one of z (published: about 22)"
    return Finding([Part(text, abs(ratio / 22 - 1) <= ABOUT)], theory="31 times, not 22.")


def b6(s: Studies) -> Finding:
    report = s["beta"]
    usable = [c for c in report.cells if c.usable]
    best = min(usable, key=lambda c: c.mean("test_sse"))
    least = min(usable, key=lambda c: c.mean("test_kl"))
    holes, n = sum(run.health == "hole" for run in best.usable), len(best.usable)
    left, error = (
        mean_interval(run.value("test_sse") / run.value("test_baseline_mean") for run in c.usable)
        for c in (least, best)
    )
    sse, kl = interval(metric(best, "test_sse")), interval(metric(least, "test_kl"))
    return Finding(
        [
            Part(
                f"least SSE ({described(best.settings)}, {sse}): samples no good (hole) in {rate(Rate(holes, n))}",
                all_alike(holes, n),
            ),
            Part(
                f"least KL ({described(least.settings)}, {kl} nats): {interval(left)} of the mean image's error left",
                within(left, 0.5, math.inf),
            ),
        ],
        f"The least SSE of the grid is no perfect reconstruction: {interval(error)} of the mean image's error is left. "
        "The thresholds of a hole were set on digits. B4 has samples at less error.",
    )


# ---------------------------------------------------------------------------------------------- the list


@dataclass(frozen=True)
class Claim:
    """A claim of the studies.

    Attributes:
        id: of the list of claims.
        text: the claim, in our words.
        criterion: when it holds, written before the runs.
        judge: measures it.
    """

    id: str
    text: str
    criterion: str
    judge: Callable[[Studies], Finding]


SAME = (
    "SSE and KL equivalent within 10 %, the share of samples of the class asked for within 5 points "
    "(two one-sided tests at 5 %), and no run without numbers"
)
PUBLISHED = "KLD and R both within 20 % of the published figure, intervals included; on CIFAR-10's images only"

CLAIMS = (
    Claim(
        "A1",
        "x_var = 1: with some probability training dies; KL at its minimum 50.0, reconstruction near 40, a dark image",
        "in some setting at x_var = 1 some seeds die and some live; of those that died KL + k/2 is within 0.5 of k/2, "
        "SSE/2 within 20 % of 40, and more than half are dead rather than collapsed",
        a1,
    ),
    Claim(
        "A2",
        "x_var = 1, not dead: good pictures",
        "more than half of the runs that did not die are ok, Wilson's interval included",
        lambda s: _good(s, 1),
    ),
    Claim(
        "A3",
        "x_var = 0.1: good pictures",
        "more than half of the runs that did not die are ok, Wilson's interval included",
        lambda s: _good(s, 0.1),
    ),
    Claim(
        "A4",
        "x_var = 0.01: KL about 170, reconstructions fine, generated pictures not, the latents being no longer N(0, I)",
        "more than half of the runs have a hole; KL + k/2 within 20 % of 170; the moments of the aggregate posterior "
        "are further from N(0, I) than at x_var = 0.1",
        a4,
    ),
    Claim(
        "A5",
        "a larger x_var gives blurrier pictures",
        "at each step up in x_var the sharpness of samples and of reconstructions falls",
        a5,
    ),
    Claim(
        "A6",
        "whatever x_var, the final reconstruction loss and KL both lie between 10 and 100",
        "it is true under at least one of the conventions that the study may have used",
        a6,
    ),
    Claim(
        "A7",
        "x_var = 0.01 is a beta-VAE with beta = 10",
        f"beta = 10 at x_var = 1 is the same as x_var = 0.01 at beta = 1: {SAME}",
        a7,
    ),
    Claim("A8", "the number of label repeats does not matter", f"against 5, each other number: {SAME}", a8),
    Claim(
        "A9", "label in the decoder only: no significant change", f"against both, at each number of repeats: {SAME}", a9
    ),
    Claim(
        "A10",
        "label in the encoder only: complete failure",
        "the class asked for is seen in samples at most 5 points more often than by chance",
        a10,
    ),
    Claim("A11 learning rate", "the learning rate does not matter", f"against 0.001, each other: {SAME}", a11_rate),
    Claim(
        "A11 network",
        "size and structure of the network do not matter",
        f"against one hidden layer of 400, each other: {SAME}",
        a11_network,
    ),
    Claim(
        "A11 epochs",
        "some tens of epochs are enough to recognise the digits",
        "from 20 epochs on all runs are legible: the class asked for is seen at least 0.75 times as often as in real "
        "images",
        a11_epochs,
    ),
    *(
        Claim(f"B1 ({z}, {beta})", f"z_dim {z}, beta {beta}: KLD {kld}, R {r}", PUBLISHED, b1(i))
        for i, (z, beta, kld, r) in enumerate(
            ((10, 0.1, 80, 3.0), (100, 0.1, 11, 2.5), (100, 0.05, 20, 2.2), (100, 0.01, 64, 1.0), (100, 0.005, 85, 0.8))
        )
    ),
    Claim(
        "B2",
        "too small a z_dim limits reconstruction and generation",
        "at equal effective x_var z_dim 10 has more SSE and more FFD of samples than 100, at both values in the grid",
        b2,
    ),
    Claim(
        "B3",
        "without normalising, whichever loss is larger in magnitude decides the training",
        "of SSE + beta·KL the error is the larger term at each beta, and against the normalised loss there is less SSE "
        "and more KL",
        b3,
    ),
    Claim(
        "B4",
        "beta = 0.1: poor reconstruction, good generation; beta = 0.005: the reverse",
        "at z_dim 100, beta 0.005 has less SSE and more FFD of samples",
        b4,
    ),
    Claim("B5", "32x32x3 at z_dim 100 is about 22 times compression", "within 20 %, by arithmetic", b5),
    Claim(
        "B6",
        "perfect reconstruction means nothing learned about sampling; very low KLD, little likeness to the input",
        "of the grid, all runs of the setting of least SSE have a hole, and that of least KL leaves over half of the "
        "mean image's error",
        b6,
    ),
)


def judged(claim: Claim, studies: Studies) -> Finding:
    """The finding; undecided with the reason where runs are missing."""
    try:
        return claim.judge(studies)
    except Missing as e:
        return Finding([Part(str(e), None)])


# ---------------------------------------------------------------------------------------------- report


def counted(findings: Sequence[Finding]) -> str:
    """How many claims hold, in words."""
    n = Counter(f.verdict for f in findings)
    return f"{n[HOLDS]} hold, {n[FAILS]} do not hold, {n[OPEN]} undecided"


def markdown(findings: Sequence[Finding], studies: Studies, command: str) -> str:
    """The report of the claims, with a finding for each."""
    judgements = list(zip(CLAIMS, findings, strict=True))
    parts = [
        "# The claims of the two studies",
        f"*Which of {len(CLAIMS)} claims hold on our runs?* {counted(findings)}.",
        _data(studies),
        "| id | claim | verdict |\n| --- | --- | --- |\n"
        + "\n".join(f"| {c.id} | {escape(c.text)} | **{f.verdict}** |" for c, f in judgements),
        "A claim holds if every part of its criterion is met, does not hold if one part is not met, intervals "
        "included, and is otherwise undecided. Intervals are 95 % (Student's t over seeds, paired by seed where two "
        "settings are compared; Wilson's for rates). *Does not matter* is tested as equivalence within a margin, "
        "not as the absence of significance: by two one-sided tests at 5 %, that is by the 90 % interval, which is "
        "narrower than the one shown. The criteria, and when they were written: outputs/README.md, Claims. `ok`, "
        "`hole`, `collapsed` and `dead` are defined there too. A12, a bug of shapes in the loss, and B7, two make "
        "targets, report no figure: the tests and the Makefile have them.",
        "**Conventions.** SSE = ‖x − x̂‖², z sampled, is summed over the D pixels of an image, which are in [0, 1]; KL "
        "over the k latent dimensions, in nats; both are means over held-out images. Study A's KL is KL + k/2; its "
        "reconstruction loss is SSE/2 or SSE/(2·x_var), it does not say which. Study B's KLD and R are taken as "
        "128·KL/k and 128·SSE/D, sums over a batch of 128. FFD is the Frechet distance in the features of a frozen "
        "classifier, no Inception FID. l_1 is the largest eigenvalue of the training images' covariance.",
    ]
    for claim, finding in judgements:
        parts += [f"## {claim.id}: {finding.verdict}", f"**Claim:** {escape(claim.text)}."]
        parts.append(f"**Holds if** {escape(claim.criterion)}.")
        marks = {True: "met", False: "not met", None: "open"}
        parts.append("\n".join(f"- *{marks[part.met]}*: {escape(part.text)}" for part in finding.parts))
        if finding.also:
            parts.append(f"**Beside that:** {escape(finding.also)}")
        if finding.theory:
            parts.append(f"**Closed form:** {escape(finding.theory)}")
        if finding.study:
            parts.append(f"**The study:** {escape(finding.study)}")
    parts += ["## Where the figures are from", _sources(studies), "## How to make it again", f"```sh\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


def _data(studies: Studies) -> str:
    lines = {}
    for report in studies.found.values():
        for data in report.datasets.values():
            n = f"{data['n_train']:,} training and {data['n_test']:,} held-out images"
            lines[data["name"]] = f"{escape(data['name'])} ({escape(data['source'])}), {n}"
    return "**Data.** " + "; ".join(lines.values()) + "."


def _sources(studies: Studies) -> str:
    lines = []
    for report in studies.found.values():
        seeds = len({run.seed for run in report.runs})
        lines.append(
            f"- [{escape(report.name)}](../{quote(report.name)}/report.md): {len(report.usable)} of {len(report.runs)} "
            f"runs with numbers, {seeds} seeds, {_values(report, 'epochs_done')} epochs, "
            f"z_dim {_values(report, 'z_dim')}, by `{report.manifest['command']}`, code of the runs: {report.code}"
        )
    return "\n".join(lines)


def table_of_criteria() -> str:
    """The criteria as outputs/README.md shows them."""
    rows = "".join(f"| {c.id} | {escape(c.text)} | {escape(c.criterion)} |\n" for c in CLAIMS)
    return f"| id | claim | holds if |\n| --- | --- | --- |\n{rows}"


# ---------------------------------------------------------------------------------------------- command


def parts_of(datasets: Sequence[str], more: Sequence[str]) -> dict[str, list[str]]:
    """The experiments that the claims need, by name: the arguments of run.py."""
    data_a, data_b = ([f"dataset={name}"] for name in datasets)
    own = any(a.startswith("trainer.epochs=") for a in more)
    # A run mostly dies in its first hundred steps: 20 epochs of 4,000 digits are 640, 2 of 60,000 are 938.
    short_a = [] if own or datasets[0] == EMBEDDED[0] else ["trainer.epochs=2"]
    return {
        "xvar": ["xvar", *data_a, *more],
        "labels": ["labels", *data_a, *more],
        "training": ["training", *data_a, *more],
        "death": ["death", *data_a, *short_a, *more],
        "beta": ["beta", *data_b, *more],
        "beta_sum": ["beta", *data_b, "objective=elbo", "x_var=0.5", "z_dim=100", *more],
    }


def find(arguments: Sequence[str], output_dir: str | Path) -> Report | None:
    """The report that this command made: its manifest has the command with the short forms written out."""
    command = shlex.join(["python", "run.py", *rewrite(arguments)])
    for name in reports(output_dir):
        with contextlib.suppress(OSError, ValueError, LookupError, ReportError):
            if json.loads((reports_dir(output_dir) / name / "sweep.json").read_text())["command"] == command:
                return read(name, output_dir)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    chosen = [a.removeprefix("dataset=") for a in given if a.startswith("dataset=")]
    more = [a for a in given if not a.startswith("dataset=")]
    output_dir = next((a.removeprefix("output_dir=") for a in more if a.startswith("output_dir=")), "outputs")
    names = chosen[0].split(",") if chosen else EMBEDDED
    if len(chosen) > 1 or len(names) != 2 or not all(names):
        print(
            f"claims: dataset={','.join(chosen)}: two are needed; allowed: study A's and study B's, as in "
            "dataset=mnist,cifar10",
            file=sys.stderr,
        )
        return USAGE
    studies = Studies()
    entry = Path(__file__).parent.parent / "run.py"
    for name, arguments in parts_of(names, more).items():
        print(f"claims: {name}", file=sys.stderr)
        status = subprocess.run([sys.executable, str(entry), *arguments], check=False).returncode
        report = find(arguments, output_dir)
        if status not in (0, 1) or report is None:  # 1: some runs have no usable result, which is a finding
            return status or 1
        studies.found[name] = report
    default = names == EMBEDDED
    shown = [
        *([] if default else [",".join(Path(n).name for n in names)]),
        *(a for a in more if not a.startswith("output_dir=")),
    ]
    folder = reports_dir(output_dir) / "-".join(["claims", *map(plain_text, shown)])
    command = shlex.join(["python", "-m", "experiments.claims", *given])
    findings = [judged(claim, studies) for claim in CLAIMS]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "report.md", markdown(findings, studies, command).encode())
    write_json(folder / "summary.json", {"finding": counted(findings)})
    write_atomic(reports_dir(output_dir) / "index.md", index(output_dir).encode())
    print(f"report: {folder / 'report.md'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
