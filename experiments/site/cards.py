"""Experiments as cards, and their reports as pages."""

from __future__ import annotations

import datetime
import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from markdown_it import MarkdownIt
from PIL import Image

from experiments.damage import damaged
from experiments.effects import along
from experiments.frame import Report, ReportError
from experiments.reading import read
from experiments.report.render import shortened
from experiments.store import RunFolder, read_sound, reports_dir
from experiments.wording import described, listed

TILES = 8  # of a strip, at most
SOURCES = ("sweep.json", "report.md")  # a folder with one of them is a report
SAMPLES = (2, 5)  # rows and columns of a tile


@dataclass(frozen=True, eq=False)
class Card:
    """A report as the page shows it: an experiment of the user, a reference report, or one without runs of its own.

    Attributes:
        folder: of the report.
        report: its manifest and runs; None where it has none or they cannot be read.
        problem: why the report cannot be read; "" if it can.
    """

    folder: Path
    report: Report | None
    problem: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        """`reports` or `reference`: the folder in outputs/, and in the page's own."""
        return self.folder.parent.name

    @cached_property
    def summary(self) -> dict[str, str]:
        """The texts of summary.json: `title`, `answer`, `advice`, `data`."""
        found = read_sound(self.folder / "summary.json") or {}
        return {key: shortened(value) for key, value in found.items() if isinstance(value, str)}

    @cached_property
    def text(self) -> str:
        """Page one of the report; "" where it has not been made."""
        return read_text(self.folder / "report.md")

    @property
    def title(self) -> str:
        heading = re.search(r"^# (.+)$", self.text, re.MULTILINE)
        return self.summary.get("title") or (self.report.title if self.report else heading[1] if heading else self.name)

    @property
    def data(self) -> str:
        return listed([str(d["name"]) for d in self.report.datasets.values()]) if self.report else ""

    @property
    def figure(self) -> str:
        """The first picture of the report, a path in its folder; "" without one."""
        found = re.search(r"!\[[^\]]*\]\(([^)\s]+)\)", self.text)
        return found[1] if found and (self.folder / found[1]).exists() else ""

    @cached_property
    def started(self) -> float:
        """When the sweep was last started, or a report without runs was made, in seconds since 1970."""
        return next(path.stat().st_mtime for name in SOURCES if (path := self.folder / name).exists())

    @property
    def date(self) -> str:
        return datetime.date.fromtimestamp(self.started).isoformat()

    def count(self, outcome: str) -> int:
        return 0 if self.report is None else int((self.report.runs["outcome"] == outcome).sum())

    @property
    def trained(self) -> int:
        """How many of its runs have ended training, measured or not."""
        if self.report is None:
            return 0
        runs = self.report.runs.reindex(columns=["outcome", "status"])
        return int(((runs["outcome"] != "missing") | runs["status"].notna()).sum())

    @cached_property
    def tiles(self) -> tuple[dict[str, str], str]:
        """Runs whose samples show the swept setting, with its value in words; and their other settings, in words."""
        if self.report is None:
            return {}, ""
        key = self.report.main
        lines = along(self.report, key) if key else self.report.lines
        drawn = [(rest, [cell for cell in cells if has_pictures(cell.first)]) for rest, cells in lines]
        rest, cells = max(drawn, key=lambda line: len(line[1]))
        few = [cells[i] for i in np.linspace(0, len(cells) - 1, min(TILES, len(cells))).round().astype(int)]
        return {str(c.first.name): described({key: c.settings[key]} if key else {}) for c in few}, described(rest)


def user_cards(output_dir: str | Path) -> list[Card]:
    """The cards of outputs/reports, the newest first."""
    cards = []
    for folder in {path.parent for name in SOURCES for path in reports_dir(output_dir).glob(f"*/{name}")}:
        try:
            made = read(folder.name, output_dir, measure=False) if (folder / SOURCES[0]).exists() else None
            cards.append(Card(folder, made))
        except ReportError as e:
            damaged(e)
            cards.append(Card(folder, None, shortened(str(e))))
    return sorted(cards, key=lambda card: (-card.started, card.name))


def reference_cards(output_dir: str | Path) -> list[Card]:
    """The cards of outputs/reference, by title."""
    cards = [Card(path.parent, None) for path in (Path(output_dir) / "reference").glob("*/report.md")]
    return sorted(cards, key=lambda card: (card.title, card.name))


# ---------------------------------------------------------------------------------------------- pictures of a card


def has_pictures(run: Any) -> bool:
    return run is not None and (Path(run["path"]) / "pictures.npz").exists()


def strip(run: RunFolder) -> bytes:
    """A PNG file of the first samples of a run's pictures.npz, one of each class first; black if that is damaged."""
    rows, columns = SAMPLES
    samples = np.zeros((1, 1, 1, 1, 1), np.uint8)
    if run.sound("pictures.npz", "metrics/pictures.json"):
        with np.load(run.path / "pictures.npz") as arrays:
            samples = arrays["samples"]  # (R, N, C, H, W)
    channels, height, width = samples.shape[2:]
    few = samples.swapaxes(0, 1).reshape(-1, channels, height, width)[: rows * columns]  # (n, C, H, W)
    tiles = np.zeros((rows * columns, channels, height, width), np.uint8)
    tiles[: len(few)] = few
    tiles = tiles.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    picture = tiles.reshape(rows * height, columns * width, channels)
    made = io.BytesIO()
    Image.fromarray(picture[..., 0] if channels == 1 else picture).save(made, "PNG")
    return made.getvalue()


# ---------------------------------------------------------------------------------------------- reports as pages


def report_html(card: Card) -> tuple[str, str]:
    """report.md and details.md as HTML; HTML in them is shown as text. "" for details.md if there is none."""
    base = f"../../{card.kind}/{quote(card.name)}/"
    return _html(card.text, base, 0), _html(read_text(card.folder / "details.md"), base, 1)


def read_text(path: Path) -> str:
    """The text of a page; "" where there is none or it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as e:
        damaged(f"{path}: cannot be read ({e.strerror})")
        return ""


def _html(text: str, base: str, deeper: int) -> str:
    """Markdown as HTML.

    Args:
        base: what stands before relative links.
        deeper: by how many levels the headings are lowered.
    """
    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = made.parse(text)
    for token in [t for outer in tokens for t in (outer, *(outer.children or []))]:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + deeper)}"
        elif token.type == "link_open":
            token.attrSet("href", _link(str(token.attrGet("href")), base))
        elif token.type == "image":
            token.attrSet("src", _link(str(token.attrGet("src")), base))
            token.attrSet("loading", "lazy")
    return made.renderer.render(tokens, made.options, {})


def _link(target: str, base: str) -> str:
    """A link of a report, from its page: other reports are opened as pages too."""
    if urlsplit(target).scheme or target.startswith(("#", "/")):
        return target
    if target in (pages := {"report.md": "#", "details.md": "#details"}):
        return pages[target]
    other = re.fullmatch(r"\.\./(?:\.\./(reports|reference)/)?([^/]+)/report\.md(#.*)?", target)
    return f"../{other[1] or base.split('/')[2]}/{other[2]}.html" if other else base + target
