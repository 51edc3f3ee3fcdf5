"""Figures: drawn for any sweep, small enough, and showing the numbers of the runs."""

import io
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_collect import DATA, write_sweep

from experiments import figures
from experiments.report import Report, read
from vae import linear_theory, pictures

SAMPLES, RECONSTRUCTIONS = "samples.png", "reconstructions.png"


def draw(report: Report) -> dict[str, figures.Drawn]:
    drawn = figures.all_figures(report)
    for figure in drawn.values():
        with Image.open(io.BytesIO(figure.png)) as image:
            image.load()
            assert image.mode == "P"
        assert len(figure.png) <= figures.MAX_BYTES
        assert figure.caption.endswith(".")
    return drawn


def add_pictures(folders: list[Path], shape: tuple[int, int, int] = (1, 8, 8)) -> None:
    rows = torch.rand(10, 10, *shape, generator=torch.Generator().manual_seed(0))
    pictures.sheet(rows, [str(c) for c in range(10)]).save(folders[0] / SAMPLES)
    pictures.sheet(rows[:4], ["input", "output"] * 2).save(folders[0] / RECONSTRUCTIONS)
    for folder in folders[1:]:
        for name in (SAMPLES, RECONSTRUCTIONS):
            shutil.copy(folders[0] / name, folder / name)


SWEEPS: dict[str, dict[str, Any]] = {
    "one run": {},
    "seeds only": {"params": {"seed": [0, 1, 2]}},
    "one seed": {"params": {"x_var.value": [1, 0.1]}},
    "numbers": {"params": {"x_var.value": [1, 0.3, 0.1, 0.03, 0.01], "seed": [0, 1]}},
    "words": {"params": {"model": ["mlp", "conv", "linear"], "seed": [0, 1]}},
    "lists": {"params": {"model.hidden": [[400], [400, 200]], "seed": [0, 1]}},
    "words and no value": {"params": {"label_repeat.value": [None, 5], "seed": [0, 1]}},
    "numbers and words": {"params": {"x_var.value": [1, 0.1], "label_placement": ["both", "encoder"], "seed": [0, 1]}},
    "points": {
        "params": {"seed": [0, 1]},
        "points": [{"z_dim.value": k, "beta.value": b} for k, b in ((5, 0.1), (10, 0.1), (10, 0.01))],
        "fixed": {"objective.kind": "per_dim", "label_placement.kind": "none"},
    },
    "four settings": {
        "params": {
            "x_var.value": [1, 0.1, 0.01],
            "label_placement": ["both", "decoder", "encoder", "none"],
            "trainer.lr": [1e-3, 1e-2],
            "model": ["mlp", "linear"],
        }
    },
    "many values": {"params": {"x_var.value": [0.01 * i for i in range(1, 31)]}},
    "equal numbers": {"params": {"trainer.batch_size": [64, 128]}},
}


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS.keys())
def test_any_sweep_can_be_drawn(tmp_path: Path, sweep: dict[str, Any]):
    add_pictures(write_sweep(tmp_path, **sweep))
    report = read("trial", tmp_path)
    names = ["swept", "rate_distortion", "learning", "samples", "reconstructions"]
    assert list(draw(report)) == [f"{name}.png" for name in names]
    assert figures.joint([report], "d" * 64) is not None


def test_nothing_is_drawn_from_nothing(tmp_path: Path):
    write_sweep(tmp_path, params={"seed": [0, 1]}, change=lambda settings, row: "no luck")
    report = read("trial", tmp_path)
    assert draw(report) == {}
    assert figures.joint([report], "d" * 64) is None


def test_holes_and_missing_files_are_left_out(tmp_path: Path):
    def change(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        return None if settings["x_var.value"] == 0.1 or settings["seed"] == 1 else row

    folders = write_sweep(tmp_path, params={"x_var.value": [1, 0.1, 0.01], "seed": [0, 1]}, change=change)
    add_pictures([folders[0]])
    (folders[4] / SAMPLES).write_bytes(b"no picture")
    (folders[4] / "history.csv").write_text("epoch,train_sse\n1,broken\n")
    assert "samples.png" in draw(read("trial", tmp_path))
    (folders[0] / "history.csv").unlink()
    assert "learning.png" not in draw(read("trial", tmp_path))


def test_colour_and_large_images(tmp_path: Path):
    data = DATA | {"image_shape": [3, 64, 64]}
    add_pictures(write_sweep(tmp_path, params={"seed": [0]}, data=data), (3, 64, 64))
    assert {"samples.png", "reconstructions.png"} <= set(draw(read("trial", tmp_path)))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 64, 48)])
