"""A trained model at work from the shell: samples, reconstructions, latents, and metrics on other data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import plan as planning
from experiments import runs
from experiments.evaluate import evaluate, read_metrics
from experiments.launch import measure
from experiments.store import RunFolder
from tests.conftest import make_data, run_all, tiny_config
from tests.datasets import noise
from vae.data import ImageData
from vae.trained import load_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, toy: ImageData) -> dict[str, RunFolder]:
    """A finished run with labels and one without."""
    out = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "load_data", lambda dataset: toy)
        placements = ("both", "none")
        outcomes = run_all([tiny_config(label_placement__kind=p, output_dir=str(out)) for p in placements])
        evaluate([o.run.folder for o in outcomes], ("reconstruction",), progress=False)
    return {p: o.run.folder for p, o in zip(placements, outcomes, strict=True)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures of two classes and arrays."""
    monkeypatch.chdir(tmp_path)
    for i, path in enumerate(["pictures/c0/a.png", "pictures/c2/b.png", "pictures/c2/c.png"]):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(i, 8, 8)).save(path)
    np.savez("x.npz", x=noise(0, 3, 8, 8), y=np.array(["c1", "c0", "c2"]))
    return tmp_path


def call(run: RunFolder, command: str, *arguments: str) -> int:
    return runs.main(["--output-dir", str(run.path.parent.parent), command, run.name[-10:], *arguments])


def test_samples_are_those_of_the_model(here: Path, folders: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]):
    run = folders["both"]
    assert call(run, "sample", "--label", "c1", "-n", "12", "--seed", "3", "--out", "ones.png") == 0
    assert capsys.readouterr().out == "ones.png\n"
    expected = (load_run(run.path).sample(1, 12, 3).clamp(0, 1) * 255).round()  # (12, 1, 8, 8)
    with Image.open("ones.png") as drawn:  # ten in a row, each pixel as 7x7, with gaps of 2
        pixels = np.asarray(drawn.convert("L"))
    assert pixels.shape == (2 + 2 * 58, 2 + 10 * 58)
    twelfth = pixels[60:116, 60:116][3::7, 3::7]
    assert np.array_equal(twelfth, expected[11, 0].numpy())


def test_latents_of_pictures_in_class_folders(here: Path, folders: dict[str, RunFolder]):
    run = folders["both"]
    assert call(run, "encode", "pictures", "--out", "z.npz") == 0
    x = torch.from_numpy(np.stack([noise(i, 1, 8, 8) for i in range(3)]))
    mu, logvar = load_run(run.path).encode(x, torch.tensor([0, 2, 2]))
    with np.load("z.npz") as found:
        assert np.array_equal(found["mu"], mu.numpy())
        assert np.array_equal(found["logvar"], logvar.numpy())
        assert found["names"].tolist() == ["pictures/c0/a.png", "pictures/c2/b.png", "pictures/c2/c.png"]


def test_latents_of_arrays_and_of_one_label(here: Path, folders: dict[str, RunFolder]):
    model = load_run(folders["both"].path)
    assert call(folders["both"], "encode", "x.npz", "--out", "z") == 0
    mu, _ = model.encode(torch.from_numpy(noise(0, 3, 1, 8, 8)), torch.tensor([1, 0, 2]))
    with np.load("z") as found:
        assert np.array_equal(found["mu"], mu.numpy())
    assert call(folders["both"], "encode", "pictures/c0/a.png", "--label", "c2") == 0
    mu, _ = model.encode(torch.from_numpy(noise(0, 1, 1, 8, 8)), torch.tensor([2]))
    with np.load("latents.npz") as found:
        assert np.array_equal(found["mu"], mu.numpy())


def test_reconstructions_are_drawn_under_their_originals(here: Path, folders: dict[str, RunFolder]):
    assert call(folders["none"], "reconstruct", "pictures") == 0
    with Image.open("reconstructions.png") as drawn:
        pixels = np.asarray(drawn.convert("L"))
    left = pixels.shape[1] - 3 * 58
    x_hat = load_run(folders["none"].path).reconstruct(torch.from_numpy(noise(1, 1, 1, 8, 8)))[0, 0].clamp(0, 1)
    assert np.array_equal(pixels[2:58, left + 58 :][3::7, 3 : 3 + 56 : 7], noise(1, 8, 8))
    assert np.array_equal(pixels[60:116, left + 58 :][3::7, 3 : 3 + 56 : 7], (x_hat * 255).round().numpy())


