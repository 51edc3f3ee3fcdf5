"""Models that tests measure: taken from a stack, or linear ones with known weights."""

from pathlib import Path

import torch
from torch import Tensor

from vae.config import Config
from vae.data import Facts, ImageData
from vae.metrics import Subject
from vae.model import Architecture, build, resolve
from vae.seeding import generator
from vae.stack import Stack
from vae.trained import TrainedVAE

NO_FACTS = Facts({}, {}, {}, *[torch.zeros(0).numpy()] * 4)


def new_stack(data: ImageData, *configs: Config) -> Stack:
    archs = [resolve(config, data.image_shape, data.n_classes, []) for config in configs]
    return Stack(configs, archs, len(data.train_x), torch.device("cpu"))


def model_of(stack: Stack, data: ImageData, k: int = 0) -> TrainedVAE:
    """Run k of a stack, as it is."""
    return TrainedVAE(stack.archs[k], stack.model_state(k), data.classes)


def subject_of(stack: Stack, data: ImageData, k: int = 0, known: Facts | None = None) -> Subject:
    """Run k of a stack as the subject of metrics; facts are not computed."""
    return Subject(model_of(stack, data, k), data, stack.configs[k], known or NO_FACTS, Path("not a folder"))


def linear_model(data: ImageData, z_dim: int = 4, repeat: tuple[int, int] = (2, 2), scale: float = 3.0) -> TrainedVAE:
    """An untrained linear model, its posterior means scaled so that all dimensions are active."""
    arch = Architecture(data.image_shape, data.n_classes, z_dim, *repeat, {"kind": "linear", "init": "uniform"})
    state = build(arch, 0).state_dict()
    state["encoder.net.weight"] = state["encoder.net.weight"] * scale
    return TrainedVAE(arch, {**state, "likelihood.log_x_var": torch.tensor([-2.0])}, data.classes)


def exact_linear_model(data: ImageData, config: Config, variance: float, seed: int = 0) -> tuple[Stack, Tensor, Tensor]:
    """A linear VAE with the exact posterior of its decoder, whose loadings are orthogonal.

    Returns:
        The stack, the loadings W (k, D), and the decoder's mean of each class at z = 0, (classes, D).
    """
    config.model.kind, config.model.hidden, config.model.activation = "linear", None, None
    config.label_repeat.value = 1
    stack = new_stack(data, config)
    k, d, n = stack.arch.z_dim, stack.arch.input_dim, data.n_classes
    gen = generator(seed, "linear")
    loadings = torch.linalg.qr(torch.randn(d, k, generator=gen))[0].T * torch.linspace(0.3, 1.2, k)[:, None]
    offset = torch.rand(d, generator=gen)
    class_offset = (
        0.3 * torch.randn(n, d, generator=gen) if config.label_placement.kind == "both" else torch.zeros(n, d)
    )
    set_exact_posterior(stack, loadings, offset, class_offset, variance)
    return stack, loadings, offset + class_offset


def set_exact_posterior(stack: Stack, loadings: Tensor, offset: Tensor, class_offset: Tensor, variance: float) -> None:
    """Fills a linear stack of one: p(x|z, y) = N(W'z + offset_y, variance·I), q(z|x, y) = p(z|x, y) (Bishop 12.42)."""
    precision = 1 + loadings.square().sum(dim=1) / variance  # (k,)
    to_mu = (loadings / variance / precision[:, None]).T  # (D, k)
    with_label = stack.arch.encoder_repeat > 0
    filled = {
        "decoder.net.layers.0.weight": (torch.cat([loadings, class_offset]) if with_label else loadings).T,
        "decoder.net.layers.0.bias": offset,
        "encoder.net.weight": (torch.cat([to_mu, -class_offset @ to_mu]) if with_label else to_mu).T,
        "encoder.net.bias": -(offset @ to_mu),
        "encoder.logvar": -precision.log(),
    }
    assert set(filled) == set(stack.parameters) - {"likelihood.log_x_var"}
    for name, value in filled.items():
        stack.parameters[name].data.copy_(value)