def test_a_sheet_is_taken_apart_into_the_very_images(tmp_path: Path, shape: tuple[int, int, int]):
    levels = torch.randint(0, 256, (4, 10, *shape), generator=torch.Generator().manual_seed(1))
    pictures.sheet(levels / 255, ["input", "output"] * 2).save(tmp_path / "sheet.png")
    sheet = figures.read_sheet(tmp_path / "sheet.png", shape)
    assert [len(row) for row in sheet] == [10] * 4
    for r, c in ((0, 0), (1, 3), (3, 9)):
        expected = levels[r, c].permute(1, 2, 0).expand(-1, -1, 3).numpy()
        assert np.array_equal(np.asarray(sheet[r][c]), expected)


def test_a_sheet_of_few_images(tmp_path: Path):
    pictures.sheet(torch.rand(2, 6, 1, 8, 8), ["input", "output"]).save(tmp_path / "sheet.png")
    assert [len(row) for row in figures.read_sheet(tmp_path / "sheet.png", (1, 8, 8), 6)] == [6, 6]
    assert figures.read_sheet(tmp_path / "sheet.png", (1, 8, 8), 20) == []
    assert figures.read_sheet(tmp_path / "absent.png", (1, 8, 8)) == []


def test_a_contact_sheet_says_what_it_leaves_out(tmp_path: Path):
    params = {"label_placement": ["both", "decoder", "encoder"], "label_repeat.value": [1, 2, 5, 10, 20], "seed": [0]}
    add_pictures(write_sweep(tmp_path, params=params))
    drawn = draw(read("trial", tmp_path))
    assert "Shown are 12 of 15 settings" in drawn["samples.png"].caption
    assert "Shown are 12 of 15 settings" in drawn["reconstructions.png"].caption
    assert "Shown are" not in drawn["learning.png"].caption


def test_noise_is_shrunk_below_the_limit():
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    png = figures.shrunk(Image.fromarray(noise))
    assert len(png) <= figures.MAX_BYTES
    plain = Image.new("RGB", (300, 200), "white")
    assert Image.open(io.BytesIO(figures.shrunk(plain))).size == (300, 200)


def test_curves_are_those_of_the_label_placement(tmp_path: Path):
    params = {"label_placement": ["both", "decoder", "encoder", "none"], "seed": [0]}
    write_sweep(tmp_path, params=params)
    report = read("trial", tmp_path)
    kinds = [[curve.kind for curve in figures.curves(run)] for run in report.runs]
    assert kinds == [["within"], ["within", "all"], ["all"], ["all"]]
    reference = linear_theory.optimum(DATA["eigenvalues_within"], 0.3, 10)
    drawn = figures.curves(report.runs[0])[0].at(report, 0.3)
    assert (float(drawn["kl"]), float(drawn["sse"])) == (pytest.approx(reference.kl), pytest.approx(reference.sse))


def test_learning_curves_are_means_over_seeds(tmp_path: Path):
    folders = write_sweep(tmp_path, params={"seed": [0, 1]}, history=False)
    for folder, values in zip(folders, ([10, 8, 6], [20, 10]), strict=True):
        rows = [f"{e},{v},{v / 2}" for e, v in enumerate(values, 1)]
        (folder / "history.csv").write_text("\n".join(["epoch,train_sse,train_kl", *rows]))
    mean = figures.mean_history(read("trial", tmp_path).cells[0])
    assert mean == {"epoch": [1, 2], "train_sse": [15, 9], "train_kl": [7.5, 4.5]}


def test_the_main_setting_is_the_numeric_one_of_most_values(tmp_path: Path):
    params = {"label_placement": ["both", "decoder", "encoder"], "label_repeat.value": [1, 20], "seed": [0]}
    write_sweep(tmp_path, params=params)
    axis = figures.XAxis.of(read("trial", tmp_path))
    assert (axis.key, axis.values, axis.log, axis.label) == (
        "label_repeat.value",
        [1, 20],
        True,
        "label_repeat (times)",
    )
    write_sweep(tmp_path, "words", {"model": ["mlp", "conv"], "seed": [0]})
    axis = figures.XAxis.of(read("words", tmp_path))
    assert (axis.key, axis.numeric, axis.label) == ("model", False, "model")
    assert math.isclose(axis.at(read("words", tmp_path).cells[1]), 1.0)


def test_the_joint_figure_counts_each_run_of_its_data_once(tmp_path: Path):
    write_sweep(tmp_path, "a", {"x_var.value": [1, 0.1], "seed": [0]})
    write_sweep(tmp_path, "b", {"z_dim.value": [5, 10], "seed": [0]})
    reports = [read("a", tmp_path), read("b", tmp_path), read("a", tmp_path)]
    drawn = figures.joint(reports, "d" * 64)
    assert drawn is not None
    assert drawn.caption.startswith("All 4 runs on synthetic, of 2 reports")
    assert figures.joint(reports, "e" * 64) is None
