"""The settings around a run: where and how it is trained, recorded and reported. None of them changes its numbers.

`Settings` is the schema of conf/: the library's `Config` with these added. Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import seal
from vae import config as vae_config
from vae.config import Config, ConfigError, setting


@dataclass
class Trainer(vae_config.Trainer):
    device: str = setting(
        "auto", "device to train on; auto uses a GPU if there is one", choices=("auto", "cpu", "cuda")
    )
    threads: int = setting(0, "number of CPU threads; 0 lets torch choose", unit="threads", ge=0, le=1024)
    stack_size: int = setting(
        0,
        "number of runs of a sweep that train as one program; 0: on a GPU as many as fit in memory, on a CPU one",
        unit="runs",
        ge=0,
    )
    checkpoint_seconds: float = setting(
        60.0,
        "time between checkpoints; longer if writing would take over 2 % of the training time. 0: after each epoch",
        unit="seconds",
        ge=0,
    )


@dataclass
class Logger:
    kind: str = setting(
        "csv",
        "where runs are recorded, in addition to their folders",
        choices=("csv", "tensorboard", "mlflow", "wandb"),
    )
    store: str | None = setting(None, "folder for the records", kinds=("tensorboard", "mlflow", "wandb"))


@dataclass
class Study:
    """What an experiment is called and asks, for its report."""

    name: str | None = setting(None, "experiment that started the run")
    title: str | None = setting(None, "title of the report")
    question: str | None = setting(None, "what the experiment should find out")
    published: list[dict[str, Any]] = setting(
        [], "rows of the study's table: settings, and its figures under this project's column names"
    )
    source: str | None = setting(None, "where the published figures come from")
    data: str | None = setting(None, "dataset that the published figures are of")
    columns: list[str] = setting(
        [], "metrics and outcomes that the report is about; by default KL, SSE, sample accuracy and sample FFD"
    )
    metrics: list[str] = setting(
        [],
        "families of metrics that are computed too: names of those on request, such as expost, or "
        "vae.metrics.Family objects of your own by module.name",
    )
    pick: bool = setting(True, "whether the report recommends a setting")


@dataclass
class Settings(Config):
    """All settings of one run."""

    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    study: Study = field(default_factory=Study)
    output_dir: str = setting("outputs", "folder for runs/ and reports/")
    quiet: bool = setting(False, "whether to print only the end, without progress")


def _names(config: Config) -> set[str]:
    return {name for name, _, _, _ in vae_config.settings(config)}


NOT_OF_THE_RESULT = frozenset(_names(Settings()) - _names(Config()) | {"dataset.root"})


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that can change a run's numbers, by dotted name."""
    return {name: value for name, value, _, _ in vae_config.settings(config) if name not in NOT_OF_THE_RESULT}


def validate(config: Settings) -> None:
    """Checks everything that can be checked without the data.

    Raises:
        ConfigError: for the first setting that cannot be used.
    """
    vae_config.validate(config)
    if not config.output_dir:
        raise ConfigError("output_dir=: empty; allowed: a folder, such as . for the current one")
    if "\0" in config.output_dir:
        raise ConfigError("output_dir: contains a null character; allowed: a folder")
    name = config.study.name
    if name is not None and not (re.fullmatch(r"[^/\\\x00-\x1f]{1,60}", name) and name[0] != "."):
        raise ConfigError(
            f"study.name={name!r}: not the name of a folder; allowed: 1 to 60 characters without / and \\, "
            "the first not a dot"
        )


def to_yaml(config: Settings) -> bytes:
    """A run's config.yaml, with its checksum."""
    return seal.sealed_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def read_settings(folder: Path) -> Settings:
    """The settings in a run's folder, with `output_dir` set to where the folder lies now.

    Raises:
        ConfigError: if there are none or they cannot be read; the message is one line that names the file.
    """
    path = folder / "config.yaml"
    try:
        data = path.read_bytes()
        try:
            seal.check(data)
        except ValueError as e:
            raise ConfigError(f"{path}: {e}") from None
        own = OmegaConf.create(data.decode())
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), own))
    except ConfigError:
        raise
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as e:
        reason = " ".join(str(e).split()[:30]) or type(e).__name__
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    assert isinstance(config, Settings)
    config.output_dir = str(folder.parent.parent)
    return config
