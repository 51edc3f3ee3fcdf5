"""Why runs die: which two runs are compared, the rate by learning rate, the sentences and the figure."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.reading import read
from experiments.report.dying import Steps, Why, why
from experiments.report.figures.why import why as draw
from experiments.report.render import say
from tests.fakes import MODEL_SHA256, change, fake_report, put
from vae.metrics import FAMILIES

DEAD = {"test_kl": 0.0, "test_active_units": 0, "test_sse": 13.1}
DYING = {0.001: 0, 0.003: 3, 0.01: 8}  # of 8 seeds
STUDY = {"columns": ["collapsed", "dead"]}


def first_steps(folder: Path, kl: np.ndarray, encoder: float, decoder: float) -> None:
    """Writes what the family early_steps leaves behind."""
    path = folder / "early_steps.npz"
    np.savez(path, kl=kl, encoder_gradient=np.full(len(kl), encoder), decoder_gradient=np.full(len(kl), decoder))
    head = {"family": "early_steps", "version": FAMILIES["early_steps"].version, "model_sha256": MODEL_SHA256}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    put(folder / "metrics" / "early_steps.json", head | {"values": {}, "files": {path.name: digest}})


def report_of(folder: Path, dying: dict[float, int] = DYING, diverging: float | None = None) -> list[Path]:
    def ended(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | str:
        lr = settings["trainer.lr"]
        if lr == diverging:
            return "an error"
        return row | (DEAD if settings["seed"] < dying[lr] else {})

    rates = sorted({*dying, *([diverging] if diverging else [])}, reverse=True)
    return fake_report(folder, params={"trainer.lr": rates, "seed": range(8)}, change=ended, study=STUDY)


def found(folder: Path, **kwargs: Any) -> Why:
    known = why(read("trial", folder))
    assert known is not None
    return known


@pytest.fixture
def compared(tmp_path: Path) -> Why:
    """lr 0.003 is the only setting with both; seed 0 dies and seed 3 is the first that does not."""
    folders = {path.name: path for path in report_of(tmp_path)}
    died, lived = (folders[f"trial-trainer0.003-seed{seed}"] for seed in (0, 3))
    first_steps(died, np.array([9.0, 0.01, 0.2, *[0.02] * 57]), encoder=0.1, decoder=4.0)
    first_steps(lived, np.array([9.0, 0.01, *[0.5] * 58]), encoder=2.0, decoder=5.0)
    return found(tmp_path)


def test_the_lowest_seed_that_died_is_compared_with_the_lowest_that_did_not(compared: Why):
    pair = compared.pair
    assert pair is not None
    assert (pair.setting, pair.died.seed, pair.lived.seed) == ("lr 0.003", 0, 3)
    assert (pair.died.empty_from, pair.lived.empty_from) == (4, None)  # steps count from 1
    assert pair.encoder_starves


def test_a_kl_that_never_leaves_the_floor_is_empty_from_the_first_step():
    gradients = {"encoder": np.ones(3), "decoder": np.ones(3)}
    assert Steps(0, np.array([0.01, 0.02, 0.01]), gradients).empty_from == 1
    assert Steps(0, np.array([0.01, 0.02, 0.9]), gradients).empty_from is None


def test_the_sentences(compared: Why):
    assert say("why.md.j2", "pair", compared.pair) == (
        "Two runs of one setting (lr 0.003) show the difference. In the run that died (seed 0), KL stays below 0.05 "
        "nats from step 4 on. In the other (seed 3), it is 0.5 nats after 60 steps. By then, the norm of the encoder's "
        "gradient is 0.1 in the run that died and 2 in the other; that of the decoder's gradient is 4 and 5. So in "
        "this pair, the decoder goes on learning without z, and hardly any gradient reaches the encoder."
    )
    half = compared.by_rate and compared.by_rate.half
    assert half is not None
    assert 0.003 < half.mean < 0.01  # 3 of 8 die at 0.003, all at 0.01
    text = say("why.md.j2", "by_rate", compared.by_rate)
    assert text.startswith("With the other settings of the reference, half of the runs die at a learning rate of 0.003")


def test_the_figure_shows_counts_curve_and_both_runs(compared: Why, monkeypatch: pytest.MonkeyPatch):
    figures: list[Figure] = []
    monkeypatch.setattr("experiments.report.figures.style.rendered", lambda figure: figures.append(figure) or b"")
    draw(compared)
    rates, kl, gradient = figures[0].axes
    assert [c.lines[0].get_ydata()[0] for c in rates.containers] == [0, 37.5, 100]  # type: ignore[attr-defined]
    assert [len(ax.lines) for ax in (kl, gradient)] == [2, 4]
    np.testing.assert_array_equal(kl.lines[1].get_ydata()[:4], [9.0, 0.01, 0.2, 0.02])  # type: ignore[index]


def test_a_rate_that_jumps_from_none_to_all_is_said_as_that(tmp_path: Path):
    report_of(tmp_path, {0.001: 0, 0.003: 0, 0.01: 8}, diverging=0.03)
    by_rate = found(tmp_path).by_rate
    assert by_rate is not None
    assert (by_rate.gap, by_rate.lost) == ((0.003, 0.01), [0.03])
    assert by_rate.curve is not None
    assert math.isfinite(by_rate.curve.slope)
    assert say("why.md.j2", "by_rate", by_rate) == (
        "With the other settings of the reference, no run dies up to a learning rate of 0.003, and every run does from "
        "0.01 on. At 0.03, all runs diverged, failed or are missing."
    )


def test_a_rate_that_is_the_same_everywhere_has_no_curve(tmp_path: Path):
    report_of(tmp_path, {0.001: 8, 0.003: 8, 0.01: 8})
    known = found(tmp_path)
    assert known.pair is None
    assert known.by_rate is not None
    assert known.by_rate.curve is None
    text = say("why.md.j2", "by_rate", known.by_rate)
    assert text == "With the other settings of the reference, every run dies, whatever the learning rate."


def test_runs_of_a_gpu_are_not_trained_again(tmp_path: Path):
    for folder in report_of(tmp_path):
        change(folder / "provenance.json", device="cuda:0")
    assert found(tmp_path).pair is None
    assert not list(tmp_path.rglob("early_steps.json"))


def test_only_an_experiment_that_asks_how_often_runs_die_is_told_why(tmp_path: Path):
    fake_report(tmp_path, params={"trainer.lr": [0.001, 0.003, 0.01], "seed": range(2)}, study={"columns": ["test_kl"]})
    assert why(read("trial", tmp_path)) is None
