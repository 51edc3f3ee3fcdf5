"""How good the images of a run are: a frozen classifier for each dataset, and the statistics of what it sees.

A judge is a small convolutional network, trained on the dataset by this file, always in the same way. It reads the
class of a sample, and the outputs of its last hidden layer are the features in which real and generated images are
compared. Numbers in these features can be compared only under the same `Judge.hash`. The feature Fréchet distance (FFD)
here differs from Inception's FID, whose network has never seen a digit.

All scores compare `Judge.n_images` images with as many held-out ones, because the Fréchet distance of two finite sets
is biased upwards, and more so for small sets. `real_ffd`, between two sets of real images that the judge was not
trained on, shows how large this bias is.

Images are clipped to [0, 1] before anything is measured, as a picture file would do. Networks run in float32,
statistics in float64, all on the CPU. The last digits of the judge's weights depend on the number of threads, so
`vae.metrics.compute` allows one.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae.data import ImageData
from vae.data.cache import store
from vae.seeding import generator

log = logging.getLogger(__name__)

JUDGE_VERSION = 1  # raise when the same dataset gives other weights, features or scores than before
N_SAMPLES = 1000  # images that a score compares, where the dataset has enough
N_FEATURES = 64  # few against N_SAMPLES, so that a covariance of N_SAMPLES images is well known
K_NEIGHBOURS = 5  # as recommended by Naeem et al. 2020, section 3.3

MAX_SIZE = 32  # pixels: larger images are averaged down to it; their finer detail is left to the sharpness
WIDTH = 16  # channels of the first convolution; twice as many cost three times the time and gain 0.03 on CIFAR-10
MAX_TRAIN = 30_000  # images: with 6 epochs 10 to 25 s on one core
EPOCHS = 6
MIN_STEPS = 200  # more epochs where 6 are fewer steps: the running means of the batch norms lag some 20 steps
BATCH = 128
LR = 1e-2  # at the peak of the one-cycle schedule
MIN_TRAIN = 2 * BATCH  # with fewer images the network stays untrained
MIN_SIZE = 4  # pixels of height and width: smaller images cannot be blurred for training


class Network(nn.Module):
    """Three convolutions, a hidden layer whose outputs are the features, and a linear classifier.

    Args:
        channels: of the images, which may have any height and width.
        n_classes: at least 1.
        gen: draws the weights.
    """

    def __init__(self, channels: int, n_classes: int, gen: torch.Generator) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # torch.nn draws weights, replaced below, from the global generator
            self.body = nn.Sequential(
                *_block(nn.Conv2d(channels, WIDTH, 3, 2, 1, bias=False), WIDTH),
                *_block(nn.Conv2d(WIDTH, 2 * WIDTH, 3, 2, 1, bias=False), 2 * WIDTH),
                *_block(nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, 1, 1, bias=False), 4 * WIDTH),
                nn.AdaptiveAvgPool2d(4),
                nn.Flatten(),
                nn.Linear(64 * WIDTH, N_FEATURES, bias=False),
                nn.BatchNorm1d(N_FEATURES),
                nn.ReLU(),
            )
            self.head = nn.Linear(N_FEATURES, n_classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=gen)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)  # (B, C, H, W) -> (B, F)
        return self.head(features)  # (B, n_classes)


def _block(conv: nn.Conv2d, channels: int) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(channels), nn.ReLU()


@dataclass(frozen=True, eq=False)
class Real:
    """The side of the real images, which is the same for every run.

    Attributes (tensors are float64):
        features: of the held-out images compared with, (n, F).
        mean, cov: their moments, (F,) and (F, F).
        radii: distance of each to its K_NEIGHBOURS-th nearest other one, (n,).
        ffd: feature Fréchet distance to n training images that the judge was not trained on.
        sharpness: of the held-out images.
    """

    features: Tensor
    mean: Tensor
    cov: Tensor
    radii: Tensor
    ffd: float
    sharpness: float


@dataclass(frozen=True, eq=False)
class Judge:
    """A dataset's frozen classifier; made by `Judge.of`.

    Attributes:
        data: the dataset.
        network: in eval mode, on the CPU.
        hash: 16 hexadecimal digits over weights, dataset and JUDGE_VERSION. Training gives the same weights each time
            on one machine and whatever the number of threads, but another processor may round differently.
    """

    data: ImageData
    network: Network
    hash: str

    @classmethod
    def of(cls, data: ImageData, cache_root: Path) -> Judge:
        """The judge of a dataset, from the cache if it is there, else trained (3 to 25 s) and cached.

        With a single class, or fewer than MIN_TRAIN images to train on, the network keeps its random weights. It then
        cannot tell classes apart (`test_accuracy` is None), but its features are still useful: Naeem et al. 2020
        (section 4) use untrained networks where a trained embedding does not suit the data.

        Args:
            data: images of at least MIN_SIZE pixels in height and width, with any number of channels.
            cache_root: folder of the cache, created if needed. If it cannot be written, there is no cache.
        """
        network = Network(data.image_shape[0], data.n_classes, generator(0, "judge init"))
        if _classifies(data):
            path = cache_root / f"judge-{JUDGE_VERSION}-{data.content_hash[:16]}.pt"
            if not _read(path, network, data):
                log.info("training the judge of %s", data.name)
                _train(network, data)
                content = {"state": network.state_dict(), "hash": _digest(network, data)}
                store(path, lambda file: torch.save(content, file))
        return cls(data, network.eval().requires_grad_(False), _digest(network, data))

    @property
    def n_images(self) -> int:
        """Images that each score compares: N_SAMPLES at most, the held-out ones, a quarter of the training ones."""
        return len(self.held_out)

    @cached_property
    def held_out(self) -> Tensor:
        """Indices of the test images compared with, (n_images,): drawn once, as test sets are often sorted by class.

        Reconstruct these images and sample with their labels, so that both sides have the same share of each class.
        """
        n_images = min(N_SAMPLES, len(self.data.test_x), len(self.data.train_x) // 4)
        return torch.randperm(len(self.data.test_x), generator=generator(0, "judge held out"))[:n_images]

    @cached_property
    def test_accuracy(self) -> float | None:
        """Share of all test images that the judge assigns to their class; None if untrained.

        The `sample_accuracy` of a model can exceed it: a blurred typical digit is easier to read than an odd real one.
        """
        if not _classifies(self.data) or len(self.data.test_x) == 0:
            return None
        return _share(self.predict(self.data.test_x), self.data.test_y)

    @cached_property
    def real(self) -> Real:
        """The real side of all scores; needs n_images > K_NEIGHBOURS."""
        held_out = self.data.test_x[self.held_out]  # (n, C, H, W)
        floor = self.data.train_x[_split(self.data)[1][: self.n_images]]  # (n, C, H, W)
        features = self.features(held_out)  # (n, F)
        mean, cov = _moments(features)
        return Real(
            features=features,
            mean=mean,
            cov=cov,
            radii=neighbour_radii(features),
            ffd=frechet_distance(mean, cov, *_moments(self.features(floor))),
            sharpness=sharpness(_unit(held_out)),
        )

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Outputs of the last hidden layer.

        Args:
            images: (N, C, H, W), floats, which are clipped to [0, 1], or uint8, which are divided by 255.

        Returns:
            (N, N_FEATURES) float64, >= 0.
        """
        return torch.cat([self.network.body(_seen(batch)) for batch in images.split(BATCH)]).double()

    def predict(self, images: Tensor) -> Tensor:
        """The class of each image: (N, C, H, W), as for `features` -> (N,) int64."""
        return self.classes_of(self.features(images))

    @torch.no_grad()
    def classes_of(self, features: Tensor) -> Tensor:
        """The class that features stand for: (N, N_FEATURES) -> (N,) int64."""
        return self.network.head(features.float()).argmax(dim=1)


