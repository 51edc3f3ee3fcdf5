"""Run folders, the only writer of files, and the reader that says which of them are damaged.

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

Every file is written whole or not at all. What training wrote is never changed after result.json. Every file that is
read back has a checksum: config.yaml and the JSON files carry their own (experiments/seal.py), that of the model and
the history is in result.json, those of arrays are in metrics/. Whoever reads a damaged file goes on without it, and
`damage_named` names it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from errno import EISDIR
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import yaml

from experiments import seal
from experiments.locks import locked
from experiments.provenance import training_code
from vae.config import ConfigError

RESULT_VERSION = 2  # of a run's result.json
MANIFEST_VERSION = 2  # of a report's sweep.json


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all, even when the process or the machine dies in between.

    Text becomes UTF-8; what is not text, as in the name of a file that is not UTF-8, becomes `?`.
    """
    data = data.encode(errors="replace") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        if _seen is not None:
            _seen.pop(str(path), None)
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


def write_json(path: Path, value: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Writes an object as JSON with its checksum, whole or not at all; NaN and infinities become null."""
    write_atomic(path, seal.sealed_json(value, sort_keys=sort_keys))


# ---------------------------------------------------------------------------------------------- reading


_listeners: list[dict[str, None]] = []


@contextmanager
def damage_named(command: str) -> Iterator[Mapping[str, None]]:
    """Names on stderr, once and in one line, each damaged file that is met in the meantime.

    Args:
        command: what the lines begin with.

    Yields:
        The lines so far.
    """
    found = _Named(command)
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)


class _Named(dict[str, None]):
    """The lines of `damage_named`; a new one is printed."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    def __setitem__(self, line: str, value: None) -> None:
        if line not in self:
            print(f"{self.command}: {line}", file=sys.stderr)
        super().__setitem__(line, value)


def damaged(problem: object) -> None:
    """Tells the innermost `damage_named` of a damaged file, in a line that begins with its path."""
    if _listeners:
        _listeners[-1][str(problem)] = None


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file of `write_json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is not as it was written; the message is one line that names the file.
    """
    return dict(_read(path, seal.unsealed_json))


def read_sound(path: str | Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is none or it is damaged."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as e:
        damaged(e)
        return None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of `seal.sealed_text`; empty where there is none or it is damaged."""
    try:
        return _read(path, _unsealed_yaml)
    except FileNotFoundError:
        return {}
    except ValueError as e:
        damaged(e)
        return {}


def read_sealed(path: Path) -> bytes:
    """The content of a file that carries its checksum.

    Raises:
        As read_json.
    """
    return _read(path, _unsealed)


_seen: dict[str, dict[Hashable, Any]] | None = None  # in a snapshot: what was made of each file, by path and kind


@contextmanager
def snapshot() -> Iterator[None]:
    """Takes each file to be as it was when it was first read in the meantime, unless this process writes it.

    So a command reads each file of 10,000 runs once, however often it asks. What damage or absence makes of a file is
    not remembered.
    """
    global _seen
    outer, _seen = _seen, {} if _seen is None else _seen
    try:
        yield
    finally:
        _seen = outer


def _remembered(path: str, kind: Hashable, make: Callable[[], Any]) -> Any:
    """What is made of a file; in a snapshot it is made once."""
    if _seen is None:
        return make()
    known = _seen.setdefault(path, {})
    if kind not in known:
        known[kind] = make()
    return known[kind]


def _read(path: str | Path, parse: Callable[[bytes], Any]) -> Any:
    """What a file holds.

    Raises:
        As read_json.
    """
    path = str(path)
    if parse is _nothing and _seen is not None and _seen.get(path):
        return None  # it was read, so it is sound
    try:
        return _remembered(path, parse, lambda: parse(_bytes(path)))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as e:
        raise ValueError(f"{path}: cannot be read ({e.strerror})") from None
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def _bytes(path: str) -> bytes:
    """The content of a file; for the small ones of runs half the work of `open`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, 1 << 16)]
        while len(parts[-1]) == 1 << 16:
            parts.append(os.read(descriptor, 1 << 16))
    finally:
        os.close(descriptor)
    return b"".join(parts)


def _nothing(data: bytes) -> None:
    seal.check(data)


def _unsealed(data: bytes) -> bytes:
    seal.check(data)
    return data


def _unsealed_yaml(data: bytes) -> dict[str, Any]:
    seal.check(data)
    return yaml.load(data, yaml.CSafeLoader)


def check_file(path: str | Path, digest: str, record: str | Path) -> None:
    """Compares a file with the checksum in a record that was written after it.

    Hashing the models of 10,000 runs would take a minute. A file that is older than its record is therefore taken to be
    the one that the record tells of; `load_run` hashes each model that it loads.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another one; the message of both is one line that names the file.
    """
    try:
        stat = os.stat(path)
        if S_ISDIR(stat.st_mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        older = stat.st_mtime_ns < os.stat(record).st_mtime_ns
        if older or _digest(str(path), stat.st_mtime_ns, stat.st_size) == digest:
            return
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: missing") from None
    except OSError as e:
        raise ValueError(f"{path}: cannot be read ({e.strerror})") from None
    raise ValueError(f"{path}: damaged: it does not match its checksum in {os.path.basename(record)}")


@functools.lru_cache(maxsize=20_000)
def _digest(path: str, changed: int, size: int) -> str:
    """The SHA-256 of a file as it was at some time."""
    return hashlib.sha256(_bytes(path)).hexdigest()


# ---------------------------------------------------------------------------------------------- runs


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
        """How training ended, or None while it has not.

        A result that is damaged, or whose model is missing or damaged, counts as none.
        """
        try:
            return self.checked_result()
        except FileNotFoundError:
            return None
        except ValueError as e:
            damaged(f"{e}; the run counts as not finished")
            return None

    def checked_result(self) -> dict[str, Any]:
        """How training ended.

        Raises:
            FileNotFoundError: if it has not.
            ValueError: if the result or the model is damaged; the message is one line that names the file.
        """
        path = f"{self.path}/result.json"
        return _remembered(path, RunFolder, lambda: self._checked_result(path))

    def _checked_result(self, path: str) -> dict[str, Any]:
        result = read_json(path)
        if (version := result.get("schema_version")) != RESULT_VERSION:
            raise ValueError(f"{path}: has schema_version {version}, this program reads {RESULT_VERSION}")
        if (run := result.get("run")) != self.name:
            raise ValueError(f"{path}: is the result of another run, {run}")
        if result["model_sha256"] is not None:
            try:
                check_file(f"{self.path}/model.safetensors", result["model_sha256"], path)
            except FileNotFoundError as e:
                raise ValueError(e) from None
        return result

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
        return read_sound(f"{self.path}/{name}")

    def sound(self, name: str, record: str) -> bool:
        """Whether a file is there and as one of the folder's JSON files tells in `files`."""
        content = self.result() if record == "result.json" else self.read(record)
        digest = (content or {}).get("files", {}).get(name)
        if digest is None:
            return False
        try:
            check_file(f"{self.path}/{name}", digest, f"{self.path}/{record}")
        except FileNotFoundError:
            return False
        except ValueError as e:
            damaged(e)
            return False
        return True

    def check(self) -> None:
        """Reads whatever has a checksum, so that `damage_named` names what is damaged."""
        names = sorted(os.listdir(self.path))
        metrics = sorted(os.listdir(self.path / "metrics")) if "metrics" in names else []
        for name in (*names, *(f"metrics/{name}" for name in metrics)):
            if (name.endswith(".json") or name == "config.yaml") and name != "result.json":
                try:
                    shown = name == "provenance.json"  # reports and the page read it after this
                    _read(f"{self.path}/{name}", seal.unsealed_json if shown else _nothing)
                except ValueError as e:
                    damaged(e)
        if self.result() is not None and not self.sound("history.csv", "result.json") and "history.csv" not in names:
            damaged(f"{self.path / 'history.csv'}: missing")
        for name in (name for name in names if name.endswith(".npz")):
            self.sound(name, f"metrics/{name.removesuffix('.npz')}.json")

    def trained_by_other_code(self) -> bool:
        """Whether the run says that the modules that decide its numbers were others than the present ones."""
        return (self.read("provenance.json") or {}).get("training_code", training_code()) != training_code()

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
            write_atomic(self.path / name, data)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, last of all that training writes, with the checksum of the history."""
        history = hashlib.sha256((self.path / "history.csv").read_bytes()).hexdigest()
        self.write("result.json", {**result, "files": {"history.csv": history}})

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
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [RunFolder(folder / name) for name in sorted(entry.name for entry in entries if entry.is_dir())]


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
