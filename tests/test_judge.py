"""The formulas against slow references that do not use them; the judge and its scores on real digits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional as F

from vae import config, judge
from vae.data import ImageData, load
from vae.judge import Judge, frechet_distance, neighbour_radii, scores, sharpness


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load(config.Dataset())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def digit_judge(digits: ImageData, cache: Path) -> Judge:
    return Judge.of(digits, cache)


@pytest.fixture(scope="module")
def held_out(digit_judge: Judge) -> tuple[Tensor, Tensor]:
    """The real images compared with, (n, 1, 28, 28) in [0, 1], and their labels, (n,)."""
    data, index = digit_judge.data, digit_judge.held_out
    return data.test_x[index].float() / 255, data.test_y[index]


def part(data: ImageData, n_train: int, n_test: int) -> ImageData:
    """The first images of a shuffled dataset."""
    gen = torch.Generator().manual_seed(0)
    train, test = (
        torch.randperm(len(y), generator=gen)[:n] for y, n in ((data.train_y, n_train), (data.test_y, n_test))
    )
    parts = {"train_x": data.train_x[train], "train_y": data.train_y[train]}
    parts |= {"test_x": data.test_x[test], "test_y": data.test_y[test]}
    return dataclasses.replace(data, **parts, content_hash=f"{data.content_hash}-{n_train}-{n_test}")


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MIN_STEPS", 1)


def noise_data(channels: int, size: int, n_train: int, n_test: int = 40, n_classes: int = 2) -> ImageData:
    """Noise, darker in class 0."""
    gen = torch.Generator().manual_seed(0)

    def split(n: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(n) % n_classes
        brightness = (y + 1).view(-1, 1, 1, 1) / n_classes
        return (torch.rand(n, channels, size, size, generator=gen) * 255 * brightness).to(torch.uint8), y

    classes = tuple(f"class {i}" for i in range(n_classes))
    content_hash = f"noise-{channels}-{size}-{n_train}-{n_test}-{n_classes}"
    return ImageData("noise", "made here", *split(n_train), *split(n_test), classes, content_hash)


def blurred(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.avg_pool2d(x, 3, stride=1, padding=1)
    return x


# ---------------------------------------------------------------------------------------------------------------------
# Fréchet distance


def random_gaussian(rng: np.random.Generator, n: int, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    root = rng.normal(size=(n, rank or n)) * rng.uniform(0.1, 2, size=rank or n)
    return rng.normal(size=n), root @ root.T


def frechet(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    return frechet_distance(*(torch.from_numpy(np.asarray(v, dtype=np.float64)) for v in (*a, *b)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 3, 20])
def test_frechet_distance_against_the_matrix_square_root(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_gaussian(rng, n), random_gaussian(rng, n)
    root = scipy.linalg.sqrtm(a[1] @ b[1])
    expected = np.sum((a[0] - b[0]) ** 2) + np.trace(a[1] + b[1] - 2 * np.real(root))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_diagonal_covariances() -> None:
    rng = np.random.default_rng(0)
    mu1, mu2 = rng.normal(size=(2, 12))
    var1, var2 = rng.uniform(0, 3, size=(2, 12))
    var1[:4] = 0  # singular
    expected = np.sum((mu1 - mu2) ** 2) + np.sum((np.sqrt(var1) - np.sqrt(var2)) ** 2)
    assert frechet((mu1, np.diag(var1)), (mu2, np.diag(var2))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank", [None, 3])
def test_frechet_distance_to_itself_is_zero(rank: int | None) -> None:
    a = random_gaussian(np.random.default_rng(1), 10, rank)
    assert 0 <= frechet(a, a) < 1e-12 * np.trace(a[1])


def test_frechet_distance_of_singular_covariances_in_different_directions() -> None:
    # Of one direction each, u and v: sqrt(C1 C2) has trace |u·v|, where sqrtm fails.
    u, v = np.array([2.0, 0, 0]), np.array([1.0, 1, 0])
    zero = np.zeros(3)
    expected = 4 + 2 - 2 * abs(u @ v)
    assert frechet((zero, np.outer(u, u)), (zero, np.outer(v, v))) == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Density and coverage


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    real, fake = real.double(), fake.double()
    return judge.density_coverage(real, neighbour_radii(real, k), fake, k)


def naive_density_coverage(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """Equations 3 and 4 of Naeem et al. 2020, word for word."""
    radii = [sorted(math.dist(x, other) for j, other in enumerate(real) if j != i)[k - 1] for i, x in enumerate(real)]
    density = sum(math.dist(y, x) <= r for y in fake for x, r in zip(real, radii, strict=True)) / (k * len(fake))
    coverage = sum(any(math.dist(y, x) <= r for y in fake) for x, r in zip(real, radii, strict=True)) / len(real)
    return density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "shift"), [(40, 40, 0.0), (40, 25, 1.0), (6, 30, 0.3), (30, 1, 0.0)])
def test_density_and_coverage_against_the_naive_loop(k: int, n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n + m)
    real, fake = rng.normal(size=(n, 4)), rng.normal(size=(m, 4)) + shift
    result = density_coverage(torch.from_numpy(real), torch.from_numpy(fake), k)
    assert result == pytest.approx(naive_density_coverage(real, fake, k), rel=1e-12)


def test_density_and_coverage_of_the_same_distribution() -> None:
    """Density is expected to be 1 and coverage 1 - 2^-k, whatever the distribution (Naeem et al. 2020, section 3.3)."""
    real, fake = torch.randn(2, 1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density, coverage = density_coverage(real, fake, k=5)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_density_and_coverage_of_images_all_the_same_do_not_fail() -> None:
    assert density_coverage(torch.ones(10, 3), torch.ones(10, 3), 5) == (2.0, 1.0)  # all 10 balls hold each, over k
    assert density_coverage(torch.ones(10, 3), torch.zeros(10, 3), 5) == (0.0, 0.0)


def test_density_and_coverage_of_close_points_far_from_the_origin() -> None:
    """Distances by |a|² + |b|² - 2ab would be rounding here."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 40, 4))
    far = [torch.from_numpy(x * 1e-6 + 1e3) for x in (real, fake)]
    near = [torch.from_numpy(x) for x in (real, fake)]
    assert density_coverage(far[0], far[1], 3) == pytest.approx(density_coverage(near[0], near[1], 3), abs=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# Sharpness


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (3, 3, 5, 9), (2, 1, 3, 3), (judge.BATCH + 3, 1, 4, 4)])
def test_sharpness_against_the_naive_loop(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).uniform(size=shape)
    variances = []
    for image in images.reshape(-1, *shape[2:]):
        laplacian = [
            image[i - 1, j] + image[i + 1, j] + image[i, j - 1] + image[i, j + 1] - 4 * image[i, j]
            for i in range(1, shape[2] - 1)
            for j in range(1, shape[3] - 1)
        ]
        variances.append(np.var(laplacian))
    assert sharpness(torch.from_numpy(images)) == pytest.approx(np.mean(variances), rel=1e-12, abs=1e-15)


