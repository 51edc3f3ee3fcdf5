"""How settings and numbers are written in reports, on the page and in messages: values in, short texts out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.statistics import Interval

NONE = "–"  # stands where there is no value
SETTING = "setting"  # the one key of a sweep that changes one thing at a time
DIGITS = 4  # significant digits of a number, at most
ROUNDING = 1e-12  # a number nearer to 0 is 0 but for rounding


def words(value: Any) -> str:
    """A setting's value: `0.1`, `both`, `true`, `400, 200`."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(words(v) for v in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def short(key: str) -> str:
    """A setting's name without the parts that say nothing: `x_var.value` is x_var, `trainer.lr` is lr."""
    return key.removesuffix(".value").removesuffix(".kind").removeprefix("trainer.")


def described(settings: Mapping[str, Any]) -> str:
    """Settings in words, without those that play no part: `x_var 0.1, model.hidden 400-200`."""
    texts = {k: "-".join(map(words, v)) if isinstance(v, list) else words(v) for k, v in settings.items()}
    own = {k: text for k, text in texts.items() if settings[k] is not None}
    return ", ".join(text if k == SETTING else f"{short(k)} {text}" for k, text in own.items())


def labelled(settings: Mapping[str, Any]) -> str:
    """Settings in short: a word explains itself. A number needs its name, and so does a word that stands for a number.

    A setting that plays no part is named only if there is no other.
    """
    own = {k: v for k, v in settings.items() if words(v) != NONE}
    if not own:
        return ", ".join(f"no {short(k)}" for k in settings)

    def alone(key: str, value: Any) -> bool:
        return isinstance(value, str) and value != "none" and not key.endswith(".value")

    return ", ".join(v if alone(k, v) else described({k: v}) for k, v in own.items())


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def number(value: float | None, digits: int = DIGITS) -> str:
    """A number with at most that many significant digits, without an exponent where that is readable.

    Zeros at the end stand for digits that were measured, so what is exact has none: 0.95, but 0.9500 for 0.95001.
    """
    if value is None or math.isnan(value):
        return NONE
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) < ROUNDING or math.isinf(value):
        return "0" if abs(value) < ROUNDING else f"{value:g}"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    text = _fixed(value, digits - 1 - _exponent(value, digits))
    exact = "." in text and math.isclose(float(text), value, rel_tol=1e-12)
    return text.rstrip("0").rstrip(".") if exact else text


def interval(value: Interval) -> str:
    """The mean and half its interval, `26.2 ± 0.3`; the mean alone where the interval would not show or there is none.

    The half is written with two significant digits, unless the mean would then need more than four.
    """
    if value.n == 0 or not math.isfinite(value.half) or value.half == 0:
        return number(value.mean)
    places = 1 - _exponent(value.half, 2)
    if value.mean:
        places = min(places, DIGITS - 1 - _exponent(value.mean, DIGITS))
    half = _fixed(value.half, places)
    if float(half) == 0:
        return number(value.mean)
    if places > 6 or max(abs(value.mean), value.half) >= 1e7:
        return f"{value.mean:.2g} ± {value.half:.1g}"
    return f"{_fixed(value.mean, places)} ± {half}"


def signed(difference: Interval) -> str:
    """A difference with its sign: `+0.31 ± 0.02`."""
    text = interval(difference)
    return text if text == "0" or text.startswith(("-", NONE)) else f"+{text}"


def percent(share: float) -> str:
    """A share as a whole per cent: `42 %`."""
    return NONE if math.isnan(share) else f"{100 * share:.0f} %"


def percentage(share: Interval) -> str:
    """A share with half its interval: `96.4 ± 0.8 %`."""
    return f"{interval(Interval(100 * share.mean, 100 * share.low, 100 * share.high, share.n))} %"


def rate(value: Interval) -> str:
    """A rate with Wilson's interval: `3 of 20 (5–36 %)`."""
    if value.n == 0:
        return NONE
    return f"{round(value.mean * value.n)} of {value.n} ({100 * value.low:.0f}–{100 * value.high:.0f} %)"


def escape(text: str) -> str:
    """Text that Markdown shows as it stands, in a table too: the only place where text from data is escaped for it."""
    text = "".join(c if c.isprintable() else "?" for c in re.sub(r"\s+", " ", text))
    text = re.sub(r"([\\|`*<>\[\]$]|&(?=#?\w+;))", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _exponent(value: float, digits: int) -> int:
    """The power of ten of the first digit, after rounding: 0.0996 to two digits is 0.10."""
    return math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))


def _fixed(value: float, places: int) -> str:
    text = f"{round(value, places):.{max(0, places)}f}"
    return text.removeprefix("-") if float(text) == 0 else text
