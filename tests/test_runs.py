"""The command that lists, shows, goes on with and removes runs."""

import json
from pathlib import Path

import pytest

from experiments import pictures, runs, sweep
from experiments.progress import Progress
from experiments.store import RunFolder
from tests.conftest import make_data, tiny_config
from vae.data import ImageData


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData) -> Path:
    """One finished run that a report uses, one orphaned, one failed, one unfinished."""
    monkeypatch.setattr(sweep, "_load", lambda dataset: toy)
    configs = [tiny_config(seed=s, output_dir=str(tmp_path)) for s in range(4)]
    planned = sweep.plan(configs)
    sweep.execute(planned[:2], Progress(2, 1), [None, None])
    for run in planned[2:]:
        run.folder.path.mkdir()
        (run.folder.path / "config.yaml").write_text(f"seed: {run.config.seed}\n")
    planned[2].folder.write("failed.json", {"reason": "RuntimeError: no luck"})
    report = tmp_path / "reports" / "xvar"
    report.mkdir(parents=True)
    (report / "sweep.json").write_text(json.dumps({"runs": [{"run": planned[0].folder.name}]}))
    return tmp_path


def names(outputs: Path) -> list[str]:
    return sorted(p.name for p in (outputs / "runs").iterdir())


def call(outputs: Path, *args: str) -> int:
    return runs.main(["--output-dir", str(outputs), *args])


def test_list_tells_status_size_age_and_reports(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert call(outputs, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["ok", "ok", "failed", "unfinished"]
    assert lines[1].endswith("xvar")
    assert lines[2].endswith("none (orphaned)")
    assert "MB" in lines[1]
    assert lines[5].startswith("4 runs (2 ok, 1 failed, 1 unfinished)")


def test_a_run_in_training_is_shown_as_running(outputs: Path):
    run = RunFolder(outputs / "runs" / names(outputs)[3])
    with run.locked() as held:
        assert held
        assert runs.status(run) == "running"
    assert runs.status(run) == "unfinished"


def test_show_names_settings_numbers_and_reasons(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert call(outputs, "show", names(outputs)[0], names(outputs)[2]) == 0
    out = capsys.readouterr().out
    assert "z_dim:" in out
    assert "test_sse:" in out
    assert "git_commit:" in out
    assert "status: failed (RuntimeError: no luck)" in out


def test_prune_names_what_it_would_remove_and_removes_only_that(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    before = names(outputs)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert call(outputs, "prune", "--failed") == 1
    assert before[2] in capsys.readouterr().out
    assert names(outputs) == before
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert call(outputs, "prune", "--failed") == 0
    assert names(outputs) == [n for n in before if n != before[2]]
    assert call(outputs, "prune", "--orphaned", "--yes") == 0
    assert names(outputs) == [before[0]]
    assert call(outputs, "prune", before[0], "--yes") == 0
    assert names(outputs) == []


def test_nothing_is_picked_unless_asked_for(outputs: Path, capsys: pytest.CaptureFixture[str]):
    before = names(outputs)
    assert call(outputs, "prune", "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert names(outputs) == before


def test_unknown_and_finished_runs_are_refused_in_one_line(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert call(outputs, "show", "no-such-run") == 2
    assert call(outputs, "rerun", names(outputs)[0]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert "no-such-run: no such run" in err[0]
    assert "finished" in err[1]


def test_pictures_are_drawn_once_and_only_those_that_a_run_can_have(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    folder = outputs / "runs" / names(outputs)[0]
    assert call(outputs, "pictures", folder.name) == 0
    drawn = [folder / f"{name}.png" for name in ("traversals", "interpolations", "latents", "styles", "neighbours")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in drawn]
    assert pictures.present(RunFolder(folder)) == [path.stem for path in drawn]
    drawn[0].write_bytes(b"kept")
    drawn[1].unlink()
    assert call(outputs, "pictures", folder.name) == 0
    assert capsys.readouterr().out == f"{drawn[1]}\n"
    assert drawn[0].read_bytes() == b"kept"
    monkeypatch.setattr(sweep, "_load", lambda dataset: pytest.fail("the data were read for nothing"))
    assert call(outputs, "pictures", folder.name) == 0
    assert capsys.readouterr().out == f"{folder} has all its pictures\n"


def test_pictures_that_cannot_be_drawn_are_refused_in_one_line(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    first, second, failed, _ = names(outputs)
    monkeypatch.setattr(sweep, "_load", lambda dataset: make_data(seed=1))
    (outputs / "runs" / second / "model.pt").unlink()
    for run, said in ((first, "was trained on other data"), (second, "has no model"), (failed, "is not finished")):
        assert call(outputs, "pictures", run) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"experiments.runs: {run} {said}")
        assert err.count("\n") == 1


def test_rerun_trains_a_run_from_its_own_settings(outputs: Path):
    config = tiny_config(seed=9, output_dir=str(outputs))
    run = sweep.plan([config])[0].folder
    run.path.mkdir()
    from omegaconf import OmegaConf

    (run.path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert call(outputs, "rerun", run.name) == 0
    assert run.result() is not None
