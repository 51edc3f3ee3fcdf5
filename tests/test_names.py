"""Names from data that mean something to Matplotlib, Markdown, HTML or a file system: the report shows them."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from experiments.report import build
from experiments.report.build import collect
from experiments.site import build as site
from experiments.site.cards import report_html, user_cards
from experiments.wording import escape
from tests.fakes import DATA, fake_pictures, fake_report

NAMES = [
    "$^$",
    "漢字",
    "",
    "a\n\n# b",
    "x" * 500,
    "\\frac{",
    "_a_ *b* `c` ~d~",
    "| a | b |",
    "[x](javascript:y)",
    "<script>alert(1)</script>",
    "&amp; &#36;",
    "{{ x }} {% y %}",
    "a\x00b\x1b[31m",
    "not UTF-8: \udcff",
    "\u202eright to left",
]


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_the_name_as_it_stands(name: str) -> None:
    """What cannot be printed is `?`; blanks are one blank."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").renderInline(escape(name))
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(name.split()))
    plain = html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert plain.strip() == shown.strip()


def built(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """A report and its page on data of these names: the texts by file name."""
    made = fake_report(
        folder,
        params={"x_var.value": [1, 0.1], "seed": [0, 1]},
        data={**DATA, "name": names[0], "source": f"made of {names[0]}"},
        study={"title": names[0] or None, "question": names[0]},
    )
    for run in made:
        fake_pictures(run, labels=names)
    collect("trial", folder)
    site.write(folder)
    report = folder / "reports" / "trial"
    return {path.name: path.read_text() for path in (report / "report.md", report / "details.md", report / "runs.csv")}


@pytest.mark.parametrize("first", [0, 9, 13, *(pytest.param(i, marks=pytest.mark.slow) for i in (3, 4))])
def test_a_report_never_fails_because_of_a_name(tmp_path: Path, first: int) -> None:
    texts = built(tmp_path, NAMES[first:] + NAMES[:first])
    assert "could not be drawn" not in texts["details.md"]
    assert (tmp_path / "reports/trial/figures/samples.png").stat().st_size > 1000
    for page in (*report_html(user_cards(tmp_path)[0]), (tmp_path / "index.html").read_text()):
        assert "<script>alert" not in page
        assert not re.search(r'href="javascript', page)


def test_a_figure_that_cannot_be_drawn_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ValueError("no\nluck")

    fake_report(tmp_path, "other", {"seed": [0]})
    collect("other", tmp_path)
    for name in ("tradeoff", "joint"):
        monkeypatch.setattr(build, name, broken)
    monkeypatch.setattr(build.figures, "FIGURES", (*build.figures.FIGURES, broken))
    details = built(tmp_path, NAMES)["details.md"]
    for file in ("broken.png", "tradeoff.png", "joint.png"):
        assert f"- {file} could not be drawn: ValueError: no luck\n" in details
    assert "figures/samples.png" in details
