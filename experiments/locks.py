"""Locks on runs: one file for all runs of a folder, in which each run is one byte.

A process needs a single descriptor for any number of locks. The locks are the kernel's and end with the process,
however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"

_guard = threading.Lock()
_held: dict[Path, tuple[int, set[str]]] = {}  # what this process holds: descriptor and names, by folder


def _byte(name: str) -> int:
    """The place of a name in the lock file, which stays empty: a lock can lie beyond the end."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:7], "big")


def _acquire(folder: Path, name: str) -> bool:
    with _guard:
        if folder in _held:
            descriptor, names = _held[folder]
            if name in names:  # the kernel's locks do not exclude threads of one process
                return False
        else:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, names = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), set()
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(name))
        except OSError as e:
            if not names:
                os.close(descriptor)
            if isinstance(e, BlockingIOError | PermissionError):  # POSIX allows both for "another process has it"
                return False
            raise
        names.add(name)
        _held[folder] = descriptor, names
        return True


def _release(folder: Path, name: str) -> None:
    with _guard:
        descriptor, names = _held[folder]
        names.remove(name)
        if names:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, _byte(name))
        else:  # closing any descriptor of the file ends all of the process's locks, so only the last one closes it
            del _held[folder]
            os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[bool]:
    """Holds the lock of a name in a folder; yields False at once if someone else, also in this process, has it.

    Raises:
        OSError: if the lock file cannot be made or the file system has no locks.
    """
    folder = folder.resolve()
    held = _acquire(folder, name)
    try:
        yield held
    finally:
        if held:
            _release(folder, name)