def test_sharpness_of_a_ramp_is_zero() -> None:
    ramp = torch.arange(8.0).expand(2, 1, 8, 8) / 8
    assert sharpness(ramp + ramp.mT) == pytest.approx(0, abs=1e-15)


# ---------------------------------------------------------------------------------------------------------------------
# The judge


def test_the_judge_knows_digits(digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    assert digit_judge.test_accuracy is not None
    assert digit_judge.test_accuracy > 0.95
    x, y = held_out
    predicted = digit_judge.predict(x)
    assert predicted.dtype == torch.int64
    assert (predicted == y).double().mean().item() == pytest.approx(digit_judge.test_accuracy)  # all are held out here


def test_the_judge_reads_blurred_digits(digits: ImageData, digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    """The samples of a VAE are blurred: the judge must say whether they are of their class, not that they are soft."""
    x, y = held_out
    assert (digit_judge.predict(blurred(x, 2)) == y).double().mean().item() > 0.93
    class_means = torch.stack([digits.train_x[digits.train_y == c].float().mean(0) / 255 for c in range(10)])
    assert (digit_judge.predict(class_means) == torch.arange(10)).sum().item() >= 9


@pytest.mark.usefixtures("short_training")
def test_training_is_deterministic_and_leaves_torch_as_it_was(digits: ImageData, tmp_path: Path) -> None:
    data = part(digits, 600, 50)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Judge.of(data, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)

    torch.manual_seed(2)
    torch.rand(3)
    with torch.no_grad():
        second = Judge.of(data, tmp_path / "b")
    assert first.hash == second.hash
    assert torch.equal(first.features(data.test_x), second.features(data.test_x))
    assert not any(p.requires_grad for p in second.network.parameters())


@pytest.mark.usefixtures("short_training")
def test_the_hash_tells_datasets_apart(digits: ImageData, tmp_path: Path) -> None:
    hashes = {Judge.of(part(digits, n, 50), tmp_path).hash for n in (100, 101, 600)}
    assert len(hashes) == 3


def test_a_cached_judge_is_not_trained_again(
    digits: ImageData, digit_judge: Judge, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(judge, "_train", train)
    again = Judge.of(digits, cache)
    assert again.hash == digit_judge.hash
    assert torch.equal(again.features(digits.test_x[:9]), digit_judge.features(digits.test_x[:9]))
    assert again.test_accuracy == digit_judge.test_accuracy
    assert [path.suffix for path in cache.iterdir()] == [".pt"]  # and nothing temporary


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "pickle"])
def test_a_damaged_cache_is_replaced(digits: ImageData, tmp_path: Path, damage: str) -> None:
    data = part(digits, 400, 50)
    first = Judge.of(data, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    stored = torch.load(path, weights_only=True)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        stored["state"]["head.weight"][0, 0] += 1e-3
        torch.save(stored, path)
    elif damage == "other":
        stored["state"]["head.weight"] = torch.zeros(2, 3)
        torch.save(stored, path)
    else:
        torch.save({"state": Path("what weights_only refuses")}, path)
    assert Judge.of(data, tmp_path).hash == first.hash
    assert torch.load(path, weights_only=True)["hash"] == first.hash


@pytest.mark.usefixtures("short_training")
def test_a_cache_that_cannot_be_written_is_done_without(digits: ImageData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = part(digits, 400, 50)
    assert Judge.of(data, tmp_path / "file").hash == Judge.of(data, tmp_path / "folder").hash


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 8), (3, 32), (1, 33), (3, 256)])
def test_every_shape_of_image(channels: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MIN_STEPS", 50)
    data = noise_data(channels, size, n_train=360)
    made = Judge.of(data, tmp_path)
    assert made.test_accuracy is not None
    assert made.test_accuracy > 0.9
    assert made.features(data.test_x).shape == (40, judge.N_FEATURES)
    x = data.test_x[made.held_out].float() / 255
    assert all(value is not None for value in scores(made, x, data.test_y[made.held_out], x).values())


@pytest.mark.parametrize(("n_train", "n_classes"), [(400, 1), (40, 2)])
def test_without_classes_or_images_to_learn_from_the_features_are_random(
    n_train: int, n_classes: int, tmp_path: Path
) -> None:
    data = noise_data(1, 16, n_train, n_classes=n_classes)
    made = Judge.of(data, tmp_path)
    assert made.test_accuracy is None
    assert not list(tmp_path.iterdir())
    x = data.test_x[made.held_out].float() / 255
    result = scores(made, x / 2, data.test_y[made.held_out], x)
    assert result.pop("sample_accuracy") is None
    values = {name: value for name, value in result.items() if value is not None}
    assert values.keys() == result.keys()
    assert values["sample_ffd"] > values["real_ffd"] > values["reconstruction_ffd"]


def test_too_few_images_give_no_scores(tmp_path: Path) -> None:
    made = Judge.of(noise_data(1, 8, n_train=20), tmp_path)
    assert made.n_images == judge.K_NEIGHBOURS
    x = torch.zeros(made.n_images, 1, 8, 8)
    assert set(scores(made, x, None, x).values()) == {None}


def test_features_of_bytes_and_of_clipped_images(digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    x = held_out[0][:50]
    features = digit_judge.features(x)
    assert features.dtype == torch.float64
    assert torch.equal(digit_judge.features((x * 255).round().to(torch.uint8)), features)
    beyond = torch.where(x == 0, -3.0, torch.where(x == 1, 7.0, x))
    assert torch.equal(digit_judge.features(beyond), features)


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def numbers(made: Judge, samples: Tensor, labels: Tensor | None, reconstructions: Tensor) -> dict[str, float]:
    result = scores(made, samples, labels, reconstructions)
    assert tuple(result) == judge.SCORES
    return {name: value for name, value in result.items() if value is not None}


def test_scores_of_real_images(digits: ImageData, digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    """Training images that the judge has not seen are perfect samples, and held-out ones perfect reconstructions."""
    assert digit_judge.n_images == judge.N_SAMPLES
    learned, unseen = judge._split(digits)
    assert not set(learned.tolist()) & set(unseen.tolist())
    values = numbers(digit_judge, digits.train_x[unseen].float() / 255, digits.train_y[unseen], held_out[0])
    assert values["sample_ffd"] == pytest.approx(values["real_ffd"], rel=1e-6)
    assert values["reconstruction_ffd"] == pytest.approx(0, abs=1e-6)
    assert values["reconstruction_sharpness"] == pytest.approx(values["real_sharpness"], rel=1e-6)
    assert values["sample_accuracy"] > 0.95
    assert values["sample_density"] == pytest.approx(1, abs=0.15)
    assert values["sample_coverage"] > 0.93
    # The trace of the covariance is the scale: two real sets must be near each other on it.
    assert values["real_ffd"] < 0.03 * digit_judge.real.cov.trace().item()


def test_scores_grow_worse_with_the_images(digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    x, y = held_out
    gen = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=gen)
    series = {
        "blur": [blurred(x, times) for times in (0, 1, 2, 4, 8)],
        "noise": [x + sigma * noise for sigma in (0, 0.1, 0.2, 0.4)],
    }
    for name, images in series.items():
        values = [numbers(digit_judge, image, y, image) for image in images]
        ffd = [v["sample_ffd"] for v in values]
        assert ffd == sorted(ffd), (name, ffd)
        assert ffd[2] > 2 * values[0]["real_ffd"], (name, ffd)
        assert ffd == [v["reconstruction_ffd"] for v in values]
        sharp = [v["sample_sharpness"] for v in values]
        assert sharp == sorted(sharp, reverse=name == "blur"), (name, sharp)
        assert values[-1]["sample_coverage"] < 0.5
    pure = numbers(digit_judge, torch.rand(x.shape, generator=gen), y, x)
    assert pure["sample_ffd"] > 10 * pure["real_ffd"]
    assert pure["sample_coverage"] < 0.05


def test_shuffled_labels_are_met_by_chance(digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    x, y = held_out
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    assert numbers(digit_judge, x, shuffled, x)["sample_accuracy"] == pytest.approx(0.1, abs=0.05)
    assert "sample_accuracy" not in numbers(digit_judge, x, None, x)


def test_collapsed_samples_cover_little(digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    x, y = held_out
    same = numbers(digit_judge, x[:1].expand_as(x), y, x)
    assert same["sample_coverage"] < 0.05
    one_class = x[y == 3][torch.arange(len(x)) % int((y == 3).sum())]
    three = numbers(digit_judge, one_class, None, x)
    assert three["sample_coverage"] < 0.2
    assert min(same["sample_ffd"], three["sample_ffd"]) > 10 * three["real_ffd"]


def test_scores_are_of_clipped_images(digit_judge: Judge, held_out: tuple[Tensor, Tensor]) -> None:
    x, y = held_out
    wild = 3 * x - 1
    assert scores(digit_judge, wild, y, wild) == scores(digit_judge, wild.clamp(0, 1), y, wild.clamp(0, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_images_that_are_not_finite_have_no_scores(
    digit_judge: Judge, held_out: tuple[Tensor, Tensor], value: float, side: int
) -> None:
    x, y = held_out
    images = [x.clone(), x.clone()]
    images[side][3, 0, 4, 5] = value
    assert scores(digit_judge, images[0], y, images[1]) == dict.fromkeys(judge.SCORES)
