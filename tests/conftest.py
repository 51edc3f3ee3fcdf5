"""Data small enough that a test trains on it in a moment, runs on them, and command lines composed without a run."""

import os

# NumPy's threads wait in a busy loop: with two on a busy machine, small matrices took eight times as long.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from experiments import plan as planning
from experiments.launch import cli
from experiments.plan import plan
from experiments.progress import Progress
from experiments.runner import execute
from experiments.settings import Settings
from experiments.training import Outcome
from vae.data import ImageData

torch.set_num_threads(1)  # toy steps gain nothing from a second thread, and lose much where the cores are busy


def make_data(
    n_train: int = 300,
    n_test: int = 60,
    image_shape: tuple[int, int, int] = (1, 8, 8),
    n_classes: int = 3,
    seed: int = 0,
    name: str = "toy",
) -> ImageData:
    """Images with a structure that depends on the class and on a few latent directions."""
    gen = torch.Generator().manual_seed(seed)
    d = image_shape[0] * image_shape[1] * image_shape[2]
    n = n_train + n_test
    y = torch.arange(n) % n_classes
    class_means = torch.rand(n_classes, d, generator=gen)
    directions = torch.randn(6, d, generator=gen) * torch.linspace(0.12, 0.02, 6)[:, None]
    x = class_means[y] * 0.5 + 0.25 + torch.randn(n, 6, generator=gen) @ directions
    x = x + 0.01 * torch.randn(n, d, generator=gen)
    images = (x.clamp(0, 1) * 255).round().to(torch.uint8).reshape(n, *image_shape)
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return ImageData(
        name=name,
        source="made up",
        train_x=images[:n_train],
        train_y=y[:n_train],
        test_x=images[n_train:],
        test_y=y[n_train:],
        classes=tuple(f"c{i}" for i in range(n_classes)),
        content_hash=digest,
    )


@pytest.fixture(scope="session")
def toy() -> ImageData:
    return make_data()


def tiny_config(**changes: object) -> Settings:
    """A config for toy data; changes by dotted name with __ for the dot."""
    config = Settings()
    config.model.hidden = [16]
    config.z_dim.value = 4
    config.trainer.epochs = 2
    config.trainer.batch_size = 64
    for name, value in changes.items():
        group, _, field = name.partition("__")
        if field:
            setattr(getattr(config, group), field, value)
        else:
            setattr(config, group, value)
    return config


Configs = Callable[..., list[Settings]]


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData) -> Configs:
    """Makes configs for runs on toy data below tmp_path, one for each dictionary of changes."""
    monkeypatch.setattr(planning, "load_data", lambda dataset: toy)

    def make(*changes: dict[str, Any], **common: Any) -> list[Settings]:
        return [tiny_config(**common, **c, output_dir=str(tmp_path / "outputs")) for c in changes or ({},)]

    return make


class Silent(Progress):
    """A progress display that shows nothing and keeps its notes."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def run_all(configs: Sequence[Settings], progress: Progress | None = None) -> list[Outcome]:
    """Trains runs without a word."""
    return execute(plan(configs), progress or Silent())


def composed(arguments: Sequence[str]) -> tuple[Sweeper, Any]:
    """The sweeper of a command line's words, and the words that it is handed: what Hydra makes of them."""
    cli.register_schema()
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        cfg = loader.load_configuration("config", list(arguments), RunMode.MULTIRUN)
    cfg.hydra.mode = RunMode.MULTIRUN
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=lambda cfg: None, config=cfg)
    return sweeper, OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)
