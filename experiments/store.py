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

import csv
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from experiments import seal
from experiments.contents import Contents, Stamp, files_below, stamp_of
from experiments.damage import damaged
from experiments.locks import locked
from experiments.provenance import training_code
from vae.config import ConfigError

RESULT_VERSION = 2  # of a run's result.json
MANIFEST_VERSION = 2  # of a report's sweep.json


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Writes a file whole or not at all, even when the process or, if `durable`, the machine dies in between.

    Text becomes UTF-8; what is not text, as in the name of a file that is not UTF-8, becomes `?`.
    """
    data = data.encode(errors="replace") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            if durable:
                os.fsync(f.fileno())
        os.replace(temporary, path)
        if _contents is not None:
            for folder in path.parents[:2]:  # a run's own, or metrics/ in it
                _contents.forget(str(folder))
        if durable:
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


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file of `write_json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is not as it was written; the message is one line that names the file.
    """
    return _read(path, seal.unsealed_json)


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


def read_recorded(path: Path, record: Path) -> bytes | None:
    """A file whose checksum is in a JSON file, under `files`; None where there is none or it is damaged."""
    known = (read_sound(record) or {}).get("files", {}).get(path.name)
    if known is None:
        return None
    try:
        if digest(data := _read(path, bytes)) == known:
            return data
        damaged(f"{path}: damaged: it does not match its checksum in {record.name}")
    except (FileNotFoundError, ValueError) as e:
        damaged(e)
    return None


_contents: Contents | None = None  # in a snapshot


@contextmanager
def snapshot(output_dir: str | Path) -> Iterator[None]:
    """Takes each file of a run to be as it was when it was first looked at, unless this process writes it.

    So a command looks at each file of 10,000 runs once, however often it asks, and reads only what changed since the
    last command (experiments/contents.py).
    """
    global _contents
    if _contents is not None:
        yield
        return
    runs, path = runs_dir(output_dir), Path(output_dir) / ".cache" / "contents.json"
    try:
        _contents = Contents(str(runs), path.read_bytes() if path.exists() else None)
    except (OSError, ValueError) as e:
        damaged(f"{path}: {e}; all files are read again")
        with suppress(OSError):
            path.unlink()
        _contents = Contents(str(runs))
    try:
        yield
    finally:
        contents, _contents = _contents, None
        with suppress(OSError):  # a folder that is not there, or of somebody else
            if (cache := contents.cache()) is not None:
                path.parent.mkdir(exist_ok=True)
                write_atomic(path, cache, durable=False)


def _read(path: str | Path, parse: Callable[[bytes], Any]) -> Any:
    """What a file holds.

    Raises:
        As read_json.
    """
    path = str(path)
    try:
        return parse(_bytes(path))
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


def _unsealed(data: bytes) -> bytes:
    seal.check(data)
    return data


def _unsealed_yaml(data: bytes) -> dict[str, Any]:
    seal.check(data)
    return yaml.load(data, yaml.CSafeLoader)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
        path, result = f"{self.path}/result.json", self._content("result.json", seal.unsealed_json)
        if (version := result.get("schema_version")) != RESULT_VERSION:
            raise ValueError(f"{path}: has schema_version {version}, this program reads {RESULT_VERSION}")
        if (run := result.get("run")) != self.name:
            raise ValueError(f"{path}: is the result of another run, {run}")
        if result["model_sha256"] is not None:
            try:
                self._compare("model.safetensors", result["model_sha256"], "result.json")
            except FileNotFoundError as e:
                raise ValueError(e) from None
        return result

    def files(self) -> Mapping[str, Stamp | None]:
        """Size and time of each file, by its path in the folder; None for what is not a file."""
        return _contents.files(str(self.path)) if _contents else files_below(str(self.path))

    def _stamp(self, name: str) -> Stamp | None:
        return _contents.files(str(self.path)).get(name) if _contents else stamp_of(f"{self.path}/{name}")

    def _content(self, name: str, parse: Callable[[bytes], Any]) -> Any:
        """What one of the folder's files holds; not to be changed, as others may be given the same object.

        Raises:
            As read_json.
        """
        if _contents is None:
            return _read(f"{self.path}/{name}", parse)
        return _contents.of(str(self.path), name, lambda path: _read(path, parse))

    def _compare(self, name: str, known: str, record: str) -> None:
        """Compares a file with the checksum in a record that was written after it.

        Hashing the models of 10,000 runs would take a minute. A file that is older than its record is therefore taken
        to be the one that the record tells of; `load_run` hashes each model that it loads.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is another one; the message of both is one line that names the file.
        """
        file, written = self._stamp(name), self._stamp(record)
        if file is not None and written is not None and file[1] < written[1]:
            return
        try:
            found = self._content(name, digest)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path}/{name}: missing") from None
        if found != known:
            raise ValueError(
                f"{self.path}/{name}: damaged: it does not match its checksum in {os.path.basename(record)}"
            )

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
            return self._content(name, seal.unsealed_json)
        except FileNotFoundError:
            return None
        except ValueError as e:
            damaged(e)
            return None

    def sound(self, name: str, record: str) -> bool:
        """Whether a file is there and as one of the folder's JSON files tells in `files`."""
        content = self.result() if record == "result.json" else self.read(record)
        known = (content or {}).get("files", {}).get(name)
        if known is None:
            return False
        try:
            self._compare(name, known, record)
        except FileNotFoundError:
            return False
        except ValueError as e:
            damaged(e)
            return False
        return True

    def check(self) -> None:
        """Reads whatever has a checksum, so that `damage_named` names what is damaged."""
        names = sorted(self.files())
        for name in names:
            folder, _, file = name.rpartition("/")
            if folder in ("", "metrics") and file.endswith(".json") and name != "result.json":
                self.read(name)
        if "config.yaml" in names:
            try:
                self._content("config.yaml", seal.check)
            except ValueError as e:
                damaged(e)
        if self.result() is not None and not self.sound("history.csv", "result.json") and "history.csv" not in names:
            damaged(f"{self.path / 'history.csv'}: missing")
        for name in names:
            if name.endswith(".npz") and "/" not in name:
                self.sound(name, f"metrics/{name.removesuffix('.npz')}.json")

    def history(self) -> dict[str, list[float]]:
        """The columns of history.csv, one value per epoch, NaN where there is none; empty where the file is damaged."""
        if not self.sound("history.csv", "result.json"):
            return {}
        names, *rows = csv.reader(_bytes(f"{self.path}/history.csv").decode().splitlines())
        return {name: [float(v or "nan") for v in values] for name, *values in zip(names, *rows, strict=True)}

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
        history = (self.path / "history.csv").read_bytes()
        self.write("result.json", {**result, "files": {"history.csv": digest(history)}})

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
