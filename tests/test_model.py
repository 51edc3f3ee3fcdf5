"""Shapes of every model, where the label has an influence, and what depends on the data."""

import itertools

import pytest
import torch

from tests.conftest import tiny_config
from vae.config import Config, ConfigError
from vae.model import VAE, build, n_parameters, resolve
from vae.networks import ConvEncoder
from vae.objectives import elbo

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
    c.model.channels = [4, 6, 8] if kind in ("conv", "resnet") else None
    c.model.blocks = 1 if kind == "resnet" else None
    if repeat == "match":
        c.label_repeat.kind, c.label_repeat.value = "match", None
    else:
        assert isinstance(repeat, int)
        c.label_repeat.value = repeat
    return c


KINDS = ["mlp", "conv", "resnet", "linear"]


def model(c: Config, shape: tuple[int, int, int] = (1, 28, 28), seed: int = 0) -> VAE:
    return build(resolve(c, shape, 10, []), seed)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_every_model_placement_and_repeat(kind: str, shape: tuple[int, int, int]):
    for placement, repeat in itertools.product(["both", "encoder", "decoder", "none"], [1, 20, "match"]):
        net = model(config(kind, placement, repeat), shape)
        x, y = torch.rand(3, *shape), torch.randint(10, (3,))
        mu, logvar = net.encode(x, y)
        assert mu.shape == logvar.shape == (3, 4)
        assert net.decode(mu, y).shape == (3, *shape)
        assert n_parameters(net.arch) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", ["both", "encoder", "decoder", "none"])
def test_the_label_acts_where_it_joins_and_nowhere_else(kind: str, placement: str):
    net = model(config(kind, placement))
    x, z = torch.rand(1, 1, 28, 28).expand(10, -1, -1, -1), torch.randn(1, 4).expand(10, 4)
    y = torch.arange(10)
    mu_spread = net.encode(x, y)[0].std(dim=0).max()
    image_spread = net.decode(z, y).std(dim=0).max()
    assert (mu_spread > 1e-4).item() == (placement in ("both", "encoder"))
    assert (image_spread > 1e-4).item() == (placement in ("both", "decoder"))


def test_a_seed_gives_the_same_start_values_whatever_was_drawn_before():
    first = model(config("mlp"), seed=7)
    torch.rand(5)
    again, other = model(config("mlp"), seed=7), model(config("mlp"), seed=8)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize("kind", ["bernoulli", "continuous_bernoulli", "laplace", "discretized_logistic"])
@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp"])
@pytest.mark.parametrize("network", KINDS)
def test_labels_go_with_every_network_likelihood_and_prior(kind: str, prior: str, network: str):
    """The gradient of the loss with respect to each label vector is not zero."""
    torch.manual_seed(0)
    c = config(network)
    c.model.activation = "tanh"  # no unit that is off by chance
    c.likelihood.kind, c.prior.kind = kind, prior
    c.likelihood.targets = "pixels" if kind == "bernoulli" else None
    c.prior.components = None if prior == "standard" else 3
    net = model(c, (1, 8, 8))
    labels = net.encoder_labels.requires_grad_(), net.decoder_labels.requires_grad_()
    noise = {"z": torch.randn(1, 4, 4)}
    net(elbo, torch.rand(4, 1, 8, 8), torch.arange(4), noise, torch.tensor([1.0, 0.0]))[0].backward()
    for label in labels:
        assert label.grad is not None
        assert (label.grad[:4].abs().sum(dim=1) > 0).all()


def test_a_second_output_per_pixel_is_the_variance():
    c = config("mlp")
    c.x_var.kind, c.x_var.value = "per_pixel", None
    net = model(c)
    assert net.decode(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)).shape == (2, 2, 28, 28)


def test_constant_planes_in_the_conv_encoder_are_what_the_docstring_says():
    net = model(config("conv", "encoder", 2))
    encoder = net.encoder
    assert isinstance(encoder, ConvEncoder)
    assert encoder.planes is not None
    x, y = torch.rand(3, 1, 28, 28), torch.tensor([4, 0, 9])
    one_hot = torch.nn.functional.one_hot(y, 10).float().repeat(1, 2)  # (B, 20)
    # A 4x4 stride-2 convolution of the image and a 1x1 stride-2 convolution of constant planes, added.
    plane_images = one_hot[:, :, None, None].expand(3, 20, 28, 28)
    kernel = encoder.planes.weight[:, :, None, None]  # (channels, 20, 1, 1)
    planes = torch.nn.functional.conv2d(plane_images, kernel, encoder.planes.bias, stride=2)
    h = torch.relu(encoder.convs[0](x) + planes)
    for conv in list(encoder.convs)[1:]:
        h = torch.relu(conv(h))
    torch.testing.assert_close(net.encode(x, y)[0], encoder.head(h.flatten(1))[:, :4])


@pytest.mark.parametrize("kind", KINDS)
def test_signed_pixels_are_those_that_the_networks_see(kind: str):
    c = config(kind, "both")
    plain = model(c, (3, 32, 32))
    c.model.pixels = "signed"
    signed = model(c, (3, 32, 32))  # the same start values
    x, y, z = torch.rand(5, 3, 32, 32), torch.arange(5), torch.randn(5, 4)
    torch.testing.assert_close(signed.encode(x, y), plain.encode(2 * x - 1, y))
    h = plain.decode(z, y)
    torch.testing.assert_close(signed.likelihood.mean(signed.decode(z, y)), 0.5 + 0.5 * h)
    c.model.output = "sigmoid"
    squashed = model(c, (3, 32, 32))
    torch.testing.assert_close(squashed.likelihood.mean(squashed.decode(z, y)), torch.sigmoid(h))


@pytest.mark.parametrize("kind", KINDS)
def test_logvar_is_bounded_above_and_as_it_was_below(kind: str):
    c = config(kind, "both")
    plain = model(c, (3, 32, 32))
    c.model.logvar_max = 0.05
    bounded = model(c, (3, 32, 32))
    x, y = 30 * torch.randn(50, 3, 32, 32), torch.arange(50) % 10
    mu, logvar = plain.encode(x, y)
    assert kind == "linear" or logvar.max() > 0.05 > logvar.min()
    torch.testing.assert_close(bounded.encode(x, y), (mu, torch.minimum(logvar, torch.tensor(0.05))))


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
        ({"label_placement__kind": "both"}, "label_placement=both: the dataset has only one class"),
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
