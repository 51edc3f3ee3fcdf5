"""The page: outputs/index.html, a static site over all experiments and runs that opens from disk.

    python -m experiments.browse [--output-dir outputs]

    outputs/index.html         experiments with their advice, rate against distortion, a table of all runs
    outputs/pages/<run>.html   a page a run
    outputs/pages/             the style, the script and plotly's own bundle, which every page links

Statuses, columns and advice are the reports'; pictures stay where they are and are linked. Run pages do not lie in the
run folders, because nothing of a finished run is ever written again and because they can so be removed at one stroke.
A run's page is written only where what it shows has changed: its first line holds a hash of that. Without torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from experiments import advice, collect, figures, tables
from experiments.advice import Advice
from experiments.report import Report, ReportError, Run, read, read_run, reports, reports_dir
from experiments.result import COLUMNS
from experiments.store import all_runs, runs_dir, write_atomic
from vae import linear_theory
from vae.config import Config, settings

TEMPLATES = Path(__file__).parent / "templates"
WRITERS = 8  # most of the time of writing is spent waiting for the disk
FIRST_PICTURES = ("samples.png", "reconstructions.png")
TIME = "train_seconds"  # of provenance.json
NUMBERS = {"test_kl": "KL (nats)", "test_sse": "SSE"}
MORE_NUMBERS = {
    **tables.LIKELIHOOD,
    **tables.GENERATION,
    **{column: column.removeprefix("test_") for column in tables.DIAGNOSTICS},
    "effective_x_var": "effective x_var",
    "z_dim": "latent dimensions k",
    "n_parameters": "parameters",
    TIME: "training time (s)",
}
SHOWN = {*NUMBERS, "test_elbo", "sample_accuracy", "sample_ffd", TIME}  # at first; the others can be switched on
SETTINGS = [name for name, _, meta, _ in settings(Config()) if meta["affects_result"]]
DOCS = {**COLUMNS, TIME: "wall-clock seconds of training, the run's share of the stack that it was trained in"}
HISTORY = {
    "train_kl": "training KL (nats per image)",
    "train_sse": "training SSE (squared error per image)",
    "train_loss": "loss per image",
    "beta": "beta",
    "x_var": "x_var (variance of a pixel)",
    "lr": "learning rate",
}


@dataclass(frozen=True)
class Entry:
    """A run as the site shows it.

    Attributes:
        reports: those made from it.
        facts: a report that has the facts of its data, if any.
    """

    run: Run
    reports: list[Report]
    facts: Report | None

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def status(self) -> str:
        """What became of it, as the reports say it; without finite numbers it is no `ok`."""
        return advice.outcome(self.run) or self.run.status

    @property
    def fingerprint(self) -> str:
        found = re.search(r"-([0-9a-f]{10})$", self.name)
        return found[1] if found else self.name

    @functools.cached_property
    def files(self) -> list[str]:
        """The names of the files in its folder."""
        return sorted(entry.name for entry in os.scandir(self.run.path) if entry.is_file() and entry.name[0] != ".")

    @property
    def pictures(self) -> list[str]:
        """Those of its PNG files, samples and reconstructions first."""
        found = [name for name in self.files if name.endswith(".png")]
        return sorted(found, key=lambda name: FIRST_PICTURES.index(name) if name in FIRST_PICTURES else 9)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """All that is part of its identity, by dotted name, the data by theirs; empty where nothing tells."""
        if self.run.result is not None:
            known = {key: value for key, value in self.run.result.items() if key in SETTINGS}
        elif not (known := self.run.provenance.get("identity", {})):
            known = {
                k: v
                for report in self.reports
                for k, v in {**report.manifest["fixed"], **self.run.settings, **self.run.point}.items()
            }
        known = {key if key in SETTINGS else f"{key}.kind": value for key, value in known.items()}
        data = (self.run.result or {}).get("dataset") or known.get("dataset.kind")
        if self.facts is not None:
            data = self.facts.datasets[self.run.dataset_hash]["name"]
        settings = {key: known.get(key) for key in SETTINGS if key != "dataset.kind"}
        return {"dataset": data, **settings} if known else {}

    def value(self, column: str) -> float | None:
        """A number of result.json or the training time, to six digits; None where there is none."""
        if column == TIME:
            seconds, stack = (self.run.provenance.get(key) for key in (TIME, "stack_size"))
            return _rounded(seconds / max(1, stack or 1)) if isinstance(seconds, int | float) else None
        return _rounded(self.run.value(column))

    @property
    def curves(self) -> list[figures.Curve]:
        """The closed forms that it can be compared with."""
        return figures.curves(self.run) if self.run.usable and self.facts is not None else []


@dataclass(frozen=True)
class Finalist:
    """The choice of an advice or its runner-up, and the run that stands for it.

    Attributes:
        scores: the errors that the advice weighs, as mean ± interval over seeds.
        share: of the redraws in which it is the choice.
    """

    name: str
    run: Run
    scores: list[str]
    share: str
    outcomes: str


@dataclass(frozen=True)
class Section:
    """An experiment as the site shows it.

    Attributes:
        advices: one for each dataset with its finalists, the choice first; empty where none of its runs is here.
        finding: what its report said when it was made.
        figures: names of the report's pictures.
    """

    report: Report
    title: str
    advices: list[tuple[Advice, list[Finalist]]]
    finding: str
    tables: list[tables.Table]
    figures: list[str]


# ---------------------------------------------------------------------------------------------- reading


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def read_reports(output_dir: str | Path) -> tuple[list[Report], dict[str, str]]:
    """The reports that can be used, and what is wrong with the others by name."""
    usable, broken = [], {}
    for name in reports(output_dir):
        try:
            usable.append(read(name, output_dir))
        except ReportError as e:
            broken[name] = str(e)
    return usable, broken


def read_entries(found: Sequence[Report], output_dir: str | Path) -> list[Entry]:
    """Every run that has a folder, by name; those of a report are not read again."""
    known: dict[str, Run] = {}
    used: dict[str, list[Report]] = {}
    for report in found:
        for run in report.runs:
            known[run.name] = run
            used.setdefault(run.name, []).append(report)
    facts = {key: report for report in found for key in report.datasets}
    entries = []
    for folder in all_runs(output_dir):
        run = known.get(folder.name) or read_run(folder.path, {}, "")
        run = dataclasses.replace(run, dataset_hash=(run.result or {}).get("dataset_hash", run.dataset_hash))
        entries.append(Entry(run, used.get(run.name, []), facts.get(run.dataset_hash)))
    return entries


def section(report: Report, output_dir: str | Path) -> Section:
    """What the site says of an experiment."""
    here = any(run.path.is_dir() for run in report.runs)
    advices = [(found, finalists(found)) for found in advice.advise(report)] if here else []
    try:
        finding = str(json.loads((report.folder / "summary.json").read_text())["finding"])
    except (OSError, ValueError, LookupError, TypeError):
        finding = ""
    made = [tables.headline(report), tables.optional(report, "generation", "Generation", tables.GENERATION)]
    pictures = sorted(path.name for path in (report.folder / "figures").glob("*.png"))
    shown = [table for table in made if table is not None and report.usable]
    return Section(report, collect.title(report), advices, finding, shown, pictures)


def finalists(found: Advice) -> list[Finalist]:
    """The choice and its runner-up, each with a run of one seed that both have, where there is one."""
    chosen: list[Finalist] = []
    for i in advice.finalists(found):
        option, first = found.options[i], found.options[i].cell.first
        assert first is not None  # a setting without numbers is not eligible
        same = chosen[0].run.seed if chosen else first.seed
        run = next((run for run in option.cell.usable if run.seed == same), first)
        ok = f"{option.outcomes['ok']} of {option.outcomes.total()}"
        scores = [tables.interval(score) for score in option.scores]
        chosen.append(Finalist(option.name, run, scores, advice.percent(found.shares.get(i, 0.0)), ok))
    return chosen


# ---------------------------------------------------------------------------------------------- the index


def number_columns(entries: Iterable[Entry]) -> dict[str, tuple[str, bool]]:
    """Column -> its heading and whether it is shown at first, for the columns that some run has."""
    entries = list(entries)
    objectives = {(entry.run.result or {}).get("objective.kind") for entry in entries}
    study = {
        f"test_{column}": heading
        for objective, headings in tables.STUDY_COLUMNS.items()
        if objective in objectives
        for column, heading in headings.items()
    }
    headings = {**NUMBERS, **study, **MORE_NUMBERS}
    return {
        column: (heading, column in SHOWN or column in study)
        for column, heading in headings.items()
        if any(entry.value(column) is not None for entry in entries)
    }


def _plain(value: Any) -> Any:
    """A setting as JSON; a list in words, so that it can be sorted and told apart."""
    return tables.words(value) if isinstance(value, list | dict) else _finite(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """All that the index's table, plot and comparison need, for JSON.

    Returns:
        settings: [name, heading] each; numbers: [column, heading, meaning, shown at first] each; curves: the closed
        forms; runs: one object each, its `settings` (none where
        they are not known) and `numbers` in the order of these lists, its `curves` by index.
    """
    names = ["dataset", *(name for name in SETTINGS if any(e.settings.get(name) is not None for e in entries))]
    varied = [name for name in names if len({str(e.settings.get(name)) for e in entries if e.settings}) > 1]
    same = Counter(name for name, _ in {(e.settings.get("dataset"), e.run.dataset_hash) for e in entries})
    numbers = number_columns(entries)
    curves = {curve: entry.facts for entry in entries for curve in entry.curves}
    index = {curve: i for i, curve in enumerate(curves)}
    ts = [t for entry in entries if (t := entry.value("effective_x_var"))]
    rows = []
    for entry in entries:
        own = [_plain(entry.settings.get(name)) for name in names] if entry.settings else []
        if own and same[own[0]] > 1:
            own[0] = f"{own[0]} {entry.run.dataset_hash[:6]}"
        rows.append({
            "run": entry.name,
            "fingerprint": entry.fingerprint,
            "status": entry.status,
            "reason": entry.run.health_reason,
            "reports": [report.name for report in entry.reports],
            "settings": own,
            "numbers": [entry.value(column) for column in numbers],
            "pictures": entry.pictures,
            "curves": [index[curve] for curve in entry.curves],
        })  # fmt: skip
    return {
        "settings": [[name, _heading(name, names, varied)] for name in names],
        "numbers": [[column, heading, DOCS[column], first] for column, (heading, first) in numbers.items()],
        "curves": [curve_data(curve, facts, ts) for curve, facts in curves.items() if facts is not None],
        "runs": rows,
    }


def _heading(name: str, names: Sequence[str], varied: Sequence[str]) -> str:
    """The name in short, unless that could be another setting, of those that vary if any does."""
    short = tables.short(name)
    same = [other for other in names if tables.short(other) == short]
    return short if ([other for other in same if other in varied] or same) == [name] else name


def curve_data(curve: figures.Curve, facts: Report, ts: Sequence[float]) -> dict[str, Any]:
    """A closed form in the rate-distortion plane, over these effective variances and beyond."""
    line = curve.at(facts, np.geomspace(min(ts) / 3, max(curve.spectrum(facts)[0], *ts), 200))
    data = facts.datasets[curve.dataset_hash]["name"]
    return {
        **_style(curve),
        "title": f"k = {curve.z_dim}, {data}",
        "k": curve.z_dim,
        **{quantity: [_rounded(v) for v in values.tolist()] for quantity, values in line.items()},
    }


def _style(curve: figures.Curve) -> dict[str, str]:
    """As in the reports' figures."""
    line, name = figures.CLOSED_FORM[curve.kind]
    return {"name": name, "dash": "dash" if line == "--" else "dot"}


