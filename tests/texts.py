"""Every text that the project can produce, in one file to read: what `make texts` writes.

A plugin of pytest: while the tests run, it keeps what templates render, what commands print and what errors say.
Lines that differ from an earlier one only in their numbers are left out.
"""

from __future__ import annotations

import functools
import html
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from jinja2.runtime import Macro

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "build" / "texts.md"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "outputs/README.md", "outputs/*/README.md")
COMMANDS = ("browse", "claims", "collect", "diagnose", "evaluate", "launch.measure", "runs")
RUNS = ("encode", "list", "pictures", "prune", "reconstruct", "rerun", "sample", "show")
PRINTED, ERRORS = "What commands print", "What errors say"

Texts = dict[str, list[str]]  # by what produced them
texts: Texts = {}


def keep(source: str, text: str | bytes | None) -> None:
    """Adds a text to those of its source."""
    if text:
        found = texts.setdefault(source, [])
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        text = text.encode(errors="backslashreplace").decode()  # a name may hold bytes that are not UTF-8
        if text not in found:
            found.append(text)


def after(owner: Any, name: str, seen: Callable[..., None]) -> None:
    """Lets a function look at the arguments and the result of each call of a method."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        seen(result, *args, **kwargs)
        return result

    setattr(owner, name, watched)


def pytest_configure(config: pytest.Config) -> None:
    """Starts to listen."""

    def printed(result: Any, *_: Any, **__: Any) -> None:
        for text in result:
            keep(PRINTED, text)

    def of_program(result: Any, process: subprocess.Popen[Any], *_: Any, **__: Any) -> None:
        if sys.executable in map(str, process.args if isinstance(process.args, list) else ()):
            printed(result)

    def rendered(result: str, template: jinja2.Template, *_: Any, **__: Any) -> None:
        keep(str(template.name), result)

    def said(result: str, macro: Macro, *_: Any, **__: Any) -> None:
        keep(f"{macro.name} (a part of a page)", result)

    def raised(_: Any, __: Any, kind: Any, error: Any, *___: Any) -> None:
        keep(ERRORS, f"{kind.__name__}: {error}" if kind else "")

    after(jinja2.Template, "render", rendered)
    after(Macro, "__call__", said)
    after(pytest.CaptureFixture, "readouterr", printed)
    after(subprocess.Popen, "communicate", of_program)
    after(pytest.RaisesExc, "__exit__", raised)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # a process of pytest-xdist
        output["texts"] = texts


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for source, found in getattr(node, "workeroutput", {}).get("texts", {}).items():
        for text in found:
            keep(source, text)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Writes the file."""
    if hasattr(config, "workeroutput"):
        return
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text("\n".join(document()))
    words = len(TARGET.read_text().split())
    print(f"\n{TARGET.relative_to(ROOT)}: {words:,} words")


def document() -> Iterator[str]:
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            yield from (f"\n\n======== {path.relative_to(ROOT)}\n", path.read_text())
    helps = [["run.py", "--help"], *([*f"-m experiments.{name}".split(), "--help"] for name in COMMANDS)]
    helps += [["-m", "experiments.runs", name, "--help"] for name in RUNS]
    for command in helps:
        shown = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        yield from (f"\n\n======== python {' '.join(command)}\n", shown.stdout, shown.stderr)
    before: set[str] = set()
    pages = sorted(set(texts) - {ERRORS, PRINTED}, key=lambda name: (name.endswith(")"), name))
    for source in [*pages, *({ERRORS, PRINTED} & set(texts))]:
        yield f"\n\n======== {source}\n"
        yield from new_lines(texts[source], before)
    yield "\n\n======== Words of templates that no test produced\n"
    everything = {squeezed(text) for found in texts.values() for text in map(readable, found)}
    yield from unproduced("\n".join(everything))


def readable(text: str) -> str:
    """A page as its words; anything else as it is."""
    if "</html>" not in text:
        return text
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def new_lines(found: list[str], before: set[str]) -> Iterator[str]:
    """The lines of some texts that are not among those before, which grow by them."""
    for text in map(readable, found):
        for line in re.sub(r"/tmp/\S*?(?=/|\s|$)", "TMP", text).splitlines():
            known = re.sub(r"[\d.,]+|[0-9a-f]{7,}", "0", squeezed(line))
            if known not in before and re.search(r"[a-z]{2}", known):
                before.add(known)
                yield line.strip()
        yield ""


def squeezed(text: str) -> str:
    return " ".join(text.split())


def unproduced(everything: str) -> Iterator[str]:
    """Pieces of text in the templates of reports that are in none of the texts."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    for path in sorted((ROOT / "experiments" / "report" / "templates").glob("*.j2")):
        tree = environment.parse(path.read_text())
        pieces = [(node.lineno, node.data) for node in tree.find_all(nodes.TemplateData)]
        pieces += [(node.lineno, str(node.value)) for node in tree.find_all(nodes.Const) if " " in str(node.value)]
        for number, piece in sorted(pieces):
            lines = map(squeezed, piece.splitlines())
            for line in (line for line in lines if re.search(r"[a-z]{2}", line) and line not in everything):
                yield f"{path.name}:{number}: {line}"
