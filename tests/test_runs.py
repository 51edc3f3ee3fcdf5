"""The command that lists, shows, trains and removes runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import plan as planning
from experiments import runs
from experiments.plan import plan
from experiments.reading import read
from experiments.seal import sealed_text
from experiments.settings import to_yaml
from experiments.store import RESULT_VERSION, RunFolder, write_json
from tests.conftest import make_data, run_all, tiny_config
from tests.fakes import fake_report
from vae.data import ImageData

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy: ImageData) -> Path:
    """One finished run that a report uses, one in no report, one failed, one missing."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "load_data", lambda dataset: toy)
        configs = [tiny_config(seed=s, output_dir=str(folder)) for s in range(4)]
        run_all(configs[:2])
        planned = plan(configs)
    for run in planned[2:]:
        run.folder.path.mkdir()
        run.folder.write("config.yaml", to_yaml(run.config))
    planned[2].folder.write("failed.json", {"reason": "RuntimeError: no luck"})
    report = folder / "reports" / "xvar"
    report.mkdir(parents=True)
    write_json(report / "sweep.json", {"runs": [{"run": planned[0].folder.name}]})
    return folder


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: ImageData, trained: Path) -> Path:
    """A copy of these runs for one test."""
    monkeypatch.setattr(planning, "load_data", lambda dataset: toy)
    return shutil.copytree(trained, tmp_path / "outputs")


def names(outputs: Path) -> list[str]:
    return sorted(p.name for p in (outputs / "runs").iterdir() if p.is_dir())


def call(outputs: Path, *args: str) -> int:
    return runs.main(["--output-dir", str(outputs), *args])