def scores(
    judge: Judge, samples: Tensor, sample_labels: Tensor | None, reconstructions: Tensor
) -> dict[str, float | None]:
    """A run's generation quality.

    Args:
        samples, sample_labels: of z from the prior, as for `sample_scores`.
        reconstructions: of the images `judge.held_out`, (n, C, H, W) floats.

    Returns:
        `sample_scores` as sample_...; reconstruction_ffd, 0 for perfect reconstructions; real_ffd, the distance from as
        many training images that the judge was not trained on to the held-out images; reconstruction_sharpness and
        real_sharpness. All are None where those of the samples are, or if a reconstruction is not finite.
    """
    assert len(reconstructions) == judge.n_images, (len(reconstructions), judge.n_images)
    of_samples = sample_scores(judge, samples, sample_labels)
    if of_samples["ffd"] is None or not reconstructions.isfinite().all():
        return dict.fromkeys(SCORES)
    real, reconstructions = judge.real, _unit(reconstructions)
    return {
        **{f"sample_{name}": value for name, value in of_samples.items()},
        "reconstruction_ffd": frechet_distance(real.mean, real.cov, *_moments(judge.features(reconstructions))),
        "real_ffd": real.ffd,
        "reconstruction_sharpness": sharpness(reconstructions),
        "real_sharpness": real.sharpness,
    }


