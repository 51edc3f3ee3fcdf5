"""The settings that can change a run's numbers: type, unit, default, range and meaning, and checks that need no data.

This module imports neither torch nor Hydra, so that help texts and complaints about bad settings appear at once.
A setting that belongs to one kind only (`beta.cycles` to `beta=cyclical`) is None under the other kinds. Giving it
there is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

# Part of every run's identity. Raise it whenever the same settings give other numbers than before
# (tests/test_train.py compares a short seeded run with its recorded losses).
TRAINING_VERSION = 3


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line that names the setting, its value and what is allowed."""


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
    kinds: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its documentation and range.

    Args:
        doc: one sentence for docs/settings.md and the help.
        unit: of the value, for example "nats" or "images".
        choices: the words allowed, where the value is a word.
        gt, ge, le: bounds of a number, or of each number of a list.
        kinds: the kinds of its group that use this setting. It must be None under the others. Empty: all kinds.
        optional: more kinds that use it, under which it may be None.
    """
    meta = {"doc": doc, "unit": unit, "choices": choices, "gt": gt, "ge": ge, "le": le}
    meta |= {"kinds": kinds, "optional": optional}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=meta)
    return field(default=default, metadata=meta)


DATASETS = ("mnist_5k", "mnist", "fashion_mnist", "cifar10", "torchvision", "image_folder", "npz", "photos")


@dataclass
class Dataset:
    kind: str = setting("mnist_5k", "the images", choices=DATASETS)
    root: str | None = setting("data", "folder or file with the images, or folder to download them to")
    size: int | None = setting(
        None,
        "height and width that pictures are resized to; null (torchvision and npz only): no change",
        unit="pixels",
        ge=8,
        le=256,
        kinds=("image_folder",),
        optional=("torchvision", "npz"),
    )
    channels: int | None = setting(
        None,
        "1 reads the pictures as grey, 3 as colour; null (torchvision and npz only): no change",
        ge=1,
        le=3,
        kinds=("image_folder",),
        optional=("torchvision", "npz"),
    )
    name: str | None = setting(
        None, "name of a class of torchvision.datasets, such as KMNIST or SVHN", kinds=("torchvision",)
    )
    validation: float = setting(
        0.0,
        "share of the training images set aside as validation images, for choosing settings",
        unit="share",
        ge=0,
        le=0.5,
    )


@dataclass
class Model:
    kind: str = setting("mlp", "type of network of the encoder and the decoder", choices=("mlp", "conv", "linear"))
    hidden: list[int] | None = setting(
        [400], "widths of the encoder's hidden layers; the decoder mirrors them", unit="units", ge=1, kinds=("mlp",)
    )
    channels: list[int] | None = setting(
        None,
        "channels of the encoder's 4x4 stride-2 convolutions; the decoder mirrors them",
        unit="channels",
        ge=1,
        kinds=("conv",),
    )
    activation: str | None = setting(
        "relu",
        "activation function between the layers",
        choices=("relu", "leaky_relu", "gelu", "tanh"),
        kinds=("mlp", "conv"),
    )
    output: str = setting(
        "identity",
        "last step of the decoder: identity allows any value, as in study A; sigmoid keeps values in (0, 1)",
        choices=("identity", "sigmoid"),
    )
    pixels: str | None = setting(
        None,
        "signed: inside the networks a pixel x becomes 2x - 1, so that grey is 0; photographs then train faster. "
        "null: x is not changed",
        choices=("signed",),
        optional=("mlp", "conv", "linear"),
    )
    logvar_max: float | None = setting(
        None,
        "upper bound of the encoder's logvar (the prior's is 0); null: none. Without a bound, exp(logvar) of a single "
        "unusual image can derail training",
        gt=0,
        le=50,
        optional=("mlp", "conv", "linear"),
    )
    init: str = setting(
        "uniform",
        "initial weights: uniform is U(±1/√fan_in), as in torch.nn.Linear; kaiming and xavier are the normal versions",
        choices=("uniform", "kaiming", "xavier"),
    )


@dataclass
class ZDim:
    kind: str = setting(
        "fixed", "how the number of latent dimensions is chosen", choices=("fixed", "compression", "pca")
    )
    value: int | None = setting(20, "number of latent dimensions", unit="dimensions", ge=1, kinds=("fixed",))
    ratio: float | None = setting(
        None, "pixels of an image divided by latent dimensions", unit="times", ge=1, kinds=("compression",)
    )
    variance: float | None = setting(
        None,
        "share of the training variance that this many principal components explain",
        unit="share",
        gt=0,
        le=1,
        kinds=("pca",),
    )


@dataclass
class Beta:
    kind: str = setting(
        "constant", "how the weight of the KL changes during training", choices=("constant", "warmup", "cyclical")
    )
    value: float = setting(1.0, "weight of the KL; with a schedule, its final value", gt=0)
    epochs: float | None = setting(
        None, "time over which beta grows linearly from 0 to its value", unit="epochs", gt=0, kinds=("warmup",)
    )
    cycles: int | None = setting(
        None, "number of cycles in the training (Fu et al. 2019)", unit="cycles", ge=1, kinds=("cyclical",)
    )
    ramp: float | None = setting(
        None, "share of a cycle in which beta grows; then it is constant", unit="share", gt=0, le=1, kinds=("cyclical",)
    )


@dataclass
class XVar:
    kind: str = setting(
        "fixed",
        "whether the decoder's variance is fixed or learned with the weights (sigma-VAE, Rybkin et al. 2021)",
        choices=("fixed", "learned"),
    )
    value: float = setting(0.1, "variance of a pixel given z and the label; if it is learned, its initial value", gt=0)


@dataclass
class LabelPlacement:
    kind: str = setting("both", "which networks receive the label", choices=("both", "encoder", "decoder", "none"))


@dataclass
class LabelRepeat:
    kind: str = setting(
        "fixed",
        "how often the one-hot label is repeated; match makes it about as long as the vector it is appended to",
        choices=("fixed", "match"),
    )
    value: int | None = setting(5, "number of repeats of the one-hot label", unit="times", ge=1, kinds=("fixed",))


@dataclass
class Objective:
    kind: str = setting(
        "elbo",
        "loss per image: elbo is SSE/(2·x_var) + (D/2)·ln(2π·x_var) + beta·KL; per_dim is SSE/D + beta·KL/k",
        choices=("elbo", "per_dim"),
    )


@dataclass
class Trainer:
    epochs: int = setting(50, "passes over the training images", unit="epochs", ge=1)
    batch_size: int = setting(128, "images per step", unit="images", ge=1)
    lr: float = setting(1e-3, "learning rate of Adam", gt=0, le=10)
    lr_schedule: str = setting(
        "constant", "constant, or cosine: the learning rate falls to 0 at the last step", choices=("constant", "cosine")
    )
    tf32: bool = setting(
        False, "on a GPU, compute matrix products in TensorFloat-32: faster, but only 10 bits of mantissa"
    )


@dataclass
class Config:
    """All settings that can change the numbers of one run."""

    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    z_dim: ZDim = field(default_factory=ZDim)
    beta: Beta = field(default_factory=Beta)
    x_var: XVar = field(default_factory=XVar)
    label_placement: LabelPlacement = field(default_factory=LabelPlacement)
    label_repeat: LabelRepeat = field(default_factory=LabelRepeat)
    objective: Objective = field(default_factory=Objective)
    trainer: Trainer = field(default_factory=Trainer)
    seed: int = setting(0, "seed of all random generators of the run", ge=0, le=2**63 - 1)


LARGEST_INT = 2**31 - 1  # where no bound is given
LARGEST_FLOAT = 1e30  # its square and its inverse are numbers in float64, and itself and its inverse in float32

TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
TYPES |= {"list[int]": "a list of whole numbers, each"}


def allowed(meta: Mapping[str, Any]) -> str:
    """What a setting may be, in words: "a number > 0" or "one of a, b"."""
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    bounds = [
        f"{sign} {meta[key]:.4g}" for key, sign in (("gt", ">"), ("ge", ">="), ("le", "<=")) if meta[key] is not None
    ]
    kind = TYPES.get(meta["type"].removesuffix(" | None"), "see docs/settings.md")
    return " ".join([kind, " and ".join(bounds)]).strip()


def settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any], Any]]:
    """All settings as (dotted name, value, metadata and its type, the group that it belongs to)."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from settings(value, f"{f.name}.")
        else:
            yield prefix + f.name, value, {**f.metadata, "type": f.type}, config


