"""Checkpoints that are whole, damaged, harmful, or too expensive."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import checkpoint
from experiments.store import RunFolder

STATE = {
    "parameters": {"w": torch.arange(6.0)},
    "device": "cpu",
    "epoch": 3,
    "step": 0,
    "history": [{"train_sse": 0.1}],
}


def test_checkpoint_comes_back_as_it_was(tmp_path: Path):
    folder = RunFolder(tmp_path)
    assert checkpoint.load(folder) is None
    checkpoint.save(folder, STATE)
    loaded = checkpoint.load(folder)
    assert loaded is not None
    assert torch.equal(loaded["parameters"]["w"], STATE["parameters"]["w"])
    assert loaded["history"] == STATE["history"]


def test_every_truncation_and_every_flipped_bit_is_noticed_and_the_previous_one_used(tmp_path: Path):
    folder = RunFolder(tmp_path)
    checkpoint.save(folder, STATE | {"epoch": 1})
    checkpoint.save(folder, STATE | {"epoch": 2})
    path = tmp_path / "checkpoint.pt"
    sound = path.read_bytes()
    n = len(sound)
    damaged = [sound[: i * n // 50] for i in range(50)]
    for i in range(200):
        byte, bit = i * n // 200, i % 8
        damaged.append(sound[:byte] + bytes([sound[byte] ^ (1 << bit)]) + sound[byte + 1 :])
    for data in damaged:
        path.write_bytes(data)
        loaded = checkpoint.load(folder)
        assert loaded is not None
        assert loaded["epoch"] == 1
    assert (tmp_path / "run.log").read_text().count("checkpoint.pt is damaged and was ignored") == 250
    path.write_bytes(sound)
    loaded = checkpoint.load(folder)
    assert loaded is not None
    assert loaded["epoch"] == 2


def test_both_checkpoints_damaged_means_from_the_start(tmp_path: Path):
    folder = RunFolder(tmp_path)
    for _ in range(2):
        checkpoint.save(folder, STATE)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"VAECKPT1" + b"\0" * 100)
    assert checkpoint.load(folder) is None


def test_a_checkpoint_that_would_execute_code_is_not_executed(tmp_path: Path):
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path}/executed",))

    payload = pickle.dumps(Evil(), protocol=2)
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"VAECKPT1" + hashlib.sha256(payload).digest() + payload)
    assert checkpoint.load(folder) is None
    assert not (tmp_path / "executed").exists()


def test_checkpoints_take_no_more_than_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    now = [0.0]

    def slow(folder: RunFolder, state: object) -> None:
        now[0] += 2.0  # seconds that a write takes

    class OneRun:
        def state(self, k: int) -> None: ...

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "save", slow)
    checkpointer = checkpoint.Checkpointer(interval=10.0)
    now[0] = 10.5
    assert checkpointer.due(epoch_ended=False)
    checkpointer.write([RunFolder(tmp_path)], OneRun())  # pyright: ignore[reportArgumentType]
    now[0] += 99.0  # 2 s of writing are 2 % of 100 s
    assert not checkpointer.due(epoch_ended=True)
    now[0] += 1.5
    assert checkpointer.due(epoch_ended=False)


@pytest.mark.parametrize("content", [{}, 5, [], None, "text", {"epoch": 1}])
def test_a_sound_checkpoint_of_something_else_is_ignored(tmp_path: Path, content: Any):
    folder = RunFolder(tmp_path)
    checkpoint.save(folder, content)
    assert checkpoint.load(folder) is None
    (tmp_path / "checkpoint.pt").write_bytes(b"VAECKPT1" + hashlib.sha256(b"").digest())
    assert checkpoint.load(folder) is None
    assert (tmp_path / "run.log").read_text().count("is damaged and was ignored") == 2


def test_a_folder_in_the_place_of_a_checkpoint_is_ignored(tmp_path: Path):
    (tmp_path / "checkpoint.pt").mkdir()
    assert checkpoint.load(RunFolder(tmp_path)) is None
    assert "checkpoint.pt cannot be read (Is a directory) and was ignored" in (tmp_path / "run.log").read_text()