def sample_scores(judge: Judge, samples: Tensor, labels: Tensor | None) -> dict[str, float | None]:
    """The quality of decoded z, whatever distribution they come from.

    Args:
        samples: (n, C, H, W) floats with n = judge.n_images.
        labels: the requested class of each sample, (n,) integers; None for an unconditional model.

    Returns:
        accuracy: share of samples that the judge assigns to their class; real images reach `judge.test_accuracy`. None
            without labels, or if the judge is untrained.
        ffd: feature Fréchet distance to the held-out images; `real_ffd` for perfect samples.
        density, coverage: see `density_coverage`; real images have about 1 and 0.97.
        sharpness: see `sharpness`. Below the real one: blurred; above it: noisy.
        All are None if any pixel is not finite, or if the dataset is too small (n_images <= K_NEIGHBOURS).
    """
    n = judge.n_images
    assert len(samples) == n, (len(samples), n)
    if n <= K_NEIGHBOURS or not samples.isfinite().all():
        return dict.fromkeys(SAMPLE_SCORES)
    real, samples = judge.real, _unit(samples)
    features = judge.features(samples)  # (n, F)
    density, coverage = density_coverage(real.features, real.radii, features)
    accuracy = None
    if labels is not None and judge.test_accuracy is not None:
        accuracy = _share(judge.classes_of(features), labels)
    return {
        "accuracy": accuracy,
        "ffd": frechet_distance(real.mean, real.cov, *_moments(features)),
        "density": density,
        "coverage": coverage,
        "sharpness": sharpness(samples),
    }


SAMPLE_SCORES = ("accuracy", "ffd", "density", "coverage", "sharpness")
OTHER_SCORES = ("reconstruction_ffd", "real_ffd", "reconstruction_sharpness", "real_sharpness")
SCORES = (*(f"sample_{name}" for name in SAMPLE_SCORES), *OTHER_SCORES)


# --- Formulas


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, in squared units of the features.

    |mu1 - mu2|² + tr(C1 + C2 - 2·(C1·C2)^½): Dowson and Landau 1982, equation 4; Heusel et al. 2017, equation 6. With
    C = S·Sᵀ the trace of the root is the sum of the singular values of S1ᵀ·S2, which needs no root of a matrix that is
    not symmetric and is exact for singular covariances too.

    Args:
        mu1, mu2: (F,).
        cov1, cov2: (F, F), symmetric, positive semidefinite up to rounding.
        All float64.
    """
    singular = torch.linalg.svdvals(_square_root(cov1).T @ _square_root(cov2))  # (F,)
    distance = (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * singular.sum()
    return max(distance.item(), 0.0)  # rounding leaves equal Gaussians at about ±1e-15 of the traces


def _square_root(cov: Tensor) -> Tensor:
    """S with S·Sᵀ = cov, (F, F)."""
    values, vectors = torch.linalg.eigh(cov)  # (F,), (F, F)
    return vectors * values.clamp(min=0).sqrt()


def density_coverage(real: Tensor, radii: Tensor, fake: Tensor, k: int = K_NEIGHBOURS) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, equations 3 and 4).

    Around each real image lies a ball that reaches to its k-th nearest other real image. Density is the number of balls
    that a fake image lies in, divided by k and averaged over the fake images: about 1 for real images, more where the
    fakes crowd into dense regions, less where they lie outside. Coverage is the share of balls with a fake image
    inside, in [0, 1]: low where modes are missing. Real images reach about 1 - 2^-k, 0.97 at k = 5 (section 3.3).

    Args:
        real: features of real images, (N, F) float64.
        radii: of the balls, (N,).
        fake: features, (M, F) float64. Take M = N: coverage grows with M.
        k: neighbours.
    """
    inside = _distances(real, fake) <= radii[:, None]  # (N, M)
    return inside.sum().item() / (k * len(fake)), inside.any(dim=1).double().mean().item()


