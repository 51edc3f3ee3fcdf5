"""The tables of a report: what stands in each, and how a number is written.

A table is shown as markdown, with intervals as `26.23 ± 0.31`, and kept as CSV, where an interval is four columns: the
mean, its two ends (`_low`, `_high`) and the number of values (`_n`).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.report import NONE, Cell, Report, Run, short, words
from experiments.statistics import Interval, mean_interval, paired_interval, wilson_interval
from vae import linear_theory
from vae.conventions import study_columns

# Column of result.json -> heading, for the tables of one line a cell.
STUDY_COLUMNS = {
    "elbo": {"kl_offset": "KL + k/2 (study A's KLD)", "r_half_sse": "SSE/2 (study A's R)"},
    "per_dim": {"kld_loss": "128·KL/k (study B's KLD)", "r_loss": "128·SSE/D (study B's R)"},
}
LIKELIHOOD = {
    "test_sse_mean": "SSE, z = μ",
    "test_elbo": "ELBO (nats)",
    "test_bits_per_dim": "bits per dimension",
    "test_active_units": "active units",
}
GENERATION = {
    "sample_accuracy": "samples of the class asked for (share)",
    "sample_ffd": "FFD, samples",
    "reconstruction_ffd": "FFD, reconstructions",
    "real_ffd": "FFD, real images",
    "sample_density": "density",
    "sample_coverage": "coverage",
    "sample_sharpness": "sharpness, samples",
    "reconstruction_sharpness": "sharpness, reconstructions",
    "real_sharpness": "sharpness, real images",
    "judge_accuracy": "accuracy of the judge",
}
DIAGNOSTICS = {
    "test_mutual_information": "I(x; z)",
    "test_mutual_information_ceiling": "its ceiling ln M",
    "test_aggregate_kl": "KL(q(z) ‖ p(z)), at most",
    "test_aggregate_gaussian_kl": "at least",
    "test_aggregate_variance_min": "Var z, least dimension",
    "test_aggregate_variance_max": "greatest",
    "test_iw_elbo": "importance-weighted bound",
    "test_iw_gap": "above the ELBO by",
}
FAILURES = ("dead", "collapsed", "hole")  # of vae/status.py, among the runs that have numbers
LABEL_SETTINGS = ("label_placement", "label_repeat.value", "label_repeat")
DEFAULTS = {"label_placement": "both", "label_repeat.value": 5, "label_repeat": "fixed"}


@dataclass(frozen=True)
class Range:
    """Two ends between which a number lies; equal where it is known."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """A count among n trials, with Wilson's interval of the rate."""

    count: int
    n: int

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.count, self.n)


