"""Speed, measured as ratios within one run: `make bench` writes outputs/reports/benchmark/.

Every row is timed in turn, again and again, and the medians of the repetitions are compared, so that a machine that is
slow for a while is slow for all rows. Times are of training alone unless the row says otherwise. Rows are of the CPU,
but for a table of their own where there is a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from experiments.store import RunFolder, write_atomic
from experiments.sweep import Run, cpu_name, git_state, set_up_torch, stacks, versions, workers_for
from vae.capture import eagerly
from vae.config import Config
from vae.data import ImageData, facts
from vae.layers import product
from vae.model import resolve
from vae.stack import Stack
from vae.train import train_epoch

N_IMAGES = 6400  # of MNIST's size: 50 batches a repetition
BATCH = 128
Z_DIM = 100
SHAPES = {"mlp": (1, 28, 28), "conv": (3, 32, 32)}
CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent


def mlp_config(seed: int = 0) -> Config:
    config = Config(seed=seed)
    config.z_dim.value = Z_DIM
    config.trainer.epochs = 10_000
    return config


def conv_config(seed: int = 0) -> Config:
    config = mlp_config(seed)
    config.model.kind, config.model.hidden, config.model.channels = "conv", None, [32, 64, 128]
    config.label_placement.kind = "none"
    config.objective.kind = "per_dim"
    return config


def random_images(shape: tuple[int, int, int], n: int) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, shape[0] * shape[1] * shape[2]), generator=gen, dtype=torch.uint8)
    return images, torch.randint(10, (n,), generator=gen)


class Pictures(Dataset):
    """Images as torchvision's datasets hand them out: a PIL image an item, made a tensor by ToTensor."""

    def __init__(self, images: Tensor, labels: Tensor, shape: tuple[int, int, int]) -> None:
        self.images = images.reshape(-1, *shape).permute(0, 2, 3, 1).squeeze(-1).numpy()  # (N, H, W) or (N, H, W, 3)
        self.labels, self.transform = labels, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class PlainVAE(nn.Module):
    """The networks of the bench as an ordinary module: the conditional VAE of mlp, the unconditional one of conv."""

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
        labels = F.one_hot(y, 10).float().repeat(1, 5) if self.conditional else x[:, :0]
        mu, logvar = self.encoder(torch.cat([x, labels], 1)).chunk(2, 1)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        x_hat = self.decoder(torch.cat([z, labels], 1))
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
        return ((x_hat - x).square().sum() / 0.2 + kl) / len(x)


def dataloader_loop(images: Tensor, labels: Tensor, kind: str = "mlp", device: torch.device = CPU) -> Callable[[], int]:
    """The training loop of the PyTorch VAE example, on a GPU with a worker and pinned memory as there."""
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


def plain_loop(images: Tensor, labels: Tensor) -> Callable[[], int]:
    """An nn.Module and fused Adam on tensors in memory: what one of our runs must not be slower than."""
    model = PlainVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def epoch() -> int:
        order = torch.randperm(len(images))
        for index in order.split(BATCH):
            optimizer.zero_grad()
            model.loss(images[index].float().div_(255), labels[index]).backward()
            optimizer.step()
        return len(images)

    return epoch


def stacked(
    configs: Sequence[Config], images: Tensor, labels: Tensor, device: torch.device = CPU, captured: bool = True
) -> Callable[[], int]:
    """An epoch of our own loop for a stack of runs; returns images over all runs.

    Args:
        captured: on a GPU, whether steps may be replayed as CUDA graphs.
    """
    stack = Stack(configs, resolve(configs[0], SHAPES[configs[0].model.kind], 10, []), device)
    images, labels = images.to(device), labels.to(device)
    if not captured:
        stack.call = eagerly

    def epoch() -> int:
        train_epoch(stack, images, labels, lambda n: False)
        return len(images) * len(configs)

    return epoch