def neighbour_radii(real: Tensor, k: int = K_NEIGHBOURS) -> Tensor:
    """Distance of each point to its k-th nearest other one: (N, F) -> (N,), N > k."""
    return _distances(real, real).kthvalue(k + 1, dim=1).values  # the first is the point itself


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean: (N, F), (M, F) -> (N, M). Not by |a|² + |b|² - 2ab, which loses small distances to rounding."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def sharpness(images: Tensor) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000), averaged over channels and images: low for blurred images.

    The Laplacian is (up + down + left + right - 4·centre), at the inner pixels, where it needs no padding.

    Args:
        images: (N, C, H, W), N >= 1, H and W >= 3.

    Returns:
        In squared pixel values.
    """
    variances = []
    for batch in images.split(BATCH):  # in double precision all large images at once would fill the memory
        x = batch.double()  # (B, C, H, W)
        laplacian = (
            x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:] - 4 * x[..., 1:-1, 1:-1]
        )  # (B, C, H - 2, W - 2)
        variances.append(laplacian.var(dim=(2, 3), correction=0))  # (B, C)
    return torch.cat(variances).mean().item()


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance: (N, F) -> (F,), (F, F)."""
    return features.mean(dim=0), features.T.cov()


def _share(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels).double().mean().item()


def _unit(images: Tensor) -> Tensor:
    """Bytes or floats -> float32 in [0, 1]."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    return images.to(torch.float32).clamp(0, 1)


def _seen(images: Tensor) -> Tensor:
    """What the network is given: bytes or floats (B, C, H, W) -> float32 (B, C, <= MAX_SIZE, <= MAX_SIZE)."""
    x = _unit(images)
    height, width = (min(n, MAX_SIZE) for n in x.shape[2:])
    return x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))


# --- Training and cache


def _split(data: ImageData) -> tuple[Tensor, Tensor]:
    """Indices of the training images that the judge learns from, and of those kept from it for `real_ffd`.

    A network's features of images that it has memorized differ from those of new images. With them, `real_ffd` would
    measure the judge's overfitting.
    """
    order = torch.randperm(len(data.train_x), generator=generator(0, "judge split"))  # (N,)
    n_floor = min(N_SAMPLES, len(order) // 4)
    return order[n_floor:][:MAX_TRAIN], order[:n_floor]


def _classifies(data: ImageData) -> bool:
    return data.n_classes > 1 and len(_split(data)[0]) >= MIN_TRAIN


@torch.enable_grad()
def _train(network: Network, data: ImageData) -> None:
    """Cross entropy, AdamW, one-cycle learning rate (Smith and Topin 2019), fixed seed and number of steps."""
    learned, _ = _split(data)
    x = torch.cat([_seen(data.train_x[batch]) for batch in learned.split(BATCH)])  # (N, C, H, W)
    y = data.train_y[learned]  # (N,)
    gen = generator(0, "judge order")
    steps = len(learned) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, fused=True)
    epochs = max(EPOCHS, math.ceil(MIN_STEPS / steps))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=epochs * steps)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=gen)
        for batch in order[: steps * BATCH].view(steps, BATCH):  # (BATCH,)
            logits = network(_soften(x[batch], gen))  # (BATCH, n_classes)
            optimizer.zero_grad()
            F.cross_entropy(logits, y[batch]).backward()
            optimizer.step()
            schedule.step()


def _soften(x: Tensor, gen: torch.Generator) -> Tensor:
    """Blends every second image, on average, with a blurred copy of itself: (B, C, H, W) -> (B, C, H, W).

    A VAE's samples are softer than any real image. Without this, a judge of the digits took most class means for fours
    and recognized the class of blurred but legible samples at x_var = 1 in 56 % of cases; with it in 99 %. The judge's
    task remains to tell the classes. FFD and coverage still show that blurred images differ from real ones.
    """
    coarse = F.adaptive_avg_pool2d(x, (min(8, x.shape[2] // 4), min(8, x.shape[3] // 4)))  # (B, C, <= 8, <= 8)
    blurred = F.interpolate(coarse, size=x.shape[2:], mode="bilinear", align_corners=False)  # (B, C, H, W)
    share, chosen = torch.rand(2, len(x), 1, 1, 1, generator=gen, dtype=torch.float32)  # (B, 1, 1, 1) each
    return torch.lerp(x, blurred, share * (chosen < 0.5))


def _digest(network: Network, data: ImageData) -> str:
    digest = hashlib.sha256(f"{JUDGE_VERSION}/{data.content_hash}".encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path, network: Network, data: ImageData) -> bool:
    """Fills the network from the cache. If there is none, or it is damaged, returns False and leaves the network."""
    if not path.is_file():
        return False
    untrained = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(stored["state"])
        if stored["hash"] == _digest(network, data):
            return True
        reason = "its hash does not fit"
    except Exception as error:  # a damaged file makes torch and pickle fail in many ways
        reason = str(error).partition("\n")[0]
    log.warning("%s is damaged, training the judge again: %s", path, reason)
    network.load_state_dict(untrained)  # load_state_dict copies what fits before it fails on what does not
    return False
