"""The settings: conf/ and the dataclasses say the same, ranges hold, the README lists all."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.launch import cli
from experiments.seal import sealed_text
from experiments.settings import Settings, read_settings, to_yaml, validate
from tests.conftest import tiny_config
from vae.config import ConfigError

CONF = Path(__file__).parent.parent / "conf"
OPTIONS = [path for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name in cli.groups()]


def composed(*overrides: str) -> Settings:
    cli.register_schema()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return cli.typed(compose("config", overrides=list(overrides)))


def test_defaults_of_conf_are_those_of_the_dataclasses():
    assert composed() == Settings()


@pytest.mark.parametrize(("group", "option"), [(p.parent.name, p.stem) for p in OPTIONS])
def test_every_option_composes_to_a_valid_run(group: str, option: str):
    needed = {"image_folder": "dataset.root=somewhere", "npz": "dataset.root=file", "torchvision": "dataset.name=X"}
    extra = [needed[option]] if option in needed else []
    config = composed(f"{group}={option}", *extra)
    if group == "experiment":
        assert config.study.name == option
    elif group != "trainer":
        own = getattr(config, group)
        kind = own["kind"] if isinstance(own, dict) else own.kind
        assert option == kind or option.startswith(f"{kind}_")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_var__value": -1.0}, "x_var.value=-1.0: out of range; allowed: a number > 0"),
        ({"x_var__value": float("nan")}, "x_var.value=nan: out of range; allowed: a number > 0"),
        ({"x_var__value": float("inf")}, "x_var.value=inf: out of range; allowed: a number > 0"),
        ({"beta__cycles": 3}, "beta.cycles=3: beta=constant does not use it; allowed: with beta=cyclical only"),
        ({"beta__kind": "warmup"}, "beta.epochs: must be given; allowed: a number > 0"),
        ({"model__hidden": []}, "model.hidden=[]: empty; allowed: a list of whole numbers, each >= 1"),
        (
            {"model__hidden": [9, 0]},
            "model.hidden=[9, 0]: out of range; allowed: a list of whole numbers, each >= 1",
        ),
        ({"model__kind": "rnn"}, "model=rnn: not an option; allowed: one of mlp, conv, resnet, linear, custom"),
        ({"likelihood__kind": "bernoulli"}, "likelihood.targets: must be given; allowed: one of pixels, binarized"),
        (
            {"likelihood__kind": "laplace", "objective__kind": "per_dim"},
            "likelihood=laplace: objective=per_dim uses the squared error; allowed: likelihood=gaussian",
        ),
        (
            {"objective__kind": "per_dim", "x_var__kind": "learned"},
            "x_var=learned: objective=per_dim has no x_var to learn; allowed: another objective",
        ),
        (
            {"likelihood__kind": "continuous_bernoulli", "x_var__kind": "learned"},
            "x_var=learned: likelihood=continuous_bernoulli has no x_var to learn; allowed: x_var=fixed",
        ),
        (
            {"likelihood__kind": "continuous_bernoulli", "model__output": "sigmoid"},
            "model.output=sigmoid: likelihood=continuous_bernoulli has its own last step; allowed: identity",
        ),
        (
            {"trainer__warmup_epochs": 1.0},
            "trainer.warmup_epochs=1: belongs to trainer.lr_schedule=warmup_cosine; allowed: both or neither",
        ),
        (
            {"trainer__lr_schedule": "warmup_cosine", "trainer__warmup_epochs": 2.0},
            "trainer.warmup_epochs=2: out of range; allowed: less than trainer.epochs=2",
        ),
        (
            {"prior__kind": "custom", "prior__part": {"width": 3}},
            "prior.part={'width': 3}: names no class; allowed: {_target_: module.Class, ...}",
        ),
        ({"seed": -1}, "seed=-1: out of range; allowed: a whole number >= 0"),
        ({"dataset__validation": 0.6}, "dataset.validation=0.6: out of range; allowed: a number >= 0 and <= 0.5"),
        ({"trainer__threads": -1}, "trainer.threads=-1: out of range; allowed: a whole number >= 0 and <= 1024"),
        ({"output_dir": ""}, "output_dir=: empty; allowed: a folder, such as . for the current one"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(change: dict, message: str):
    with pytest.raises(ConfigError) as e:
        validate(tiny_config(**change))
    assert str(e.value).startswith(message)


def test_warmup_must_end_within_the_training():
    with pytest.raises(ConfigError, match=r"beta.epochs=10: .* at most trainer.epochs=2"):
        validate(tiny_config(beta__kind="warmup", beta__epochs=10.0))


def test_settings_come_back_from_a_run_folder_with_the_place_that_it_lies_in(tmp_path: Path):
    folder = tmp_path / "moved" / "runs" / "a"
    folder.mkdir(parents=True)
    config = tiny_config(beta__kind="warmup", beta__epochs=1.0, model__logvar_max=4.0, output_dir="elsewhere")
    (folder / "config.yaml").write_bytes(to_yaml(config))
    config.output_dir = str(tmp_path / "moved")
    assert read_settings(folder) == config


@pytest.mark.parametrize("content", [None, "a: [", "[]", "unknown: 3\n", "seed: text\n", "\x00"])
def test_settings_that_cannot_be_read_are_named_in_one_line(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(sealed_text(content))
    with pytest.raises(ConfigError) as e:
        read_settings(tmp_path)
    assert str(e.value).startswith(f"{tmp_path / 'config.yaml'}: cannot be read (")
    assert "\n" not in str(e.value)
