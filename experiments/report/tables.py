"""The tables of a report: numbers as they are in CSV, and as they are read in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.asked import asked
from experiments.effects import compare, controls
from experiments.findings import Findings
from experiments.frame import Cell, Report
from experiments.keys import same
from experiments.latents import prior_shares
from experiments.outcome import OUTCOMES
from experiments.report.render import metric
from experiments.search_findings import Search, Trial
from experiments.statistics import Interval, mean_interval
from experiments.wording import NONE, escape, interval, number, percentage, rate, short, signed, words
from vae.conventions import study_columns
from vae.metrics import FAMILIES, METRICS
from vae.metrics.expost import FITS

COLUMNS_ON_PAGE_ONE = 7
OWN_TABLES = ("reconstruction", "theory")  # families whose metrics have tables of their own here
TITLES = {
    "likelihood": "Likelihood",
    "generation": "Generation",
    "posterior": "Posterior and prior",
    "similarity": "Similarity of reconstructions",
    "expost": "Samples from a fit to the latents",
    "probe": "Class information in z",
}
STUDY_COLUMNS = {"elbo": ("kl_offset", "r_half_sse"), "per_dim": ("kld_loss", "r_loss")}
STUDY_FIGURES = (
    "note",
    "read_as",
    *STUDY_COLUMNS["elbo"],
    *STUDY_COLUMNS["per_dim"],
)  # the rest of a study's row are settings


def shown(value: Any) -> str:
    """A value of a table as it is read."""
    if isinstance(value, Interval):
        return interval(value)
    if isinstance(value, tuple):
        low, high = map(number, value)
        return low if low == high else f"{low} to {high}"
    return number(value) if isinstance(value, float) else words(value)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: in the CSV.
        heading: in Markdown.
        values: a word, a number, an Interval, a pair (low, high) of numbers or None for each row.
        show: how a value is written in Markdown.
        key: whether it names the row; such a column stays when all its values are the same.
    """

    name: str
    heading: str
    values: Sequence[Any]
    show: Callable[[Any], str] = shown
    key: bool = False

    @property
    def texts(self) -> list[str]:
        return [self.show(v) for v in self.values]

    def parts(self) -> dict[str, list[Any]]:
        """As columns of numbers: an interval is `name`, `name_low`, `name_high` and `name_n`."""
        if any(isinstance(v, Interval) for v in self.values):
            ends = {"": "mean", "_low": "low", "_high": "high", "_n": "n"}
            return {f"{self.name}{end}": [getattr(v, part, None) for v in self.values] for end, part in ends.items()}
        if any(isinstance(v, tuple) for v in self.values):
            low, high = zip(*(v or (None, None) for v in self.values), strict=True)
            return {f"{self.name}_low": list(low), f"{self.name}_high": list(high)}
        return {self.name: [words(v) if isinstance(v, list) else v for v in self.values]}


@dataclass(frozen=True)
class Table:
    """A table of a report; columns without any value are left out."""

    slug: str
    title: str
    columns: list[Column]

    @property
    def filled(self) -> list[Column]:
        return [c for c in self.columns if c.key or any(text != NONE for text in c.texts)]

    @property
    def constant(self) -> dict[str, str]:
        """What is the same in every row, by heading: said in a sentence instead of a column."""
        several = [c for c in self.filled if not c.key and len(c.values) > 1]
        return {c.heading: c.texts[0] for c in several if len(set(c.texts)) == 1}

    def csv(self) -> str:
        parts = {name: values for column in self.filled for name, values in column.parts().items()}
        return pd.DataFrame(parts).to_csv(index=False, lineterminator="\n")

    def markdown(self, rows: int | None = None) -> str:
        """The table without its constant columns, in GitHub's Markdown; with a limit, only the first rows."""
        columns = [c for c in self.filled if c.heading not in self.constant]
        if not columns or not columns[0].values:
            return ""
        frame = pd.DataFrame({escape(c.heading): [escape(text) for text in c.texts[:rows]] for c in columns})
        align = ["left" if any(isinstance(v, str) for v in c.values) else "right" for c in columns]
        return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def _keys(report: Report, cells: Sequence[Cell]) -> list[Column]:
    varied = [key for key in report.keys if len(report.values(key)) > 1]
    return [Column(key, short(key), [c.settings[key] for c in cells], words, key=True) for key in varied]


