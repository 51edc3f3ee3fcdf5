"""Files that are written whole, and what a run's folder says."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.damage import damage_named
from experiments.seal import check, sealed_json, sealed_text
from experiments.store import RESULT_VERSION, RunFolder, read_json, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_json_has_null_for_what_is_not_finite(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"b": [1.5, math.nan, (math.inf,)], "a": {"c": -math.inf, "d": True}, "e": "NaN"})
    assert read_json(path) == {"b": [1.5, None, [None]], "a": {"c": None, "d": True}, "e": "NaN"}
    assert json.loads(path.read_text(), parse_constant=pytest.fail).keys() == {"sha256", "b", "a", "e"}


def test_the_checksum_is_that_of_all_other_bytes(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": 2}, sort_keys=True)
    rest = '{\n "sha256": "",\n "a": 2,\n "b": 1\n}\n'
    digest = hashlib.sha256(rest.encode()).hexdigest()
    assert path.read_text() == rest.replace('""', f'"{digest}"')
    write_json(path, {})
    assert read_json(path) == {}


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_change_anywhere_is_detected(kind: str):
    """Each byte is flipped in one of its bits, left out, and doubled."""
    data = sealed_json({"status": "ok", "n": [1, 2.5]}) if kind == "json" else sealed_text("seed: 0\n")
    check(data)
    for i in range(len(data)):
        for damage in (bytes([data[i] ^ (1 << i % 8)]), b"", data[i : i + 1] * 2):
            with pytest.raises(ValueError, match="checksum"):
                check(data[:i] + damage + data[i + 1 :])


def finished(path: Path, **changes: Any) -> RunFolder:
    """A folder as training leaves it."""
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"a model")
    (path / "history.csv").write_text("epoch\n1\n")
    folder = RunFolder(path)
    result = {"schema_version": RESULT_VERSION, "run": folder.name, "status": "ok"}
    folder.write_result({**result, "model_sha256": hashlib.sha256(b"a model").hexdigest(), **changes})
    return folder


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "result.json").write_text('{"status": "o'), "result.json: has no checksum"),
        (lambda path: (path / "result.json").write_text("5"), "result.json: has no checksum"),
        (lambda path: (path / "result.json").write_bytes(b""), "result.json: has no checksum"),
        (lambda path: write_json(path / "result.json", {}), "result.json: has schema_version None, this program reads"),
        (lambda path: path.rename(path.with_name("moved")), "result.json: is the result of another run, run;"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors: missing;"),
        (lambda path: (path / "model.safetensors").write_bytes(b"b model"), "model.safetensors: damaged: it does not"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "model.safetensors: damaged: it does not match"),
    ],
)
def test_a_run_without_a_sound_result_and_model_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], Any], said: str
):
    assert finished(tmp_path / "run").status() == "ok"
    time.sleep(0.02)  # a file system notes times in steps of some milliseconds
    damage(tmp_path / "run")
    (path,) = tmp_path.iterdir()
    with damage_named("runs") as found:
        for _ in range(2):
            assert RunFolder(path).status() == "missing"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"runs: {next(iter(found))}"
    assert line.startswith(f"runs: {path}/{said}")
    assert line.endswith("; the run counts as not finished")
    RunFolder(path).write("failed.json", {"reason": "no luck"})
    assert RunFolder(path).status() == "failed"


def test_a_copy_of_a_run_is_sound_whatever_its_times(tmp_path: Path):
    """Copying gives files new times, in any order."""
    folder = finished(tmp_path / "run")
    os.utime(folder.path / "result.json", (1e9, 1e9))
    with damage_named("runs") as found:
        assert folder.status() == "ok"
        folder.check()
    assert not found


def test_a_run_that_diverged_needs_no_model(tmp_path: Path):
    folder = finished(tmp_path / "run", status="diverged", model_sha256=None)
    (folder.path / "model.safetensors").unlink()
    assert folder.status() == "diverged"


def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("result.json", "failed.json"):
        (tmp_path / name).mkdir()
    with damage_named("runs"):
        assert RunFolder(tmp_path).status() == "missing"
    assert capsys.readouterr().err.splitlines() == [
        f"runs: {tmp_path}/result.json: cannot be read (Is a directory); the run counts as not finished",
        f"runs: {tmp_path}/failed.json: cannot be read (Is a directory)",
    ]
