"""Writes the page. A run's page is written only if what it shows has changed: STAMPS holds a hash of that."""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
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
NOT_SHOWN = ("identity", "architecture", "dataset_root")  # of a run's provenance
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
    for asset in ("site.css", "site.js", "run.js"):
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
    made.filters |= {"number": number, "shortened": shortened}
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
    template, parts = templates.get_template("run.html"), Parts(templates)
    titles = {report.name: report.title for report in reports}
    there, before = set(os.listdir(pages)), read_sound(pages / STAMPS) or {}
    stamps = {entry.name: fingerprint(entry) for entry in entries}
    if before != stamps:
        (pages / STAMPS).unlink(missing_ok=True)  # so that a page cut short is written again
    for entry in entries:
        if before.get(entry.name) != stamps[entry.name] or f"{entry.name}.html" not in there:
            shown = {"data": data.run_data(entry), "columns": data.main_columns(entry), "titles": titles}
            text = template.render(entry=entry, **parts.of(entry), **shown)
            _write_fast(f"{pages}/{entry.name}.html", text)
    if before != stamps:
        os.sync()  # once for all pages: the stamps must not outlive a page
        write_json(pages / STAMPS, stamps)
    _remove_others(pages, {f"{entry.name}.html" for entry in entries})
    meanings = {name: data.meaning(name) for name in METRICS}  # those of the user's own are known by now
    _write_changed(pages / "columns.js", f"const COLUMNS = {htmlsafe_json_dumps(meanings)};\n")


class Parts:
    """The parts of runs' pages that many have in common, each rendered once."""

    def __init__(self, templates: Environment) -> None:
        module: Any = templates.get_template("parts.html").module
        self._row = functools.cache(module.row)
        self._made = functools.cache(lambda name, text: module.row(name, shortened(text)))
        self._files = functools.cache(lambda *names: module.files("\0", names))
        self._pictures = functools.cache(lambda *names: module.pictures("\0", names))

    def of(self, entry: Entry) -> dict[str, str]:
        """What the template of a run's page needs of them."""
        folder = f"../runs/{quote(entry.name)}"
        settings = [self._row(name, words(value)) for name, value in entry.settings.items()]
        made = [self._made(name, told(v)) for name, v in entry.provenance.items() if name not in NOT_SHOWN]
        parts = {"settings": "\n".join(settings), "made": "\n".join(made)}  # the rows are escaped
        parts |= {"pictures": self._pictures(*entry.pictures), "files": self._files(*entry.files)}
        return {"folder": folder} | {name: Markup(str(part).replace("\0", folder)) for name, part in parts.items()}


def told(value: Any) -> str:
    """A value of a run's provenance in words: `python 3.12.1, torch 2.9.0`."""
    return ", ".join(f"{key} {v}" for key, v in value.items()) if isinstance(value, dict) else words(value)


def fingerprint(entry: Entry) -> str:
    """A hash of all that decides a run's page."""
    row = entry.row["outcome"], entry.reason, list(entry.settings.items()), list(entry.numbers)
    shown = [*row, sorted(entry.folder.files().items()), entry.reports, len(entry.curves), entry.of_study]
    numbers = array("d", entry.numbers.values()).tobytes()
    return hashlib.sha256(_program() + numbers + repr(shown).encode(errors="replace")).hexdigest()


@functools.cache
def _program() -> bytes:
    """A hash of what makes the pages."""
    parts = [path.read_bytes() for path in (*sorted(HERE.glob("*.py")), *sorted(TEMPLATES.iterdir()))]
    return hashlib.sha256(b"".join(parts)).digest()


def _write_fast(path: str, text: str) -> None:
    """Writes a file in half the time that `open` takes for a small one; unlike write_atomic, not all or nothing."""
    rest = text.encode(errors="replace")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _write_changed(path: Path, text: str) -> None:
    if not (path.exists() and path.read_bytes() == text.encode(errors="replace")):
        write_atomic(path, text)


def _remove_others(folder: Path, names: Iterable[str]) -> None:
    """Removes the pages and pictures of what is no longer there."""
    for path in (*folder.glob("*.html"), *folder.glob("*.png")):
        if path.name not in names:
            path.unlink(missing_ok=True)
