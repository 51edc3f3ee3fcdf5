"""What commands remember of the files of runs: each is read once, and again only if it has changed."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import experiments
from experiments import store
from experiments.contents import files_below
from experiments.damage import damage_named
from experiments.runs import rows
from experiments.site.build import write
from experiments.store import RunFolder, all_runs, read_json, snapshot
from tests.fakes import change, fake_report

RUNS = 3


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three runs, none of whose files has changed in the last minute."""
    for folder in fake_report(tmp_path, params={"seed": range(RUNS)}):
        for path in folder.rglob("*"):
            age(path)
    return tmp_path


def age(path: Path, seconds: int = 60) -> None:
    os.utime(path, ns=(0, time.time_ns() - seconds * 10**9))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of runs that are read."""
    found, read_bytes = [], store._bytes

    def watch(path: str) -> bytes:
        data = read_bytes(path)
        if "/runs/" in path:
            found.append(path)
        return data

    monkeypatch.setattr(store, "_bytes", watch)
    return found


COMMANDS: dict[str, Callable[[Path], object]] = {
    "table": lambda outputs: experiments.table(output_dir=outputs),
    "list": lambda outputs: rows(all_runs(outputs), outputs),
    "browse": write,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_reads_each_file_once_and_the_next_reads_what_changed(outputs: Path, opened: list[str], name: str):
    command = COMMANDS[name]
    command(outputs)
    assert len(opened) == len(set(opened))
    checked = [path for path in (outputs / "runs").rglob("*") if path.suffix in (".json", ".yaml")]
    assert set(opened) >= set(map(str, checked))
    opened.clear()
    command(outputs)
    assert opened == []
    path = outputs / "runs/trial-seed1/provenance.json"
    change(path, more=1)
    age(path, 10)
    opened.clear()
    command(outputs)
    assert [name for name in opened if not name.endswith("history.csv")] == [str(path)], "the page draws the history"


def test_what_was_read_before_is_what_the_files_hold(outputs: Path, opened: list[str]):
    run = all_runs(outputs)[0]
    names = [name for name in run.files() if name.endswith(".json")]
    for _ in range(2):
        opened.clear()
        with snapshot(outputs):
            found = {name: run.read(name) for name in names}
        assert found == {name: read_json(run.path / name) for name in names}
    assert len(opened) == len(names), "of read_json alone"


def test_damage_is_named_although_the_file_was_sound_when_it_was_read(
    outputs: Path, capsys: pytest.CaptureFixture[str]
):
    rows(all_runs(outputs), outputs)
    path = outputs / "runs/trial-seed1/metrics/reconstruction.json"
    data = bytearray(path.read_bytes())
    data[100] ^= 1  # of the same size
    path.write_bytes(data)
    for seconds in (0, 30):
        age(path, seconds)
        for _ in range(2):
            with damage_named("test") as found:
                rows(all_runs(outputs), outputs)
            assert list(found) == [f"{path}: damaged: it does not match its checksum"]
    capsys.readouterr()


def test_what_changed_just_now_is_not_kept(outputs: Path, opened: list[str]):
    """It could change again within one tick of the disk's clock."""
    path = outputs / "runs/trial-seed0/provenance.json"
    age(path, 0)
    for _ in range(2):
        opened.clear()
        rows(all_runs(outputs), outputs)
        assert str(path) in opened


def test_a_file_that_this_process_writes_is_read_again(outputs: Path):
    run = RunFolder(outputs / "runs/trial-seed0")
    with snapshot(outputs):
        assert (run.read("provenance.json") or {})["threads"] == 2
        run.write("provenance.json", {"threads": 3})
        assert run.read("provenance.json") == {"threads": 3}
        assert run.read("failed.json") is None
        run.write("failed.json", {"reason": "why"})
        assert run.failure() == {"reason": "why"}


def test_removed_runs_are_forgotten(outputs: Path):
    rows(all_runs(outputs), outputs)
    path = outputs / ".cache/contents.json"
    assert b"trial-seed2" in path.read_bytes()
    for file in sorted((outputs / "runs/trial-seed2").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (outputs / "runs/trial-seed2").rmdir()
    age(outputs / "runs/trial-seed1/result.json", 30)
    rows(all_runs(outputs), outputs)
    assert b"trial-seed2" not in path.read_bytes()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", "half", "flipped"])
def test_a_damaged_cache_is_named_once_and_made_again(
    outputs: Path, opened: list[str], capsys: pytest.CaptureFixture[str], data: bytes | str
):
    rows(all_runs(outputs), outputs)
    path = outputs / ".cache/contents.json"
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[-50] ^= 1
    damages = {"half": whole[: len(whole) // 2], "flipped": bytes(broken)}
    path.write_bytes(damages[data] if isinstance(data, str) else data)
    with damage_named("test") as found:
        assert len(rows(all_runs(outputs), outputs)) == RUNS
    (line,) = found
    assert line.startswith(f"{path}: ")
    assert line.endswith("; all files are read again")
    opened.clear()
    with damage_named("test") as found:
        rows(all_runs(outputs), outputs)
    assert (list(found), opened) == ([], [])
    assert path.read_bytes() == whole
    capsys.readouterr()


def test_a_folder_that_cannot_be_written_to_is_read_all_the_same(outputs: Path):
    (outputs / ".cache").write_text("in the way")
    assert len(rows(all_runs(outputs), outputs)) == RUNS


def test_files_below_a_folder(tmp_path: Path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("abc")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("a")
    found = files_below(str(tmp_path))
    assert found.keys() == {"a", "a/b", "a/b/file", "loop", "link"}
    assert found["a/b/file"] == (3, (tmp_path / "a/b/file").stat().st_mtime_ns)
    assert [found[name] for name in ("a", "a/b", "loop", "link")] == [None] * 4
    assert files_below(str(tmp_path / "absent")) == {}
