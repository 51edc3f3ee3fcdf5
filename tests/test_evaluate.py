"""Metrics computed from trained runs: what is missing or outdated, byte for byte the same, each failure for itself."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import evaluate as evaluation
from experiments import plan as planning
from experiments.evaluate import evaluate, main, missing, read_metrics
from experiments.launch.search import NO_NUMBERS, VALIDATION
from experiments.store import RunFolder, all_runs, read_json, write_json
from tests.conftest import make_data, run_all, tiny_config
from vae.data import ImageData
from vae.data.images import split_validation
from vae.metrics import DEFAULT_FAMILIES, FAMILIES, Result, Subject

FAST = ("reconstruction", "theory", "pictures")  # these need no judge


@pytest.fixture(scope="module")
def stack(toy: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with four runs that were trained as one stack, not evaluated."""
    out = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "load_data", lambda dataset: toy)
        outcomes = run_all([tiny_config(seed=seed, output_dir=str(out)) for seed in range(4)])
    assert all(outcome.ok for outcome in outcomes)
    return out


@pytest.fixture
def runs(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData) -> list[RunFolder]:
    """The same in a folder of its own."""
    monkeypatch.setattr(planning, "load_data", lambda dataset: toy)
    shutil.copytree(stack, tmp_path / "outputs")
    return all_runs(tmp_path / "outputs")


