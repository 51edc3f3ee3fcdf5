"""Shapes of every model, where the label has an influence, and what depends on the data."""

import itertools

import pytest
import torch

from tests.conftest import tiny_config
from vae.config import Config, ConfigError
from vae.layers import generator
from vae.model import Architecture, ConditionalVAE, resolve

SHAPES = {
    "mnist": (1, 28, 28),
    "photos": (3, 32, 32),
    "grey 32": (1, 32, 32),
    "colour 28": (3, 28, 28),
    "odd": (1, 25, 31),
}


def config(kind: str, placement: str = "both", repeat: int | str = 5) -> Config:
    c = tiny_config(model__kind=kind, label_placement__kind=placement)
    c.model.hidden = [16, 8] if kind == "mlp" else None
    c.model.channels = [4, 6, 8] if kind == "conv" else None
    if repeat == "match":
        c.label_repeat.kind, c.label_repeat.value = "match", None
    else:
        assert isinstance(repeat, int)
        c.label_repeat.value = repeat
    return c


def model(arch: Architecture, *seeds: int) -> ConditionalVAE:
    return ConditionalVAE(arch, [generator(s, "init") for s in seeds])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
def test_shapes_of_every_model_placement_and_repeat(kind: str, shape: tuple[int, int, int]):
    for placement, repeat in itertools.product(["both", "encoder", "decoder", "none"], [1, 2, 5, 20, "match"]):
        arch = resolve(config(kind, placement, repeat), shape, 10, [])
        net = model(arch, 0, 1)
        x, y = torch.rand(2, 3, arch.input_dim), torch.randint(10, (2, 3))
        mu, logvar = net.encode(x, y)
        assert mu.shape == logvar.shape == (2, 3, 4)
        assert net.decode(mu, y).shape == (2, 3, arch.input_dim)


@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
@pytest.mark.parametrize("placement", ["both", "encoder", "decoder", "none"])
def test_the_label_acts_where_it_joins_and_nowhere_else(kind: str, placement: str):
    net = model(resolve(config(kind, placement), (1, 28, 28), 10, []), 0)
    x, z = torch.rand(1, 1, 784).expand(1, 10, 784), torch.randn(1, 1, 4).expand(1, 10, 4)
    y = torch.arange(10)[None]
    mu_spread = net.encode(x, y)[0].std(dim=1).max()
    image_spread = net.decode(z, y).std(dim=1).max()
    assert (mu_spread > 1e-4).item() == (placement in ("both", "encoder"))
    assert (image_spread > 1e-4).item() == (placement in ("both", "decoder"))


@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
def test_a_run_is_the_same_model_in_any_stack(kind: str):
    arch = resolve(config(kind), (1, 28, 28), 10, [])
    stacked, alone = model(arch, 7, 8, 9), model(arch, 8)
    x, y = torch.rand(3, 16, 784), torch.randint(10, (3, 16))
    z = torch.randn(3, 16, 4)
    assert torch.equal(stacked.encode(x, y)[0][1], alone.encode(x[1:2], y[1:2])[0][0])
    assert torch.equal(stacked.decode(z, y)[1], alone.decode(z[1:2], y[1:2])[0])


def test_constant_planes_in_the_conv_encoder_are_what_the_docstring_says():
    arch = resolve(config("conv", "encoder", 2), (1, 28, 28), 10, [])
    net = model(arch, 0)
    first, planes = net.encoder.convs[0], net.encoder.planes
    x, y = torch.rand(1, 3, 784), torch.tensor([[4, 0, 9]])
    one_hot = torch.nn.functional.one_hot(y[0], 10).float().repeat(1, 2)  # (B, 20)
    # A 4x4 stride-2 convolution of the image and a 1x1 stride-2 convolution of constant planes, added.
    image_part = first(x[0].reshape(3, 1, 28, 28), 0)
    plane_images = one_hot[:, :, None, None].expand(3, 20, 28, 28)
    kernel = planes.weight[0].T[:, :, None, None]  # (channels, 20, 1, 1)
    plane_part = torch.nn.functional.conv2d(plane_images, kernel, planes.bias[0, 0], stride=2)
    h = torch.relu(image_part + plane_part)
    for conv in list(net.encoder.convs)[1:]:
        h = torch.relu(conv(h, 0))
    expected = net.encoder.head(h.flatten(1)[None])[..., :4]
    torch.testing.assert_close(net.encode(x, y)[0], expected)


