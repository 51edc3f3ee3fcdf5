"""Pictures of finished runs that training leaves out: drawn when they are asked for, into the run's folder, once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.store import RunFolder
from vae.config import Config, ConfigError


def applicable(result: dict[str, Any]) -> list[str]:
    """The names of vae.pictures.PICTURES that a run can have, by its result.json; without torch."""
    if result["status"] != "ok":
        return []
    plane = ["manifold"] * (result["z_dim"] == 2) + ["latents"] * (result["z_dim"] > 1)
    styles = ["styles"] * (result["label_repeat_decoder"] > 0)
    return ["traversals", "interpolations", *plane, *styles, "neighbours"]


def present(run: RunFolder) -> list[str]:
    """Those that lie in the run's folder."""
    result = run.result()
    return [name for name in applicable(result) if (run.path / f"{name}.png").exists()] if result else []


def read_config(run: RunFolder) -> Config:
    """The settings in a run's folder, with the output folder that this lies in.

    Raises:
        ConfigError: if there are none.
    """
    from omegaconf import OmegaConf

    if not (run.path / "config.yaml").exists():
        raise ConfigError(f"{run.name} holds no config.yaml")
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(run.path / "config.yaml"))
    )
    assert isinstance(config, Config)
    config.output_dir = str(run.path.parent.parent)
    return config


def draw(run: RunFolder) -> list[Path]:
    """Draws what the run's folder lacks, and nothing again.

    Returns:
        The pictures drawn now; none, and without torch, where the run has all.

    Raises:
        ConfigError: if the run is not finished, or its data or its model are not what they were.
    """
    result = run.result()
    if result is None:
        raise ConfigError(f"{run.name} is not finished, and has no model to draw")
    missing = [name for name in applicable(result) if name not in present(run)]
    if not missing:
        return []

    from experiments import sweep
    from vae.pictures import PICTURES
    from vae.trained import load_run

    try:
        model = load_run(run.path)
    except (OSError, ValueError) as e:
        raise ConfigError(f"{run.name} has no model to draw ({' '.join(str(e).split())})") from None
    data = sweep._load(dataclasses.astuple(read_config(run).dataset))
    if data.content_hash != result["dataset_hash"]:
        raise ConfigError(f"{run.name} was trained on other data than {data.source} holds now")
    for name in missing:
        run.write(f"{name}.png", sweep.png(PICTURES[name](model, data)))
    return [run.path / f"{name}.png" for name in missing]
