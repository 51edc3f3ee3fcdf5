"""Parts of the user's own: the example is trained and reported, and a mistake in a part is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.evaluate import evaluate, read_metrics
from experiments.plan import plan
from tests.conftest import Configs, make_data, run_all
from vae.config import ConfigError
from vae.data import ImageData
from vae.metrics import FAMILIES, METRICS, requested
from vae.trained import load_run

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "own_parts"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the example, trained on made-up images from its own folder."""
    data, folder = make_data(), tmp_path_factory.mktemp("own")
    images = {"x_train": data.train_x, "y_train": data.train_y, "x_test": data.test_x, "y_test": data.test_y}
    arrays: dict[str, Any] = {name: value.numpy() for name, value in images.items()}
    np.savez(folder / "toy.npz", **arrays)
    command = [sys.executable, str(ROOT / "run.py"), "--config-dir", "conf", "mystudy", f"dataset={folder}/toy.npz"]
    command += ["trainer.epochs=1", f"output_dir={folder}/outputs"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


def test_the_example_is_trained_reported_and_shown(study: Path):
    (report,) = (study / "reports").glob("mystudy*")
    runs = pd.read_csv(report / "runs.csv")
    assert sorted(runs["model.encoder.width"]) == [16, 16, 64, 64]
    assert (runs["test_edge_error"] > 0).all()
    assert "edge error" in (report / "report.md").read_text()
    assert "Gated layers" in (study / "index.html").read_text()
    assert set(runs["outcome"]) <= {"ok", "prior_hole", "collapsed", "dead"}


def test_a_model_with_parts_of_its_own_is_loaded_only_on_trust(study: Path, monkeypatch: pytest.MonkeyPatch):
    folder = min((study / "runs").glob("toy-*"))
    with pytest.raises(ValueError, match=r"would import parts\.Decoder, parts\.Encoder; trust=True allows it"):
        load_run(folder)
    assert "parts" not in sys.modules
    monkeypatch.syspath_prepend(EXAMPLE)
    try:
        model = load_run(folder, trust=True)
        assert type(model.module.encoder).__name__ == "Encoder"
        assert model.sample(0, n=2).shape == (2, 1, 8, 8)
    finally:
        sys.modules.pop("parts", None)
        FAMILIES.pop("edges", None)
        METRICS.pop("test_edge_error", None)


PARTS = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self, image_shape, label_dim, out_dim, width=8, more=0, fails=False):
        super().__init__()
        c, h, w = image_shape
        self.net = nn.Sequential(nn.Linear(c * h * w, width), nn.ReLU(), nn.Linear(width, out_dim + more))
        self.fails = fails

    def forward(self, x, label):
        if self.fails:
            raise ArithmeticError("a defect of my own")
        return self.net(x.flatten(1))

class Decoder(nn.Module):
    def __init__(self, z_dim, label_dim, out_shape):
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.net = nn.Linear(z_dim, out_shape[0] * out_shape[1] * out_shape[2])

    def forward(self, z, label):
        return self.net(z).unflatten(1, self.out_shape)

class Summed(nn.Module):
    def log_prob(self, x, parameters):
        return -(x - parameters).square().sum()

    def mean(self, parameters):
        return parameters

class Wide(nn.Module):
    def __init__(self, z_dim, scale):
        super().__init__()
        self.scale = scale

    def sample(self, noise, chance):
        return self.scale * noise

    def log_prob(self, z):
        return torch.distributions.Normal(0.0, self.scale).log_prob(z).sum(dim=-1)

def listed(terms):
    return [1.0]

def free_bits(terms, nats):
    return (terms.kl.clamp(min=nats) - terms.log_px.mean(dim=0)).mean()
