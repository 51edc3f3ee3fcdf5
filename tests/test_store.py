"""Files that are written whole, and what a run's folder says."""

import json
import math
import os
from pathlib import Path

import pytest

from experiments.store import RunFolder, read_json, write_atomic, write_json


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
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "b": [1.5, None, [None]],
        "a": {"c": None, "d": True},
        "e": "NaN",
    }
    write_json(path, {"b": 1, "a": 2}, sort_keys=True)
    assert path.read_text() == '{\n "a": 2,\n "b": 1\n}\n'


@pytest.mark.parametrize("content", ['{"status": "o', "[]", "\x00", '{"status": "ok", "schema_version": 1}'])
def test_a_damaged_or_older_result_counts_as_none(tmp_path: Path, content: str):
    folder = RunFolder(tmp_path)
    assert folder.status() == "missing"
    folder.write("result.json", {"schema_version": 2, "status": "ok"})
    assert folder.status() == "ok"
    (tmp_path / "result.json").write_text(content)
    assert folder.result() is None
    assert folder.status() == "missing"
    folder.write("failed.json", {"reason": "no luck"})
    assert folder.status() == "failed"


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path):
    (tmp_path / "sweep.json").write_text("{\n\n")
    with pytest.raises(ValueError, match=r"sweep\.json: cannot be read") as e:
        read_json(tmp_path / "sweep.json")
    assert "\n" not in str(e.value)
