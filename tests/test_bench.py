"""The benchmark's parts on a few images: what it compares is the same work, and its report has all rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from experiments.bench import __main__ as bench
from experiments.bench import baselines, tables, workloads
from experiments.bench.tables import Row
from vae.model import resolve
from vae.stack import Stack


@pytest.fixture(autouse=True)
def mode_of_the_thread() -> Iterator[None]:
    """The benchmark sets torch up as training does, here in the thread that all tests run in."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_plain_module_is_the_network_that_we_train(kind: str):
    config = workloads.settings_of(kind)
    stack = Stack([config], [resolve(config, workloads.SHAPES[kind], 10, [])], 3, workloads.CPU)
    plain = baselines.PlainVAE(kind)
    assert sorted(p.numel() for p in plain.parameters()) == sorted(p.numel() for p in stack.model.parameters())
    images, labels = workloads.random_images(kind, 3)
    assert plain.loss(images.float() / 255, labels).isfinite()
    assert baselines.dataloader_loop(images, labels, kind)() == 3


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_products_are_those_of_the_layers(kind: str):
    """One of the size of each weight, and the images are counted over all runs."""
    named = baselines.PlainVAE(kind).named_parameters()
    weights = [p.numel() for name, p in named if name.endswith("weight")]
    assert [inner * columns for _, inner, columns in workloads.PRODUCTS[kind]] == weights
    assert workloads.products("mlp", 2, steps=1)() == 256


def test_runs_are_stacked_as_a_sweep_stacks_them():
    images, labels = workloads.random_images("mlp", 128)
    torch.set_num_threads(2)
    pieces, workers = workloads.as_a_sweep(8)
    parts = [workloads.stacked(piece, images, labels) for piece in pieces]
    assert workloads.side_by_side(parts, workers)() == 8 * 128
    assert torch.get_num_threads() == 2
    assert workers == 2
    assert [c.seed for piece in pieces for c in piece] == list(range(8))


def test_everything_is_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "SWEEP", 4)
    times, rows = tables.training(1, n_images=256)
    assert len(times) == 8
    assert min(times.values()) > 0
    assert min(row.value for row in rows) > 0


def test_a_value_below_the_goal_is_acceptable_down_to_a_limit():
    assert [Row("a", v, 0.65, 0.56).met for v in (0.65, 0.6, 0.56, 0.55)] == ["yes", "acceptable", "acceptable", "no"]
    assert [Row("b", v, 1.0).met for v in (1.0, 0.99)] == ["yes", "no"]


def test_the_report_has_the_rows_of_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = {"loader": 30.0, "plain": 3.0, "eager": 1.0, "graph": 0.2}
    rows = [{"kind": "mlp", "runs": 8, "seconds": seconds}, {"kind": "conv", "runs": 8, "seconds": None}]
    monkeypatch.setattr(tables, "training", lambda n: ({"one run": 1.234}, [Row("share", 0.6, 0.65, 0.56)]))
    monkeypatch.setattr(tables, "gpu", lambda n: rows)
    assert bench.main(["--output-dir", str(tmp_path)]) == 0
    text = (tmp_path / "reports" / "benchmark" / "report.md").read_text()
    for line in (
        "**1 of 1 goals is met.**",
        "| share | 60 % | at least 65 % (56 % is acceptable) | acceptable |",
        "| one run | 1.23 |",
        "| mlp | 8 | 30 | 3 | 1 | 0.2 | 15 |",
        "| conv | 8 | not enough memory |",
    ):
        assert line in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_table_of_a_gpu_has_all_its_rows():
    rows = list(tables.gpu(1, n_images=1280, sizes=(1, 2)))
    assert [(row["kind"], row["runs"]) for row in rows] == [("mlp", 1), ("mlp", 2), ("conv", 1), ("conv", 2)]