def side_by_side(parts: Sequence[Callable[[], int]], workers: int) -> Callable[[], int]:
    """Some epochs, as many at a time as there are workers, each with its share of the threads."""
    pool, threads = ThreadPoolExecutor(workers), torch.get_num_threads()

    def one(part: Callable[[], int]) -> int:
        set_up_torch(Config(), max(1, threads // workers))
        return part()

    def epoch() -> int:
        images = sum(pool.map(one, parts))
        torch.set_num_threads(threads)  # part of what the workers set holds for all
        return images

    return epoch


def as_a_sweep(configs: Sequence[Config], images: Tensor, labels: Tensor) -> tuple[list[list[Config]], int]:
    """The stacks that a sweep on this machine makes of the runs, and how many of them it trains at once."""
    shape = SHAPES[configs[0].model.kind]
    pictures = images.reshape(-1, *shape)
    data = ImageData("bench", "made up", pictures, labels, pictures, labels, tuple("0123456789"), "bench")
    arch, known = resolve(configs[0], shape, 10, []), facts(data)
    runs = [Run(c, arch, data, known, RunFolder(Path(str(c.seed)))) for c in configs]
    workers = workers_for(runs, torch.get_num_threads())
    return [[run.config for run in piece] for piece in stacks(runs, workers)], workers


def operands(sizes: Sequence[tuple[int, int, int]], n_runs: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input, weight and gradient of the output of each layer, of n_runs runs."""
    gen = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(n_runs, *shape, generator=gen)

    return [(draw(rows, inner), draw(inner, columns), draw(rows, columns)) for rows, inner, columns in sizes]


def products(sizes: Sequence[tuple[int, int, int]], n_runs: int) -> Callable[[], int]:
    """The matrix products of a training step alone, by the routine of the layers, one call a run; 50 steps.

    Args:
        sizes: rows, inner, columns of each layer's product; the first layer needs no gradient of its input.
    """
    layers = operands(sizes, n_runs)

    def steps() -> int:
        for _ in range(N_IMAGES // BATCH):
            for i, (x, w, g) in enumerate(layers):
                for k in range(n_runs):
                    product(x[k], w[k].t())
                    product(x[k].t(), g[k].t())
                    if i > 0:
                        product(g[k], w[k])
        return N_IMAGES * n_runs

    return steps


def torch_products(sizes: Sequence[tuple[int, int, int]], n_runs: int) -> Callable[[], int]:
    """The same products by torch's own batched routine, which a stack would take without oneDNN."""
    layers = operands(sizes, n_runs)

    def steps() -> int:
        for _ in range(N_IMAGES // BATCH):
            for i, (x, w, g) in enumerate(layers):
                torch.bmm(x, w)
                torch.bmm(x.mT, g)
                if i > 0:
                    torch.bmm(g, w.mT)
        return N_IMAGES * n_runs

    return steps


GPU_STACKS = (1, 8, 32, 128, 256)
MLP_PRODUCTS = [(BATCH, 834, 400), (BATCH, 400, 2 * Z_DIM), (BATCH, Z_DIM + 50, 400), (BATCH, 400, 784)]
# The convolutions as products of patches: rows are the positions of a batch, 16·channels in, channels out. A transposed
# convolution is the mirror.
CONV_PRODUCTS = [
    (BATCH * 256, 48, 32),
    (BATCH * 64, 512, 64),
    (BATCH * 16, 1024, 128),
    (BATCH, 2048, 2 * Z_DIM),
    (BATCH, Z_DIM, 2048),
    (BATCH * 16, 128, 1024),
    (BATCH * 64, 64, 512),
    (BATCH * 256, 32, 48),
]


def pythae_loop(images: Tensor, labels: Tensor) -> Callable[[], int] | None:
    """Pythae's trainer on the same tensors with networks of the same sizes, or None where it is not installed."""
    if importlib.util.find_spec("pythae") is None:
        return None
    from pythae.data.datasets import BaseDataset  # pyright: ignore[reportMissingImports]
    from pythae.models import VAE, VAEConfig  # pyright: ignore[reportMissingImports]
    from pythae.models.base.base_utils import ModelOutput  # pyright: ignore[reportMissingImports]
    from pythae.models.nn import BaseDecoder, BaseEncoder  # pyright: ignore[reportMissingImports]
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # pyright: ignore[reportMissingImports]

    logging.getLogger("pythae").setLevel(logging.ERROR)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.mu, self.log_var = nn.Linear(400, Z_DIM), nn.Linear(400, Z_DIM)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x.reshape(len(x), -1))
            return ModelOutput(embedding=self.mu(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(Z_DIM, 400), nn.ReLU(), nn.Linear(400, 784))

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.body(z).reshape(-1, 1, 28, 28))

    folder = tempfile.TemporaryDirectory()  # pythae writes its model; removed with the returned function
    data = (images.float() / 255).reshape(-1, 1, 28, 28)
    config = BaseTrainerConfig(
        output_dir=folder.name, num_epochs=1, learning_rate=1e-3, per_device_train_batch_size=BATCH, no_cuda=True
    )

    def epoch() -> int:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=Z_DIM), encoder=Encoder(), decoder=Decoder())
            BaseTrainer(model=model, train_dataset=BaseDataset(data, labels), training_config=config).train()
        return len(images)

    return epoch


def timed(row: Callable[[], int]) -> float:
    """Seconds an image (over all runs) of one call."""
    begun = time.perf_counter()
    images = row()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / images


def interleaved(rows: dict[str, Callable[[], int]], repetitions: int) -> dict[str, float]:
    """Seconds an image (over all runs) of each row: medians of repetitions that take turns."""
    for row in rows.values():
        row()  # once to warm up
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repetitions):
        for name, row in rows.items():
            times[name].append(timed(row))
    return {name: statistics.median(t) for name, t in times.items()}


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    what: str
    measured: str
    goal: str
    met: bool | None
    profile: str = ""  # the row of the profile that says why it is not faster

    def cells(self) -> str:
        mark = {True: "yes", False: "no", None: "-"}[self.met]
        return f"| {self.what} | {self.measured} | {self.goal} | {mark} |"


