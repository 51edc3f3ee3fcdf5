"""Plans what to train: each run of a sweep with its data and its folder, checked before anything is written."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.identity import fingerprint, readable
from experiments.settings import Settings, result_settings, validate
from experiments.store import RunFolder, runs_dir
from vae import data as vae_data
from vae import optimizers
from vae.config import ConfigError, Dataset, LabelPlacement
from vae.data import Facts, ImageData
from vae.metrics import requested
from vae.model import Architecture, check_parts, model_bytes, resolve


@dataclass(frozen=True)
class Run:
    """One run, ready to be trained. Its settings have been checked against its data."""

    config: Settings
    arch: Architecture
    data: ImageData
    facts: Facts
    folder: RunFolder

    def images_left(self) -> int:
        """The number of images still to be seen in training; 0 for a finished run."""
        return 0 if self.folder.result() else self.config.trainer.epochs * len(self.data.train_x)


def plan(configs: Sequence[Settings]) -> list[Run]:
    """Checks every run against its data. If a check fails, nothing has been written.

    Raises:
        ConfigError: for the first setting that cannot be used.
    """
    for config in configs:
        validate(config)
    configs = [_fitted(config, load_data(config.dataset)) for config in configs]
    checked: set[str] = set()  # combinations of parts; most runs of a sweep share them
    for config in configs:
        images = load_data(config.dataset)
        arch = resolve(config, images.image_shape, images.n_classes, ())  # z_dim=pca alone needs the spectrum
        if (parts := repr((config.optimizer, arch, config.objective))) not in checked:
            optimizers.check(config.optimizer)
            _check_memory(config, arch)
            check_parts(config, arch, len(images.train_x))
            requested(config.study.columns, config.study.metrics)
            checked.add(parts)
        if config.trainer.batch_size > len(images.train_x):
            raise ConfigError(
                f"trainer.batch_size={config.trainer.batch_size}: out of range; "
                f"allowed: at most {len(images.train_x)}, the training images"
            )
        if config.trainer.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.device=cuda: there is no usable GPU; allowed here: auto, cpu")
        logger = config.logger.kind
        if logger != "csv" and importlib.util.find_spec(logger) is None:
            raise ConfigError(
                f"logger={logger}: its package is not installed (pip install -e '.[{logger}]'); allowed without it: csv"
            )
    runs = []
    for config in configs:
        images = load_data(config.dataset)
        facts = _facts(images, config.output_dir)
        arch = resolve(config, images.image_shape, images.n_classes, facts.eigenvalues)
        name = f"{readable(config, images.name, arch.z_dim)}-{fingerprint(config, images.content_hash)}"
        runs.append(Run(config, arch, images, facts, RunFolder(runs_dir(config.output_dir) / name)))
    return runs


def _fitted(config: Settings, images: ImageData) -> Settings:
    """The settings, with label_placement=none if the images have no labels."""
    placement = config.label_placement.kind
    if placement == "none" or images.n_classes > 1:
        return config
    _note(f"label_placement={placement}: {images.name} has no labels to choose from; label_placement=none is used")
    return dataclasses.replace(config, label_placement=LabelPlacement("none"))


@functools.cache
def _note(line: str) -> None:
    print(line, file=sys.stderr)  # only once, although both the sweeper and the launcher plan a sweep


def _check_memory(config: Settings, arch: Architecture) -> None:
    """Refuses a model that cannot fit in memory: parameters, their gradients and two moments, and label vectors.

    Raises:
        ConfigError: if this machine has less memory than that.
    """
    try:
        needed = model_bytes(arch)
    except (RuntimeError, OverflowError, MemoryError):  # more parameters than torch can count
        needed = math.inf
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed <= there:
        return
    sizes = {
        "label_repeat": max(arch.encoder_repeat, arch.decoder_repeat) * arch.n_classes,
        "model.hidden": max(config.model.hidden or [0]),
        "model.channels": max(config.model.channels or [0]),
        "prior.components": config.prior.components or 0,
    }
    name = max(sizes, key=lambda key: sizes[key])
    value = {**result_settings(config), "label_repeat": config.label_repeat.value or "match"}[name]
    size = f"{needed / 1e9:,.0f} GB" if math.isfinite(needed) else "more memory than can be counted"
    raise ConfigError(
        f"{name}={value}: training needs {size}; allowed: a model that fits in this machine's {there / 1e9:,.0f} GB"
    )


def load_data(dataset: Dataset) -> ImageData:
    """The images that the settings name. The last few datasets are kept in memory.

    Raises:
        ConfigError: if they cannot be loaded.
    """
    return _load(json.dumps(dataclasses.asdict(dataset)))


@functools.lru_cache(maxsize=4)
def _load(dataset: str) -> ImageData:
    return vae_data.load(Dataset(**json.loads(dataset)))


@functools.lru_cache(maxsize=4)
def _facts(images: ImageData, output_dir: str) -> Facts:
    return vae_data.facts(images, Path(output_dir) / ".cache")
