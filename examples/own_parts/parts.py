"""Parts of one's own: two networks, a likelihood and a metric. Nothing of the project is edited."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae.metrics import Family, Metric, Subject


class Encoder(nn.Module):
    """Gated layers (Dauphin et al. 2017): a + b with a sigmoid gate."""

    def __init__(self, image_shape: tuple[int, int, int], label_dim: int, out_dim: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(math.prod(image_shape) + label_dim, 2 * width)
        self.head = nn.Linear(width, out_dim)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        joined = torch.cat([x.flatten(1), label], dim=1)  # (B, D + L)
        return self.head(F.glu(self.gate(joined), dim=1))  # (B, P)


class Decoder(nn.Module):
    """The encoder's mirror."""

    def __init__(self, z_dim: int, label_dim: int, out_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.gate = nn.Linear(z_dim + label_dim, 2 * width)
        self.head = nn.Linear(width, math.prod(out_shape))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        hidden = F.glu(self.gate(torch.cat([z, label], dim=1)), dim=1)  # (B, width)
        return self.head(hidden).unflatten(1, self.out_shape)  # (B, p·C, H, W)


class StudentT(nn.Module):
    """Student's t with a fixed scale: its heavy tails forgive single bad pixels."""

    n_parameters = 1
    measure = "density"

    def __init__(self, df: float, scale: float) -> None:
        super().__init__()
        self.df, self.scale = df, scale

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        t = torch.distributions.StudentT(self.df, parameters, self.scale)
        return t.log_prob(x).flatten(1).sum(dim=1)  # (B,)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters


edges = Family("edges", version=1)


@edges.computes(
    Metric("test_edge_error", "", "absolute error of horizontal differences, mean over pixels", "lower", "edge error")
)
def edge_error(subject: Subject) -> float:
    images, labels = subject.images("test")
    x = images.float() / 255  # (N, C, H, W)
    x_hat = subject.model.reconstruct(images, labels)
    return (x.diff(dim=3) - x_hat.diff(dim=3)).abs().mean().item()
