"""Names of runs: recorded ones stay, and only what changes the numbers changes them."""

from dataclasses import field, make_dataclass
from typing import Any

import pytest

from experiments.identity import FROZEN, fingerprint, identity, readable
from experiments.settings import NOT_OF_THE_RESULT, Settings, result_settings
from tests.conftest import tiny_config
from vae import config as vae_config
from vae.config import Config, Model, Trainer, setting

RECORDED: list[tuple[dict[str, Any], str]] = [
    ({}, "mnist_5k-mlp-z20-b1-x0.1-both5-s0-2b6fd75004"),
    ({"seed": 3}, "mnist_5k-mlp-z20-b1-x0.1-both5-s3-2c8776990f"),
    ({"x_var__value": 0.01}, "mnist_5k-mlp-z20-b1-x0.01-both5-s0-dea9d7cf19"),
    ({"x_var__kind": "learned"}, "mnist_5k-mlp-z20-b1-x0.1l-both5-s0-b1a1877366"),
    ({"beta__value": 4.0, "z_dim__value": 10}, "mnist_5k-mlp-z20-b4-x0.1-both5-s0-bbcae67f58"),
    ({"beta__kind": "warmup", "beta__epochs": 10.0}, "mnist_5k-mlp-z20-b1w-x0.1-both5-s0-2de5e77a28"),
    ({"label_placement__kind": "none"}, "mnist_5k-mlp-z20-b1-x0.1-none-s0-94799387a3"),
    ({"label_repeat__kind": "match", "label_repeat__value": None}, "mnist_5k-mlp-z20-b1-x0.1-bothmatch-s0-0b3f1cdb11"),
    ({"objective__kind": "per_dim", "beta__value": 0.005}, "mnist_5k-mlp-z20-b0.005-per_dim-both5-s0-e474a9dd77"),
    (
        {"model__kind": "conv", "model__hidden": None, "model__channels": [32, 64]},
        "mnist_5k-conv-z20-b1-x0.1-both5-s0-b086d1f5e3",
    ),
    (
        {"z_dim__kind": "pca", "z_dim__value": None, "z_dim__variance": 0.9},
        "mnist_5k-mlp-z20-b1-x0.1-both5-s0-a1c8fd31a3",
    ),
    ({"trainer__lr": 0.002, "trainer__lr_schedule": "cosine"}, "mnist_5k-mlp-z20-b1-x0.1-both5-s0-d12d21b84f"),
    ({"trainer__epochs": 20, "model__hidden": [512, 256]}, "mnist_5k-mlp-z20-b1-x0.1-both5-s0-1e64299dc0"),
]


@pytest.fixture(autouse=True)
def recorded_version(monkeypatch: pytest.MonkeyPatch):
    """The training version that the names were recorded with: raising it is meant to change all names."""
    monkeypatch.setattr(vae_config, "TRAINING_VERSION", 3)


def changed(**changes: object) -> Settings:
    """The defaults with changes by dotted name, __ for the dot."""
    config = Settings()
    for name, value in changes.items():
        group, _, key = name.partition("__")
        setattr(getattr(config, group) if key else config, key or group, value)
    return config


def name(config: Config) -> str:
    return f"{readable(config, 'mnist_5k', 20)}-{fingerprint(config, 'content')}"


def test_recorded_names_stay():
    assert len(RECORDED) >= 10
    assert [name(changed(**changes)) for changes, _ in RECORDED] == [expected for _, expected in RECORDED]


def grown(default_epochs: int = 50) -> Config:
    """A copy of the schema with three settings more, and perhaps another default."""
    model = make_dataclass("Model", [("dropout", float, setting(0.0, "share"))], bases=(Model,))
    epochs = setting(default_epochs, "passes")
    trainer = make_dataclass(
        "Trainer", [("epochs", int, epochs), ("skip", float | None, setting(None, "norm"))], bases=(Trainer,)
    )
    fields = [("model", model, field(default_factory=model)), ("trainer", trainer, field(default_factory=trainer))]
    return make_dataclass("Grown", [*fields, ("precision", str, setting("single", "numbers"))], bases=(Config,))()