@dataclass(frozen=True)
class Profile:
    """Where the time of a step goes: shares of the whole, and how long that is."""

    ms: float  # a step of one run, under the profiler
    products: float  # matrix products and convolutions
    adam: float
    other: float  # all other operations
    between: float  # no operation at all: on the CPU Python, on a GPU waiting for it
    largest: list[tuple[str, float]]  # of the other operations

    def cells(self, what: str) -> str:
        shares = " | ".join(f"{v:.0%}" for v in (self.products, self.adam, self.other, self.between))
        return f"| {what} | {self.ms:.2f} | {shares} | {', '.join(f'{op} {v:.1%}' for op, v in self.largest)} |"

    def why(self) -> str:
        return (
            f"of a step {self.products:.0%} matrix products, {self.adam:.0%} Adam, {self.other:.0%} other operations "
            f"({self.largest[0][0]} {self.largest[0][1]:.0%}), {self.between:.0%} between them"
        )


PROFILE_HEAD = [
    "| row | ms a step of one run | matrix products | Adam | other operations | between operations | largest others |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def profiled(row: Callable[[], int], device: torch.device = CPU) -> Profile:
    """An epoch under torch.profiler, which itself makes small operations slower."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its own messages are of no use here
    from torch.profiler import ProfilerActivity, profile

    gpu = device.type == "cuda"
    row()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU] if gpu else [ProfilerActivity.CPU]) as seen:
        begun = time.perf_counter()
        images = row()  # it ends when the device has
        seconds = time.perf_counter() - begun
    ops = [e for e in seen.key_averages() if e.device_type.name == "CPU"]  # less the kernels, which are their callers'
    own = {e.key: 1e-6 * (e.self_device_time_total if gpu else e.self_cpu_time_total) / seconds for e in ops}
    whole = {e.key: 1e-6 * (e.device_time_total if gpu else e.cpu_time_total) / seconds for e in ops}
    multiplying = {k for k in own if "convolution" in k or "linear_pointwise" in k or k.endswith("mm")}
    products = sum(own[k] for k in multiplying)
    adam = sum(v for k, v in whole.items() if k.startswith("Optimizer.step"))
    others = {k: v for k, v in own.items() if k not in multiplying and not k.startswith(("Optimizer", "aten::_fused"))}
    return Profile(
        ms=1e3 * BATCH * seconds / images,
        products=products,
        adam=adam,
        other=sum(own.values()) - products - adam,
        between=1 - sum(own.values()),
        largest=[(k.removeprefix("aten::"), others[k]) for k in sorted(others, key=lambda k: -others[k])[:4]],
    )


def training_rows(repetitions: int) -> tuple[list[Measured], dict[str, Profile], float]:
    """The rows of training on the CPU, the profiles of some, and how fast a run of products alone would be."""
    images, labels = random_images(SHAPES["mlp"], N_IMAGES)
    configs = [mlp_config(s) for s in range(8)]
    pieces, workers = as_a_sweep(configs, images, labels)
    rows: dict[str, Callable[[], int]] = {
        "loader": dataloader_loop(images, labels),
        "plain": plain_loop(images, labels),
        "one": stacked(configs[:1], images, labels),
        "eight": stacked(configs, images, labels),
        "sweep": side_by_side([stacked(piece, images, labels) for piece in pieces], workers),
        "products": products(MLP_PRODUCTS, 8),
        "torch products": torch_products(MLP_PRODUCTS, 8),
        "sweep products": side_by_side([products(MLP_PRODUCTS, len(piece)) for piece in pieces], workers),
    }
    if (pythae := pythae_loop(images, labels)) is not None:
        rows["pythae"] = pythae
    t = interleaved(rows, repetitions)
    profiles = {"one run, mlp": profiled(rows["one"]), "stack of 8, mlp": profiled(rows["eight"])}
    threads, part = torch.get_num_threads(), f"a sweep's stack of {len(pieces[0])}, mlp"
    torch.set_num_threads(max(1, threads // workers))
    profiles[part] = profiled(stacked(pieces[0], images, labels))
    torch.set_num_threads(threads)
    epoch = 60_000
    sizes = " + ".join(str(len(piece)) for piece in pieces)
    swept = f"8 runs as a sweep trains them (stacks of {sizes}, {workers} at once)"
    limit = t["loader"] / min(t["products"], t["sweep products"])
    made = [
        Measured("DataLoader + ToTensor loop, Adam", f"1 ({t['loader'] * epoch:.2f} s an epoch of 60,000)", "1", None),
        _ratio("tensors in memory, one run", t["loader"] / t["one"], 4, f"{t['one'] * epoch:.2f} s", "one run, mlp"),
        _ratio("one run against a plain nn.Module loop with fused Adam", t["plain"] / t["one"], 1, "", "one run, mlp"),
        _ratio("stack of 8, per run", t["loader"] / t["eight"], 8, f"{t['eight'] * epoch:.2f} s", "stack of 8, mlp"),
        _share(
            "stack of 8 as a share of the rate of its matrix products alone, by torch.bmm",
            t["torch products"] / t["eight"],
            0.70,
            "stack of 8, mlp",
        ),
        _share(
            "the same by oneDNN, which the layers take as it is faster",
            t["products"] / t["eight"],
            0.70,
            "stack of 8, mlp",
        ),
        _ratio(f"{swept}, per run", t["loader"] / t["sweep"], 8, f"{t['sweep'] * epoch:.2f} s", part),
        _share(
            "as a share of the rate of its matrix products alone by oneDNN, side by side too",
            t["sweep products"] / t["sweep"],
            0.70,
            part,
        ),
        Measured(
            "the matrix products of a run alone, against the first row: the limit of all",
            f"{limit:.2f} ({t['loader'] / limit * epoch:.2f} s an epoch)",
            "-",
            None,
        ),
    ]
    what = "stack of 8 against pythae 0.1.2, per run"
    if "pythae" in t:
        ratio = t["pythae"] / t["eight"]
        made.append(_ratio(what, ratio, 3, f"pythae {t['pythae'] * epoch:.2f} s", "stack of 8, mlp"))
    else:
        made.append(Measured(what, "pythae is not installed", "at least 3", None))
    images, labels = random_images(SHAPES["conv"], N_IMAGES // 5)
    conv: dict[str, Callable[[], int]] = {
        "one": stacked([conv_config()], images, labels),
        "four": stacked([conv_config(s) for s in range(4)], images, labels),
        "products": products(CONV_PRODUCTS, 1),
    }
    t = interleaved(conv, repetitions)
    profiles["one run, conv"] = profiled(conv["one"])
    made += [
        _share(
            "conv on 32x32x3 as a share of the rate of its arithmetic as matrix products",
            t["products"] / t["one"],
            0.60,
            "one run, conv",
        ),
        _ratio("conv, stack of 4 against one run, per run", t["one"] / t["four"], 1, "", "one run, conv"),
    ]
    return made, profiles, limit


def _ratio(what: str, value: float, goal: float, seconds: str, profile: str = "") -> Measured:
    shown = f"{value:.2f}" + (f" ({seconds} an epoch)" if seconds else "")
    return Measured(what, shown, f"at least {goal:g}", value >= goal, profile)


def _share(what: str, value: float, goal: float, profile: str) -> Measured:
    return Measured(what, f"{value:.0%}", f"at least {goal:.0%}", value >= goal, profile)


def missed(measured: Sequence[Measured], profiles: dict[str, Profile]) -> list[str]:
    """A line for each goal that was missed, with what the profile says of it."""
    lines = [
        f"- {m.what}: {m.measured}, goal {m.goal}"
        + (f"; {profiles[m.profile].why()}" if m.profile in profiles else "")
        + "."
        for m in measured
        if m.met is False
    ]
    return lines or ["None."]


def gpu_section(repetitions: int) -> list[str]:
    """The table of training on the GPU of this machine, with the profile of its largest stacks."""
    if not torch.cuda.is_available():
        return ["Not measured: no GPU."]
    device = torch.device("cuda")
    rows, profiles, measured = [], {}, []
    for kind, config in (("mlp", mlp_config), ("conv", conv_config)):
        images, labels = random_images(SHAPES[kind], N_IMAGES)
        for k in GPU_STACKS:
            what, configs = f"{kind}, {'one run' if k == 1 else f'stack of {k}'}", [config(s) for s in range(k)]
            try:
                eager = stacked(configs, images, labels, device, captured=False)
                timings = {
                    "loader": dataloader_loop(images, labels, kind, device),
                    "eager": eager,
                    "graph": stacked(configs, images, labels, device),
                }
                t = {name: 60_000 * v for name, v in interleaved(timings, repetitions).items()}
                profiles[what] = profiled(eager, device)
            except torch.OutOfMemoryError:
                rows.append(f"| {what} | out of memory | | | | | |")
                continue
            finally:
                eager = timings = None  # their memory is the next row's
                torch.cuda.empty_cache()
            ratio = t["loader"] / t["graph"]
            measured.append(_ratio(f"{what}, CUDA graph, per run", ratio, 100, f"{t['graph']:.3f} s", what))
            cells = " | ".join(f"{t[name]:.3f} s" for name in ("loader", "eager", "graph"))
            rows.append(f"| {what} | {cells} | {ratio:.1f} | at least 100 | {'yes' if ratio >= 100 else 'no'} |")
    return [
        f"{torch.cuda.get_device_name(device)}. Seconds an epoch of 60,000 images and run, without TensorFloat-32; the "
        "DataLoader loop has a worker and pinned memory, as the example that it is taken from.",
        "",
        "| row | DataLoader loop | eager | CUDA graph | graph against the loop | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "Missed goals, with where the time of an eager step goes on the GPU:",
        "",
        *missed(measured, profiles),
        "",
        *PROFILE_HEAD,
        *(profile.cells(what) for what, profile in profiles.items()),
    ]


def command(*arguments: str, env: dict[str, str] | None = None) -> float:
    """Seconds that a command takes from cold start to end."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr[-500:]}")
    return time.perf_counter() - begun