@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
def test_signed_pixels_are_those_that_the_networks_see(kind: str):
    c = config(kind, "both")
    plain = model(resolve(c, (3, 32, 32), 10, []), 0)
    c.model.pixels = "signed"
    signed = model(resolve(c, (3, 32, 32), 10, []), 0)  # the same start values
    x, y, z = torch.rand(1, 5, 3072), torch.arange(5)[None], torch.randn(1, 5, 4)
    torch.testing.assert_close(signed.encode(x, y), plain.encode(2 * x - 1, y))
    torch.testing.assert_close(signed.decode(z, y), 0.5 + 0.5 * plain.decode(z, y))


@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
def test_logvar_is_bounded_above_and_as_it_was_below(kind: str):
    c = config(kind, "both")
    plain = model(resolve(c, (3, 32, 32), 10, []), 0)
    c.model.logvar_max = 0.05
    bounded = model(resolve(c, (3, 32, 32), 10, []), 0)
    x, y = 30 * torch.randn(1, 50, 3072), torch.arange(50)[None] % 10
    mu, logvar = plain.encode(x, y)
    assert kind == "linear" or logvar.max() > 0.05 > logvar.min()
    torch.testing.assert_close(bounded.encode(x, y), (mu, torch.minimum(logvar, torch.tensor(0.05))))


def test_signed_pixels_leave_a_sigmoid_output_as_it_is():
    c = tiny_config(model__output="sigmoid")
    plain = model(resolve(c, (1, 8, 8), 3, []), 0)
    c.model.pixels = "signed"
    signed = model(resolve(c, (1, 8, 8), 3, []), 0)
    y, z = torch.zeros(1, 5, dtype=torch.int64), torch.randn(1, 5, 4)
    assert torch.equal(signed.decode(z, y), plain.decode(z, y))


def test_sigmoid_output_stays_inside():
    arch = resolve(tiny_config(model__output="sigmoid"), (1, 8, 8), 3, [])
    x_hat = model(arch, 0).decode(100 * torch.randn(1, 50, 4), torch.zeros(1, 50, dtype=torch.int64))
    assert 0 <= x_hat.min() < x_hat.max() <= 1


def test_z_dim_by_compression_and_by_pca():
    c = tiny_config()
    c.z_dim.kind, c.z_dim.value, c.z_dim.ratio = "compression", None, 22.0
    assert resolve(c, (3, 32, 32), 10, []).z_dim == 140  # 3072 / 22
    c.z_dim.kind, c.z_dim.ratio, c.z_dim.variance = "pca", None, 0.9
    assert resolve(c, (1, 2, 2), 10, [6.0, 3.0, 0.7, 0.3]).z_dim == 2  # 9 of 10 is just enough
    c.z_dim.variance = 0.91
    assert resolve(c, (1, 2, 2), 10, [6.0, 3.0, 0.7, 0.3]).z_dim == 3
    c.z_dim.variance = 1.0
    assert resolve(c, (1, 2, 2), 10, [6.0, 3.0, 1.0, 0.0]).z_dim == 3


def test_match_makes_the_label_as_long_as_what_it_joins():
    arch = resolve(config("mlp", "both", "match"), (1, 28, 28), 10, [])
    assert (arch.encoder_repeat, arch.decoder_repeat) == (78, 1)  # 780 of 784, 10 beside z_dim 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_dim__value": 785}, "z_dim.value=785: out of range; allowed: at most 784"),
        ({"label_placement__kind": "both"}, "label_placement=both: the dataset has one class only"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(change: dict, message: str):
    with pytest.raises(ConfigError) as e:
        resolve(tiny_config(**change), (1, 28, 28), 1 if "label" in message else 10, [])
    assert str(e.value).startswith(message)


def test_too_many_convolutions_are_refused():
    c = config("conv")
    c.model.channels = [4] * 5
    with pytest.raises(ConfigError, match="too many layers for images of 28x28"):
        resolve(c, (1, 28, 28), 10, [])