def set_all(config: Any, values: dict[str, Any]) -> Any:
    for dotted, value in values.items():
        group, _, key = dotted.partition(".")
        if group == "optimizer":
            config.optimizer[key] = value
        else:
            setattr(getattr(config, group) if key else config, key or group, value)
    return config


@pytest.mark.parametrize("default_epochs", [50, 7])
def test_a_new_setting_or_default_changes_no_name(default_epochs: int):
    for changes, expected in RECORDED:
        config = set_all(grown(default_epochs), result_settings(changed(**changes)))
        assert name(config) == expected


def test_a_new_setting_counts_once_it_is_given():
    names = {
        name(set_all(grown(), given))
        for given in ({}, {"model.dropout": 0.1}, {"trainer.skip": 1.0}, {"precision": "half"})
    }
    assert len(names) == 4


def test_every_setting_has_a_frozen_default():
    """A new setting: add it to FROZEN, with the value that gives the numbers of before."""
    names = {key for key in result_settings(Settings()) if not key.startswith("dataset.")}
    assert names == FROZEN.keys()
    assert identity(Settings()) == {}


def test_what_cannot_change_the_numbers_is_not_part_of_the_identity():
    assert {"dataset.root", "trainer.device", "trainer.threads", "trainer.stack_size", "study.name"} < NOT_OF_THE_RESULT
    base, seen = fingerprint(tiny_config(), "data"), set()
    for dotted in NOT_OF_THE_RESULT:
        seen.add(fingerprint(set_all(tiny_config(), {dotted: "other"}), "data"))
    assert seen == {base}


def test_every_other_setting_is_part_of_the_identity():
    seen, counted = {fingerprint(tiny_config(), "data")}, 0
    for dotted, value in result_settings(tiny_config()).items():
        if dotted.startswith("dataset."):  # its content hash stands for it
            continue
        if isinstance(value, bool):
            other: object = not value
        elif isinstance(value, int | float):
            other = value + 1
        else:
            other = [7, 7] if isinstance(value, list) else "other"
        if dotted.split(".")[-1] in ("part", "encoder", "decoder"):
            other = {"_target_": "collections.OrderedDict"}
        seen.add(fingerprint(set_all(tiny_config(), {dotted: other}), "data"))
        counted += 1
    assert counted == len(FROZEN)
    assert len(seen) == 1 + counted


def test_null_is_not_the_default_of_a_setting_that_has_one():
    with_none = set_all(tiny_config(), {"model.activation": None})
    assert fingerprint(with_none, "data") != fingerprint(tiny_config(), "data")


def test_data_and_training_version_are_part_of_the_name(monkeypatch: pytest.MonkeyPatch):
    base = fingerprint(tiny_config(), "data")
    assert fingerprint(tiny_config(), "other data") != base
    monkeypatch.setattr(vae_config, "TRAINING_VERSION", 5)
    assert fingerprint(tiny_config(), "data") != base


def test_settings_without_a_part_in_the_run_do_not_count():
    def unlabelled(repeat: int) -> str:
        return fingerprint(tiny_config(label_placement__kind="none", label_repeat__value=repeat), "data")

    def per_dim(x_var: float) -> str:
        return fingerprint(tiny_config(objective__kind="per_dim", x_var__value=x_var), "data")

    assert unlabelled(5) == unlabelled(20)
    assert per_dim(0.1) == per_dim(1.0)


def test_a_name_that_a_person_can_read():
    config = tiny_config(x_var__value=0.01, seed=7)
    assert readable(config, "mnist_5k", 4) == "mnist_5k-mlp-z4-b1-x0.01-both5-s7"
    config = tiny_config(objective__kind="per_dim", beta__value=0.005, label_placement__kind="none")
    assert readable(config, "cifar10", 100) == "cifar10-mlp-z100-b0.005-per_dim-none-s0"
