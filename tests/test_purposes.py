"""Which setting is best for what, with numbers that are known."""

from pathlib import Path
from typing import Any

import pytest

from experiments.asked import uncompared
from experiments.effects import key_findings
from experiments.purposes import Purpose, purposes
from experiments.reading import read
from experiments.report.build import collect
from tests.fakes import fake_report

SSE = {"both": 5.0, "encoder": 9.0, "decoder": 5.001}
BITS = {"both": 3.0, "encoder": 2.0, "decoder": None}


def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    placement, seed = settings["label_placement.kind"], settings["seed"]
    wobble = 0.1 * (seed - 1) * (1 if placement == "decoder" else -1)
    bits = BITS[placement]
    return row | {"test_sse": SSE[placement] + wobble, "test_bits_per_dim": bits and bits + 0.001 * seed}


def found(tmp_path: Path, params: dict[str, Any], **study: Any) -> list[Purpose]:
    columns = {"columns": ["test_sse", "test_bits_per_dim", "test_kl"], "pick": False}
    fake_report(tmp_path, params=params, study=columns | study, change=change)
    return purposes(read("trial", tmp_path))


def test_each_column_with_a_direction_has_its_best_settings_and_their_equals(tmp_path: Path):
    sse, bits = found(tmp_path, {"label_placement.kind": list(SSE), "seed": [0, 1, 2]})
    assert (sse.column, sse.lowest, sse.best, sse.without) == ("test_sse", True, ["both", "decoder"], [])
    assert sse.value.mean == pytest.approx(5.0)
    assert (bits.column, bits.best, bits.without) == ("test_bits_per_dim", ["encoder"], ["decoder"])
    text = collect("trial", tmp_path).read_text()
    assert "Lowest SSE: both (5.00 ± 0.25), which the seeds cannot tell from decoder." in text
    assert "Lowest bits per dimension: encoder (2.001 ± 0.002); decoder has no such value." in text


def test_log_likelihoods_of_different_things_are_not_compared(tmp_path: Path):
    """Bits of a density can be as low as one likes, so they do not rank below those of a probability."""
    kinds = {"both": "density", "encoder": "levels"}

    def of_kinds(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
        return change(settings, row) | {"likelihood_of": kinds[settings["label_placement.kind"]]}

    study = {"columns": ["test_bits_per_dim", "test_sse", "sample_ffd"], "pick": False}
    params = {"label_placement.kind": list(kinds), "seed": [0, 1, 2]}
    fake_report(tmp_path, params=params, study=study, change=of_kinds)
    report = read("trial", tmp_path)
    assert uncompared(report) == ["test_bits_per_dim"]
    assert "test_bits_per_dim" not in [p.column for p in purposes(report)]
    (finding,) = key_findings(report)
    assert "test_bits_per_dim" not in [effect.column for effect in finding.clear]
    text = collect("trial", tmp_path).read_text()
    assert "Log-likelihoods of different things are not compared" in text
    assert "bits per dimension |" in text  # each setting has its own


def test_numbers_on_an_axis_need_no_list(tmp_path: Path):
    fake_report(tmp_path, params={"x_var.value": [0.1, 1.0], "seed": [0, 1]}, study={"pick": False})
    assert purposes(read("trial", tmp_path)) == []


def test_a_report_that_picks_a_setting_says_so_instead(tmp_path: Path):
    found(tmp_path, {"label_placement.kind": list(SSE), "seed": [0, 1, 2]}, pick=True)
    assert "Best in each column" not in collect("trial", tmp_path).read_text()
