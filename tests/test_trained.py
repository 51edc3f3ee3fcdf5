"""A trained run taken from its folder: encode, decode, sample, refuse."""

from pathlib import Path

import pytest
import torch

from experiments import sweep
from experiments.progress import Progress
from tests.conftest import tiny_config
from vae import pictures
from vae.data import ImageData, facts
from vae.trained import TrainedVAE, load_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, toy: ImageData) -> dict[str, Path]:
    """A finished run for each placement of the label."""
    out = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_load", lambda dataset: toy)
        placements = ("both", "encoder", "decoder", "none")
        configs = [
            tiny_config(label_placement__kind=p, output_dir=str(out), trainer__epochs=60, trainer__lr=5e-3)
            for p in placements
        ]
        outcomes = sweep.execute(sweep.plan(configs), Progress(4, 1), [None] * 4)
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


def test_unfinished_and_damaged_runs_are_refused(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(tmp_path)
    good = folders["none"]
    (tmp_path / "result.json").write_bytes((good / "result.json").read_bytes())
    (tmp_path / "model.pt").write_bytes((good / "model.pt").read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        load_run(tmp_path)


def test_sheets_show_the_pixels_that_the_model_gives(folders: dict[str, Path], toy: ImageData):
    model = load_run(folders["both"])
    rows, labels = pictures.sample_rows(model)
    assert rows.shape == (3, 10, 1, 8, 8)
    assert labels == ["c0", "c1", "c2"]
    torch.testing.assert_close(rows[1], model.sample(1, n=10))
    rows, labels = pictures.reconstruction_rows(model, toy)
    assert rows.shape == (4, 10, 1, 8, 8)
    assert labels == ["input", "output", "input", "output"]
    image = pictures.sheet(torch.tensor([0.0, 0.5, 2.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, 1, 8, 8), [""])
    step = 8 * 7 + pictures.GAP
    assert [image.getpixel((pictures.GAP + n * step + 3, pictures.GAP + 3)) for n in range(3)] == [
        (0, 0, 0),
        (128, 128, 128),
        (255, 255, 255),
    ]