"""
OWN = {"model__kind": "custom", "model__hidden": None, "model__activation": None, "model__init": None}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a network of one's own."""
    (tmp_path / "mine.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return OWN | {"model__encoder": {"_target_": "mine.Encoder"}, "model__decoder": {"_target_": "mine.Decoder"}}


def part(kind: str, **spec: Any) -> dict[str, Any]:
    return {f"{kind}__kind": "custom", f"{kind}__part": spec}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__encoder": {"_target_": "mine.Encoder", "more": 1}},
            "model.encoder: mine.Encoder returned shape (2, 9) for two images; expected a tensor of shape (2, 8)",
        ),
        (
            {"model__encoder": {"_target_": "mine.Encoder", "depth": 3}},
            "model.encoder: mine.Encoder does not take the arguments image_shape, label_dim, out_dim, depth",
        ),
        ({"model__decoder": {"_target_": "mine.Nothing"}}, "_target_=mine.Nothing: the module mine has no Nothing"),
        ({"model__decoder": {"_target_": "absent.Decoder"}}, "_target_=absent.Decoder: cannot import absent"),
        (
            part("likelihood", _target_="mine.Summed"),
            "likelihood.part: mine.Summed returned shape () for two images; expected a tensor of shape (2,)",
        ),
        (part("prior", _target_="mine.Wide"), "prior.part: mine.Wide does not take the arguments z_dim"),
        (
            part("objective", _target_="mine.listed"),
            "objective.part: mine.listed returned a list for two images; expected a tensor of shape ()",
        ),
        (part("objective", _target_="mine.free_bits"), "objective.part: mine.free_bits needs arguments (missing"),
        ({"study__metrics": ["mine.Wide"]}, "study.metrics=mine.Wide: is a type; allowed: a vae.metrics.Family"),
    ],
)
def test_a_mistake_in_a_part_is_one_line_before_anything_is_trained(
    configs: Configs, own: dict[str, Any], changes: dict[str, Any], message: str
):
    (config,) = configs(own | changes)
    with pytest.raises(ConfigError) as caught:
        plan([config])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not (Path(config.output_dir) / "runs").exists()


def test_an_exception_of_a_part_is_the_failure_of_its_run_with_the_traceback(configs: Configs, own: dict[str, Any]):
    broken = own | {"model__encoder": {"_target_": "mine.Encoder", "fails": True}}
    failed, ok = run_all(configs(broken, own))
    assert ok.ok
    failure = json.loads((failed.run.folder.path / "failed.json").read_text())
    assert failure["reason"] == "ArithmeticError: a defect of my own"
    assert "mine.py" in failure["traceback"]


def test_a_prior_and_an_objective_of_ones_own_are_trained_and_measured(
    configs: Configs, own: dict[str, Any], toy: ImageData
):
    parts = part("prior", _target_="mine.Wide", scale=2.0) | part("objective", _target_="mine.free_bits", nats=3.0)
    (outcome,) = run_all(configs(own | parts))
    assert outcome.ok
    evaluate([outcome.run.folder], ["reconstruction"], progress=False, trust=True)
    values, failures = read_metrics(outcome.run.folder)
    assert not failures
    assert values["kl_estimate"] == "from samples"
    model = load_run(outcome.run.folder.path, trust=True)
    mu, logvar = model.encode(toy.test_x, toy.test_y)
    q, p = torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 2.0)
    exact = torch.distributions.kl_divergence(q, p).sum(dim=1).mean().item()
    assert values["test_kl"] == pytest.approx(exact, rel=0.2)


def test_an_edited_part_is_another_run(configs: Configs, own: dict[str, Any], tmp_path: Path):
    before = plan(configs(own))[0].folder.name
    (tmp_path / "mine.py").write_text(PARTS + "\n# edited\n")
    assert plan(configs(own))[0].folder.name != before


def test_columns_ask_for_the_families_of_their_metrics():
    assert requested(["test_sse", "test_nll"])[-1] == "nll"
    assert "nll" not in requested(["test_sse", "unknown"])


def test_a_family_on_request_is_asked_for_by_its_name():
    assert requested([], ["probe"])[-1] == "probe"
    assert "probe" not in requested([])
    with pytest.raises(ConfigError, match="metrics=prob: no such family; allowed: early_steps, generation"):
        requested([], ["prob"])
