"""The files of a report, from the files of its runs. Imports no torch; what is missing is evaluated first.

Building one report changes nothing in the folder of another.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import advice, frame
from experiments.asked import survivors, uncompared, without_bugs
from experiments.atlas import atlas
from experiments.findings import Findings, findings
from experiments.frame import Cell, Report, ReportError
from experiments.latents import leakage, prior_shares
from experiments.published import published
from experiments.purposes import purposes
from experiments.reading import read
from experiments.report import figures, tables
from experiments.report.compare import compare, line
from experiments.report.dying import why
from experiments.report.figures import sheets
from experiments.report.figures.gallery import gallery
from experiments.report.figures.joint import joint
from experiments.report.figures.search import search as search_figure
from experiments.report.figures.style import Drawn, attempted
from experiments.report.figures.tradeoff import tradeoff
from experiments.report.figures.why import why as why_figure
from experiments.report.render import metric, render, say, shortened
from experiments.report.tables import Table, all_tables
from experiments.search_findings import Search, confirmation
from experiments.store import (
    RunFolder,
    digest,
    read_recorded,
    read_sound,
    reports_dir,
    snapshot,
    write_atomic,
    write_json,
)
from experiments.wording import SETTING, words
from vae.metrics import FAMILIES

ROWS_AT_THE_END = 8  # of a sweep, on a terminal
WORDS_ON_PAGE_ONE = 700
ROWS_ON_PAGE_ONE = (21, 18, 16, 12, 8, 4)  # of the table: as many as the words allow
IN_SUMMARY = ("title", "data", "n_runs", "n_usable", "date", "answer")
NO_BUG = ("bug.kind", "none")  # goes without saying
SHARED = ("versions", "device", "device_name", "instruction_set", "threads", "host_system")


def collect(name: str, output_dir: str | Path, *, force: bool = False) -> Path:
    """Builds a report and brings the index of all reports up to date.

    Args:
        name: of the folder in outputs/reports that holds the manifest.
        force: build it also from fewer runs than the report that is there.

    Returns:
        The path of report.md.

    Raises:
        ReportError: if there is no such report, its manifest cannot be used, runs of the report that is there are
            gone, or nothing can be written.
    """
    with snapshot(output_dir):
        report = read(name, output_dir)
        for path in report.runs["path"]:
            RunFolder(Path(path)).check()
        if not force:
            _check_complete(report)
        searched = "search" in report.manifest
        values, drawn = (_of_search if searched else _of_experiment)(report, output_dir)
        own_tables: dict[str, Table] = values["tables"]
        values |= _values(report, output_dir)
        values["pictures"] = {
            file: say("figure_captions.md.j2", figure.kind, figure.values) for file, figure in drawn.items()
        }
        prefix = "search_" if searched else ""
        for rows in ROWS_ON_PAGE_ONE if "headline" in own_tables and len(report.usable) else ():
            values["table"] = own_tables["headline"].markdown(rows)
            values["left_out"] = max(0, len(report.cells) - rows)
            page = render(f"{prefix}report.md.j2", **values)
            if len(page.split()) <= WORDS_ON_PAGE_ONE:
                break
        pages = {page: render(f"{prefix}{page}.j2", **values) for page in ("report.md", "details.md")}
        try:
            _replace(report.folder / "tables", {
                **{f"{slug}.md": f"{table.markdown()}\n" for slug, table in own_tables.items()},
                **{f"{slug}.csv": shortened(table.csv()) for slug, table in own_tables.items()},
            })  # fmt: skip
            _replace(report.folder / "figures", {file: figure.png for file, figure in drawn.items()})
            runs = shortened(tables.runs_csv(report)).encode(errors="replace")
            write_atomic(report.folder / "runs.csv", runs)
            for file, text in pages.items():
                write_atomic(report.folder / file, text)
            record = summary(report.title, [report], values["answer"])
            write_json(report.folder / "summary.json", {**record, "files": {"runs.csv": digest(runs)}})
            write_atomic(reports_dir(output_dir) / "index.md", index(output_dir))
        except OSError as e:
            raise ReportError(f"{report.folder}: the report cannot be written ({e.strerror})") from None
        return report.folder / "report.md"


def ending(folder: Path) -> str:
    """A report in a few lines for the end of a sweep: its answer and the first rows of its table, as plain text."""
    answer = json.loads((folder / "summary.json").read_text())["answer"]
    tables = [path.read_text() for path in (folder / "tables/headline.md", folder / "tables/best.md") if path.exists()]
    lines = re.sub(r"\\(?=\W|_)", "", tables[0]).splitlines() if tables else []
    last = 2 + ROWS_AT_THE_END  # after the heading and its rule
    return render("ending.md.j2", answer=answer, table=lines[:last], left_out=len(lines[last:])).strip()


def _check_complete(report: Report) -> None:
    """Refuses to replace a report by one of fewer runs, unless its sweep now names fewer.

    Raises:
        ReportError: if the report that is there was built from more runs.
    """
    try:
        before = int((read_sound(report.folder / "summary.json") or {})["n_usable"])
    except (ValueError, LookupError, TypeError):
        return
    if len(report.usable) < before <= len(report.runs):
        raise ReportError(
            f"{report.folder}: {len(report.usable)} of the {before} runs that the report was built from are left; "
            "it was not changed (--force builds it from these)"
        )


def _replace(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Makes a folder hold these files, and none of an earlier report's."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in (".md", ".csv", ".png") and old.name not in files:
            old.unlink()
    for name, data in files.items():
        write_atomic(folder / name, data)


def _of_experiment(report: Report, output_dir: str | Path) -> tuple[dict[str, Any], dict[str, Drawn]]:
    """The values of the templates, and the figures."""
    living, found, advised = survivors(report), findings(report), advice.advise(without_bugs(report))
    reasons_to_die = why(report)
    own = all_tables(report, living, found)
    drawn, not_drawn = figures.all_figures(report, _about(report, found, advised))
    jobs = _more_figures(report, advised, output_dir)
    if reasons_to_die:
        jobs |= {"why.png": partial(why_figure, reasons_to_die)}
    more, reasons = attempted(jobs)
    drawn |= more
    not_drawn |= reasons
    headline, compared = own["headline"], compare(report)
    compared_with_study, shown_bugs = published(report), atlas(report)
    return {
        "answer": say("sentences.md.j2", "answer", report, found, advised, compared_with_study, shown_bugs),
        "findings": found,
        "why": reasons_to_die,
        "advice": advised,
        "tables": own,
        "families": [f for f in FAMILIES if f in own],
        "purposes": [] if report.study.get("pick", True) else purposes(without_bugs(living)),
        "table": "",
        "left_out": 0,
        "constant": headline.constant,
        "prior_shares": prior_shares(without_bugs(report)),
        "leakage": leakage(report),
        "mixed": len(living.usable) < len(report.usable),
        "picture": _main_picture(found, advised, drawn),
        "not_drawn": not_drawn,
        "published": compared_with_study,
        "atlas": shown_bugs,
        "closed_form": any("closed form" in column.heading for column in own["settings"].filled),
        "placements": set(report.runs.get("label_placement.kind", ())),
        "unusable": report.runs[~report.runs["usable"]],
        "judges_differ": any(a.by_elbo == "several_judges" for a in advised),
        "unmatched": tables.unmatched(report),
        "uncompared": uncompared(report),
        "comparison": compared and line(compared),
    }, drawn


def _more_figures(report: Report, advised: Sequence[advice.Advice], output_dir: str | Path) -> dict[str, Any]:
    """What draws the figures that need the advice or other reports."""
    others = {name: runs for name, runs in _built(output_dir).items() if name != report.name}
    jobs: dict[str, Any] = {"tradeoff.png": partial(tradeoff, advised)}
    for advised_here in advised:
        if (best := advised_here.best) is not None and best.cell.first is not None:
            jobs |= gallery(best.cell.first, best.name)
    for content, data in report.datasets.items():
        if not any((runs["dataset_hash"] == content).any() for runs in others.values()):
            continue
        file = "joint" if len(report.datasets) == 1 else f"joint-{data['name']}"
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in file)[:60]
        jobs[f"{name}.png"] = partial(joint, report, others, content)
    return jobs


def _built(output_dir: str | Path) -> dict[str, pd.DataFrame]:
    """The runs of each report that was built, by its name, as its runs.csv has them; no run's folder is looked at."""
    found = {}
    for path in sorted(reports_dir(output_dir).glob("*/summary.json")):
        if (runs := read_recorded(path.with_name("runs.csv"), path)) is not None:
            found[path.parent.name] = pd.read_csv(io.BytesIO(runs), index_col="run", low_memory=False)
    return found


