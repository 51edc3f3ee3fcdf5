"""Every file that is read back, every kind of damage, every command: one line names the file, and the rest goes on."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import experiments
from experiments import browse, claims, collect, runs
from experiments.damage import damage_named
from experiments.reading import read
from experiments.report import build, figures
from experiments.seal import sealed_text
from experiments.site import build as site
from experiments.store import all_runs
from tests.conftest import Configs, run_all
from tests.fakes import MODEL_SHA256, fake_report, put, sha256
from vae.metrics import FAMILIES


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": flipped,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "more": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "{": lambda path: path.write_text("{"),
    "{}": lambda path: path.write_text("{}"),
    "[]": lambda path: path.write_text("[]"),
    "5": lambda path: path.write_text("5"),
    "NaN": lambda path: path.write_text("NaN"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "folder": replaced(lambda path: path.mkdir()),
    "loop": replaced(lambda path: path.symlink_to(path)),
}
IN_RUN = ("result.json", "model.safetensors", "history.csv", "config.yaml", "provenance.json", "pictures.npz")
IN_RUN += ("metrics/reconstruction.json", "metrics/generation.json", "metrics/pictures.json", "metrics/theory.json")
RUNS = range(len(IN_RUN) + 2)  # by seed: one for each damaged file, one that failed, and the last is sound
COMMANDS = ("list", "show", "pictures", "prune", "collect", "browse", "claims", "table")
READERS = ("list", "table")  # see every kind of damage in the quick tests; the other commands read with the same code
KINDS = ("one bit", "{}", "folder", "loop")  # a checksum, none, a file that cannot be read, one that is none
CONFIG = "dataset: {kind: npz, root: nowhere.npz}\n"  # nothing can be evaluated again


def files(report: str) -> list[str]:
    """The files of the runs of a report that are damaged, each of a run of its own."""
    own = [f"runs/{report}-seed{i}/{name}" for i, name in enumerate(IN_RUN)]
    return [*own, f"runs/{report}-seed{len(IN_RUN)}/failed.json"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports; the last run of the first has a gallery."""
    folder = tmp_path_factory.mktemp("sound")
    for name in ("trial", "other"):
        made = fake_report(
            folder, name, {"seed": RUNS}, change=lambda s, row: "no luck" if s["seed"] == len(IN_RUN) else row
        )
        put(folder / "reports" / name / "summary.json", {"title": name, "answer": "So.", "n_usable": 2, "n_runs": 3})
        for path in made:
            (path / "config.yaml").write_bytes(sealed_text(CONFIG))
    last = folder / f"runs/trial-seed{RUNS[-1]}"
    np.savez(last / "gallery.npz", zeros=np.zeros(3))
    record = {"family": "gallery", "version": FAMILIES["gallery"].version, "model_sha256": MODEL_SHA256, "values": {}}
    put(last / "metrics/gallery.json", {**record, "files": {"gallery.npz": sha256(last / "gallery.npz")}})
    return folder


@pytest.fixture
def outputs(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these, and commands without figures, which take a second."""
    monkeypatch.setattr(figures, "all_figures", lambda report, must_show: ({}, {}))
    monkeypatch.setattr(build, "tradeoff", lambda advised: None)
    monkeypatch.setattr(build, "joint", lambda *args: None)
    monkeypatch.setattr(site, "get_plotlyjs", str)
    monkeypatch.setattr(claims, "train", lambda arguments, output_dir: read("other", output_dir))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return shutil.copytree(sound, tmp_path / "outputs")


def call(command: str, outputs: Path) -> int:
    where = ["--output-dir", str(outputs)]
    last = f"trial-seed{RUNS[-1]}"
    if command == "table":
        assert len(experiments.table(output_dir=outputs)) == 2 * len(RUNS)
        return 1
    if command == "collect":
        return collect.main(["trial", *where, "--force"])
    if command == "browse":
        return browse.main(where)
    if command == "claims":
        return claims.main([f"output_dir={outputs}"])
    arguments = {"list": [], "show": ["trial-seed0", "trial-seed1", last], "pictures": [last], "prune": [last, "--yes"]}
    return runs.main([*where, command, *arguments[command]])


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_named_where_nothing_is_damaged(
    outputs: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert call(command, outputs) == (1 if command == "table" else 0)
    assert not re.search("damaged|checksum|cannot", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        pytest.param(command, damage, marks=[pytest.mark.slow] * (command not in READERS and damage not in KINDS))
        for command in COMMANDS
        for damage in DAMAGES
    ],
)
def test_one_line_names_each_file_and_the_rest_goes_on(
    outputs: Path, capsys: pytest.CaptureFixture[str], command: str, damage: str
) -> None:
    """All runs of a report but one are damaged, each in another file, and so is the other report."""
    own, other = ("other", "trial") if command == "claims" else ("trial", "other")
    hurt = files(own)
    if command != "table" and damage != "loop":  # a report whose manifest leads nowhere is none
        hurt += [f"reports/{other}/summary.json"]
        hurt += [f"reports/{other}/sweep.json"] * (command != "collect")  # which needs the report alone
    for file in hurt:
        DAMAGES[damage](outputs / file)
    status = call(command, outputs)
    out, err = capsys.readouterr()
    assert {file: err.count(f"{outputs / file}: ") for file in hurt} == dict.fromkeys(hurt, 1)
    assert status == 1
    assert "Traceback" not in err
    if command in ("list", "browse"):
        shown = out if command == "list" else (outputs / "index.html").read_text()
        assert all(run.name in shown for run in all_runs(outputs))
    if command == "show":
        assert "outcome: ok" in out
    if command in ("collect", "claims"):
        assert list(outputs.glob("reports/*/report.md"))
    if command == "prune":
        assert not (outputs / f"runs/trial-seed{RUNS[-1]}").exists()


@pytest.mark.parametrize("command", ["list", "collect", "browse", "claims"])
def test_the_manifest_of_the_report_itself(outputs: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path = outputs / "reports" / ("other" if command == "claims" else "trial") / "sweep.json"
    flipped(path)
    assert call(command, outputs) == 1
    (line,) = {line for line in capsys.readouterr().err.splitlines() if str(path) in line}
    assert "damaged: it does not match its checksum" in line


@pytest.mark.parametrize("name", ["model.safetensors", "result.json"])
def test_a_sweep_says_which_run_is_damaged_and_trains_it_again(
    configs: Configs, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    both = configs({"seed": 0}, {"seed": 1})
    before = [outcome.run.folder.path for outcome in run_all(both)]
    contents = [(path / "model.safetensors").read_bytes() for path in before]
    flipped(before[1] / name)
    with damage_named("run.py"):
        again = run_all(both)
    (line,) = set(capsys.readouterr().err.splitlines())
    assert line.startswith(f"run.py: {before[1] / name}: damaged: it does not match its checksum")
    assert line.endswith("; the run counts as not finished")
    assert all(outcome.ok for outcome in again)
    assert [(path / "model.safetensors").read_bytes() for path in before] == contents
    with damage_named("run.py") as found:
        run_all(both)
    assert not found
