"""The networks against torch.nn.functional, written out, and what their start values are drawn from."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae.networks import (
    ACTIVATIONS,
    DECODERS,
    ENCODERS,
    ConvDecoder,
    ConvEncoder,
    Linear,
    LinearEncoder,
    MlpDecoder,
    MlpEncoder,
    Residual,
    ResnetDecoder,
    ResnetEncoder,
    initialise,
    product,
)

OWN: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [6, 5]},
    "conv": {"channels": [4, 6]},
    "resnet": {"channels": [4, 6], "blocks": 2},
    "linear": {},
}
IMAGE = (2, 7, 9)
ACTIVATION_OF: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x),
    "tanh": lambda x: 2 * torch.sigmoid(2 * x) - 1,
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def no_label(n: int = 3) -> Tensor:
    return torch.zeros(n, 0)


@pytest.mark.parametrize("sizes", [(11, 7, 5), (1, 7, 5), (128, 784, 40), (44, 150, 3)])
def test_linear_is_torch_linear_and_so_are_its_gradients(sizes: tuple[int, int, int]):
    n, n_in, n_out = sizes
    layer = Linear(n_in, n_out)
    x, grad = torch.randn(n, n_in, requires_grad=True), torch.randn(n, n_out)
    y = layer(x)
    y.backward(grad)
    theirs = [t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias)]
    expected = F.linear(*theirs)
    expected.backward(grad.double())
    got, right_ones = [y, x.grad, layer.weight.grad, layer.bias.grad], [expected, *(t.grad for t in theirs)]
    for ours, right in zip(got, right_ones, strict=True):
        assert ours is not None
        assert right is not None
        assert (ours - right).abs().max() <= 2e-6 * max(1.0, right.abs().max().item())


def test_linear_takes_inputs_that_are_not_contiguous():
    layer = Linear(6, 4)
    for x in (torch.randn(6, 5).t(), torch.randn(1, 6).expand(5, 6), torch.randn(5, 12)[:, ::2]):
        torch.testing.assert_close(layer(x), x @ layer.weight.t() + layer.bias, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(product(x, layer.weight), x @ layer.weight.t(), rtol=2e-6, atol=2e-6)


def test_linear_in_double_precision_and_in_bfloat16():
    layer = Linear(6, 4)
    x = torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), x @ layer.weight.t() + layer.bias, rtol=2e-2, atol=2e-2)
    double = layer.double()
    torch.testing.assert_close(double(x.double()), x.double() @ double.weight.t() + double.bias)


def test_linear_without_a_bias_has_the_gradients_of_a_matrix_product():
    layer = Linear(6, 4, bias=False)
    x, grad = torch.randn(5, 6, requires_grad=True), torch.randn(5, 4)
    layer(x).backward(grad)
    assert x.grad is not None
    assert layer.weight.grad is not None
    torch.testing.assert_close(x.grad, grad @ layer.weight, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(layer.weight.grad, grad.t() @ x, rtol=2e-6, atol=2e-6)


def test_activations_by_their_formulas():
    x = torch.linspace(-4, 4, 33)
    assert ACTIVATIONS.keys() == ACTIVATION_OF.keys()
    for name, formula in ACTIVATION_OF.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), formula(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label_dim", [0, 6])
@pytest.mark.parametrize("image", [(2, 7, 9), (1, 9, 7), (3, 8, 8), (1, 4, 4)])
@pytest.mark.parametrize("kind", OWN)
def test_shapes_of_every_encoder_and_decoder(kind: str, image: tuple[int, int, int], label_dim: int):
    encoder = ENCODERS[kind](image_shape=image, label_dim=label_dim, out_dim=10, **OWN[kind])
    decoder = DECODERS[kind](z_dim=5, label_dim=label_dim, out_shape=(2 * image[0], *image[1:]), **OWN[kind])
    label = torch.rand(3, label_dim)
    assert encoder(torch.rand(3, *image), label).shape == (3, 10)
    assert decoder(torch.randn(3, 5), label).shape == (3, 2 * image[0], *image[1:])


@pytest.mark.parametrize("kind", OWN)
def test_every_entry_of_the_label_and_every_input_reaches_the_output(kind: str):
    # leaky_relu: none of the entries is behind units that are off.
    own = OWN[kind] | ({} if kind == "linear" else {"activation": "leaky_relu"})
    encoder = ENCODERS[kind](image_shape=IMAGE, label_dim=6, out_dim=10, **own)
    decoder = DECODERS[kind](
        z_dim=5, label_dim=6, out_shape=IMAGE, **({} if kind == "linear" else {"activation": "leaky_relu"} | OWN[kind])
    )
    for network, data in ((encoder, torch.rand(2, *IMAGE)), (decoder, torch.randn(2, 5))):
        x, label = data.requires_grad_(), torch.rand(2, 6, requires_grad=True)
        out = network(x, label)
        (out * torch.randn_like(out)).sum().backward()
        assert x.grad is not None
        assert label.grad is not None
        assert (label.grad.abs() > 1e-6).all()
        assert (x.grad.abs() > 0).float().mean() > 0.7  # odd sizes: the last row or column may be cut off


def mlp(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for i, layer in enumerate(layers):
        assert isinstance(layer, nn.Linear)
        x = x @ layer.weight.t() + layer.bias
        x = x if i == len(layers) - 1 else torch.tanh(x)
    return x


def test_an_mlp_is_its_matrix_products_with_the_label_after_image_and_z():
    encoder = MlpEncoder(IMAGE, 6, 10, hidden=[8, 5], activation="tanh")
    decoder = MlpDecoder(4, 6, IMAGE, hidden=[8, 5], activation="tanh")
    assert [layer.weight.shape for layer in encoder.net.layers] == [(8, 132), (5, 8), (10, 5)]
    assert [layer.weight.shape for layer in decoder.net.layers] == [(5, 10), (8, 5), (126, 8)]
    x, z, label = torch.rand(3, *IMAGE), torch.randn(3, 4), torch.rand(3, 6)
    torch.testing.assert_close(encoder(x, label), mlp(encoder.net.layers, torch.cat([x.flatten(1), label], 1)))
    image = mlp(decoder.net.layers, torch.cat([z, label], 1)).view(3, *IMAGE)
    torch.testing.assert_close(decoder(z, label), image)


def test_a_linear_encoder_has_one_logvar_for_all_images():
    encoder = LinearEncoder(IMAGE, 6, 10)
    encoder.logvar.data = torch.randn(5)
    x, label = torch.rand(3, *IMAGE), torch.rand(3, 6)
    mu, logvar = encoder(x, label).chunk(2, dim=1)
    weight, bias = encoder.net.weight, encoder.net.bias
    torch.testing.assert_close(mu, x.flatten(1) @ weight[:, :126].t() + label @ weight[:, 126:].t() + bias)
    assert torch.equal(logvar, encoder.logvar.expand(3, 5))


def test_a_linear_decoder_is_linear_in_z_and_label():
    decoder = DECODERS["linear"](z_dim=4, label_dim=6, out_shape=IMAGE)
    z, label = torch.randn(2, 3, 4), torch.rand(2, 3, 6)
    together = decoder(0.3 * z[0] + 0.7 * z[1], 0.3 * label[0] + 0.7 * label[1])
    torch.testing.assert_close(together, 0.3 * decoder(z[0], label[0]) + 0.7 * decoder(z[1], label[1]))


def first_layer(x: Tensor, label: Tensor, conv: nn.Module, planes: nn.Module | None) -> Tensor:
    """The convolution of the image, and a 1x1 convolution of the label as constant planes."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(planes, nn.Linear)
    h = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    constant = label[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return h + F.conv2d(constant, planes.weight[:, :, None, None], planes.bias)


def test_a_convolutional_encoder_is_its_convolutions_with_the_label_as_constant_planes():
    encoder = ConvEncoder(IMAGE, 6, 10, channels=[4, 6], activation="tanh")
    x, label = torch.rand(3, *IMAGE), torch.rand(3, 6)
    h = first_layer(x, label, encoder.convs[0], encoder.planes).tanh()
    h = encoder.convs[1](h).tanh()
    assert h.shape == (3, 6, 1, 2)
    expected = F.linear(h.reshape(3, -1), encoder.head.weight, encoder.head.bias)
    torch.testing.assert_close(encoder(x, label), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("image", [(2, 7, 9), (2, 8, 6), (1, 13, 4)])
def test_a_convolutional_decoder_passes_through_the_sizes_of_the_encoder(image: tuple[int, int, int]):
    decoder = ConvDecoder(4, 6, image, channels=[4, 6], activation="tanh")
    encoder = ConvEncoder(image, 0, 2, channels=[4, 6])
    z, label = torch.randn(3, 4), torch.rand(3, 6)
    middle = encoder.convs[0](torch.rand(1, *image))
    small = encoder.convs[1](middle)
    h = F.linear(torch.cat([z, label], 1), decoder.stem.weight, decoder.stem.bias).view(3, *small.shape[1:])
    for conv, size in zip(decoder.convs, (middle.shape[2:], image[1:]), strict=True):
        assert isinstance(conv, nn.ConvTranspose2d)
        full = F.conv_transpose2d(h.tanh(), conv.weight, conv.bias, stride=2, padding=0)
        h = full[:, :, 1 : 1 + size[0], 1 : 1 + size[1]]  # the padding cuts off the first row and column
        assert h.shape[2:] == size
    torch.testing.assert_close(decoder(z, label), h, rtol=1e-5, atol=1e-6)


def without_convolutions(network: nn.Module) -> int:
    """Sets the convolutions of the residual blocks to 0 and returns the number of blocks."""
    blocks = [block for block in network.modules() if isinstance(block, Residual)]
    for block in blocks:
        for parameter in block.convs.parameters():
            nn.init.zeros_(parameter)
    return len(blocks)


def test_a_residual_block_without_its_convolutions_is_the_identity():
    block = Residual(6, "relu")
    x = torch.randn(3, 6, 5, 4)
    assert not torch.allclose(block(x), x, atol=1e-2)
    without_convolutions(block)
    assert torch.equal(block(x), x)


def test_a_residual_block_by_its_formula():
    block = Residual(16, "tanh")
    for norm in block.norms:
        assert isinstance(norm, nn.GroupNorm)
        norm.weight.data, norm.bias.data = torch.rand(16), torch.rand(16)
    x = torch.randn(3, 16, 5, 4)
    h = x
    for norm, conv in zip(block.norms, block.convs, strict=True):
        assert isinstance(norm, nn.GroupNorm)
        assert isinstance(conv, nn.Conv2d)
        groups = h.view(3, 4, 4, 5, 4)
        mean, var = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), keepdim=True, unbiased=False)
        h = ((groups - mean) / (var + 1e-5).sqrt()).view_as(h)
        h = (h * norm.weight[:, None, None] + norm.bias[:, None, None]).tanh()
        h = F.conv2d(h, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(block(x), x + h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (4, 1), (6, 1), (7, 1), (8, 2), (16, 4), (20, 5), (32, 8), (36, 6), (128, 8)]
)
def test_a_norm_has_at_most_8_groups_of_at_least_4_channels(channels: int, groups: int):
    for norm in Residual(channels, "relu").norms:
        assert isinstance(norm, nn.GroupNorm)
        assert norm.num_groups == groups