def _about(report: Report, found: Findings, advised: Sequence[advice.Advice]) -> list[Cell]:
    """The settings that the answer names, which the figures must show."""
    told = {a.best.cell.name for a in advised if a.best is not None}
    if found.rates is not None and found.rates_first:
        told |= {row.name for row in found.rates.rows if row.against is None or row.prevents or row.causes}
        return [cell for cell in report.cells if cell.name in told]
    for key in found.keys[:1]:
        ends = [end for effect in key.told for end in (effect.first, effect.second)]
        here = [c for c in report.cells if all(frame.same(c.settings[k], v) for k, v in key.rest.items())]
        told |= {c.name for c in here if any(frame.same(c.settings[key.key], end) for end in ends)}
    return [cell for cell in report.cells if cell.name in told]


def _main_picture(found: Findings, advised: Sequence[advice.Advice], drawn: Mapping[str, Any]) -> str | None:
    """The figure that shows the answer."""
    first = found.keys[0].clear[:1] if found.keys else []
    of_samples = any(metric(effect.column).family == "generation" for effect in first)
    wanted = [
        "atlas.png",
        "against.png",
        "deaths.png" if found.rates_first else "",
        "samples.png" if of_samples else "",
        "tradeoff.png" if any(a.recommended for a in advised) else "",
        "swept.png",
    ]
    return next((name for name in [*wanted, *drawn] if name in drawn), None)


