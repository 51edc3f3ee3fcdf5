"""Sentences from values: the Jinja templates of reports, and what they may call."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from experiments import wording
from experiments.progress import duration
from experiments.statistics import Interval
from vae.metrics import METRICS, Metric

FILTERS = (
    "number",
    "interval",
    "signed",
    "rate",
    "percent",
    "percentage",
    "words",
    "short",
    "described",
    "listed",
    "escape",
)
ABSOLUTE = re.compile(r"(?<![\w.:/~<…])(?:/[\w.@+,=~-]+){2,}")


def metric(column: str) -> Metric:
    """The declaration of a column; a plain one for a column that no family declares."""
    return METRICS.get(column) or Metric(column, "", column, "", column)


def noun(column: str) -> str:
    """A column's name inside a sentence: its heading without the unit."""
    found = metric(column)
    return found.heading.removesuffix(f" ({found.unit})")


def plural(column: str) -> bool:
    """Whether a column's name is in the plural: bits per dimension, active units."""
    return bool(re.match(r"bits|\w+ units", noun(column)))


def brief(value: Interval) -> str:
    """The mean with the digits that its interval warrants, without the interval."""
    return wording.interval(value).split(" ± ")[0]


def names(items: Sequence[str]) -> str:
    """Names of settings as alternatives, with semicolons where a comma could be read as `and`."""
    if any("," in item for item in items):
        return "; or ".join(filter(None, ["; ".join(items[:-1]), *items[-1:]]))
    return " or ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def figure(file: str) -> str:
    """What stands for a figure where it cannot be seen: `Figure: rate distortion`."""
    return f"Figure: {file.rpartition('.')[0].replace('_', ' ')}"


def minute(time: str) -> str:
    """A time of provenance.json, to the minute: `2030-01-02 03:04`."""
    return time[:16].replace("T", " ")


def shortened(text: str) -> str:
    """The text with no absolute path of this machine: only the last two names remain, but not the first."""
    return ABSOLUTE.sub(lambda m: "…/" + "/".join(m[0].split("/")[2:][-2:]), text)


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {name: getattr(wording, name) for name in FILTERS}
_ENVIRONMENT.filters |= {"noun": noun, "plural": plural, "brief": brief, "names": names, "figure": figure}
_ENVIRONMENT.filters |= {"duration": duration, "minute": minute, "quoted": shlex.quote}
_ENVIRONMENT.globals["metric"] = metric


def render(template: str, **values: Any) -> str:
    """The text of a template of experiments/report/templates, with at most one empty line in a row."""
    text = _ENVIRONMENT.get_template(template).render(**values)
    text = re.sub(r" +\n", "\n", shortened(text))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def say(template: str, macro: str, *values: Any) -> str:
    """The text of a template's macro, as one line."""
    return " ".join(shortened(getattr(_ENVIRONMENT.get_template(template).module, macro)(*values)).split())
