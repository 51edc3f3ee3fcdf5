"""A trained run taken from its folder: encode, decode, sample, refuse."""

import json
import math
import pickle
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save

from experiments import plan as planning
from tests.conftest import run_all, tiny_config
from tests.models import linear_model
from vae.data import ImageData, facts
from vae.priors import Standard
from vae.trained import MODEL_FILE, TrainedVAE, load_run, pack, unpack


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, toy: ImageData) -> dict[str, Path]:
    """A finished run for each placement of the label."""
    out = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "load_data", lambda dataset: toy)
        placements = ("both", "encoder", "decoder", "none")
        configs = [
            tiny_config(label_placement__kind=p, output_dir=str(out), trainer__epochs=60, trainer__lr=5e-3)
            for p in placements
        ]
        outcomes = run_all(configs)
    return {p: o.run.folder.path for p, o in zip(placements, outcomes, strict=True)}


def own_class_share(model: TrainedVAE, data: ImageData) -> float:
    """The share of class-conditional samples that lie nearest to the mean training image of their own class."""
    x = data.train_x.flatten(1).float() / 255
    means = torch.stack([x[data.train_y == c].mean(0) for c in range(data.n_classes)])
    y = torch.arange(300) % data.n_classes
    nearest = torch.cdist(model.sample(y).flatten(1), means).argmin(1)
    return (nearest == y).float().mean().item()


@pytest.mark.parametrize(
    ("placement", "follows"), [("both", True), ("decoder", True), ("encoder", False), ("none", False)]
)
def test_samples_follow_the_label_where_the_decoder_has_it_and_nowhere_else(
    folders: dict[str, Path], toy: ImageData, placement: str, follows: bool
):
    share = own_class_share(load_run(folders[placement]), toy)
    # Three classes: chance is 1/3 with a standard error of 0.027 over 300 samples.
    if follows:
        assert share > 0.9
    else:
        assert share == pytest.approx(1 / 3, abs=4 * 0.027)


def test_reconstructions_are_nearer_than_the_class_means(folders: dict[str, Path], toy: ImageData):
    model = load_run(folders["both"])
    x = toy.test_x.float() / 255
    error = (model.reconstruct(toy.test_x, toy.test_y) - x).square().sum(dim=(1, 2, 3)).mean().item()
    assert error < facts(toy).sse_class_means["test"]
    torch.testing.assert_close(model.reconstruct(x, toy.test_y), model.reconstruct(toy.test_x, toy.test_y))


def test_samples_are_the_same_for_a_seed_and_share_z_across_classes(folders: dict[str, Path]):
    model = load_run(folders["decoder"])
    assert torch.equal(model.sample(1, n=4), model.sample(1, n=4))
    assert not torch.equal(model.sample(1, n=4), model.sample(1, n=4, seed=1))
    assert model.sample(torch.tensor([0, 2]), n=99).shape == (2, 1, 8, 8)
    assert model.sample(n=5).shape == (5, 1, 8, 8)


def test_labels_are_asked_for_only_where_the_model_has_them(folders: dict[str, Path], toy: ImageData):
    assert load_run(folders["none"]).encode(toy.test_x)[0].shape == (60, 4)
    assert load_run(folders["decoder"]).encode(toy.test_x)[0].shape == (60, 4)
    for placement in ("both", "encoder"):
        with pytest.raises(ValueError, match="labels are needed"):
            load_run(folders[placement]).encode(toy.test_x)
    with pytest.raises(ValueError, match="labels are needed"):
        load_run(folders["both"]).decode(torch.zeros(2, 4))
    assert load_run(folders["encoder"]).decode(torch.zeros(2, 4)).shape == (2, 1, 8, 8)


def test_images_of_another_size_are_refused(folders: dict[str, Path]):
    with pytest.raises(ValueError, match=r"images are \(1, 9, 9\) each, the model takes \(1, 8, 8\)"):
        load_run(folders["none"]).encode(torch.zeros(2, 1, 9, 9))


def test_unfinished_diverged_and_damaged_runs_are_refused(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(tmp_path)
    good = folders["none"]
    result = json.loads((good / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(result | {"model_sha256": None}))
    with pytest.raises(FileNotFoundError, match="diverged"):
        load_run(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / MODEL_FILE).write_bytes((good / MODEL_FILE).read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        load_run(tmp_path)


# --- The file


def test_a_model_goes_through_its_file_and_always_gives_the_same_bytes(toy: ImageData):
    model = linear_model(toy)
    packed = {pack(model.arch, model.module.state_dict(), toy.classes) for _ in range(20)}
    again = unpack(packed.pop())
    assert not packed
    assert (again.arch, again.classes, again.x_var) == (model.arch, toy.classes, pytest.approx(math.exp(-2)))
    assert torch.equal(again.reconstruct(toy.test_x, toy.test_y), model.reconstruct(toy.test_x, toy.test_y))


def test_the_safetensors_library_opens_the_file(folders: dict[str, Path]):
    with safetensors.safe_open(folders["both"] / MODEL_FILE, "pt") as file:  # type: ignore[attr-defined]
        entry = json.loads(file.metadata()["vae"])
        assert entry["classes"] == ["c0", "c1", "c2"]
        assert entry["architecture"]["z_dim"] == 4
        assert file.get_tensor("likelihood.log_x_var").shape == (1,)
        assert file.get_tensor("decoder.net.layers.0.bias").shape == (16,)


def test_what_is_not_a_model_is_refused_in_one_line(toy: ImageData):
    tensors = {"a": torch.zeros(2)}
    entry = {"format": 2, "architecture": {"kind": "mlp"}, "classes": []}
    model = linear_model(toy)
    whole = pack(model.arch, {"likelihood.log_x_var": torch.zeros(1)}, toy.classes)  # weights are missing
    files = [
        b"",
        b"PK not a model",
        pickle.dumps({"parameters": 1}),
        save(tensors),
        save(tensors, {"vae": "[]"}),
        whole,
    ]
    files += [save(tensors, {"vae": json.dumps(e)}) for e in (entry, entry | {"format": 1}, entry | {"classes": 1})]
    for data in files:
        with pytest.raises(ValueError, match="not a model of this project") as error:
            unpack(data)
        assert "\n" not in str(error.value)


# --- Classes and the module


def test_a_class_is_known_by_number_or_name_and_another_is_refused_with_the_list(toy: ImageData):
    model = linear_model(toy)
    assert torch.equal(model.sample("c2", n=3), model.sample(2, n=3))
    for wrong in (17, -1, "c9"):
        with pytest.raises(ValueError, match=r"is not a class; there are 0 \(c0\), 1 \(c1\), 2 \(c2\)$"):
            model.sample(wrong)
    assert repr(model) == (
        "TrainedVAE(linear, images (1, 8, 8), z_dim 4, gaussian, x_var 0.1353, prior standard, 3 classes)"
    )


def test_the_module_is_trained_on_by_an_ordinary_loop(toy: ImageData):
    network = linear_model(toy).module
    assert not any(p.requires_grad for p in network.parameters())
    assert isinstance(network.prior, Standard)
    network.train().requires_grad_()
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=1e-2), []
    x, y = toy.train_x / 255, toy.train_y
    for _ in range(20):
        mu, logvar = network.encode(x, y)
        parameters = network.decode(mu, y)
        losses.append((network.prior.kl(mu, logvar) - network.likelihood.log_prob(x, parameters)).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 1
