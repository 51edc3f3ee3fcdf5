"""Run folders, and the only writer of files.

    outputs/runs/<readable>-<fingerprint>/
        config.yaml           the settings
        .hydra/               the same as Hydra composed it, with its overrides
        provenance.json       command, versions, git commit, device, threads, times: what must not change the numbers
        history.csv           one row per epoch
        run.log               what happened, with times
        checkpoint.pt         where an unfinished run continues; checkpoint.previous.pt is the one before
        failed.json           why the last attempt failed (removed once one succeeds)
        model.safetensors     the trained parameters
        result.json           how training ended, written last: if it is there, the run is trained
        metrics/, *.npz, *.png    what experiments.evaluate computed from the model; may be deleted and recomputed

Every file is written whole or not at all. What training wrote is never changed after result.json.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from experiments.locks import locked
from vae.config import ConfigError

RESULT_VERSION = 2  # of a run's result.json
MANIFEST_VERSION = 2  # of a report's sweep.json


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


def finite(value: Any) -> Any:
    """The value with every float that is not finite as None, inside lists, tuples and dictionaries too."""
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Writes a value as JSON, whole or not at all; NaN and infinities become null."""
    text = json.dumps(finite(value), indent=1, allow_nan=False, sort_keys=sort_keys)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read; the message is one line that names the file.
    """
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such file") from None
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(e).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: cannot be read (not a JSON object)")
    return content


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
        """How training ended, or None while it has not: a damaged result.json counts as none."""
        result = self.read("result.json")
        return result if result and result.get("schema_version") == RESULT_VERSION else None

    def failure(self) -> dict[str, Any] | None:
        """Why the last attempt failed (`reason`, `traceback`, `time`), or None."""
        return self.read("failed.json")

    def status(self) -> str:
        """How training stands: ok, diverged, failed or missing (not finished)."""
        if (result := self.result()) is not None:
            return result["status"]
        return "failed" if self.failure() is not None else "missing"

    def read(self, name: str) -> dict[str, Any] | None:
        """The object in one of the folder's JSON files, or None where there is none or it is damaged."""
        try:
            return read_json(self.path / name)
        except (FileNotFoundError, ValueError):
            return None

    def locked(self) -> AbstractContextManager[bool]:
        """Holds the run for this process and thread; yields False at once if someone else has it."""
        return locked(self.path.parent, self.name)

    def log(self, line: str) -> None:
        with open(self.path / "run.log", "a") as f:
            f.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def write(self, name: str, data: bytes | str | Mapping[str, Any]) -> None:
        """Writes one of the run's files whole or not at all; a mapping becomes JSON."""
        if isinstance(data, Mapping):
            write_json(self.path / name, data)
        else:
            write_atomic(self.path / name, data.encode() if isinstance(data, str) else data)

    def remove_leftovers(self) -> None:
        """Removes temporary files of a process that was killed while it wrote; only for the holder of the lock."""
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink()


def runs_dir(output_dir: str | Path) -> Path:
    return Path(output_dir) / "runs"


def reports_dir(output_dir: str | Path) -> Path:
    return Path(output_dir) / "reports"


def all_runs(output_dir: str | Path) -> list[RunFolder]:
    """Every run folder, by name."""
    folder = runs_dir(output_dir)
    return [RunFolder(p) for p in sorted(folder.iterdir()) if p.is_dir()] if folder.is_dir() else []


def prepare_output(output_dir: str | Path) -> None:
    """Makes the folder of the runs.

    Raises:
        ConfigError: if nothing can be written there.
    """
    folder = runs_dir(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise ConfigError(
            f"output_dir={output_dir}: cannot be written to ({e.strerror}); allowed: a folder of yours"
        ) from None
