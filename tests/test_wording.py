"""Numbers and settings as texts."""

import math

import pytest

from experiments.statistics import Interval
from experiments.wording import (
    described,
    escape,
    interval,
    labelled,
    listed,
    number,
    percentage,
    rate,
    short,
    signed,
    words,
)


def around(mean: float, half: float, n: int = 5) -> Interval:
    return Interval(mean, mean - half, mean + half, n)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (26.2345, "26.23"),
        (0.0123456, "0.01235"),
        (1234567.0, "1235000"),
        (12345678.0, "1.235e+07"),
        (0.00001234, "1.234e-05"),
        (0.0, "0"),
        (-3.5e-17, "0"),
        (-math.inf, "-inf"),
        (3.0, "3"),
        (0.95, "0.95"),
        (0.3 + 0.6 + 0.05, "0.95"),  # but for rounding
        (0.95001, "0.9500"),
        (12, "12"),
        (60000, "60,000"),
        (-0.0, "0"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_a_number_has_at_most_four_significant_digits(value: float | None, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (around(26.2345, 0.314), "26.23 ± 0.31"),
        (around(132.51, 0.94), "132.5 ± 0.9"),
        (around(0.9992, 0.00088), "0.9992 ± 0.0009"),
        (around(7.6009024551, 0.0000000094), "7.601"),
        (around(5.0, 0.0996), "5.00 ± 0.10"),
        (around(1234.0, 56.0), "1234 ± 56"),
        (around(0.0, 0.5), "0.00 ± 0.50"),
        (around(50.0, 0.0), "50"),
        (around(0.0025, 0.0), "0.0025"),
        (around(100.0, 0.0), "100"),
        (around(12345678.0, 0.0), "1.235e+07"),
        (Interval(3.25, math.nan, math.nan, 1), "3.25"),
        (Interval(math.nan, math.nan, math.nan, 0), "–"),
    ],
)
def test_an_interval_shows_as_many_digits_as_it_warrants(value: Interval, text: str):
    assert interval(value) == text


def test_signs_rates_and_lists():
    assert signed(around(0.31, 0.02)) == "+0.310 ± 0.020"
    assert signed(around(-0.31, 0.02)) == "-0.310 ± 0.020"
    assert signed(around(0.0, 0.0)) == "0"
    assert percentage(around(0.9642, 0.0081)) == "96.42 ± 0.81 %"
    assert rate(Interval(0.15, 0.05, 0.36, 20)) == "3 of 20 (5–36 %)"
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_settings_in_words():
    assert short("x_var.value") == "x_var"
    assert short("label_placement.kind") == "label_placement"
    assert short("trainer.lr") == "lr"
    assert words([400, 200]) == "400, 200"
    assert words(True) == "true"
    assert described({"x_var.value": 0.1, "label_placement.kind": "both"}) == "x_var 0.1, label_placement both"
    assert described({"model.hidden": [400, 200], "trainer.lr": 0.01}) == "model.hidden 400-200, lr 0.01"
    assert labelled({"x_var.value": 0.1, "label_placement.kind": "both"}) == "x_var 0.1, both"
    assert labelled({"label_placement.kind": "none", "label_repeat.value": None}) == "label_placement none"
    assert labelled({"x_var.value": "learned"}) == "x_var learned"
    assert labelled({"label_repeat.value": None}) == "no label_repeat"


def test_text_from_data_is_inert_in_markdown():
    assert escape("a|b *c* <d> `e` [f] _g_\n\nh $^$") == r"a\|b \*c\* \<d\> \`e\` \[f\] \_g\_ h \$^\$"