@pytest.mark.parametrize(
    ("placement", "arguments", "line"),
    [
        ("both", ["sample", "--label", "17"], "--label 17: no such class; allowed: c0, c1, c2"),
        ("none", ["sample", "--label", "c0"], "--label c0: the model was trained without labels; allowed: no label"),
        ("both", ["sample", "-n", "0"], "-n 0: out of range; allowed: a whole number >= 1"),
        ("both", ["sample", "--out", "no/where.png"], "no/where.png: No such file or directory"),
        ("none", ["encode", "nowhere"], "nowhere: no such file or folder; allowed: pictures, folders of pictures"),
        ("none", ["encode", "."], ".: no pictures; allowed: bmp, gif"),
        ("none", ["encode", "text"], "text: cannot be read as a picture"),
        ("none", ["encode", "bad.npz"], "bad.npz: cannot be read; allowed: an .npz file with x"),
        ("both", ["encode", "text.png"], "text.png: cannot be read as a picture"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folders: dict[str, RunFolder],
    capsys: pytest.CaptureFixture[str],
    placement: str,
    arguments: list[str],
    line: str,
):
    monkeypatch.chdir(tmp_path)
    for name in ("text", "bad.npz", "text.png") if arguments[-1] != "." else ():
        Path(name).write_text("text")
    assert call(folders[placement], *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"experiments.runs: {line}")
    assert err.count("\n") == 1


def test_pictures_that_need_a_label(here: Path, folders: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]):
    Path("pictures/c0").rename("pictures/eel")
    assert call(folders["both"], "encode", "pictures") == 2
    assert "pictures/eel/a.png: needs a label; allowed: --label with one of c0, c1, c2" in capsys.readouterr().err


def measured(run: RunFolder, *arguments: str) -> int:
    return measure.main(["--output-dir", str(run.path.parent.parent), run.name, *arguments])


def test_metrics_on_the_data_of_the_run_are_those_of_the_evaluation(
    folders: dict[str, RunFolder], toy: ImageData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(planning, "load_data", lambda dataset: toy)
    before = sorted(folders["both"].path.rglob("*"))
    assert measured(folders["both"]) == 0
    own = read_metrics(folders["both"], ("reconstruction",))[0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folders['both'].name} on 60 held-out images of toy (made up)"
    assert f"SSE: {own['test_sse']:.6g}" in lines
    assert f"KL (nats): {own['test_kl']:.6g}" in lines
    assert sorted(folders["both"].path.rglob("*")) == before


def test_metrics_on_other_data(here: Path, folders: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]):
    other = make_data(seed=5)
    arrays = {f"{x}_{split}": getattr(other, f"{split}_{x}").numpy() for x in "xy" for split in ("train", "test")}
    np.savez("other.npz", **arrays)  # pyright: ignore[reportArgumentType]
    assert measured(folders["none"], "dataset=other.npz") == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines()[1:])
    x = other.test_x.float() / 255
    model = load_run(folders["none"].path)
    mean = (x - model.reconstruct(x)).square().flatten(1).sum(1).mean().item()
    assert float(lines["SSE"]) >= mean - 0.1  # with z sampled
    assert float(lines["SSE"]) == pytest.approx(mean, rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dataset=mnist_5k"], "dataset=mnist_5k: its images are (1, 28, 28); allowed: (1, 8, 8), as in training"),
        (["dataset=pictures"], "dataset=pictures: it has other classes; allowed: c0, c1, c2"),
        (["dataset=mnst"], "dataset=mnst: not an option (did you mean mnist?); allowed: "),
        (["z_dim=3"], "z_dim=3: the run has its own settings; allowed: those of dataset"),
    ],
)
def test_other_data_that_do_not_fit(
    here: Path, folders: dict[str, RunFolder], capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
):
    for i in range(5):
        Image.fromarray(noise(i, 8, 8)).save(f"pictures/c0/{i}.png")
    assert measured(folders["both"], *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"measure: {line}")
    assert err.count("\n") == 1
