"""Speed, measured as ratios within one run: `make bench` writes outputs/reports/benchmark/.

Every row is timed in turn, again and again, and the medians of the repetitions are compared, so that a machine that is
slow for a while is slow for all rows. Times are of training alone unless the row says otherwise.
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

from experiments.store import write_atomic
from experiments.sweep import cpu_name, git_state, versions
from vae.config import Config
from vae.model import resolve
from vae.stack import Stack
from vae.train import train_epoch

N_IMAGES = 6400  # of MNIST's size: 50 batches a repetition
BATCH = 128
Z_DIM = 100
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
    """Images as torchvision's MNIST hands them out: a PIL image an item, made a tensor by ToTensor."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels, self.transform = images.reshape(-1, 28, 28).numpy(), labels, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class PlainVAE(nn.Module):
    """The conditional VAE of the bench as an ordinary module."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(834, 400), nn.ReLU(), nn.Linear(400, 2 * Z_DIM))
        self.decoder = nn.Sequential(nn.Linear(Z_DIM + 50, 400), nn.ReLU(), nn.Linear(400, 784))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        labels = F.one_hot(y, 10).float().repeat(1, 5)
        mu, logvar = self.encoder(torch.cat([x, labels], 1)).chunk(2, 1)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        x_hat = self.decoder(torch.cat([z, labels], 1))
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
        return ((x_hat - x).square().sum() / 0.2 + kl) / len(x)


def dataloader_loop(images: Tensor, labels: Tensor) -> Callable[[], int]:
    """The training loop of the PyTorch VAE example."""
    loader = DataLoader(Pictures(images, labels), batch_size=BATCH, shuffle=True)
    model = PlainVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> int:
        for x, y in loader:
            optimizer.zero_grad()
            model.loss(x.view(-1, 784), y).backward()
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
    configs: Sequence[Config], shape: tuple[int, int, int], images: Tensor, labels: Tensor
) -> Callable[[], int]:
    """An epoch of our own loop for a stack of runs; returns images over all runs."""
    stack = Stack(configs, resolve(configs[0], shape, 10, []), torch.device("cpu"))

    def epoch() -> int:
        train_epoch(stack, images, labels, lambda n: False)
        return len(images) * len(configs)

    return epoch


def products(sizes: Sequence[tuple[int, int, int]], n_runs: int) -> Callable[[], int]:
    """The matrix products of a training step alone, forward and backward, 50 steps: (rows, inner, columns) each."""
    gen = torch.Generator().manual_seed(0)
    operands = [
        tuple(torch.rand(n_runs, *s, generator=gen) for s in ((rows, inner), (inner, columns), (rows, columns)))
        for rows, inner, columns in sizes
    ]

    def steps() -> int:
        for _ in range(N_IMAGES // BATCH):
            for x, w, g in operands:
                torch.bmm(x, w)
                torch.bmm(g, w.transpose(1, 2))
                torch.bmm(x.transpose(1, 2), g)
        return N_IMAGES * n_runs

    return steps


MLP_PRODUCTS = [(BATCH, 834, 400), (BATCH, 400, 2 * Z_DIM), (BATCH, Z_DIM + 50, 400), (BATCH, 400, 784)]
# The convolutions as products of patches: rows are the positions of a batch, 16·channels in, channels out. A transposed
# convolution is the mirror. The first layer needs no gradient of its input, which flatters no one: it is counted.
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


def interleaved(rows: dict[str, Callable[[], int]], repetitions: int) -> dict[str, float]:
    """Seconds an image (over all runs) of each row: medians of repetitions that take turns."""
    for row in rows.values():
        row()  # once to warm up
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repetitions):
        for name, row in rows.items():
            begun = time.perf_counter()
            images = row()
            times[name].append((time.perf_counter() - begun) / images)
    return {name: statistics.median(t) for name, t in times.items()}


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    what: str
    measured: str
    goal: str
    met: bool | None

    def cells(self) -> str:
        mark = {True: "yes", False: "no", None: "-"}[self.met]
        return f"| {self.what} | {self.measured} | {self.goal} | {mark} |"


def training_rows(repetitions: int) -> list[Measured]:
    images, labels = random_images((1, 28, 28), N_IMAGES)
    rows: dict[str, Callable[[], int]] = {
        "loader": dataloader_loop(images, labels),
        "plain": plain_loop(images, labels),
        "one": stacked([mlp_config()], (1, 28, 28), images, labels),
        "eight": stacked([mlp_config(s) for s in range(8)], (1, 28, 28), images, labels),
        "products": products(MLP_PRODUCTS, 8),
    }
    if (pythae := pythae_loop(images, labels)) is not None:
        rows["pythae"] = pythae
    t = interleaved(rows, repetitions)
    epoch = 60_000
    made = [
        Measured("DataLoader + ToTensor loop, Adam", f"1 ({t['loader'] * epoch:.2f} s an epoch of 60,000)", "1", None),
        _ratio("tensors in memory, one run", t["loader"] / t["one"], 4, f"{t['one'] * epoch:.2f} s"),
        _ratio("one run against a plain nn.Module loop with fused Adam", t["plain"] / t["one"], 1, ""),
        _ratio("stack of 8, per run", t["loader"] / t["eight"], 8, f"{t['eight'] * epoch:.2f} s"),
        _share("stack of 8 as a share of the rate of its matrix products alone", t["products"] / t["eight"], 0.70),
    ]
    limit = f"{t['loader'] / t['products']:.2f} ({t['products'] * epoch:.2f} s an epoch)"
    made.append(
        Measured("the matrix products of a run alone, against the first row: the limit of all", limit, "-", None)
    )
    if "pythae" in t:
        made.append(
            _ratio(
                "stack of 8 against pythae 0.1.2, per run", t["pythae"] / t["eight"], 3, f"{t['pythae'] * epoch:.2f} s"
            )
        )
    else:
        made.append(Measured("stack of 8 against pythae 0.1.2, per run", "pythae is not installed", "at least 3", None))
    images, labels = random_images((3, 32, 32), N_IMAGES // 5)
    conv: dict[str, Callable[[], int]] = {
        "one": stacked([conv_config()], (3, 32, 32), images, labels),
        "four": stacked([conv_config(s) for s in range(4)], (3, 32, 32), images, labels),
        "products": products(CONV_PRODUCTS, 1),
    }
    t = interleaved(conv, repetitions)
    made += [
        _share(
            "conv on 32x32x3 as a share of the rate of its arithmetic as matrix products",
            t["products"] / t["one"],
            0.60,
        ),
        _ratio("conv, stack of 4 against one run, per run", t["one"] / t["four"], 1, ""),
    ]
    return made


def _ratio(what: str, value: float, goal: float, seconds: str) -> Measured:
    shown = f"{value:.2f}" + (f" ({seconds} an epoch)" if seconds else "")
    return Measured(what, shown, f"at least {goal:g}", value >= goal)


def _share(what: str, value: float, goal: float) -> Measured:
    return Measured(what, f"{value:.0%}", f"at least {goal:.0%}", value >= goal)


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
    images, labels = random_images((1, 28, 28), 1280)
    curves: dict[str, dict[int, float]] = {}
    for threads in sorted({1, torch.get_num_threads()}):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        rows: dict[str, Callable[[], int]] = {}
        for k in (1, 2, 4, 8, 16, 32):
            rows[str(k)] = stacked([mlp_config(s) for s in range(k)], (1, 28, 28), images, labels)
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
        stack = Stack(some, arch, torch.device("cpu"))
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
    torch.set_flush_denormal(True)
    state = git_state()  # before the report's own files change
    folder = Path(args.output_dir) / "reports" / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    measured = training_rows(args.repetitions)
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
        "GPU: not measured.",
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