def _metrics(cells: Sequence[Cell], names: Iterable[str]) -> list[Column]:
    return [Column(name, metric(name).heading, [cell.interval(name) for cell in cells]) for name in names]


def _runs(report: Report, living: Report) -> Column:
    """How many runs the means are over, of how many."""
    pairs = [(len(own.usable), len(cell.runs)) for own, cell in zip(living.cells, report.cells, strict=True)]
    return Column("runs", "runs", [str(n) if n == total else f"{n} of {total}" for n, total in pairs])


def _theory(cells: Sequence[Cell], split: str, quantity: str) -> Column:
    """The closed form of KL or SSE: a range for label_placement decoder, which lies between two cases."""
    ends = [[cell.mean(f"{split}_theory_{quantity}_{end}") for cell in cells] for end in ("low", "high")]
    heading = f"{metric(f'{split}_{quantity}').heading}, closed form"
    values = [None if pd.isna(low) else (low, high) for low, high in zip(*ends, strict=True)]
    return Column(f"{split}_theory_{quantity}", heading, values)


def _outcomes(report: Report, findings: Findings) -> list[Column]:
    """How the runs ended: the rate of the outcomes that the experiment asks about, else every outcome other than ok."""
    if findings.rates is not None:
        by_name = {row.name: row.rate for row in findings.rates.rows}
        name = "_or_".join(findings.rates.outcomes)
        heading = " or ".join(findings.rates.outcomes)
        return [Column(name, heading, [by_name.get(cell.name) for cell in report.cells], _rate)]
    texts = []
    for cell in report.cells:
        counts = ((outcome, cell.count(outcome)) for outcome in OUTCOMES[1:])
        n = len(cell.runs)
        found = [outcome if count == n else f"{count} of {n} {outcome}" for outcome, count in counts if count]
        texts.append(", ".join(found) or "ok")
    return [Column("outcome", "outcome", texts)] if set(texts) != {"ok"} else []


def _rate(value: Interval | None) -> str:
    return NONE if value is None else rate(value)


def headline(report: Report, living: Report, findings: Findings) -> Table:
    """The table of page one: KL, SSE, what the experiment asks about, outcomes.

    Where there is room, also the study's figures in these columns, or else the closed form of KL and SSE.
    """
    cells = living.cells
    columns, outcomes, wanted = _keys(report, cells), _outcomes(report, findings), _wanted(report)
    room = max(1, COLUMNS_ON_PAGE_ONE - len(columns) - len(outcomes))
    chosen = list(dict.fromkeys(asked(report) + wanted))[:room]
    columns += _metrics(cells, [name for name in wanted if name in chosen])
    rows = [quoted_row(report, cell) for cell in cells]
    quoted = [_quoted(name, name, rows) for name in chosen if any(name in row for row in rows)]
    forms = [_theory(cells, "test", "kl"), _theory(cells, "test", "sse")] if findings.rates is None else []
    columns += next((extra for extra in (quoted, forms) if extra and len(extra) <= room - len(chosen)), [])
    return Table("headline", "Main numbers", columns + outcomes)


def _wanted(report: Report) -> list[str]:
    """KL, SSE and what the experiment asks about."""
    return list(dict.fromkeys(["test_kl", "test_sse", *asked(report)]))


def wide(report: Report, living: Report) -> Table:
    """Everything that page one leaves out: number of runs, effective x_var, closed form, all columns asked for."""
    cells = living.cells
    effective = [cell.interval("effective_x_var") for cell in cells]

    def value(x_var: Interval) -> str:
        return shown(x_var) if x_var.half > 0 else words(float(f"{x_var.mean:.6g}"))  # it varies if it is learned

    return Table("settings", "All settings", [
        *_keys(report, cells),
        _runs(report, living),
        Column("effective_x_var", "effective x_var", effective, value),
        *_metrics(cells, ["test_kl"]),
        _theory(cells, "test", "kl"),
        *_metrics(cells, ["test_sse"]),
        _theory(cells, "test", "sse"),
        *_metrics(cells, _wanted(report)[2:]),
    ])  # fmt: skip


def changes(report: Report, living: Report) -> Table | None:
    """What changes from each setting's control, the earlier setting that differs in the fewest keys; paired by seed."""
    pairs = controls([cell for cell in living.cells if len(cell.usable)])
    names = _wanted(report)
    found = {name: [compare(name, base, cell).change for cell, base in pairs] for name in names}
    if not any(change.n > 1 for own in found.values() for change in own):
        return None
    columns = [Column("setting", "setting", [cell.name for cell, _ in pairs], key=True)]
    columns += [Column("control", "compared with", [base.name for _, base in pairs], key=True)]
    columns += [Column(name, metric(name).heading, found[name], signed) for name in names]
    return Table("changes", "Changes", columns)


