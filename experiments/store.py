"""Run folders: a run is its config, and its folder is named by the fingerprint of all that can change its numbers.

    outputs/runs/<readable>-<fingerprint>/
        config.yaml           the resolved settings
        .hydra/               the same as Hydra composed it, with its overrides
        provenance.json       command, versions, git commit, device, threads, times: what must not change the numbers
        history.csv           a row an epoch
        run.log               what happened, with times
        checkpoint.pt         where an unfinished run goes on; checkpoint.previous.pt is the one before
        model.pt              the trained parameters
        samples.png, reconstructions.png
        traversals.png, ...   more pictures, where they were asked for (experiments/pictures.py)
        failed.json           why the last attempt failed (gone once one succeeds)
        result.json           the final numbers, written last: its presence means finished

Every file is written whole or not at all. Nothing of a finished run is ever written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vae.config import Config, identity

CHECKPOINT_MAGIC = b"VAECKPT1"


def fingerprint(config: Config, content_hash: str) -> str:
    """Ten hex digits over the settings that decide the numbers, the training's version and the dataset's content."""
    text = json.dumps({**identity(config), "content": content_hash}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def readable(config: Config, dataset: str, z_dim: int) -> str:
    """The part of a folder's name that a person reads; it need not be unique."""

    def number(x: float) -> str:
        return f"{x:.6g}"

    beta = number(config.beta.value) + {"constant": "", "warmup": "w", "cyclical": "c"}[config.beta.kind]
    parts = [dataset, config.model.kind, f"z{z_dim}", f"b{beta}"]
    if config.objective.kind == "per_dim":
        parts.append("per_dim")
    else:
        parts.append(f"x{number(config.x_var.value)}" + ("l" if config.x_var.kind == "learned" else ""))
    repeat = config.label_repeat.value if config.label_repeat.kind == "fixed" else "match"
    parts.append("none" if config.label_placement.kind == "none" else f"{config.label_placement.kind}{repeat}")
    return "-".join([*parts, f"s{config.seed}"])


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, even when the process or the machine dies in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=True) + "\n").encode())


class RunFolder:
    """One run's folder.

    Args:
        path: outputs/runs/<readable>-<fingerprint>.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    def result(self) -> dict[str, Any] | None:
        """The final numbers, or None while the run is not finished; a file that is damaged is none."""
        return self._json("result.json")

    def failure(self) -> dict[str, Any] | None:
        """Why the last attempt failed, or None."""
        return self._json("failed.json")

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Holds the run for this process; gives False at once if another one has it.

        The lock is the kernel's, on the folder itself, so it ends with the process however that dies.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            for leftover in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink()
            yield True
        finally:
            os.close(descriptor)

    def log(self, line: str) -> None:
        with open(self.path / "run.log", "a") as f:
            f.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def write(self, name: str, data: bytes | str | dict[str, Any]) -> None:
        """Writes one of the run's files whole or not at all; a dictionary becomes JSON."""
        if isinstance(data, dict):
            write_json(self.path / name, data)
        else:
            write_atomic(self.path / name, data.encode() if isinstance(data, str) else data)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint, keeping the one before."""
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        current = self.path / "checkpoint.pt"
        if current.exists():
            os.replace(current, self.path / "checkpoint.previous.pt")
        write_atomic(current, CHECKPOINT_MAGIC + hashlib.sha256(payload).digest() + payload)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest sound checkpoint, or None; a damaged one is reported in the log and passed over."""
        import torch

        for name in ("checkpoint.pt", "checkpoint.previous.pt"):
            try:
                data = (self.path / name).read_bytes()
            except FileNotFoundError:
                continue
            head = len(CHECKPOINT_MAGIC) + 32
            payload = data[head:]
            if data[:head] == CHECKPOINT_MAGIC + hashlib.sha256(payload).digest():
                with contextlib.suppress(pickle.UnpicklingError, RuntimeError):  # a sound file of something else
                    return torch.load(io.BytesIO(payload), weights_only=True)
            self.log(f"{name} is damaged and was not used")
        return None

    def drop_checkpoints(self) -> None:
        for name in ("checkpoint.pt", "checkpoint.previous.pt", "failed.json"):
            (self.path / name).unlink(missing_ok=True)


def runs_dir(output_dir: str | Path) -> Path:
    return Path(output_dir) / "runs"


def all_runs(output_dir: str | Path) -> list[RunFolder]:
    """Every run folder, by name."""
    folder = runs_dir(output_dir)
    return [RunFolder(p) for p in sorted(folder.iterdir()) if p.is_dir()] if folder.is_dir() else []