def _check_one(name: str, value: Any, meta: Mapping[str, Any], group: Any) -> None:
    shown = name.removesuffix(".kind")
    kind = getattr(group, "kind", None)
    users = (*meta["kinds"], *meta["optional"])
    if users and kind not in users:
        if value is not None:
            group_name = name.split(".")[0]
            users = " or ".join(f"{group_name}={k}" for k in users)
            raise ConfigError(f"{name}={value}: {group_name}={kind} does not use it; allowed: with {users} only")
        return
    if value is None:
        if kind in meta["kinds"]:
            raise ConfigError(f"{name}: must be given; allowed: {allowed(meta)}")
        return
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{shown}={value}: not an option; allowed: {allowed(meta)}")
    numbers = value if isinstance(value, list) else [value]
    if meta["type"].startswith("list[int]") and not all(type(x) is int for x in numbers):
        raise ConfigError(f"{name}={value}: wrong type; allowed: {allowed(meta)}")
    for x in numbers:
        if isinstance(x, bool) or not isinstance(x, int | float):
            continue
        good = (
            math.isfinite(x)
            and (meta["gt"] is None or x > meta["gt"])
            and (meta["ge"] is None or x >= meta["ge"])
            and (meta["le"] is None or x <= meta["le"])
        )
        most = meta["le"] or (LARGEST_INT if isinstance(x, int) else LARGEST_FLOAT)
        if not good or abs(x) > most or 0 < abs(x) < 1 / LARGEST_FLOAT:
            bounds = "" if meta["le"] or not good else f", at most {most:.4g}"
            bounds = f", at least {1 / LARGEST_FLOAT:.4g}" if good and abs(x) < 1 else bounds
            raise ConfigError(f"{name}={value}: out of range; allowed: {allowed(meta)}{bounds}")
    if isinstance(value, list) and not value and meta["kinds"]:
        raise ConfigError(f"{name}=[]: empty; allowed: {allowed(meta)}")