def of_family(report: Report, living: Report, family: str) -> Table | None:
    """The metrics of a family on held-out images; those on training and validation images are in runs.csv."""
    names = [n for n, m in METRICS.items() if m.family == family and not n.startswith(("train_", "val_"))]
    names = [n for n in names if n in report.runs and pd.api.types.is_numeric_dtype(report.runs[n])]
    if not any(len(cell.values(name)) for cell in living.cells for name in names):
        return None
    title = TITLES.get(family, family.capitalize())
    return Table(family, title, [*_keys(report, living.cells), *_metrics(living.cells, names)])


def prior(report: Report) -> Table | None:
    """Where samples are measurably worse than reconstructions: how much of that the prior explains."""
    found = prior_shares(report)
    columns = [
        Column("setting", "setting", [own.name for own in found], key=True),
        Column("sample_ffd", "FFD, prior", [own.prior for own in found]),
        *(Column(f"expost_{fit}_ffd", f"FFD, {name}", [own.fits[fit] for own in found]) for fit, name in FITS.items()),
        Column("reconstruction_ffd", "FFD, reconstructions", [own.reconstruction for own in found]),
        *(
            Column(f"closed_{fit}", f"explained, {name}", [own.closed[fit] for own in found], percentage)
            for fit, name in FITS.items()
        ),
    ]
    return Table("prior", "Is the prior to blame?", columns) if found else None


def train_test(report: Report, living: Report) -> Table:
    """Training against held-out images, the difference taken within each run, and training against the closed form."""
    cells = living.cells
    columns = _keys(report, cells)
    for quantity, name in (("kl", "KL"), ("sse", "SSE")):
        train, test = f"train_{quantity}", f"test_{quantity}"
        gaps = [mean_interval((cell.values(test) - cell.values(train)).dropna()) for cell in cells]
        columns += _metrics(cells, [train, test])
        columns.append(Column(f"gap_{quantity}", f"{name}, held-out less training", gaps, signed))
    ratios = [cell.interval("sse_ratio") for cell in cells]
    return Table("train_test", "Training and held-out images", [
        *columns, Column("sse_ratio", "training SSE / closed form at equal KL", ratios)
    ])  # fmt: skip


def failures(report: Report, findings: Findings) -> Table | None:
    """How often each outcome other than ok occurs; those that leave no numbers are counted among all runs."""
    cells = report.cells
    columns = [*_keys(report, cells), Column("n_runs", "runs", [len(cell.runs) for cell in cells], key=True)]
    for failure in findings.failures:
        columns.append(Column(failure.outcome, failure.outcome, [failure.rates[cell.name] for cell in cells], _rate))
    by_name = {row.name: row for row in findings.rates.rows} if findings.rates else {}
    if any(row.change for row in by_name.values()):
        rows = [by_name.get(cell.name) for cell in cells]
        columns += [
            Column("control", "compared with", [row and row.against for row in rows]),
            Column("change", "change of the rate", [row and row.change for row in rows], _points),
        ]
    return Table("failures", "Outcomes", columns) if findings.failures else None


def _points(change: Interval | None) -> str:
    """A difference of rates in percentage points."""
    if change is None:
        return NONE
    return f"{100 * change.mean:+.0f} points ({100 * change.low:+.0f} to {100 * change.high:+.0f})"


def published(report: Report, living: Report) -> Table | None:
    """The study's figures beside ours in its own columns; only where its experiment names any."""
    if not report.study.get("published"):
        return None
    cells, columns = living.cells, _keys(report, living.cells)
    quoted = [quoted_row(report, cell) for cell in cells]
    for objective in report.objectives:
        for name in STUDY_COLUMNS[objective]:
            heading = metric(f"test_{name}").heading
            here = [report.setting(cell, "objective") == objective for cell in cells]
            forms = [_study_theory(cell, name) if own else None for cell, own in zip(cells, here, strict=True)]
            columns += _metrics(cells, [f"test_{name}"])
            columns.append(Column(f"theory_{name}", f"{heading}, closed form", forms))
            columns.append(_quoted(name, f"test_{name}", quoted))
    named = dict.fromkeys(key for row in report.study["published"] for key in row if key in METRICS)
    for name in named:
        columns += [*_metrics(cells, [name]), _quoted(name, name, quoted)]
    columns.append(Column("note", "the study, in our words", [q.get("note") for q in quoted]))
    return Table("published", "Published figures", columns)


