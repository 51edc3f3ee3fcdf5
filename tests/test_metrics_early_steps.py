"""The early steps against a training loop of torch's own parts, step by step."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.conftest import tiny_config
from tests.models import new_stack, subject_of
from vae.config import Config
from vae.data import ImageData
from vae.metrics import compute, early_steps
from vae.model import build, resolve
from vae.seeding import generator


def plain_steps(config: Config, data: ImageData) -> np.ndarray:
    """KL and the norms of the gradients of encoder and decoder at each step, (S, 3), with torch.distributions."""
    vae = build(resolve(config, data.image_shape, data.n_classes, []), config.seed)
    optimizer = torch.optim.Adam([*vae.encoder.parameters(), *vae.decoder.parameters()], lr=config.trainer.lr)
    assert config.z_dim.value is not None
    assert config.x_var.value is not None
    size, k, scale = config.trainer.batch_size, config.z_dim.value, config.x_var.value**0.5
    rows = []
    for epoch in range(config.trainer.epochs):
        order = torch.randperm(len(data.train_x), generator=generator(config.seed, f"order {epoch}"))
        noise = torch.randn(2**18 // (size * k), size, k, generator=generator(config.seed, f"noise {epoch}/0"))
        for i, index in enumerate(order.split(size)):
            x, y = data.train_x[index].float() / 255, torch.eye(data.n_classes)[data.train_y[index]].repeat(1, 5)
            mu, logvar = vae.encoder(x, y).chunk(2, dim=1)  # (B, k) each
            q = Normal(mu, (logvar / 2).exp())
            kl = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1).mean()
            x_hat = vae.decoder(mu + q.stddev * noise[i, : len(index)], y)  # (B, C, H, W)
            optimizer.zero_grad()
            (kl - Normal(x_hat, scale).log_prob(x).sum(dim=(1, 2, 3)).mean()).backward()
            networks = (vae.encoder, vae.decoder)
            grads = [[p.grad for p in net.parameters() if p.grad is not None] for net in networks]
            rows.append([kl.item(), *(float(torch.nn.utils.get_total_norm(own)) for own in grads)])
            optimizer.step()
    return np.array(rows)


def test_each_step_is_that_of_a_plain_loop(toy: ImageData):
    config = tiny_config(seed=3, trainer__lr=0.01)
    arrays = compute("early_steps", subject_of(new_stack(toy, config), toy)).arrays
    assert list(arrays) == ["kl", "encoder_gradient", "decoder_gradient"]
    expected = plain_steps(config, toy)
    assert len(expected) == 10  # two epochs of 300 images in batches of 64
    np.testing.assert_allclose(np.stack(list(arrays.values()), axis=1), expected, rtol=2e-4)


def test_they_end_after_so_many_steps(toy: ImageData, monkeypatch: pytest.MonkeyPatch):
    subject = subject_of(new_stack(toy, tiny_config()), toy)
    whole = compute("early_steps", subject).arrays["kl"]
    monkeypatch.setattr(early_steps, "STEPS", 7)  # in the second epoch
    np.testing.assert_array_equal(compute("early_steps", subject).arrays["kl"], whole[:7])
