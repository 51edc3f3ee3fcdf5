"""The stacked layers against torch.nn's, and what their start values are drawn from."""

import math

import pytest
import torch
from torch.nn import functional as F

from vae.layers import Conv2d, ConvTranspose2d, Linear, generator, initial


def generators(*seeds: int) -> list[torch.Generator]:
    return [generator(s, "init") for s in seeds]


@pytest.mark.parametrize("n_runs", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_is_k_separate_linear_layers_and_so_are_its_gradients(n_runs: int, dtype: torch.dtype):
    layer = Linear(7, 5, "uniform", generators(*range(n_runs))).to(dtype)
    x = torch.randn(n_runs, 11, 7, dtype=dtype, requires_grad=True)
    grad = torch.randn(n_runs, 11, 5, dtype=dtype)
    y = layer(x)
    y.backward(grad)
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    for k in range(n_runs):
        ours = [y[k], x.grad[k], layer.weight.grad[k].T, layer.bias.grad[k, 0]]
        theirs = [x[k].detach().requires_grad_(), layer.weight[k].T.detach().requires_grad_()]
        theirs.append(layer.bias[k, 0].detach().requires_grad_())
        expected = F.linear(*theirs)
        expected.backward(grad[k])
        torch.testing.assert_close(ours, [expected, *(t.grad for t in theirs)])


@pytest.mark.parametrize("size", [(128, 834, 400), (128, 100, 2 * 20), (44, 150, 784), (6, 834, 400), (10, 100, 30)])
def test_linear_of_a_run_is_bit_equal_in_any_stack_and_by_any_number_of_threads(size: tuple[int, int, int]):
    n, n_in, n_out = size
    stacked = Linear(n_in, n_out, "uniform", generators(3, 4, 5, 6))
    alone = Linear(n_in, n_out, "uniform", generators(5))
    x, grad = torch.randn(4, n, n_in), torch.randn(4, n, n_out)
    y = stacked(x)
    y.backward(grad)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        y_alone = alone(x[2:3])
        y_alone.backward(grad[2:3])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(y[2], y_alone[0])
    for ours, theirs in zip(stacked.parameters(), alone.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad[2], theirs.grad[0])


def test_convolutions_have_the_shapes_that_they_promise_and_their_own_weights():
    conv = Conv2d(3, 4, "uniform", generators(0, 1))
    x = torch.randn(5, 3, 28, 14)
    assert conv(x, 1).shape == (5, 4, 14, 7)
    torch.testing.assert_close(conv(x, 1), F.conv2d(x, conv.weight[1], conv.bias[1], 2, 1))
    assert not torch.allclose(conv(x, 0), conv(x, 1))
    back = ConvTranspose2d(4, 3, (True, False), "uniform", generators(0, 1))
    assert back(torch.randn(5, 4, 3, 7), 0).shape == (5, 3, 7, 14)


@pytest.mark.parametrize(("init", "variance"), [("uniform", 1 / 3 / 200), ("kaiming", 2 / 200), ("xavier", 2 / 500)])
def test_start_values_have_the_variance_of_their_rule(init: str, variance: float):
    drawn = initial([200, 300], 200, 300, init, generators(0))
    assert drawn.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance / 60000))
    assert drawn.var().item() == pytest.approx(variance, rel=0.03)
    if init == "uniform":
        assert drawn.abs().max().item() <= 1 / math.sqrt(200)


def test_torch_linear_has_the_same_uniform_rule():
    ours = Linear(200, 300, "uniform", generators(0))
    theirs = torch.nn.Linear(200, 300)
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.03)
    assert ours.bias.std().item() == pytest.approx(theirs.bias.std().item(), rel=0.2)


def test_generators_depend_on_seed_and_purpose_alone():
    def draw(seed: int, purpose: str) -> torch.Tensor:
        return torch.randn(8, generator=generator(seed, purpose))

    assert torch.equal(draw(3, "train"), draw(3, "train"))
    assert not torch.equal(draw(3, "train"), draw(3, "init"))
    assert not torch.equal(draw(3, "train"), draw(4, "train"))
