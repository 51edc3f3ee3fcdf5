"""The benchmark's parts, on a few images: that what it compares is the same work, and that its shares add up."""

import pytest
import torch

from experiments import bench
from experiments.bench import Measured, Profile
from vae.model import resolve
from vae.stack import Stack


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "N_IMAGES", 256)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_plain_module_is_the_network_that_the_rows_train(kind: str):
    config = bench.mlp_config() if kind == "mlp" else bench.conv_config()
    stack = Stack([config], resolve(config, bench.SHAPES[kind], 10, []), bench.CPU)
    plain = bench.PlainVAE(kind)
    sizes = sorted(p.numel() for p in plain.parameters())
    assert sizes == sorted(p.numel() for p in stack.model.parameters())
    images, labels = bench.random_images(bench.SHAPES[kind], 3)
    assert plain.loss(images.float() / 255, labels).isfinite()
    assert bench.dataloader_loop(images, labels, kind)() == 3


def test_the_products_are_those_of_the_layers():
    """One of the size of each weight, and the images are counted over all runs."""
    weights = [p.numel() for name, p in bench.PlainVAE("mlp").named_parameters() if name.endswith("weight")]
    assert [inner * columns for _, inner, columns in bench.MLP_PRODUCTS] == weights
    assert bench.products(bench.MLP_PRODUCTS, 2)() == 512


def test_eight_runs_are_stacked_as_a_sweep_stacks_them():
    images, labels = bench.random_images(bench.SHAPES["mlp"], 256)
    configs = [bench.mlp_config(s) for s in range(8)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pieces, workers = bench.as_a_sweep(configs, images, labels)
        parts = [bench.stacked(piece, images, labels) for piece in pieces]
        assert bench.side_by_side(parts, workers)() == 8 * 256
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert workers == 2
    assert [c.seed for piece in pieces for c in piece] == list(range(8))


def test_the_shares_of_a_step_add_up_and_products_are_the_most():
    images, labels = bench.random_images(bench.SHAPES["mlp"], 256)
    p = bench.profiled(bench.stacked([bench.mlp_config()], images, labels))
    assert p.products + p.adam + p.other + p.between == pytest.approx(1)
    assert min(p.products, p.adam, p.other, p.between) > 0
    assert p.products > 0.25
    assert p.largest[0][1] <= p.other


def test_missed_goals_are_told_with_the_profile():
    profile = Profile(1.0, 0.5, 0.2, 0.2, 0.1, [("cat", 0.1)])
    rows = [
        Measured("fast enough", "9", "at least 8", True, "one run"),
        Measured("too slow", "4", "at least 8", False, "one run"),
        Measured("also", "2", "at least 3", False),
        Measured("no goal", "1", "-", None),
    ]
    assert bench.missed(rows, {"one run": profile}) == [
        "- too slow: 4, goal at least 8; of a step 50% matrix products, 20% Adam, 20% other operations (cat 10%), "
        "10% between them.",
        "- also: 2, goal at least 3.",
    ]
    assert bench.missed(rows[:1], {}) == ["None."]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and its table takes minutes")
def test_without_a_gpu_the_table_says_so():
    assert bench.gpu_section(1) == ["Not measured: no GPU."]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_table_of_a_gpu_has_all_its_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "N_IMAGES", 1280)
    monkeypatch.setattr(bench, "GPU_STACKS", (1, 2))
    text = "\n".join(bench.gpu_section(1))
    for row in ("mlp, one run", "mlp, stack of 2", "conv, one run", "conv, stack of 2"):
        assert text.count(f"| {row} |") == 2