def normed(x: Tensor) -> Tensor:
    return F.group_norm(x, 1)  # 4 or 6 channels are one group


def test_a_resnet_without_its_residual_convolutions_is_its_convolutions_of_stride_two():
    encoder = ResnetEncoder(IMAGE, 6, 10, channels=[4, 6], blocks=2)
    decoder = ResnetDecoder(4, 6, IMAGE, channels=[4, 6], blocks=2)
    assert without_convolutions(encoder) == without_convolutions(decoder) == 4
    x, z, label = torch.rand(3, *IMAGE), torch.randn(3, 4), torch.rand(3, 6)
    h = encoder.downs[1](first_layer(x, label, encoder.downs[0], encoder.planes))
    expected = F.linear(normed(h).relu().flatten(1), encoder.head.weight, encoder.head.bias)
    torch.testing.assert_close(encoder(x, label), expected, rtol=1e-4, atol=1e-5)
    h = F.linear(torch.cat([z, label], 1), decoder.stem.weight, decoder.stem.bias).view(3, 6, 1, 2)
    for up in decoder.ups:
        h = up(normed(h).relu())
    torch.testing.assert_close(decoder(z, label), h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [[4, 8], [4, 8, 8], [3, 5, 7]])
def test_a_resnet_of_any_depth_tells_images_and_codes_apart(channels: list[int]):
    encoder = ResnetEncoder((1, 8, 8), 0, 6, channels=channels)
    decoder = ResnetDecoder(3, 0, (1, 8, 8), channels=channels)
    assert encoder(torch.rand(16, 1, 8, 8), no_label(16)).std(dim=0).max() > 1e-3
    assert decoder(torch.randn(16, 3), no_label(16)).std(dim=0).max() > 1e-3