def validate(config: Config) -> None:
    """Checks everything that can be checked without the data.

    Raises:
        ConfigError: for the first setting that is out of range, missing, or not used by the chosen kind.
    """
    for name, value, meta, group in settings(config):
        _check_one(name, value, meta, group)
    wanted = {"image_folder": "a folder with train/<class>/* and test/<class>/*", "npz": "a file of arrays"}
    if config.dataset.kind in wanted and not config.dataset.root:
        raise ConfigError(f"dataset.root=null: must be given; allowed: {wanted[config.dataset.kind]}")
    if config.dataset.channels == 2:
        raise ConfigError("dataset.channels=2: out of range; allowed: 1 (grey) or 3 (colour)")
    if config.beta.epochs is not None and config.beta.epochs > config.trainer.epochs:
        raise ConfigError(
            f"beta.epochs={config.beta.epochs:g}: the warm-up would not end; "
            f"allowed: at most trainer.epochs={config.trainer.epochs}"
        )
    if config.objective.kind == "per_dim" and config.x_var.kind == "learned":
        raise ConfigError("x_var=learned: objective=per_dim has no x_var to learn; allowed: objective=elbo")


def unused(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups that have no part in a run with these settings, as prefixes of dotted names.

    These are `label_repeat.` where no network is given the label, and `x_var.` under the objective that has none.
    """
    prefixes = []
    if values.get("label_placement.kind") == "none":
        prefixes.append("label_repeat.")
    if values.get("objective.kind") == "per_dim":
        prefixes.append("x_var.")
    return tuple(prefixes)


def in_use(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by dotted name, that have a part in a run: not None, and not in an unused group."""
    return {k: v for k, v in values.items() if v is not None and not k.startswith(unused(values))}