# ---------------------------------------------------------------------------------------------- run pages


def run_data(entry: Entry) -> dict[str, Any]:
    """What a run's page draws: learning curves, and the KL of each latent dimension beside the closed form's."""
    history = figures.history(entry.run, ("epoch", *HISTORY))
    kept = [name for name in HISTORY if name in history]
    kl = (entry.run.result or {}).get("test_kl_per_dim") or []
    closed, t = [], entry.run.value("effective_x_var")
    for curve in entry.curves if kl else []:
        assert entry.facts is not None
        best = linear_theory.optimum(curve.spectrum(entry.facts), t, curve.z_dim)
        closed.append({**_style(curve), "kl": [_rounded(v) for v in best.kl_per_dim.tolist()]})
    return {
        "epoch": history.get("epoch", []),
        "history": [[name, HISTORY[name], [_rounded(v) for v in history[name]]] for name in kept],
        "kl_per_dim": [_rounded(v) for v in kl],
        "closed_form": closed,
    }


def fingerprint(entry: Entry) -> str:
    """A hash of all that decides a run's page."""
    run, history = entry.run, entry.run.path / "history.csv"
    stamp = [(found := history.stat()).st_size, found.st_mtime_ns] if history.exists() else []
    shown = [entry.status, run.health_reason, run.result, run.provenance, entry.files, stamp]
    shown += [[report.name for report in entry.reports], entry.facts is None]
    return hashlib.sha256(_program() + json.dumps(shown, sort_keys=True).encode()).hexdigest()


