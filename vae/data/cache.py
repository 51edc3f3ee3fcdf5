"""Files that save computing something again. They may be deleted at any time; a damaged one is written again.

`store` is the only function of vae/ that writes a cache file: the judge (vae/metrics) uses it too.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

log = logging.getLogger(__name__)


def store(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replaces a cache file as a whole, never half of it. If that is impossible, the log says so and nothing is cached.

    Args:
        path: its folder is made if needed.
        write: is given the open file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        log.info("not cached: %s", error)


def arrays(path: Path, key: object, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `compute` returns, from the .npz file at `path` if that is whole and was written under the same key.

    Args:
        key: everything that the arrays depend on; compared by its repr.
    """
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    try:
        with np.load(path, allow_pickle=False) as stored:
            if stored["key"].item() == digest:
                return {name: stored[name] for name in stored.files if name != "key"}  # checked by zip's checksums
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file makes numpy and zipfile fail in many ways
        log.warning("%s is damaged and is written again (%s)", path, " ".join(str(error).split()))
    computed = compute()
    content: dict[str, Any] = computed | {"key": np.array(digest)}
    store(path, lambda file: np.savez(file, **content))
    return computed