@pytest.mark.parametrize("kind", OWN)
def test_the_output_of_an_image_does_not_depend_on_the_others_of_its_batch(kind: str):
    encoder = ENCODERS[kind](image_shape=(1, 8, 8), label_dim=0, out_dim=4, **OWN[kind])
    decoder = DECODERS[kind](z_dim=3, label_dim=0, out_shape=(1, 8, 8), **OWN[kind])
    x, z = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
    torch.testing.assert_close(encoder(x, no_label(5))[2:3], encoder(x[2:3], no_label(1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoder(z, no_label(5))[2:3], decoder(z[2:3], no_label(1)), rtol=1e-4, atol=1e-5)


LAYERS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "linear": (lambda: Linear(200, 300), 200, 300),
    "conv": (lambda: nn.Conv2d(20, 30, 4, stride=2, padding=1), 20 * 16, 30 * 16),
    "conv 3x3": (lambda: nn.Conv2d(20, 30, 3, padding=1), 20 * 9, 30 * 9),
    "transposed": (lambda: nn.ConvTranspose2d(20, 30, 4, stride=2, padding=1), 20 * 4, 30 * 16),
}


def tensors(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return weight.detach(), bias.detach()


@pytest.mark.parametrize("layer", LAYERS)
def test_uniform_start_values_have_the_bound_and_the_spread_of_their_rule(layer: str):
    made, fan_in, _ = LAYERS[layer]
    network = made()
    initialise(network, "uniform")
    bound = 1 / math.sqrt(fan_in)
    for values, tolerance in zip(tensors(network), (0.02, 0.2), strict=True):
        assert 0.95 * bound < values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=tolerance)
        assert values.mean().item() == pytest.approx(0, abs=4 * bound / math.sqrt(3 * values.numel()))


@pytest.mark.parametrize("init", ["kaiming", "xavier"])
@pytest.mark.parametrize("layer", LAYERS)
def test_normal_start_values_have_the_spread_of_their_rule_and_biases_of_zero(layer: str, init: str):
    made, fan_in, fan_out = LAYERS[layer]
    network = made()
    initialise(network, init)
    weight, bias = tensors(network)
    std = math.sqrt(2 / fan_in if init == "kaiming" else 2 / (fan_in + fan_out))
    n = weight.numel()
    assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * n))
    assert weight.mean().item() == pytest.approx(0, abs=4 * std / math.sqrt(n))
    assert (weight / std).pow(4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / n))  # a normal distribution
    assert torch.equal(bias, torch.zeros_like(bias))


