"""The settings that can change a run's numbers, and the checks that need no data. Imports neither torch nor Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vae.schema import ConfigError, check, setting, settings

# Part of every run's identity. Raise it whenever the same settings give other numbers than before
# (tests/test_train.py compares a short seeded run with its recorded losses).
TRAINING_VERSION = 4

DATASETS = ("mnist_5k", "mnist", "fashion_mnist", "cifar10", "torchvision", "image_folder", "npz", "photos", "custom")


@dataclass
class Dataset:
    kind: str = setting("mnist_5k", "the images", choices=DATASETS)
    root: str | None = setting(
        None,
        "folder or file that holds the images, or folder to download them to",
        optional=("mnist", "fashion_mnist", "cifar10", "torchvision", "image_folder", "npz"),
    )
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
    name: str | None = setting(None, "class of torchvision.datasets, such as KMNIST or SVHN", kinds=("torchvision",))
    part: dict[str, Any] | None = setting(
        None, "a function of your own that returns vae.data.ImageData, by `_target_`, with arguments", kinds=("custom",)
    )
    validation: float = setting(
        0.0,
        "share of the training images that are set aside as validation images, for choosing settings",
        unit="share",
        ge=0,
        le=0.5,
    )


NETWORKS = ("mlp", "conv", "resnet", "linear")


@dataclass
class Model:
    kind: str = setting("mlp", "type of network for the encoder and the decoder", choices=(*NETWORKS, "custom"))
    hidden: list[int] | None = setting(
        [400], "widths of the encoder's hidden layers; the decoder mirrors them", unit="units", ge=1, kinds=("mlp",)
    )
    channels: list[int] | None = setting(
        None,
        "channels of the encoder's 4x4 stride-2 convolutions; the decoder mirrors them",
        unit="channels",
        ge=1,
        kinds=("conv", "resnet"),
    )
    blocks: int | None = setting(
        None, "residual blocks after each convolution of stride 2", unit="blocks", ge=1, kinds=("resnet",)
    )
    activation: str | None = setting(
        "relu",
        "activation function between the layers",
        choices=("relu", "leaky_relu", "gelu", "tanh"),
        kinds=("mlp", "conv", "resnet"),
    )
    encoder: dict[str, Any] | None = setting(
        None, "an nn.Module of your own, by `_target_`, with arguments", kinds=("custom",)
    )
    decoder: dict[str, Any] | None = setting(
        None, "an nn.Module of your own, by `_target_`, with arguments", kinds=("custom",)
    )
    output: str = setting(
        "identity",
        "last step of the decoder: identity allows any value, as in study A; sigmoid keeps values in (0, 1)",
        choices=("identity", "sigmoid", "relu", "leaky_relu"),
    )
    pixels: str | None = setting(
        None,
        "signed: inside the networks a pixel x becomes 2x - 1, so that grey is 0; training on photographs is then "
        "faster. null: x is not changed",
        choices=("signed",),
        optional=NETWORKS,
    )
    logvar_max: float | None = setting(
        None,
        "upper bound of the encoder's logvar (the prior's is 0); null: no bound. Without a bound, exp(logvar) of a "
        "single unusual image can derail training",
        gt=0,
        le=50,
        optional=(*NETWORKS, "custom"),
    )
    init: str | None = setting(
        "uniform",
        "initial weights: uniform is U(±1/√fan_in), as in torch.nn.Linear; kaiming and xavier are normal distributions",
        choices=("uniform", "kaiming", "xavier"),
        kinds=NETWORKS,
    )


@dataclass
class ZDim:
    kind: str = setting(
        "fixed", "how the number of latent dimensions is chosen", choices=("fixed", "compression", "pca")
    )
    value: int | None = setting(20, "number of latent dimensions", unit="dimensions", ge=1, kinds=("fixed",))
    ratio: float | None = setting(
        None,
        "number of values of an image (pixels times channels) divided by the number of latent dimensions",
        unit="times",
        ge=1,
        kinds=("compression",),
    )
    variance: float | None = setting(
        None,
        "share of the training variance that the principal components must explain; z_dim is their number",
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
        None, "number of cycles during training (Fu et al. 2019)", unit="cycles", ge=1, kinds=("cyclical",)
    )
    ramp: float | None = setting(
        None,
        "share of a cycle during which beta grows; after that it is constant",
        unit="share",
        gt=0,
        le=1,
        kinds=("cyclical",),
    )


LOCATED = ("gaussian", "laplace", "discretized_logistic")  # likelihoods with a variance, x_var


@dataclass
class Likelihood:
    kind: str = setting(
        "gaussian",
        "distribution of the pixels given z and the label",
        choices=(*LOCATED, "bernoulli", "continuous_bernoulli", "custom"),
    )
    targets: str | None = setting(
        None,
        "pixels: the pixel values; binarized: black or white, drawn again at every step with the pixel value as the "
        "probability of white (Burda et al. 2016)",
        choices=("pixels", "binarized"),
        kinds=("bernoulli",),
    )
    part: dict[str, Any] | None = setting(
        None, "a likelihood of your own, by `_target_`, with arguments", kinds=("custom",)
    )


@dataclass
class Prior:
    kind: str = setting(
        "standard",
        "p(z), from which z is drawn for samples, and to which the KL is taken",
        choices=("standard", "mixture", "vamp", "custom"),
    )
    components: int | None = setting(
        None,
        "number of components: Gaussians, or pseudo-inputs (vamp)",
        unit="components",
        ge=1,
        le=10_000,
        kinds=("mixture", "vamp"),
    )
    part: dict[str, Any] | None = setting(None, "a prior of your own, by `_target_`, with arguments", kinds=("custom",))


@dataclass
class XVar:
    kind: str = setting(
        "fixed",
        "how the variance of a pixel is set: fixed, learned with the weights as one number (sigma-VAE, Rybkin et al. "
        "2021), or given by a second output of the decoder for each pixel",
        choices=("fixed", "learned", "per_pixel"),
    )
    value: float | None = setting(
        0.1,
        "variance of a pixel given z and the label; the initial value if it is learned",
        gt=0,
        kinds=("fixed", "learned"),
    )


@dataclass
class LabelPlacement:
    kind: str = setting("both", "which networks receive the label", choices=("both", "encoder", "decoder", "none"))


@dataclass
class LabelRepeat:
    kind: str = setting(
        "fixed",
        "number of copies of the one-hot label; match: as many as make it about as long as the vector that it joins",
        choices=("fixed", "match"),
    )
    value: int | None = setting(5, "number of copies of the one-hot label", unit="copies", ge=1, kinds=("fixed",))


@dataclass
class Objective:
    kind: str = setting(
        "elbo",
        "what training minimizes",
        choices=("elbo", "per_dim", "iwae", "beta_tc", "mmd", "capacity", "custom"),
    )
    samples: int | None = setting(
        None, "number of z drawn for each image in training", unit="samples", ge=1, le=10_000, kinds=("iwae",)
    )
    alpha: float | None = setting(
        None, "the KL has the weight 1 - alpha, so it drops out at 1", ge=-1000, le=1, kinds=("mmd",)
    )
    weight: float | None = setting(
        None, "lambda of Zhao et al. 2019: the MMD has the weight alpha + lambda - 1", ge=0, kinds=("mmd",)
    )
    gamma: float | None = setting(None, "weight of |KL - C|", gt=0, kinds=("capacity",))
    nats: float | None = setting(None, "the capacity C at the end of its ramp", unit="nats", ge=0, kinds=("capacity",))
    ramp: float | None = setting(
        None, "share of the training during which C grows from 0", unit="share", gt=0, le=1, kinds=("capacity",)
    )
    part: dict[str, Any] | None = setting(
        None, "an objective of your own, by `_target_`, with arguments", kinds=("custom",)
    )


BUGS = ("variance_as_std", "half_kl", "double_kl", "mean_error", "mean_kl", "broadcast_error", "no_noise")


@dataclass
class Bug:
    kind: str = setting(
        "none",
        "a classic bug that the code has on purpose, to see what it does; see docs/parts.md",
        choices=("none", *BUGS),
    )


@dataclass
class Trainer:
    epochs: int = setting(50, "number of passes over the training images", unit="epochs", ge=1)
    batch_size: int = setting(128, "number of images per step", unit="images", ge=1)
    lr: float = setting(1e-3, "learning rate", gt=0, le=10)
    lr_schedule: str = setting(
        "constant",
        "cosine: the learning rate falls to 0 at the last step; warmup_cosine: it grows linearly first",
        choices=("constant", "cosine", "warmup_cosine"),
    )
    warmup_epochs: float | None = setting(
        None, "time over which the learning rate grows (warmup_cosine only)", unit="epochs", gt=0
    )
    clip: float | None = setting(
        None, "upper bound of the gradient's norm at each step; larger gradients are scaled down to it", gt=0
    )
    precision: str = setting(
        "float32",
        "precision of matrix products and convolutions; tf32 (only on a GPU, 10-bit mantissa) and bfloat16 (7-bit) are "
        "faster",
        choices=("float32", "tf32", "bfloat16"),
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
    likelihood: Likelihood = field(default_factory=Likelihood)
    prior: Prior = field(default_factory=Prior)
    objective: Objective = field(default_factory=Objective)
    bug: Bug = field(default_factory=Bug)
    optimizer: dict[str, Any] = setting({"kind": "Adam"}, "a class of torch.optim, with its arguments")
    trainer: Trainer = field(default_factory=Trainer)
    seed: int = setting(0, "seed of all random generators of the run", ge=0, le=2**63 - 1)


def validate(config: Config) -> None:
    """Checks everything that can be checked without the data.

    Raises:
        ConfigError: for the first setting that is out of range, missing, or not used by the chosen kind.
    """
    for name, value, meta, group in settings(config):
        check(name, value, meta, group)
    wanted = {"image_folder": "a folder of pictures", "npz": "a file of arrays"}
    if config.dataset.kind in wanted and not config.dataset.root:
        raise ConfigError(f"dataset.root=null: must be given; allowed: {wanted[config.dataset.kind]}")
    if config.dataset.channels == 2:
        raise ConfigError("dataset.channels=2: out of range; allowed: 1 (grey) or 3 (colour)")
    if config.beta.epochs is not None and config.beta.epochs > config.trainer.epochs:
        raise ConfigError(
            f"beta.epochs={config.beta.epochs:g}: the warm-up would not end; "
            f"allowed: at most trainer.epochs={config.trainer.epochs}"
        )
    _check_parts(config)


def _check_parts(config: Config) -> None:
    """Checks that the parts fit together."""
    likelihood, objective = config.likelihood.kind, config.objective.kind
    for name, spec in own_parts(config).items():
        if "_target_" not in spec:
            raise ConfigError(f"{name}={spec}: names no class; allowed: {{_target_: module.Class, ...}}")
    if "kind" not in config.optimizer:
        raise ConfigError("optimizer.kind: must be given; allowed: a class of torch.optim")
    if objective == "per_dim" and likelihood != "gaussian":
        raise ConfigError(
            f"likelihood={likelihood}: objective=per_dim uses the squared error; allowed: likelihood=gaussian"
        )
    if objective == "per_dim" and config.x_var.kind != "fixed":
        raise ConfigError(
            f"x_var={config.x_var.kind}: objective=per_dim has no x_var to learn; allowed: another objective"
        )
    if likelihood not in LOCATED and config.x_var.kind != "fixed":
        raise ConfigError(
            f"x_var={config.x_var.kind}: likelihood={likelihood} has no x_var to learn; allowed: x_var=fixed"
        )
    if likelihood not in LOCATED and config.model.output != "identity":
        raise ConfigError(
            f"model.output={config.model.output}: likelihood={likelihood} has its own last step; allowed: identity"
        )
    _check_bug(config)
    warm = config.trainer.warmup_epochs
    if (config.trainer.lr_schedule == "warmup_cosine") != (warm is not None):
        raise ConfigError(
            f"trainer.warmup_epochs={'null' if warm is None else f'{warm:g}'}: belongs to trainer.lr_schedule="
            "warmup_cosine; allowed: both or neither"
        )
    if warm is not None and warm >= config.trainer.epochs:
        raise ConfigError(
            f"trainer.warmup_epochs={warm:g}: out of range; allowed: less than trainer.epochs={config.trainer.epochs}"
        )


# The objectives in which a bug can be made; any for the two that are not listed.
BUGGY_OBJECTIVES = {
    "half_kl": ("elbo", "per_dim", "mmd", "capacity"),
    "double_kl": ("elbo", "per_dim", "mmd", "capacity"),
    "mean_error": ("elbo", "per_dim"),
    "mean_kl": ("elbo", "per_dim"),
    "broadcast_error": ("elbo", "per_dim", "beta_tc", "mmd", "capacity"),
}
SQUARED_ERROR_BUGS = ("mean_error", "mean_kl", "broadcast_error")


def _check_bug(config: Config) -> None:
    bug, objective = config.bug.kind, config.objective.kind
    allowed = BUGGY_OBJECTIVES.get(bug, (objective,))
    if objective not in allowed:
        raise ConfigError(f"bug={bug}: cannot be made in objective={objective}; allowed there: {', '.join(allowed)}")
    if bug in SQUARED_ERROR_BUGS and (config.likelihood.kind != "gaussian" or config.x_var.kind != "fixed"):
        raise ConfigError(f"bug={bug}: is about a squared error; allowed: likelihood=gaussian with x_var=fixed")


def own_parts(config: Config) -> dict[str, Mapping[str, Any]]:
    """The specifications of the user's own parts, by the names of their settings."""
    found = {
        "dataset.part": config.dataset.part,
        "model.encoder": config.model.encoder,
        "model.decoder": config.model.decoder,
        "likelihood.part": config.likelihood.part,
        "prior.part": config.prior.part,
        "objective.part": config.objective.part,
    }
    return {name: spec for name, spec in found.items() if spec is not None}


def unused(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups of settings that do not affect a run with these settings, as prefixes of dotted names.

    These are `label_repeat.` if no network receives the label, `x_var.` if the likelihood or the objective has none,
    and `beta.` if the objective has none.
    """
    prefixes = []
    if values.get("label_placement.kind") == "none":
        prefixes.append("label_repeat.")
    if values.get("objective.kind") == "per_dim" or values.get("likelihood.kind", "gaussian") not in LOCATED:
        prefixes.append("x_var.")
    if values.get("objective.kind") in ("iwae", "mmd", "capacity"):
        prefixes.append("beta.")
    return tuple(prefixes)


def in_use(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by dotted name, that affect a run: those that are not None and not in an unused group."""
    without = unused(values)
    return {k: v for k, v in values.items() if v is not None and not k.startswith(without)}