def sweep_row(repetitions: int) -> Measured:
    """The whole xvar sweep with few epochs: one process that stacks against two that train one run at a time."""
    what = "whole xvar sweep (50 runs, 10 epochs), cold start to report, against joblib with 2 single-threaded workers"
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        return Measured(what, "the joblib launcher is not installed (pip install -e '.[joblib]')", "at least 1.5", None)
    times: dict[str, list[float]] = {"stacked": [], "joblib": []}
    for _ in range(repetitions):
        for name in times:
            with tempfile.TemporaryDirectory() as folder:
                extra = (
                    ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.threads=1"]
                    if name == "joblib"
                    else []
                )
                times[name].append(command("run.py", "xvar", "trainer.epochs=10", f"output_dir={folder}", *extra))
    stacked_time, joblib_time = (statistics.median(times[name]) for name in ("stacked", "joblib"))
    value = joblib_time / stacked_time
    return Measured(what, f"{value:.2f} ({stacked_time:.0f} s and {joblib_time:.0f} s)", "at least 1.5", value >= 1.5)


def overhead_row() -> Measured:
    """A sweep of 200 tiny runs: what it takes beside training."""
    with tempfile.TemporaryDirectory() as folder:
        args = ["trainer.epochs=1", "model.hidden=[4]", "z_dim=2", "trainer.batch_size=4000", f"output_dir={folder}"]
        total = command("run.py", "-m", "seed=range(200)", *args)
        runs = list((Path(folder) / "runs").iterdir())
        parts = [json.loads((run / "provenance.json").read_text()) for run in runs]
        training = sum(p["train_seconds"] / p["stack_size"] for p in parts)
    value = (total - training) / len(runs)
    return Measured(
        "overhead a run outside training, sweep of 200 tiny runs", f"{value:.3f} s", "at most 0.3 s", value <= 0.3
    )