@pytest.mark.parametrize("layer", LAYERS)
def test_fan_in_is_the_number_of_products_in_an_output(layer: str):
    made, fan_in, _ = LAYERS[layer]
    network = made()
    ones = torch.ones(1, 200) if layer == "linear" else torch.ones(1, 20, 12, 12)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    out = network(ones).detach() - 1
    assert (out if layer == "linear" else out[:, :, 2:-2, 2:-2]).unique().tolist() == [fan_in]


def test_uniform_is_the_rule_of_torch():
    ours, theirs = Linear(200, 300), nn.Linear(200, 300)
    initialise(ours, "uniform")
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.03)
    assert ours.bias.std().item() == pytest.approx(theirs.bias.std().item(), rel=0.2)


@pytest.mark.parametrize("kind", OWN)
def test_start_values_come_from_the_global_generator_alone(kind: str):
    def made(seed: int, init: str) -> Tensor:
        torch.manual_seed(seed)
        network = ENCODERS[kind](image_shape=IMAGE, label_dim=6, out_dim=10, init=init, **OWN[kind])
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    assert torch.equal(made(3, "uniform"), made(3, "uniform"))
    assert not torch.equal(made(3, "uniform"), made(4, "uniform"))
    assert not torch.equal(made(3, "uniform"), made(3, "kaiming"))