def files(folder: RunFolder) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of each file, by its path in the folder."""
    found = sorted(p for p in folder.path.rglob("*") if p.is_file())
    return {str(p.relative_to(folder.path)): (p.read_bytes(), p.stat().st_mtime_ns) for p in found}


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {name: content for name, (content, _) in files(folder).items()}


def record(folder: RunFolder, family: str) -> dict[str, Any]:
    return read_json(folder.path / f"metrics/{family}.json")


def raising(monkeypatch: pytest.MonkeyPatch, family: str, wrong: Callable[[Subject], bool]) -> None:
    """Has a family raise an exception for some runs."""

    def function(subject: Subject) -> Result:
        if wrong(subject):
            raise RuntimeError("no\nsuch luck")
        return Result()

    monkeypatch.setattr(FAMILIES[family], "functions", [*FAMILIES[family].functions, ((), function)])


def test_all_default_families_are_computed_and_read_back(runs: list[RunFolder]):
    evaluate(runs[:1], progress=False)
    values, failures = read_metrics(runs[0])
    assert failures == {}
    assert {p.stem for p in (runs[0].path / "metrics").iterdir()} == set(DEFAULT_FAMILIES)
    assert values["test_sse"] > 0
    assert values["judge"]
    assert "val_sse" not in values
    assert {"pictures.npz", "samples.png", "reconstructions.png"} <= contents(runs[0]).keys()
    content = record(runs[0], "reconstruction")
    result = runs[0].result() or {}
    assert content.keys() == {"family", "version", "model_sha256", "values"}
    assert (content["family"], content["model_sha256"]) == ("reconstruction", result["model_sha256"])
    assert missing(runs[0]) == []
    assert read_metrics(runs[1]) == ({}, {})


def test_deleted_metrics_are_computed_again_with_the_same_bytes(runs: list[RunFolder]):
    evaluate(runs[:2], progress=False)
    before = [contents(run) for run in runs[:2]]
    for run in runs[:2]:
        for path in [*(run.path / "metrics").iterdir(), *run.path.glob("*.np[gz]"), *run.path.glob("*.png")]:
            path.unlink()
    for run in reversed(runs[:2]):  # one by one, in another order
        evaluate([run], progress=False)
    assert [contents(run) for run in runs[:2]] == before


def test_an_exception_stays_with_its_family_and_run(
    runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained = [files(run) for run in runs]
    raising(monkeypatch, "theory", lambda subject: subject.config.seed == 2)
    evaluate(runs, FAST)
    for run, before in zip(runs, trained, strict=True):
        now = files(run)
        assert {name: now[name] for name in before} == before, "nothing is trained or written again"
        wrong = run.path.name.split("-")[-2] == "s2"
        values, failures = read_metrics(run, FAST)
        assert failures == ({"theory": "RuntimeError: no such luck"} if wrong else {})
        assert ("x_var" in values) == (not wrong)
        assert "test_sse" in values
        assert "pictures.npz" in now
        if wrong:
            failure = record(run, "theory")["failure"]
            assert 'raise RuntimeError("no\\nsuch luck")' in failure["traceback"]
            assert f"{run.name}: cannot compute theory: RuntimeError: no such luck\n" in capsys.readouterr().err


def test_a_failure_is_kept_until_a_retry(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        raising(patch, "theory", lambda subject: True)
        evaluate(runs[:1], FAST, progress=False)
    before = files(runs[0])
    evaluate(runs[:1], FAST, progress=False)
    assert files(runs[0]) == before
    evaluate(runs[:1], FAST, retry=True, progress=False)
    assert read_metrics(runs[0], FAST)[1] == {}
    assert {name for name, content in files(runs[0]).items() if before[name] != content} == {"metrics/theory.json"}


def test_a_new_version_of_a_family_is_computed_and_no_other(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch):
    evaluate(runs, FAST, progress=False)
    before = [files(run) for run in runs]
    monkeypatch.setattr(FAMILIES["theory"], "version", 99)
    assert missing(runs[0], FAST) == ["theory"]
    assert "x_var" not in read_metrics(runs[0], FAST)[0], "an outdated number is no number"
    evaluate(runs, FAST, progress=False)
    for run, old in zip(runs, before, strict=True):
        assert {name for name, content in files(run).items() if old[name] != content} == {"metrics/theory.json"}
        assert record(run, "theory")["version"] == 99


def test_lost_arrays_are_computed_again(runs: list[RunFolder]):
    evaluate(runs[:1], ["pictures"], progress=False)
    (runs[0].path / "pictures.npz").unlink()
    assert missing(runs[0], FAST) == ["reconstruction", "theory", "pictures"]
    assert missing(runs[0], ["pictures"]) == ["pictures"]


def test_what_is_not_trained_or_diverged_is_left_alone(runs: list[RunFolder]):
    result = read_json(runs[0].path / "result.json")
    runs[0].write("result.json", {**result, "status": "diverged", "model_sha256": None})
    (runs[1].path / "result.json").unlink()
    evaluate(runs[:2], progress=False)
    assert [(run.path / "metrics").exists() for run in runs[:2]] == [False, False]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run.path / "config.yaml").write_text("["), "config.yaml: has no checksum"),
        (lambda run: (run.path / "config.yaml").unlink(), "config.yaml: cannot be read"),
    ],
)
def test_a_damaged_run_is_a_failure_of_its_own(runs: list[RunFolder], damage: Callable, reason: str):
    damage(runs[1])
    evaluate(runs[:3], ["theory"], progress=False)
    assert [list(read_metrics(run, ["theory"])[1]) for run in runs[:3]] == [[], ["theory"], []]
    assert reason in read_metrics(runs[1], ["theory"])[1]["theory"]


def test_other_data_or_none_is_a_failure_that_leaves_good_files_alone(
    runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch
):
    evaluate(runs[:1], ["theory"], progress=False)
    monkeypatch.setattr(planning, "load_data", lambda dataset: make_data(seed=1))
    evaluate(runs[:2], ["theory"], progress=False)
    assert read_metrics(runs[0], ["theory"])[1] == {}
    assert "has changed since the run was trained" in read_metrics(runs[1], ["theory"])[1]["theory"]

    def lost(dataset: Any) -> ImageData:
        raise FileNotFoundError("the data are gone")

    monkeypatch.setattr(planning, "load_data", lost)
    evaluate(runs[:3], ["theory"], progress=False)
    assert read_metrics(runs[0], ["theory"])[1] == {}
    assert read_metrics(runs[2], ["theory"])[1] == {"theory": "FileNotFoundError: the data are gone"}


def test_validation_images_have_columns_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData):
    held = dataclasses.replace(
        toy, train_x=toy.train_x[60:], train_y=toy.train_y[60:], val_x=toy.train_x[:60], val_y=toy.train_y[:60]
    )
    monkeypatch.setattr(planning, "load_data", lambda dataset: held)
    (outcome,) = run_all([tiny_config(dataset__validation=0.2, output_dir=str(tmp_path))])
    evaluate([outcome.run.folder], ["reconstruction", "generation"], progress=False)
    values, failures = read_metrics(outcome.run.folder)
    assert failures == {}
    assert values["val_sse"] > 0
    assert values["val_sample_ffd"] > 0
    assert values["val_sample_ffd"] != values["sample_ffd"]


def test_the_command(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    out = runs[0].path.parent.parent
    (out / "reports/mine").mkdir(parents=True)
    write_json(out / "reports/mine/sweep.json", {"runs": [{"run": run.name} for run in runs[:2]]})
    where = ["--output-dir", str(out), "--family", "theory"]
    assert main(["mine", *where]) == 0
    assert [run.name for run in runs if not missing(run, ["theory"])] == [run.name for run in runs[:2]]
    assert main([f"outputs/runs/{runs[2].name}/", *where]) == 0
    assert missing(runs[2], ["theory"]) == []
    assert main(["mien", *where]) == 2
    assert "mien: no such report or run" in capsys.readouterr().err
    raising(monkeypatch, "theory", lambda subject: True)
    assert main(where) == 1
    assert f"{runs[3].name}: theory failed: RuntimeError: no such luck" in capsys.readouterr().err


def test_two_threads_give_the_bytes_of_one(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shutil.copytree(tmp_path / "outputs", tmp_path / "again")
    again = all_runs(tmp_path / "again")
    evaluate(runs, FAST, progress=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    evaluate(again, FAST, progress=False)
    torch.set_num_threads(1)
    assert [contents(run) for run in again] == [contents(run) for run in runs]


def test_nothing_to_do_needs_no_torch(runs: list[RunFolder]):
    evaluate(runs, FAST, progress=False)
    program = (
        "import sys; from pathlib import Path; from experiments.evaluate import evaluate, read_metrics\n"
        "from experiments.store import all_runs\n"
        f"runs = all_runs({str(runs[0].path.parent.parent)!r})\n"
        f"evaluate(runs, {FAST!r})\n"
        "assert len(runs) == 4 and all(read_metrics(run)[0] for run in runs)\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(evaluation.__file__).parent.parent
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=120)


def test_a_search_can_choose_by_every_figure_of_validation_images_that_is_a_number(
    toy: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    held = split_validation(toy, 0.2)
    monkeypatch.setattr(planning, "load_data", lambda dataset: held)
    config = tiny_config(output_dir=str(tmp_path), trainer__epochs=1, dataset__validation=0.2)
    (outcome,) = run_all([config])
    evaluate([outcome.run.folder], progress=False)
    values, failures = read_metrics(outcome.run.folder)
    figures = {name: value for name, value in values.items() if name.startswith(VALIDATION)}
    assert (figures != {}, failures) == (True, {})
    assert {name for name, v in figures.items() if not isinstance(v, int | float | None)} == set(NO_NUMBERS)
