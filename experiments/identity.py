"""What makes a run that run: the settings that differ from frozen defaults, the data's content, the training's version.

Only differences are hashed, so that a setting added later changes no existing name as long as its default leaves the
numbers as they were. The defaults of the schema can change too: the frozen ones below stay as they are.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from experiments.settings import result_settings
from vae import config as vae_config
from vae import parts
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
    "model.blocks": None,
    "model.encoder": None,
    "model.decoder": None,
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
    "likelihood.kind": "gaussian",
    "likelihood.targets": None,
    "likelihood.part": None,
    "prior.kind": "standard",
    "prior.components": None,
    "prior.part": None,
    "objective.kind": "elbo",
    "objective.samples": None,
    "objective.alpha": None,
    "objective.weight": None,
    "objective.gamma": None,
    "objective.nats": None,
    "objective.ramp": None,
    "objective.part": None,
    "bug.kind": "none",
    "optimizer.kind": "Adam",
    "trainer.epochs": 50,
    "trainer.batch_size": 128,
    "trainer.lr": 1e-3,
    "trainer.lr_schedule": "constant",
    "trainer.warmup_epochs": None,
    "trainer.clip": None,
    "trainer.precision": "float32",
    "seed": 0,
}


def identity(config: Config) -> dict[str, Any]:
    """The settings that decide a run's numbers and differ from the frozen defaults, by dotted name.

    Settings of `dataset` are left out, because the data's content stands for them, and so are groups that have no part
    in the run. A setting that is not frozen is compared with its default in the schema; one that the schema does not
    know, such as an argument of an optimizer, always counts.
    """
    values, defaults = result_settings(config), _defaults(type(config))
    unused = ("dataset.", *vae_config.unused(values))
    return {k: v for k, v in values.items() if (k not in defaults or v != defaults[k]) and not k.startswith(unused)}


@functools.cache
def _defaults(kind: type[Config]) -> dict[str, Any]:
    return {**result_settings(kind()), **FROZEN}


def fingerprint(config: Config, content_hash: str) -> str:
    """Ten hex digits over the run's identity, the data's content and the version of the training.

    The source files of parts of the user's own count too: an edited part is another run.

    Raises:
        ConfigError: if a part cannot be imported.
    """
    identified = {
        "identity": identity(config),
        "content": content_hash,
        "training_version": vae_config.TRAINING_VERSION,
    }
    own = {name: spec for name, spec in vae_config.own_parts(config).items() if name != "dataset.part"}
    if own:
        identified["sources"] = parts.sources(own)
    return hashlib.sha256(json.dumps(identified, sort_keys=True).encode()).hexdigest()[:10]


def readable(config: Config, dataset: str, z_dim: int) -> str:
    """The part of a folder's name that a person reads; it need not be unique."""
    unused = vae_config.unused(result_settings(config))
    words = [dataset, config.model.kind, f"z{z_dim}"]
    if "beta." not in unused:
        words.append(f"b{config.beta.value:.6g}" + {"constant": "", "warmup": "w", "cyclical": "c"}[config.beta.kind])
    if config.objective.kind != "elbo":
        words.append(config.objective.kind)
    if config.likelihood.kind != "gaussian":
        words.append(config.likelihood.kind)
    if "x_var." not in unused:
        words.append("xpp" if config.x_var.value is None else f"x{config.x_var.value:.6g}")
        words[-1] += "l" if config.x_var.kind == "learned" else ""
    if config.bug.kind != "none":
        words.append(config.bug.kind)
    if config.prior.kind != "standard":
        words.append(config.prior.kind)
    if config.optimizer["kind"] != "Adam":
        words.append(str(config.optimizer["kind"]))
    repeat = config.label_repeat.value if config.label_repeat.kind == "fixed" else "match"
    words.append("none" if config.label_placement.kind == "none" else f"{config.label_placement.kind}{repeat}")
    return "-".join([*words, f"s{config.seed}"])
