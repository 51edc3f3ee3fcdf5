"""Writes the page. A run's page is written only if what it shows has changed: STAMPS holds a hash of that."""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from experiments.frame import Report
from experiments.report.render import shortened
from experiments.site import data
from experiments.site.cards import Card, reference_cards, report_html, strip, user_cards
from experiments.site.data import Entry
from experiments.store import RunFolder, read_sound, runs_dir, snapshot, write_atomic, write_json
from experiments.wording import number, words
from vae.metrics import METRICS

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
STAMPS = ".runs.json"  # in pages/: of what each run's page was made


def refresh(output_dir: str | Path) -> None:
    """Brings the page up to date at the end of a sweep, which a failure here must not spoil: it is one line."""
    try:
        print(f"page: {write(output_dir)}", file=sys.stderr)
    except Exception as e:
        print(f"the page was not written ({type(e).__name__}: {' '.join(str(e).split())})", file=sys.stderr)


def write(output_dir: str | Path) -> Path:
    """Brings the page up to date and returns the path of index.html.

    Raises:
        OSError: if nothing can be written there.
    """
    root, pages = Path(output_dir), Path(output_dir) / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    templates = environment()
    _write_changed(pages / "plotly.min.js", get_plotlyjs())
    for asset in ("site.css", "site.js"):
        _write_changed(pages / asset, (TEMPLATES / asset).read_text())
    with snapshot(root), no_garbage_collection():
        own, shipped = user_cards(root), reference_cards(root)
        reports = [card.report for card in own if card.report is not None]
        entries = data.read_entries(reports, root)
        write_strips(own, runs_dir(root), pages / "strips")
        write_report_pages([*own, *shipped], root, templates)
        write_run_pages(entries, reports, pages, templates)
        text = templates.get_template("index.html").render(
            own=own, shipped=shipped, data=data.table_data(entries), readme=(root / "README.md").exists()
        )
    _write_changed(root / "index.html", text)
    return root / "index.html"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Spares Python's search for cycles, which would go through the rows of all runs again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
    made.filters |= {"number": number, "shortened": shortened, "words": words}
    return made


def write_strips(cards: Sequence[Card], runs: Path, folder: Path) -> None:
    """A PNG file with a few samples for each run that a card shows."""
    folder.mkdir(exist_ok=True)
    names = {run for card in cards for run in card.tiles[0]}
    for name in names:
        path, source = folder / f"{name}.png", runs / name / "pictures.npz"
        if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
            write_atomic(path, strip(RunFolder(runs / name)))
    _remove_others(folder, {f"{name}.png" for name in names})


def write_report_pages(cards: Sequence[Card], root: Path, templates: Environment) -> None:
    """One page for each report that there is."""
    template = templates.get_template("report.html")
    for kind in ("reports", "reference"):
        folder = root / "pages" / kind
        folder.mkdir(exist_ok=True)
        own = {f"{card.name}.html": card for card in cards if card.kind == kind and card.text}
        for name, card in own.items():
            page, details = report_html(card)
            _write_changed(folder / name, template.render(card=card, page=page, details=details))
        _remove_others(folder, own)


def write_run_pages(entries: Sequence[Entry], reports: Sequence[Report], pages: Path, templates: Environment) -> None:
    """One page for each run, written where it is missing or shows something else; pages of removed runs are removed."""
    template, rows = templates.get_template("run.html"), Rows(templates)
    titles = {report.name: report.title for report in reports}
    there, before = set(os.listdir(pages)), read_sound(pages / STAMPS) or {}
    stamps = {entry.name: fingerprint(entry) for entry in entries}
    if before != stamps:
        (pages / STAMPS).unlink(missing_ok=True)  # so that a page cut short is written again
    for entry in entries:
        if before.get(entry.name) != stamps[entry.name] or f"{entry.name}.html" not in there:
            shown = {"data": data.run_data(entry), "columns": data.main_columns(entry), "titles": titles}
            shown |= {"settings": rows.settings(entry), "measured": rows.metrics(entry)}
            text = template.render(entry=entry, **shown)
            (pages / f"{entry.name}.html").write_bytes(text.encode(errors="replace"))
    if before != stamps:
        os.sync()  # once for all pages: the stamps must not outlive a page
        write_json(pages / STAMPS, stamps)
    _remove_others(pages, {f"{entry.name}.html" for entry in entries})


class Rows:
    """The rows of the tables of runs. Most are the same on many pages, so each is rendered once."""

    def __init__(self, templates: Environment) -> None:
        module: Any = templates.get_template("rows.html").module
        self._setting = functools.cache(module.setting)

        @functools.cache
        def around(metric: str) -> list[str]:
            return str(module.metric(metric, "\0", data.meaning(metric))).split("\0")

        self._around = around

    def settings(self, entry: Entry) -> Markup:
        return Markup("\n").join(self._setting(name, words(value)) for name, value in entry.settings.items())

    def metrics(self, entry: Entry) -> Markup:
        own = [name for name in METRICS if name in entry.numbers]
        return Markup("\n".join(number(entry.numbers[name]).join(self._around(name)) for name in own))


def fingerprint(entry: Entry) -> str:
    """A hash of all that decides a run's page."""
    row = entry.row["outcome"], entry.reason, sorted(entry.settings.items()), sorted(entry.numbers.items())
    shown = [*row, sorted(entry.folder.files().items()), entry.reports, len(entry.curves), entry.of_study]
    return hashlib.sha256(_program() + repr(shown).encode(errors="replace")).hexdigest()


@functools.cache
def _program() -> bytes:
    """A hash of what makes the pages."""
    parts = [path.read_bytes() for path in (*sorted(HERE.glob("*.py")), *sorted(TEMPLATES.iterdir()))]
    return hashlib.sha256(b"".join(parts)).digest()


def _write_changed(path: Path, text: str) -> None:
    if not (path.exists() and path.read_bytes() == text.encode(errors="replace")):
        write_atomic(path, text)


def _remove_others(folder: Path, names: Iterable[str]) -> None:
    """Removes the pages and pictures of what is no longer there."""
    for path in (*folder.glob("*.html"), *folder.glob("*.png")):
        if path.name not in names:
            path.unlink(missing_ok=True)
