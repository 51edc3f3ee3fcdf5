"""The tables: how numbers are written, and each value against a calculation of its own."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_collect import SPECTRUM, WITHIN, Change, write_sweep

from experiments import tables
from experiments.report import Report, read, words
from experiments.statistics import Interval
from experiments.tables import Rate, Table, escape, interval, number, rate, shown


def as_dicts(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


def markdown_rows(table: Table) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table.markdown().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def sweep(tmp_path: Path, **kwargs: Any) -> Report:
    write_sweep(tmp_path, **kwargs)
    return read("trial", tmp_path)


def numbers(values: dict[tuple[Any, int], tuple[float, float]]) -> Change:
    """A change that sets KL and SSE by (x_var, seed)."""

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        if (settings["x_var.value"], settings["seed"]) not in values:
            return None
        kl, sse = values[settings["x_var.value"], settings["seed"]]
        return row | {"test_kl": kl, "test_sse": sse, "test_kl_offset": kl + 5, "test_r_half_sse": sse / 2}

    return change


def test_numbers_have_sensible_digits():
    assert [number(x) for x in (26.2345, 0.012345, 1234.5, 12345.6, 88.0)] == [
        "26.23",
        "0.01235",
        "1234",
        "12346",
        "88.00",
    ]
    assert number(math.nan) == number(None) == "–"
    assert number(0.0) == "0"
    assert number(7) == "7"
    assert number(1e-9) == "1e-09"
    assert number(-3.14159) == "-3.142"


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (26.2345, 0.3123, "26.23 ± 0.31"),
        (1.0, 0.0996, "1.00 ± 0.10"),
        (138.4, 12.3, "138 ± 12"),
        (1384.0, 123.0, "1380 ± 120"),
        (-0.0001, 0.023, "0.000 ± 0.023"),
        (20.0, 0.0, "20 ± 0"),
        (0.97199999999999986, 1.1e-16, "0.972 ± 0"),
        (5.0, 9.96, "5 ± 10"),
        (8.82e-6, 2.1e-7, "8.82e-06 ± 2.1e-07"),
        (4e-18, 1.2e-17, "4e-18 ± 1.2e-17"),
        (0.0, 1e-7, "0e+00 ± 1.0e-07"),
    ],
)
def test_an_interval_has_two_digits(mean: float, half: float, text: str):
    assert interval(Interval(mean, mean - half, mean + half, 3)) == text


def test_intervals_of_one_and_of_no_value():
    assert interval(Interval(26.2345, math.nan, math.nan, 1)) == "26.23 (n = 1)"
    assert interval(Interval(math.nan, math.nan, math.nan, 0)) == "–"


def test_rates_and_words():
    assert rate(Rate(0, 10)) == "0/10, 0–28 %"
    assert rate(Rate(3, 20)) == "3/20, 5–36 %"
    assert rate(Rate(0, 0)) == "–"
    assert [words(v) for v in (None, True, [400, 200], 0.1, 1.0, "both")] == [
        "–",
        "true",
        "400, 200",
        "0.1",
        "1",
        "both",
    ]
    assert shown(tables.Range(1.0, 2.5)) == "1.000–2.500"


def test_markdown_is_escaped():
    assert escape("a|b `c` *d* <e> [f]\ng") == r"a\|b \`c\` \*d\* \<e\> \[f\] g"
    assert escape("x_var") == "x_var"  # inside a word it is no emphasis
    assert escape("_x_") == r"\_x\_"
    table = Table("t", "T", [("a", "a|b")], [["x|y"]])
    assert table.markdown() == "| a\\|b |\n| --- |\n| x\\|y |\n"


def test_headline_against_a_hand_calculation(tmp_path: Path):
    values = {(1, 0): (1.0, 30.0), (1, 1): (2.0, 33.0), (1, 2): (4.0, 31.0), (0.1, 0): (20.0, 10.0)}
    report = sweep(tmp_path, params={"x_var.value": [1, 0.1], "seed": [0, 1, 2]}, change=numbers(values))
    first, second = as_dicts(tables.headline(report))
    x = np.array([1.0, 2.0, 4.0])
    half = stats.t.ppf(0.975, 2) * x.std(ddof=1) / math.sqrt(3)
    assert float(first["kl"]) == pytest.approx(7 / 3)
    assert float(first["kl_low"]) == pytest.approx(7 / 3 - half)
    assert float(first["kl_high"]) == pytest.approx(7 / 3 + half)
    assert (first["n"], first["kl_n"], first["x_var.value"]) == ("3", "3", "1")
    assert float(first["sse"]) == pytest.approx(94 / 3)
    assert float(first["kl_offset"]) == pytest.approx(7 / 3 + 5)
    assert float(first["r_half_sse"]) == pytest.approx(47 / 3)
    # one run of three: its numbers without an interval, and the holes are counted
    assert (second["n"], float(second["kl"]), second["kl_low"], second["kl_high"]) == ("1 of 3", 20.0, "", "")
    shown_rows = markdown_rows(tables.headline(report))
    assert shown_rows[0]["KL (nats)"] == f"{7 / 3:.1f} ± {half:.1f}"
    assert shown_rows[1]["KL (nats)"] == "20.00 (n = 1)"
    assert shown_rows[1]["n"] == "1 of 3"


def test_headline_gives_the_closed_form_and_the_effective_variance(tmp_path: Path):
    report = sweep(tmp_path, params={"label_placement": ["both", "decoder"], "seed": [0, 1]})
    both, decoder = as_dicts(tables.headline(report))
    t, spectrum = 0.1, 2.5 * 0.8 ** np.arange(10)  # within class, z_dim 10
    kl = 0.5 * np.log(spectrum / t).sum()
    assert both["effective_x_var"] == "0.1"
    assert float(both["theory_kl_low"]) == float(both["theory_kl_high"]) == pytest.approx(kl)
    rest = (2.5 * 0.8 ** np.arange(10, 64)).sum()
    assert float(both["theory_sse_low"]) == pytest.approx(10 * t + rest)
    assert float(decoder["theory_kl_low"]) == pytest.approx(kl)
    assert float(decoder["theory_kl_high"]) > kl


def test_a_published_figure_lands_in_its_row(tmp_path: Path):
    study = {
        "published": [{"x_var.value": 0.1, "kl_offset": 91.5, "note": "good|bad"}, {"x_var.value": 7, "kl_offset": 1}]
    }
    report = sweep(tmp_path, params={"x_var.value": [1.0, 0.1], "seed": [0]}, study=study)
    rows = as_dicts(tables.headline(report))
    assert [row["published_kl_offset"] for row in rows] == ["", "91.5"]
    assert [row["published_note"] for row in rows] == ["", "good|bad"]
    assert "good\\|bad" in tables.headline(report).markdown()


def test_published_rows_match_fixed_settings_and_points(tmp_path: Path):
    study = {"published": [{"z_dim.value": 10, "beta.value": 0.1, "kld_loss": 80, "r_loss": 3.0}]}
    points = [{"z_dim.value": 10, "beta.value": 0.1}, {"z_dim.value": 5, "beta.value": 0.1}]
    fixed = {"objective.kind": "per_dim", "label_placement.kind": "none"}
    report = sweep(tmp_path, params={"seed": [0, 1]}, points=points, study=study, fixed=fixed)
    rows = {row["z_dim.value"]: row for row in as_dicts(tables.headline(report))}
    assert (rows["10"]["published_kld_loss"], rows["10"]["published_r_loss"]) == ("80", "3.0")
    assert rows["5"]["published_kld_loss"] == ""
    kl, sse = (float(rows["10"][f"theory_{name}_low"]) for name in ("kl", "sse"))
    assert float(rows["10"]["theory_kld_loss_low"]) == pytest.approx(128 * kl / 10)
    assert float(rows["10"]["theory_r_loss_low"]) == pytest.approx(128 * sse / 64)
    assert "kl_offset" not in rows["10"]
    study = {"published": [{"label_placement": "both", "note": "the default"}]}
    write_sweep(tmp_path, "other", {"seed": [0, 1]}, study=study)
    assert as_dicts(tables.headline(read("other", tmp_path)))[0]["published_note"] == "the default"


def test_marginals_average_within_a_seed_and_pair_by_seed(tmp_path: Path):
    effects = {"both": 0.0, "decoder": 1.0, "encoder": 5.0}

    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        base = 100.0 * settings["seed"] + {1: 0.0, 5: 10.0}[settings["label_repeat.value"]]
        jitter = 0.1 * settings["seed"] * (settings["label_placement"] == "decoder")
        return row | {"test_kl": base + effects[settings["label_placement"]] + jitter}

    params = {"label_placement": list(effects), "label_repeat.value": [1, 5], "seed": [0, 1, 2]}
    report = sweep(tmp_path, params=params, change=change)
    rows = {row["label_placement"]: row for row in as_dicts(tables.marginal(report, "label_placement"))}
    assert float(rows["both"]["kl"]) == pytest.approx(105.0)
    assert rows["both"]["kl_n"] == "3"  # seeds, not runs
    assert rows["both"]["kl_difference"] == "reference"
    # differences by seed: 1, 1.1, 1.2
    d = np.array([1.0, 1.1, 1.2])
    low, high = stats.t.interval(0.95, 2, d.mean(), stats.sem(d))
    assert float(rows["decoder"]["kl_difference"]) == pytest.approx(1.1)
    assert float(rows["decoder"]["kl_difference_low"]) == pytest.approx(low)
    assert float(rows["decoder"]["kl_difference_high"]) == pytest.approx(high)
    assert float(rows["encoder"]["kl_difference"]) == pytest.approx(5.0)
    repeats = {row["label_repeat.value"]: row for row in as_dicts(tables.marginal(report, "label_repeat.value"))}
    assert repeats["5"]["kl_difference"] == "reference"  # the default, though not the first
    assert float(repeats["1"]["kl_difference"]) == pytest.approx(-10.0)


def test_differences_leave_out_unpaired_runs(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        if settings["label_placement"] == "both" and settings["seed"] == 2:
            return None
        return row | {"test_kl": 10.0 * settings["seed"] + (settings["label_placement"] == "decoder")}

    report = sweep(tmp_path, params={"label_placement": ["both", "decoder"], "seed": [0, 1, 2]}, change=change)
    effect = tables.effect(report, "label_placement", "both", "decoder", "test_kl")
    assert (effect.mean, effect.n) == (1.0, 2)


def test_failures_are_counted_by_kind(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str | None:
        match settings["seed"]:
            case 0:
                return None
            case 1:
                return "OutOfMemoryError: no | room"
            case 2:
                return row | {"status": "diverged", "diverged_epoch": 3, "test_sse": None, "test_kl": None}
            case 3:
                return row | {"test_active_units": 0, "test_kl": 0.0, "test_sse": row["test_baseline_class_means"]}
            case 4:
                return row | {"test_sse": math.nan}
            case 5:
                return row | {"schema_version": 99}
            case 6:
                return row | {"test_sse": row["test_baseline_zero"]}
        return row

    report = sweep(tmp_path, params={"x_var.value": [0.1], "seed": range(9)}, change=change)
    row = as_dicts(tables.failures(report))[0]
    assert [row[k] for k in ("runs", "missing", "failed", "diverged", "unreadable")] == ["9", "1", "1", "2", "1"]
    assert (row["unusable"], row["unusable_n"]) == ("5", "9")
    assert (row["collapsed"], row["dead"], row["hole"], row["dead_n"]) == ("1", "1", "0", "4")
    low, high = stats.binomtest(5, 9).proportion_ci(0.95, method="wilson")
    assert (float(row["unusable_low"]), float(row["unusable_high"])) == (pytest.approx(low), pytest.approx(high))
    assert as_dicts(tables.headline(report))[0]["n"] == "4 of 9"
    assert "schema_version 99" in next(r.reason for r in report.runs if r.seed == 5)


def test_the_gap_is_taken_within_runs(tmp_path: Path):
    report = sweep(tmp_path, params={"x_var.value": [0.1], "seed": [0, 1, 2]})
    row = as_dicts(tables.training(report))[0]
    assert float(row["gap_sse"]) == pytest.approx(0.5)  # the same in each run, though the runs differ
    assert float(row["gap_sse_high"]) - float(row["gap_sse_low"]) == pytest.approx(0, abs=1e-9)
    assert float(row["gap_kl"]) == pytest.approx(0)


def test_baselines(tmp_path: Path):
    rows = as_dicts(tables.baselines(sweep(tmp_path, params={"seed": [0]})))
    assert [(r["split"], r["zero"], r["mean"], r["class_means"]) for r in rows] == [
        ("train", "30", "20", "12.5"),
        ("test", "31", "21", "13"),
    ]


def test_generation_columns_appear_where_there_are_any(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return row | {"sample_accuracy": 0.5 + 0.1 * settings["seed"], "sample_ffd": None}

    assert tables.optional(sweep(tmp_path, params={"seed": [0, 1]}), "g", "G", tables.GENERATION) is None
    write_sweep(tmp_path, "scored", {"label_placement": ["both", "encoder"], "seed": [0, 1]}, change=change)
    report = read("scored", tmp_path)
    table = tables.optional(report, "generation", "Generation", tables.GENERATION)
    assert table is not None
    row = as_dicts(table)[0]
    assert float(row["sample_accuracy"]) == pytest.approx(0.55)
    assert "sample_ffd" not in row
    assert "sample_accuracy" in as_dicts(tables.marginal(report, "label_placement"))[0]


def test_training_error_is_held_against_the_closed_form_of_the_same_kl(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        # by hand at t = 1
        spectrum = WITHIN if settings["label_placement"] == "both" else SPECTRUM
        active = [v for v in spectrum if v > 1]
        kl = sum(0.5 * math.log(v) for v in active)
        sse = len(active) + sum(v for v in spectrum if v <= 1)
        return row | {"train_kl": kl, "train_sse": sse * (1.1 if settings["seed"] else 0.9), "test_sse": 9.0}

    report = sweep(tmp_path, params={"label_placement": ["both", "decoder", "none"], "seed": [0, 1]}, change=change)
    assert "decoder that is the unconditional one" in tables.training(report).note
    for row in as_dicts(tables.training(report)):
        ratios = [float(row[f"against_theory{end}"]) for end in ("", "_low", "_high")]
        assert ratios[0] == pytest.approx(1)
        assert ratios[2] - ratios[0] == pytest.approx(stats.t.ppf(0.975, 1) * 0.1)


@pytest.mark.parametrize(
    ("kl", "sse", "ratio"),
    [(-1e-7, sum(WITHIN), 1), (math.inf, 1.0, None), (math.nan, 1.0, None), (1.0, math.inf, None), (1.0, None, None)],
)
def test_training_figures_that_are_not_finite_are_held_against_nothing(tmp_path: Path, kl: Any, sse: Any, ratio: Any):
    report = sweep(tmp_path, params={"seed": [0]}, change=lambda _, row: row | {"train_kl": kl, "train_sse": sse})
    assert tables.against_theory(report, report.runs[0]) == pytest.approx(ratio or math.nan, nan_ok=True)
    assert as_dicts(tables.training(report))[0].get("against_theory_n") == ("1" if ratio else None)


def test_runs_csv_has_a_row_a_run_and_every_scalar(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
        return "broken, alas" if settings["seed"] == 1 else row

    report = sweep(
        tmp_path, params={"x_var.value": [1, 0.1], "label_placement": ["both"], "seed": [0, 1]}, change=change
    )
    rows = list(csv.DictReader(io.StringIO(tables.runs_csv(report))))
    assert len(rows) == 4
    good, bad = rows[0], rows[1]
    result = report.runs[0].result
    assert result is not None
    missing = {k for k, v in result.items() if k not in good and not k.endswith("kl_per_dim")}
    assert missing == set()
    assert float(good["test_sse"]) == result["test_sse"]  # in full precision
    assert (bad["status"], bad["reason"], bad["test_sse"]) == ("failed", "broken, alas", "")
    assert (bad["x_var.value"], bad["seed"], bad["label_placement.kind"], bad["z_dim.value"]) == (
        "1",
        "1",
        "both",
        "10",
    )
