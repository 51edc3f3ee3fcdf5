"""Identity, atomic files, checkpoints that are damaged, and locks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.store import RunFolder, fingerprint, readable, write_atomic
from tests.conftest import tiny_config
from vae import config as vae_config

STATE = {"parameters": {"w": torch.arange(6.0)}, "epoch": 3, "history": [{"train_sse": 0.1}]}


def run_folder(path: Path) -> RunFolder:
    path.mkdir(parents=True, exist_ok=True)
    return RunFolder(path)


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("dataset", "root", "elsewhere"),
        ("trainer", "device", "cpu"),
        ("trainer", "threads", 1),
        ("trainer", "stack_size", 3),
        ("trainer", "checkpoint_seconds", 0.0),
        ("study", "name", "xvar"),
    ],
)
def test_what_cannot_change_the_numbers_is_no_part_of_the_identity(group: str, field: str, value: object):
    changed = tiny_config(**{f"{group}__{field}": value})
    assert fingerprint(changed, "data") == fingerprint(tiny_config(), "data")


def test_every_other_setting_is_part_of_the_identity():
    base = fingerprint(tiny_config(), "data")
    seen = {base}
    for name, value, meta, _ in vae_config.settings(tiny_config()):
        if not meta["affects_result"] or value is None:
            continue
        config = tiny_config()
        owner = config if "." not in name else getattr(config, name.split(".")[0])
        changed = value + 1 if isinstance(value, int | float) else f"{value}-other"
        if isinstance(value, bool):
            changed = not value
        if isinstance(value, list):
            changed = [*value, 7]
        setattr(owner, name.split(".")[-1], changed)
        seen.add(fingerprint(config, "data"))
    counted = len(vae_config.identity(tiny_config())) - 1  # without the training's version
    assert counted >= 20
    assert len(seen) == 1 + counted


def test_data_and_training_version_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch):
    base = fingerprint(tiny_config(), "data")
    assert fingerprint(tiny_config(), "other data") != base
    monkeypatch.setattr(vae_config, "TRAINING_VERSION", vae_config.TRAINING_VERSION + 1)
    assert fingerprint(tiny_config(), "data") != base


def test_settings_without_a_part_in_the_run_do_not_count():
    def unlabelled(repeat: int) -> str:
        return fingerprint(tiny_config(label_placement__kind="none", label_repeat__value=repeat), "data")

    def per_dim(x_var: float) -> str:
        return fingerprint(tiny_config(objective__kind="per_dim", x_var__value=x_var), "data")

    assert unlabelled(5) == unlabelled(20)
    assert per_dim(0.1) == per_dim(1.0)


def test_a_name_that_a_person_can_read():
    config = tiny_config(x_var__value=0.01, seed=7)
    assert readable(config, "mnist_5k", 4) == "mnist_5k-mlp-z4-b1-x0.01-both5-s7"
    config = tiny_config(objective__kind="per_dim", beta__value=0.005, label_placement__kind="none")
    assert readable(config, "cifar10", 100) == "cifar10-mlp-z100-b0.005-per_dim-none-s0"


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


def test_checkpoint_comes_back_as_it_was(tmp_path: Path):
    folder = run_folder(tmp_path)
    assert folder.load_checkpoint() is None
    folder.save_checkpoint(STATE)
    loaded = folder.load_checkpoint()
    assert loaded is not None
    assert torch.equal(loaded["parameters"]["w"], STATE["parameters"]["w"])
    assert loaded["history"] == STATE["history"]


def test_every_truncation_and_every_flipped_bit_is_noticed_and_the_previous_one_used(tmp_path: Path):
    folder = run_folder(tmp_path)
    folder.save_checkpoint(STATE | {"epoch": 1})
    folder.save_checkpoint(STATE | {"epoch": 2})
    path = tmp_path / "checkpoint.pt"
    sound = path.read_bytes()
    n = len(sound)
    damaged = [sound[: i * n // 50] for i in range(50)]
    for i in range(200):
        byte, bit = i * n // 200, i % 8
        damaged.append(sound[:byte] + bytes([sound[byte] ^ (1 << bit)]) + sound[byte + 1 :])
    for data in damaged:
        path.write_bytes(data)
        loaded = folder.load_checkpoint()
        assert loaded is not None
        assert loaded["epoch"] == 1
    assert (tmp_path / "run.log").read_text().count("checkpoint.pt is damaged and was not used") == 250
    path.write_bytes(sound)
    loaded = folder.load_checkpoint()
    assert loaded is not None
    assert loaded["epoch"] == 2


def test_both_checkpoints_damaged_means_from_the_start(tmp_path: Path):
    folder = run_folder(tmp_path)
    for _ in range(2):
        folder.save_checkpoint(STATE)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"VAECKPT1" + b"\0" * 100)
    assert folder.load_checkpoint() is None


def test_a_checkpoint_that_would_execute_code_is_not_executed(tmp_path: Path):
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path}/executed",))

    payload = pickle.dumps(Evil(), protocol=2)
    folder = run_folder(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"VAECKPT1" + hashlib.sha256(payload).digest() + payload)
    assert folder.load_checkpoint() is None
    assert not (tmp_path / "executed").exists()


HOLD = """
import sys, time
from pathlib import Path
from experiments.store import RunFolder
with RunFolder(Path(sys.argv[1])).locked() as held:
    print(held, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path):
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with RunFolder(path).locked() as held:
            assert not held
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close() if holder.stdout else None
    (path / ".result.json.123.tmp").write_text("half")
    with RunFolder(path).locked() as held:
        assert held
        assert list(path.iterdir()) == [], "what a killed writer left is removed"


def test_a_result_is_read_whole_or_not_at_all(tmp_path: Path):
    folder = run_folder(tmp_path)
    assert folder.result() is None
    folder.write("result.json", {"test_sse": float("nan"), "status": "ok"})
    loaded = json.loads((tmp_path / "result.json").read_text())
    assert loaded["status"] == "ok"
    (tmp_path / "result.json").write_text('{"status": "o')
    assert folder.result() is None
