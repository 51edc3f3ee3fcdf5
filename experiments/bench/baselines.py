"""What our loop is compared with: loops over an ordinary PyTorch module of the same networks."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from experiments.bench.workloads import BATCH, CPU, SHAPES, Z_DIM, Workload


class Pictures(Dataset):
    """Images as torchvision's datasets give them: one PIL image at a time, turned into a tensor by ToTensor."""

    def __init__(self, images: Tensor, labels: Tensor, shape: tuple[int, int, int]) -> None:
        self.images = images.reshape(-1, *shape).permute(0, 2, 3, 1).squeeze(-1).numpy()  # (N, H, W) or (N, H, W, 3)
        self.labels, self.transform = labels, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class PlainVAE(nn.Module):
    """The networks of the benchmark as an ordinary module."""

    def __init__(self, kind: str = "mlp") -> None:
        super().__init__()
        self.conditional = kind == "mlp"
        if self.conditional:
            self.encoder = nn.Sequential(nn.Linear(834, 400), nn.ReLU(), nn.Linear(400, 2 * Z_DIM))
            self.decoder = nn.Sequential(nn.Linear(Z_DIM + 50, 400), nn.ReLU(), nn.Linear(400, 784))
        else:
            self.encoder = nn.Sequential(
                nn.Unflatten(1, (3, 32, 32)),
                *(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU()),
                *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
                *(nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU()),
                *(nn.Flatten(), nn.Linear(2048, 2 * Z_DIM)),
            )
            self.decoder = nn.Sequential(
                *(nn.Linear(Z_DIM, 2048), nn.Unflatten(1, (128, 4, 4))),
                *(nn.ReLU(), nn.ConvTranspose2d(128, 64, 4, 2, 1)),
                *(nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1)),
                *(nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1)),
                nn.Flatten(),
            )

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch: x (B, D), y (B,)."""
        labels = F.one_hot(y, 10).float().repeat(1, 5) if self.conditional else x[:, :0]  # (B, 50) or (B, 0)
        mu, logvar = self.encoder(torch.cat([x, labels], 1)).chunk(2, 1)  # (B, k) each
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)  # (B, k)
        x_hat = self.decoder(torch.cat([z, labels], 1))  # (B, D)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
        return ((x_hat - x).square().sum() / 0.2 + kl) / len(x)


def dataloader_loop(images: Tensor, labels: Tensor, kind: str = "mlp", device: torch.device = CPU) -> Workload:
    """The training loop of PyTorch's VAE example; on a GPU with a worker process and pinned memory, as there."""
    on_gpu: dict[str, Any] = {"num_workers": 1, "pin_memory": True, "persistent_workers": True}
    pictures = Pictures(images, labels, SHAPES[kind])
    loader = DataLoader(pictures, batch_size=BATCH, shuffle=True, **(on_gpu if device.type == "cuda" else {}))
    model = PlainVAE(kind).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> int:
        for x, y in loader:
            optimizer.zero_grad()
            model.loss(x.to(device).flatten(1), y.to(device)).backward()
            optimizer.step()
        return len(images)

    return epoch


def plain_loop(images: Tensor, labels: Tensor, kind: str = "mlp", device: torch.device = CPU) -> Workload:
    """A plain loop with fused Adam over tensors in the device's memory."""
    model = PlainVAE(kind).to(device)
    images, labels = images.to(device), labels.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def epoch() -> int:
        for index in torch.randperm(len(images), device=device).split(BATCH):
            optimizer.zero_grad()
            model.loss(images[index].float().div_(255), labels[index]).backward()
            optimizer.step()
        return len(images)

    return epoch