BARE = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(cfg): pass
main()
"""


def startup_rows(repetitions: int) -> list[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)

        def failing() -> float:
            begun = time.perf_counter()
            subprocess.run([sys.executable, "run.py", "x_var=-1"], cwd=ROOT, capture_output=True)
            return time.perf_counter() - begun

        t: dict[str, list[float]] = {"bare": [], "help": [], "error": []}
        for _ in range(repetitions):
            t["bare"].append(command(str(bare), "--help"))
            t["help"].append(command("run.py", "--help"))
            t["error"].append(failing())
    median = {name: statistics.median(v) for name, v in t.items()}
    return [
        Measured(
            f"start-up: {what}, against a bare Hydra app's --help",
            f"{median[name] / median['bare']:.2f} ({median[name]:.2f} s)",
            "at most 2",
            median[name] <= 2 * median["bare"],
        )
        for name, what in (("help", "`run.py --help`"), ("error", "a bad setting"))
    ]


def scaling(repetitions: int) -> dict[str, dict[int, float]]:
    """Seconds an image and run by K, with one thread and with all, and the limit of the matrix products."""
    images, labels = random_images(SHAPES["mlp"], 1280)
    curves: dict[str, dict[int, float]] = {}
    for threads in sorted({1, torch.get_num_threads()}):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        rows: dict[str, Callable[[], int]] = {}
        for k in (1, 2, 4, 8, 16, 32):
            rows[str(k)] = stacked([mlp_config(s) for s in range(k)], images, labels)
        rows["products"] = products(MLP_PRODUCTS, 8)
        t = interleaved(rows, repetitions)
        limit = t.pop("products")
        curves[f"{threads} thread{'s' * (threads > 1)}"] = {int(k): v for k, v in t.items()}
        curves[f"products alone, {threads} thread{'s' * (threads > 1)}"] = {1: limit, 32: limit}
        torch.set_num_threads(before)
    return curves


def draw_scaling(curves: dict[str, dict[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    markers = iter("os^v")
    for name, curve in curves.items():
        ms = [1e3 * BATCH * v for v in curve.values()]
        alone = name.startswith("products")
        line = axes.plot(list(curve), ms, ls="--" if alone else "-", marker="" if alone else next(markers))[0]
        axes.annotate(
            name,
            (list(curve)[-1], ms[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_xlim(0.9, 110)
    axes.set_ylim(0)
    axes.set_xlabel("runs in a stack, K")
    axes.set_ylabel("ms a step of one run (128 images)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def quality(n_seeds: int, epochs: int) -> str:
    """Final ELBO of runs trained alone and in one stack: the same numbers."""
    from experiments.statistics import mean_interval
    from vae import config as vae_config
    from vae import data as vae_data
    from vae.evaluate import evaluate

    data = vae_data.load(vae_config.Dataset())
    x, y = data.train_x.flatten(1), data.train_y
    configs = [Config(seed=s) for s in range(n_seeds)]
    for c in configs:
        c.trainer.epochs = epochs
    arch = resolve(configs[0], data.image_shape, data.n_classes, [])

    def elbo(some: Sequence[Config]) -> list[float]:
        stack = Stack(some, arch, CPU)
        while stack.epoch < epochs:
            train_epoch(stack, x, y, lambda n: False)
        return [r["elbo"] for r in evaluate(stack, data.test_x.flatten(1), data.test_y)]

    together, alone = elbo(configs), [elbo([c])[0] for c in configs]
    difference = max(abs(a - b) for a, b in zip(together, alone, strict=True))
    intervals = [mean_interval(values) for values in (alone, together)]
    shown = [f"{i.mean:.2f} ± {i.mean - i.low:.2f} nats" for i in intervals]
    return (
        f"Final held-out ELBO after {epochs} epochs on mnist_5k, {n_seeds} seeds, mean and 95 % interval: "
        f"{shown[0]} alone, {shown[1]} stacked; "
        f"the largest difference of a seed is {difference:.3g} nats."
    )


def machine() -> str:
    return f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used, {platform.system()}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="experiments.bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="training rows only")
    parser.add_argument("--output-dir", default="outputs")
    args = parser.parse_args(argv)
    set_up_torch(Config(), torch.get_num_threads())
    state = git_state()  # before the report's own files change
    folder = Path(args.output_dir) / "reports" / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    measured, profiles, limit = training_rows(args.repetitions)
    if not args.quick:
        measured += [sweep_row(1), overhead_row(), *startup_rows(args.repetitions)]
    curves = scaling(args.repetitions)
    draw_scaling(curves, folder / "stack-size.png")
    names = {k: v for k, v in versions().items() if k in ("python", "torch", "hydra-core")}
    lines = [
        "# Benchmark",
        "",
        f"Machine: {machine()}. Versions: {', '.join(f'{k} {v}' for k, v in names.items())}. "
        f"Commit {state['git_commit']}{' with changes' if state['git_dirty'] else ''}.",
        "",
        f"mlp 784+50 → 400 → 100 → 400 → 784, batch {BATCH}, float32; medians of {args.repetitions} interleaved "
        "repetitions; ratios within this run, larger is faster unless the row says otherwise.",
        "",
        "| row | measured | goal | met |",
        "| --- | --- | --- | --- |",
        *(m.cells() for m in measured),
        "",
        "## Missed goals",
        "",
        f"With nothing but its matrix products, by the routine that the layers take, a run would be {limit:.2f} times "
        "as fast as the DataLoader loop.",
        "",
        *missed(measured, profiles),
        "",
        "## Where the time of a step goes",
        "",
        "By torch.profiler, which makes small operations slower: shares of an epoch on the CPU.",
        "",
        *PROFILE_HEAD,
        *(profile.cells(what) for what, profile in profiles.items()),
        "",
        "## On a GPU",
        "",
        *gpu_section(args.repetitions),
        "",
        "## Time a run by stack size",
        "",
        "![time a run by stack size](stack-size.png)",
        "",
    ]
    if not args.quick:
        lines += ["## Quality", "", quality(10, 10), ""]
    lines += ["Made by `make bench`.", ""]
    write_atomic(folder / "report.md", "\n".join(lines).encode())
    table = {name: {str(k): float(np.round(v * 1e6, 3)) for k, v in curve.items()} for name, curve in curves.items()}
    write_atomic(
        folder / "stack-size.json", (json.dumps({"microseconds an image and run": table}, indent=1) + "\n").encode()
    )
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