_NUMERIC = re.compile(r"-?\d|–|$")  # cells that are set to the right


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        slug: name of its files.
        columns: (name in the CSV, heading in markdown) of each column.
        rows: a value a column: a word, a number, an Interval, a Range or None.
        note: sentences about it, in markdown.
    """

    slug: str
    title: str
    columns: list[tuple[str, str]]
    rows: list[list[Any]]
    note: str = ""

    def markdown(self) -> str:
        """The bare table in GitHub's markdown; columns of numbers are aligned to the right."""
        cells = [[escape(shown(v)) for v in row] for row in self.rows]
        columns = zip(*cells, strict=True) if cells else ([] for _ in self.columns)
        rule = ["---:" if all(_NUMERIC.match(v) for v in column) else "---" for column in columns]
        lines = [[escape(heading) for _, heading in self.columns], rule, *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def csv(self) -> str:
        """The table with full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        parts = [_parts([row[i] for row in self.rows]) for i in range(len(self.columns))]
        writer.writerow([f"{name}{end}" for (name, _), ends in zip(self.columns, parts, strict=True) for end in ends])
        for row in self.rows:
            writer.writerow([_field(_part(v, end)) for v, ends in zip(row, parts, strict=True) for end in ends])
        return text.getvalue()


def _parts(values: Sequence[Any]) -> tuple[str, ...]:
    if any(isinstance(v, Interval) for v in values):
        return ("", "_low", "_high", "_n")
    if any(isinstance(v, Rate) for v in values):
        return ("", "_low", "_high", "_n")
    if any(isinstance(v, Range) for v in values):
        return ("_low", "_high")
    return ("",)


def _part(value: Any, end: str) -> Any:
    if isinstance(value, Rate):
        return {"": value.count, "_n": value.n}[end] if end in ("", "_n") else getattr(value.interval, end[1:])
    if isinstance(value, Interval | Range):
        return getattr(value, end.removeprefix("_") or "mean")
    return value if end == "" else None


def _field(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else words(value) if isinstance(value, list) else str(value)


def escape(text: str) -> str:
    """Text that markdown shows as it stands, in a table too."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"([\\|`*<>\[\]])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, without an exponent where that is readable."""
    if value is None or math.isnan(value):
        return NONE
    if value == 0 or isinstance(value, int):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if math.isinf(value) or not 1e-5 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    return f"{value:.{max(0, digits - 1 - _exponent(value))}f}"


def _exponent(value: float) -> int:
    """Of the first significant digit."""
    return math.floor(math.log10(abs(value)))


def interval(value: Interval) -> str:
    """The mean and half the interval, to two digits of the latter: 26.23 ± 0.31; from one value the mean alone."""
    if value.n == 0:
        return NONE
    if value.n == 1:
        return f"{number(value.mean)} (n = 1)"
    if not math.isfinite(value.half):
        return f"{value.mean:.4g} ± {value.half:g}"
    if value.half <= 1e-9 * abs(value.mean):  # the same number in every run, but for rounding
        return f"{value.mean:.4g} ± 0"
    # The exponent of the rounded half: 0.0996 is 0.10, not 0.100.
    places = 1 - _exponent(float(f"{value.half:.1e}"))
    if max(abs(value.mean), value.half) < 1e-5:
        digits = places + _exponent(value.mean) if value.mean else 0
        return f"{value.mean:.{max(0, digits)}e} ± {value.half:.1e}"
    return f"{_fixed(value.mean, places)} ± {_fixed(value.half, places)}"


def signed(difference: Interval) -> str:
    """A difference with its sign: +0.31 ± 0.02."""
    text = interval(difference)
    return text if text.startswith(("-", NONE)) else f"+{text}"


def _fixed(value: float, places: int) -> str:
    text = f"{round(value, places):.{max(0, places)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def rate(value: Rate) -> str:
    """A rate with its interval: 3/20, 5–36 %."""
    if value.n == 0:
        return NONE
    return f"{value.count}/{value.n}, {100 * value.interval.low:.0f}–{100 * value.interval.high:.0f} %"


def shown(value: Any) -> str:
    """Any value of a table."""
    if isinstance(value, Interval):
        return interval(value)
    if isinstance(value, Rate):
        return rate(value)
    if isinstance(value, Range):
        low, high = number(value.low), number(value.high)
        return low if low == high else f"{low}–{high}"
    if isinstance(value, float):
        return number(value)
    return words(value)


def metric(cell: Cell, column: str) -> Interval:
    return mean_interval(cell.values(column))


def theory(cell: Cell, quantity: str) -> Range | None:
    """The closed form's KL or SSE of a cell: the mean over its runs, which differ where x_var is learned."""
    low, high = cell.mean(f"theory_{quantity}_low"), cell.mean(f"theory_{quantity}_high")
    return None if math.isnan(low) else Range(low, high)


def study_theory(cell: Cell, column: str) -> Range | None:
    """The closed form's figure in a study's column."""
    kl, sse = theory(cell, "kl"), theory(cell, "sse")
    if kl is None or sse is None:
        return None
    sizes = cell.mean("input_dim"), cell.mean("z_dim")
    low, high = (study_columns(*ends, *sizes)[column] for ends in ((sse.low, kl.low), (sse.high, kl.high)))
    return Range(low, high)


def against_theory(report: Report, run: Run) -> float:
    """A run's training SSE over that of the closed form at its training KL; above 1 it has not learned what PCA knows.

    For label_placement `decoder`, which has no simple form, the curve of more error, the unconditional one. NaN where
    a figure is not finite, or the closed form has no error.
    """
    kl, sse = run.value("train_kl"), run.value("train_sse")
    if not (math.isfinite(kl) and math.isfinite(sse)):
        return math.nan
    data = report.datasets[run.dataset_hash]
    within = (run.result or {}).get("label_placement.kind") == "both"
    spectrum = data["eigenvalues_within" if within else "eigenvalues"]
    # Of a posterior that equals the prior the measured KL can lie below 0 by rounding.
    bound = linear_theory.distortion(spectrum, max(0.0, kl), int(run.value("z_dim")))
    return sse / bound if bound > 0 else math.nan


def published(report: Report, cell: Cell) -> dict[str, Any]:
    """The rows of the study's table that belong to a cell, as one: its figures by column, and our note.

    A row belongs to a cell if the cell has all its settings, swept or fixed.
    """
    found: dict[str, Any] = {}
    for row in report.manifest["study"]["published"]:
        settings, figures = split_published(row)
        if all(same(report.setting(cell, key), value) for key, value in settings.items()):
            found |= figures
    return found


def split_published(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the study's table as its settings and the rest: figures by column, and the note."""
    columns = {"sse", "kl", "note", *(c for table in STUDY_COLUMNS.values() for c in table)}
    return {k: v for k, v in row.items() if k not in columns}, {k: v for k, v in row.items() if k in columns}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def changed(cell: Cell, reference: Cell) -> set[str]:
    """The settings in which a cell differs from another, the seed apart."""
    return {k for k, v in cell.point.items() if k != "seed" and not same(v, reference.point.get(k))}


def _count(runs: Sequence[Run], of: Sequence[Run]) -> str:
    return str(len(runs)) if len(runs) == len(of) else f"{len(runs)} of {len(of)}"


def by_cell(
    report: Report, slug: str, title: str, columns: dict[str, tuple[str, Callable[[Cell], Any]]], note: str = ""
) -> Table:
    """A table of one line a cell: its settings, n, and the columns, less those that are empty throughout."""
    lead = [(key, short(key)) for key in report.keys]
    rows: list[list[Any]] = [[*map(words, c.settings.values()), _count(c.usable, c.runs)] for c in report.cells]
    kept = []
    for name, (heading, function) in columns.items():
        values = [function(cell) for cell in report.cells]
        if not all(v is None or (isinstance(v, Interval) and v.n == 0) for v in values):
            kept.append((name, heading))
            for row, value in zip(rows, values, strict=True):
                row.append(value)
    return Table(slug, title, [*lead, ("n", "n"), *kept], rows, note)


def headline(report: Report) -> Table:
    """KL and SSE on held-out images, beside the closed form and the study's figures."""

    def mean(column: str) -> Callable[[Cell], Any]:
        return lambda cell: metric(cell, column)

    def effective_x_var(cell: Cell) -> str | None:
        return words(float(f"{cell.mean('effective_x_var'):.6g}")) if cell.usable else None

    def quoted(column: str) -> Callable[[Cell], Any]:
        return lambda cell: None if (v := published(report, cell).get(column)) is None else str(v)

    columns: dict[str, tuple[str, Callable[[Cell], Any]]] = {
        "effective_x_var": ("effective x_var", effective_x_var),
        "kl": ("KL (nats)", mean("test_kl")),
        "theory_kl": ("KL, closed form", lambda c: theory(c, "kl")),
        "published_kl": ("KL, published", quoted("kl")),
        "sse": ("SSE", mean("test_sse")),
        "theory_sse": ("SSE, closed form", lambda c: theory(c, "sse")),
        "published_sse": ("SSE, published", quoted("sse")),
    }
    for objective in report.objectives:
        for column, heading in STUDY_COLUMNS[objective].items():
            name = heading.split(" (")[0]
            columns[column] = (heading, _where(report, objective, mean(f"test_{column}")))
            if any(column in row for row in report.manifest["study"]["published"]):
                closed_form = _where(report, objective, lambda c, column=column: study_theory(c, column))
                columns[f"theory_{column}"] = (f"{name}, closed form", closed_form)
            columns[f"published_{column}"] = (f"{name}, published", quoted(column))
    columns["published_note"] = ("the study, in our words", quoted("note"))
    return by_cell(report, "headline", "KLD and R-loss on held-out images", columns)


def _where(report: Report, objective: str, function: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
    """The function for cells of that objective, None for others."""
    return lambda cell: function(cell) if report.setting(cell, "objective") == objective else None


def likelihood(report: Report) -> Table:
    columns: dict[str, tuple[str, Callable[[Cell], Any]]]
    columns = {c: (heading, lambda cell, c=c: metric(cell, c)) for c, heading in LIKELIHOOD.items()}
    columns["latents"] = ("latent dimensions k", lambda cell: _whole(cell.mean("z_dim")))
    return by_cell(report, "likelihood", "Likelihood and use of the latents, held-out images", columns)


def _whole(value: float) -> int | float | None:
    return None if math.isnan(value) else int(value) if value == int(value) else value


def optional(report: Report, slug: str, title: str, headings: Mapping[str, str]) -> Table | None:
    """A table of some columns, where the runs carry them."""
    if not any(math.isfinite(run.value(c)) for run in report.usable for c in headings):
        return None
    columns = {c: (heading, lambda cell, c=c: metric(cell, c)) for c, heading in headings.items()}
    return by_cell(report, slug, title, columns)


def training(report: Report) -> Table:
    """Train against test, the difference taken within each run, and against the closed form."""

    def difference(name: str) -> Callable[[Cell], Any]:
        return lambda cell: mean_interval(
            d for run in cell.usable if math.isfinite(d := run.value(f"test_{name}") - run.value(f"train_{name}"))
        )

    columns: dict[str, tuple[str, Callable[[Cell], Any]]] = {}
    for name, unit in (("kl", "KL (nats)"), ("sse", "SSE")):
        for split in ("train", "test"):
            columns[f"{split}_{name}"] = (f"{split} {unit}", lambda cell, c=f"{split}_{name}": metric(cell, c))
        columns[f"gap_{name}"] = (f"test − train, {unit}", difference(name))
    columns["against_theory"] = (
        "train SSE / closed form's at equal KL",
        lambda cell: mean_interval(r for run in cell.usable if math.isfinite(r := against_theory(report, run))),
    )
    note = (
        "The last column compares each run with the closed form of the same KL on the same images: above 1 it has not "
        "learned what PCA knows."
    )
    if any((run.result or {}).get("label_placement.kind") == "decoder" for run in report.usable):
        note += " With label_placement decoder that is the unconditional one, of more error than it need have."
    return by_cell(report, "train_test", "Training against held-out images, and against the closed form", columns, note)


def effect(report: Report, key: str, reference: Any, value: Any, column: str) -> Interval:
    """What a setting's value changes against the reference: the other settings kept, paired by seed.

    For each seed the differences are averaged over the other settings; the interval is over seeds.
    """
    sides: dict[str, dict[tuple[str, Any], float]] = {words(reference): {}, words(value): {}}
    for cell in report.cells:
        rest = words([v for k, v in cell.settings.items() if k != key])
        if (side := sides.get(words(cell.settings[key]))) is not None:
            side |= {(rest, run.seed): run.value(column) for run in cell.usable}
    first, second = sides.values()
    pairs = [pair for pair in first if math.isfinite(first[pair] - second.get(pair, math.nan))]

    def by_seed(side: dict[tuple[str, Any], float]) -> dict[Any, float]:
        return {s: float(np.mean([side[pair] for pair in pairs if pair[1] == s])) for _, s in pairs}

    return paired_interval(by_seed(first), by_seed(second))


def reference_value(report: Report, key: str) -> Any:
    """The default of a label setting if it is among the values, else the first value."""
    values = report.values(key)
    return DEFAULTS[key] if key in DEFAULTS and DEFAULTS[key] in values else values[0]


def marginal(report: Report, key: str) -> Table:
    """A setting's values, averaged over the other settings, and their differences from the default."""
    reference = reference_value(report, key)
    metrics = {"test_kl": ("kl", "KL (nats)"), "test_sse": ("sse", "SSE")}
    for column in ("sample_accuracy", "sample_ffd"):
        if any(math.isfinite(run.value(column)) for run in report.usable):
            metrics[column] = (column, GENERATION[column])
    columns = [(key, short(key)), ("n", "seeds"), ("runs", "runs")]
    for name, heading in metrics.values():
        columns += [(name, heading), (f"{name}_difference", f"difference from {words(reference)}")]
    rows = []
    for value in report.values(key):
        cells = [cell for cell in report.cells if cell.settings[key] == value]
        runs = [run for cell in cells for run in cell.runs]
        usable = [run for run in runs if run.usable]
        row: list[Any] = [words(value), len({run.seed for run in usable}), _count(usable, runs)]
        for column in metrics:
            seeds: dict[Any, list[float]] = {}
            for run in usable:
                if math.isfinite(v := run.value(column)):
                    seeds.setdefault(run.seed, []).append(v)
            row.append(mean_interval(float(np.mean(v)) for v in seeds.values()))
            row.append("reference" if value == reference else effect(report, key, reference, value, column))
        rows.append(row)
    others = [short(k) for k in report.keys if k != key]
    over = f"Means over {', '.join(others)}; " if others else ""
    note = (
        f"{over}n counts seeds. A difference is taken from the run of the same seed and the same other settings, "
        "averaged within the seed, and its interval is over seeds."
    )
    return Table(key.replace(".", "_"), f"By {short(key)}", columns, rows, note)


def baseline(run: Run) -> tuple[str, float]:
    """The error of a decoder without latents: of the class means where it is given the label, else of the mean."""
    placement = (run.result or {}).get("label_placement.kind")
    name = "class_means" if placement in ("both", "decoder") else "mean"
    return name.replace("_", " "), run.value(f"test_baseline_{name}")


def failures(report: Report) -> Table:
    """How many runs of each cell have no numbers, and how many have numbers that say that training failed."""
    statuses = [s for s in ("diverged", "failed", "missing", "unreadable") if any(r.status == s for r in report.runs)]
    columns = [*((key, short(key)) for key in report.keys), ("runs", "runs")]
    columns += [(s, s) for s in statuses]
    columns += [("unusable", "without numbers"), *((name, name) for name in FAILURES)]

    def line(runs: Sequence[Run]) -> list[Any]:
        usable = [r for r in runs if r.usable]
        counts = [sum(r.status == s for r in runs) for s in statuses]
        unusable = Rate(len(runs) - len(usable), len(runs))
        return [
            len(runs),
            *counts,
            unusable,
            *(Rate(sum(r.health == f for r in usable), len(usable)) for f in FAILURES),
        ]

    rows = [[*map(words, cell.settings.values()), *line(cell.runs)] for cell in report.cells]
    if report.keys and len(rows) > 1:
        rows.append(["all", *[""] * (len(report.keys) - 1), *line(report.runs)])
    return Table("failures", "Failures", columns, rows)


def baselines(report: Report) -> Table:
    names = {"zero": "sse_zero", "mean": "sse_mean", "class means": "sse_class_means"}
    columns = [("dataset", "data"), ("split", "images")]
    columns += [("zero", "zero image"), ("mean", "mean image"), ("class_means", "class means")]
    rows = [
        [data["name"], split, *(float(data[key][split]) for key in names.values())]
        for data in report.datasets.values()
        for split in ("train", "test")
    ]
    return Table("baselines", "Baselines: SSE without a model", columns, rows)


def runs_csv(report: Report) -> str:
    """A line a run: its folder, status, swept settings, and every column of result.json that is no list of numbers."""
    skipped = {"run", "status", "train_kl_per_dim", "test_kl_per_dim"}
    names = dict.fromkeys(k for run in report.runs for k in run.result or {} if k not in skipped)
    lead = [key for key in report.keys if key not in names and f"{key}.kind" not in names]
    seed = [] if "seed" in names or not any("seed" in run.settings for run in report.runs) else ["seed"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "status", "reason", "health", "health_reason", *lead, *seed, *names])
    for run in report.runs:
        settings = [words(run.settings.get(key)) for key in [*lead, *seed]]
        # A hole has no result; its settings still stand in their columns.
        known = run.result or {**report.manifest["fixed"], **run.settings}
        values = [_raw(known.get(k, known.get(k.removesuffix(".kind")))) for k in names]
        writer.writerow([run.name, run.status, run.reason, run.health, run.health_reason, *settings, *values])
    return text.getvalue()


def _raw(value: Any) -> str:
    if value is None:
        return ""
    return words(value) if isinstance(value, list) else repr(value) if isinstance(value, float) else str(value)


def all_tables(report: Report) -> dict[str, Table]:
    """Every table of the report by its slug, in the report's order."""
    label = [k for k in report.keys if len(report.values(k)) > 1 and (k in LABEL_SETTINGS or not report.is_number(k))]
    found: Iterable[Table | None] = (
        headline(report),
        likelihood(report),
        *(marginal(report, key) for key in label),
        optional(report, "generation", "Generation", GENERATION),
        optional(report, "posterior", "Posterior and prior, held-out images (nats)", DIAGNOSTICS),
        failures(report),
        training(report),
        baselines(report),
    )
    return {table.slug: table for table in found if table is not None}
