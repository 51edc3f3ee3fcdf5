"""What makes a run that run: the settings that differ from frozen defaults, the data's content, the training's version.

Only differences are hashed, so that a setting added later changes no existing name as long as its default leaves the
numbers as they were. The defaults of the schema can change too: the frozen ones below stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from experiments.settings import result_settings
from vae import config as vae_config
from vae.config import Config

# Never edit a line. For a new setting, add one with the value that gives the numbers of before.
FROZEN: dict[str, Any] = {
    "model.kind": "mlp",
    "model.hidden": [400],
    "model.channels": None,
    "model.activation": "relu",
    "model.output": "identity",
    "model.pixels": None,
    "model.logvar_max": None,
    "model.init": "uniform",
    "z_dim.kind": "fixed",
    "z_dim.value": 20,
    "z_dim.ratio": None,
    "z_dim.variance": None,
    "beta.kind": "constant",
    "beta.value": 1.0,
    "beta.epochs": None,
    "beta.cycles": None,
    "beta.ramp": None,
    "x_var.kind": "fixed",
    "x_var.value": 0.1,
    "label_placement.kind": "both",
    "label_repeat.kind": "fixed",
    "label_repeat.value": 5,
    "objective.kind": "elbo",
    "trainer.epochs": 50,
    "trainer.batch_size": 128,
    "trainer.lr": 1e-3,
    "trainer.lr_schedule": "constant",
    "trainer.tf32": False,
    "seed": 0,
}


def identity(config: Config) -> dict[str, Any]:
    """The settings that decide a run's numbers and differ from the frozen defaults, by dotted name.

    Settings of `dataset` are left out, because the data's content stands for them, and so are groups that have no part
    in the run. A setting that is not frozen is compared with its default in the schema.
    """
    values, defaults = result_settings(config), {**result_settings(type(config)()), **FROZEN}
    unused = ("dataset.", *vae_config.unused(values))
    return {k: v for k, v in values.items() if v != defaults[k] and not k.startswith(unused)}


def fingerprint(config: Config, content_hash: str) -> str:
    """Ten hex digits over the run's identity, the data's content and the version of the training."""
    parts = {
        "identity": identity(config),
        "content": content_hash,
        "training_version": vae_config.TRAINING_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def readable(config: Config, dataset: str, z_dim: int) -> str:
    """The part of a folder's name that a person reads; it need not be unique."""
    beta = f"{config.beta.value:.6g}" + {"constant": "", "warmup": "w", "cyclical": "c"}[config.beta.kind]
    parts = [dataset, config.model.kind, f"z{z_dim}", f"b{beta}"]
    if config.objective.kind == "per_dim":
        parts.append("per_dim")
    else:
        parts.append(f"x{config.x_var.value:.6g}" + ("l" if config.x_var.kind == "learned" else ""))
    repeat = config.label_repeat.value if config.label_repeat.kind == "fixed" else "match"
    parts.append("none" if config.label_placement.kind == "none" else f"{config.label_placement.kind}{repeat}")
    return "-".join([*parts, f"s{config.seed}"])