def _study_theory(cell: Cell, column: str) -> tuple[float, float] | None:
    """The closed form on held-out images in a study's column."""
    sizes = cell.mean("input_dim"), cell.mean("z_dim")
    sse, kl = ([cell.mean(f"test_theory_{q}_{end}") for end in ("low", "high")] for q in ("sse", "kl"))
    low, high = (study_columns(*pair, *sizes)[column] for pair in zip(sse, kl, strict=True))
    return None if pd.isna(low) or pd.isna(high) else (low, high)


def _fits(report: Report, cell: Cell, row: Mapping[str, Any]) -> bool:
    """Whether a cell has the settings, swept or fixed, of a row of the study's table."""
    return all(same(report.setting(cell, key), value) for key, value in row.items() if not _is_figure(key))


def _is_figure(key: str) -> bool:
    return key in STUDY_FIGURES or key in METRICS


def quoted_row(report: Report, cell: Cell) -> dict[str, Any]:
    """The figures of all rows of the study's table that a cell fits."""
    rows = [row for row in report.study.get("published") or () if _fits(report, cell, row)]
    return {key: value for row in rows for key, value in row.items() if _is_figure(key)}


def _quoted(name: str, column: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    """A figure of the study's table beside our column, from what `quoted_row` has for each cell."""
    values = [row.get(name) for row in rows]
    return Column(f"published_{name}", f"{metric(column).heading}, published", values, words)


def unmatched(report: Report) -> list[dict[str, Any]]:
    """The settings of the study's rows that no cell fits."""
    rows = [
        row for row in report.study.get("published") or () if not any(_fits(report, cell, row) for cell in report.cells)
    ]
    return [{key: value for key, value in row.items() if not _is_figure(key)} for row in rows]


def all_tables(report: Report, living: Report, findings: Findings) -> dict[str, Table]:
    """Every table of a report by its slug, in the order of the report.

    Args:
        living: the report without runs that died where others did not (`survivors`).
    """
    families = [f for f in FAMILIES if f not in OWN_TABLES]
    found: Iterable[Table | None] = (
        headline(report, living, findings),
        wide(report, living),
        changes(report, living),
        failures(report, findings),
        published(report, living),
        prior(report),
        *(of_family(report, living, family) for family in families),
        train_test(report, living),
    )
    return {table.slug: table for table in found if table is not None}


def of_search(search: Search) -> dict[str, Table]:
    """The best trials, and all of them in their order; one run each, so no intervals."""
    limits = [c["column"] for c in search.constraints]
    names = list(dict.fromkeys([*search.objectives, *limits, "test_kl", "test_sse", "sample_ffd"]))
    names = [name for name in names if name in search.report.runs]

    def columns(trials: Sequence[Trial]) -> list[Column]:
        return [
            Column("trial", "trial", [trial.number for trial in trials]),
            *(Column(k, short(k), [t.settings.get(k) for t in trials], words, key=True) for k in search.report.keys),
            *(Column(n, metric(n).heading, [float(t.run[n]) for t in trials]) for n in names),
        ]

    title = "Pareto front" if len(search.objectives) == 2 else "The best settings"
    best = {"best": Table("best", title, columns(search.ranked)[:COLUMNS_ON_PAGE_ONE])} if search.ranked else {}
    outcomes = Column("outcome", "outcome", [trial.run["outcome"] for trial in search.trials])
    kept = Column("allowed", "keeps the constraints", [trial.allowed for trial in search.trials])
    every = [*columns(search.trials), outcomes, *([kept] if search.constraints else [])]
    return {**best, "trials": Table("trials", "All trials", every)}


def runs_csv(report: Report) -> str:
    """One row per run: outcome, settings in use, and every number, at full precision."""
    left = [c for c in ("path", "usable", "failures", "status") if c in report.runs]
    frame = report.runs.drop(columns=left)
    lead = ["outcome", "reason", *report.keys, "seed"]
    return frame[[*lead, *frame.columns.difference(lead, sort=False)]].to_csv(lineterminator="\n")