@functools.cache
def _program() -> bytes:
    """A hash of what makes the pages."""
    files = [Path(__file__), *sorted(TEMPLATES.iterdir())]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).digest()


# ---------------------------------------------------------------------------------------------- writing


def environment() -> Environment:
    """The templates; all text in them is escaped, JSON too: `<` in it is written as \\u003c."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.filters |= {"shown": tables.shown, "words": tables.words, "short": tables.short}
    return made


def write(output_dir: str | Path) -> Path:
    """Brings the site up to date.

    Returns:
        The path of index.html.

    Raises:
        OSError: if nothing can be written there.
    """
    root, pages = Path(output_dir), Path(output_dir) / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    found, broken = read_reports(output_dir)
    entries = read_entries(found, output_dir)
    templates = environment()
    _write_changed(pages / "plotly.min.js", get_plotlyjs().encode())
    for asset in ("browse.css", "browse.js"):
        _write_changed(pages / asset, (TEMPLATES / asset).read_bytes())
    write_run_pages(entries, pages, templates)
    manifests = {report.name for report in found} | broken.keys()
    others = [p.parent.name for p in sorted(reports_dir(output_dir).glob("*/report.md"))]
    objectives = {str(entry.settings.get("objective.kind")) for entry in entries}
    text = templates.get_template("index.html").render(
        sections=[section(report, output_dir) for report in found],
        broken=broken,
        others=[name for name in others if name not in manifests],
        joints=sorted(path.name for path in reports_dir(output_dir).glob("*-joint.png")),
        data=table_data(entries),
        conventions=[
            (kind, formula, collect.EFFECTIVE[kind], collect.STUDY_COLUMN_TEXTS[kind])
            for kind, formula in collect.FORMULAS.items()
            if kind in objectives
        ],
        readme=(root / "README.md").exists(),
    )
    _write_changed(root / "index.html", text.encode())
    return root / "index.html"


def write_run_pages(entries: Sequence[Entry], pages: Path, templates: Environment) -> None:
    """A page for each run, where it is missing or shows something else, and none for runs that were removed."""
    template = templates.get_template("run.html")

    def write_page(entry: Entry) -> None:
        path, mark = pages / f"{entry.name}.html", fingerprint(entry)
        if _mark(path) != mark:
            shown = {"data": run_data(entry), "columns": number_columns([entry]), "docs": DOCS}
            write_atomic(path, template.render(entry=entry, mark=mark, **shown).encode())

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write_page, entries))  # so that an error is raised here
    names = {f"{entry.name}.html" for entry in entries}
    for path in pages.glob("*.html"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _mark(path: Path) -> str:
    """The hash in a page's first line; empty without a page."""
    try:
        with open(path, encoding="utf-8") as f:
            return f.readline().removeprefix("<!doctype html><!-- ").removesuffix(" -->\n")
    except (OSError, ValueError):
        return ""


def _write_changed(path: Path, data: bytes) -> None:
    if not (path.exists() and path.read_bytes() == data):
        write_atomic(path, data)


def refresh(output_dir: str | Path) -> None:
    """Brings the site up to date at the end of a sweep, which a failure here must not spoil: it is one line."""
    try:
        print(f"page: {write(output_dir)}", file=sys.stderr)
    except Exception as e:
        print(f"the page was not written ({type(e).__name__}: {' '.join(str(e).split())})", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.browse", description="Writes outputs/index.html.")
    parser.add_argument("--output-dir", default="outputs", help="folder that holds runs/ and reports/ (outputs)")
    output_dir = parser.parse_args(argv).output_dir
    if not (runs_dir(output_dir).is_dir() or reports_dir(output_dir).is_dir()):
        print(
            f"browse: {output_dir} holds neither runs/ nor reports/; python run.py -m sweep makes both", file=sys.stderr
        )
        return 1
    try:
        print(write(output_dir))
    except OSError as e:
        print(f"browse: {output_dir}: the page cannot be written ({e.strerror})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