# ---------------------------------------------------------------------------------------------- searches


def _of_search(report: Report, output_dir: str | Path) -> tuple[dict[str, Any], dict[str, Drawn]]:
    search = Search(report)
    drawn, not_drawn = attempted(
        {
            "search.png": partial(search_figure, search.trials, search.objectives, search.best, search.constraints),
            "samples.png": lambda: sheets.samples(_best(search)) if search.best else None,
        }
    )
    return {
        "answer": say("search_sentences.md.j2", "answer", search),
        "search": search,
        "tables": tables.of_search(search),
        "command": confirmation(search, output_dir) if search.best else None,
        "findings": findings(report),
        "not_drawn": not_drawn,
    }, drawn


def _best(search: Search) -> Report:
    """A report of the best runs alone, for their pictures: a list, not a grid of all values of each setting."""
    names = [trial.run.name for trial in search.best]
    runs = search.report.runs.loc[names].assign(**{SETTING: [trial.name for trial in search.best]})
    return replace(search.report, runs=runs, keys=[SETTING])


# ---------------------------------------------------------------------------------------------- shared


def _values(report: Report, output_dir: str | Path) -> dict[str, Any]:
    """What the first page and the section on provenance need."""
    known = [p for p in report.provenance.values() if p]
    fixed: dict[str, list[str]] = {}
    for key, value in report.manifest["fixed"].items():
        group, _, rest = key.rpartition(".")
        if key not in ("training_version", "seed", "dataset") and value is not None and (key, value) != NO_BUG:
            fixed.setdefault(group, []).append(words(value) if rest == "kind" else f"{rest} {words(value)}")
    seeds = sorted(report.runs["seed"].dropna().unique())
    reference = report.cells[0].point if SETTING in report.keys else {}
    named = {"seed", *report.keys, *(f"{key.removesuffix('.value')}.kind" for key in reference if ".value" in key)}
    times = [(p["started"], p["finished"]) for p in known if "started" in p and "finished" in p]
    seconds = sum(p.get("train_seconds", 0) / max(1, p.get("stack_size", 1)) for p in known)
    return {
        "report": report,
        "output_dir": str(output_dir),
        "seeds": max((len(cell.usable) for cell in report.cells), default=0),
        "seed_names": _ranges([int(seed) for seed in seeds]),
        "space": report.manifest.get("search", {}).get("space", {}),
        "reference": {k: v for k, v in reference.items() if k not in named and v is not None},
        "fixed": fixed,
        "code": _distinct([{"code": _code(p)} for p in known], "code"),
        "shared": {key: own for key in SHARED if (own := _distinct(known, key))},
        "times": (min(t[0] for t in times), max(t[1] for t in times)) if times else None,
        "seconds": seconds,
        "untold": len(report.usable) - sum(bool(report.provenance[run]) for run in report.usable.index),
    }


def _code(provenance: Mapping[str, Any]) -> str:
    commit = provenance.get("git_commit") or "no commit"
    return f"{commit}, with local changes" if provenance.get("git_dirty") else commit


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _distinct(known: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """The values of a key, the most frequent first, with the number of runs where there are several."""
    counts = Counter(json.dumps(p[key], sort_keys=True) for p in known if p.get(key) is not None)
    values = [(json.loads(text), n) for text, n in counts.most_common()]
    if len(values) > 1 and isinstance(values[0][0], dict):  # only what differs
        names = {k for v, _ in values for k in v if any(w.get(k) != v[k] for w, _ in values)}
        values = [({k: v[k] for k in v if k in names}, n) for v, n in values]
    texts = [(", ".join(f"{k} {w}" for k, w in v.items()) if isinstance(v, dict) else str(v), n) for v, n in values]
    return [f"{text} ({n} run{'s' * (n > 1)})" if len(texts) > 1 else text for text, n in texts]


def summary(title: str, own: Sequence[Report], answer: str) -> dict[str, Any]:
    """What the index and the page say about a report, of the runs of one or several reports."""
    return {
        "title": title,
        "data": ", ".join(sorted({data["name"] for report in own for data in report.datasets.values()})),
        "n_runs": sum(len(report.runs) for report in own),
        "n_usable": sum(len(report.usable) for report in own),
        "date": max((report.date for report in own), default=""),
        "answer": answer,
    }


def index(output_dir: str | Path) -> str:
    """The list of all reports that were built."""
    rows = {}
    for path in sorted(reports_dir(output_dir).glob("*/summary.json")):
        row = read_sound(path) or {}
        if row.keys() >= set(IN_SUMMARY):
            rows[path.parent.name] = row
    return render("index.md.j2", rows=rows)