def test_list_tells_status_size_age_and_reports(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert call(outputs, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["ok", "ok", "failed", "missing"]
    assert lines[1].endswith("xvar")
    assert lines[2].endswith("in no report")
    assert "MB" in lines[1]
    assert lines[5].startswith("4 runs (2 ok (not measured), 1 failed, 1 missing)")


def test_a_run_in_training_is_missing_and_running(outputs: Path, capsys: pytest.CaptureFixture[str]):
    run = RunFolder(outputs / "runs" / names(outputs)[3])
    with run.locked() as held:
        assert held
        assert call(outputs, "list") == 0
        assert "missing (running)" in capsys.readouterr().out
        assert call(outputs, "prune", "--missing", "--in-no-report", "--yes") == 0
    assert [run.name] == names(outputs)[1:], "the other unused ones are gone"
    assert call(outputs, "prune", "--missing", "--yes") == 0
    assert len(names(outputs)) == 1


def test_damaged_files_are_named_in_one_line_each_and_the_rest_goes_on(
    outputs: Path, capsys: pytest.CaptureFixture[str]
):
    first, second, _, _ = names(outputs)
    for damaged in (outputs / "runs" / first / "result.json", outputs / "runs" / second / "provenance.json"):
        damaged.write_text("{")
    broken = outputs / "reports" / "broken"
    broken.mkdir()
    for content in ("[", "{}"):
        (broken / "sweep.json").write_text(content)
        assert call(outputs, "list") == 1
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert [line.partition("/broken")[2].partition(":")[0] for line in lines[:1]] == ["/sweep.json"]
        assert [f"{first}/result.json" in lines[1], f"{second}/provenance.json" in lines[2]] == [True, True]
        assert len(lines) == 3
        assert [line.split()[1] for line in out.splitlines()[1:5]] == ["missing", "ok", "failed", "missing"]


def test_show_names_settings_numbers_and_reasons(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert call(outputs, "show", names(outputs)[0], names(outputs)[2]) == 0
    out = capsys.readouterr().out
    assert "z_dim:" in out
    assert "git_commit:" in out
    assert "outcome: ok" in out
    assert "outcome: failed (RuntimeError: no luck)" in out


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
    assert call(outputs, "prune", "--in-no-report", "--yes") == 0
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


def test_a_run_that_finishes_while_the_prompt_waits_survives(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    _, _, failed, missing = names(outputs)

    def finish(question: str) -> str:
        result = {"schema_version": RESULT_VERSION, "status": "ok", "run": missing, "model_sha256": None}
        write_json(outputs / "runs" / missing / "result.json", result)
        return "y"

    monkeypatch.setattr("builtins.input", finish)
    assert call(outputs, "prune", failed, missing) == 0
    assert missing in names(outputs)
    assert failed not in names(outputs)
    assert f"{missing} is now ok and was not removed" in capsys.readouterr().err


def test_pictures_are_drawn_into_the_folder_and_named(outputs: Path, capsys: pytest.CaptureFixture[str]):
    folder = outputs / "runs" / names(outputs)[0]
    assert call(outputs, "pictures", folder.name) == 0
    drawn = capsys.readouterr().out.splitlines()
    assert f"{folder}/traversals.png" in drawn
    assert all(Path(path).exists() for path in drawn)
    assert (folder / "gallery.npz").exists()


def test_pictures_that_cannot_be_drawn_are_refused_in_one_line(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    first, second, failed, _ = names(outputs)
    (outputs / "runs" / second / "model.safetensors").unlink()
    for run, said in ((second, "has no trained model"), (failed, "has no trained model"), (first, "has changed since")):
        if run == first:
            monkeypatch.setattr(planning, "load_data", lambda dataset: make_data(seed=1))
        assert call(outputs, "pictures", run) == 2
        out, err = capsys.readouterr()
        assert out == ""
        last = err.splitlines()[-1]
        assert last.startswith(f"experiments.runs: {run}")
        assert said in last


def test_rerun_trains_a_run_from_its_own_settings(outputs: Path):
    run = RunFolder(outputs / "runs" / names(outputs)[3])
    assert run.status() == "missing"
    assert call(outputs, "rerun", run.name) == 0
    assert run.status() == "ok"


def test_rerun_names_settings_that_cannot_be_read(outputs: Path, capsys: pytest.CaptureFixture[str]):
    run = RunFolder(outputs / "runs" / names(outputs)[3])
    for content in ("nonsense: 3\n", "a: [", "[]"):
        for data, said in ((content, "has no checksum"), (sealed_text(content), "cannot be read")):
            run.write("config.yaml", data)
            assert call(outputs, "rerun", run.name) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert f"{run.path / 'config.yaml'}: {said}" in line


def test_a_reader_that_leaves_is_no_error(outputs: Path):
    command = f"{sys.executable} -m experiments.runs --output-dir {outputs} list | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_is_not_utf_8_is_listed(tmp_path: Path):
    os.makedirs(os.fsencode(tmp_path) + b"/runs/toy-\xff-0123456789")
    for _ in range(2):  # the second reads what the first kept
        command = [sys.executable, "-m", "experiments.runs", "--output-dir", str(tmp_path), "list"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1].startswith(r"toy-\udcff-0123456789  missing ")


def test_runs_are_known_by_their_fingerprints(outputs: Path, capsys: pytest.CaptureFixture[str]):
    first, second, failed, _ = names(outputs)
    assert call(outputs, "show", first[-10:]) == 0
    assert "outcome: ok" in capsys.readouterr().out
    assert call(outputs, "prune", failed[-10:], str(outputs / "runs" / failed), "--failed", "--yes") == 0
    assert capsys.readouterr().out.count(failed) == 1
    assert failed not in names(outputs)
    assert {first, second} <= set(names(outputs))


def test_a_run_has_the_outcome_that_its_reports_give_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    dead = {"test_sse": 30.0, "test_kl": 0.0, "test_active_units": 0}
    fake_report(tmp_path, params={"seed": [0, 1]}, change=lambda s, row: row | (dead if s["seed"] else {}))
    assert call(tmp_path, "list") == 0
    text = capsys.readouterr().out
    assert [line.split()[1] for line in text.splitlines()[1:3]] == ["ok", "dead"]
    assert "2 runs (1 ok, 1 dead)" in text
    assert list(read("trial", tmp_path).runs["outcome"]) == ["ok", "dead"]
