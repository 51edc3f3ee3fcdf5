"""What the files of runs held when they were last read, so that a command reads only what is new.

Reading and verifying the files of 10,000 runs takes many times as long as looking at their sizes and times. What a file
held is kept in outputs/.cache/contents.json, and counts for as long as the file's size and the time of its last change
are the same. The cache may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from stat import S_ISREG
from typing import Any

from experiments import seal

Stamp = tuple[int, int]  # of a file: its size in bytes, and the time of its last change in ns since 1970
Held = dict[str, Any]  # what files hold, by name: with size and time
# In ns: what changed so recently may change again without another time, as the clocks of disks are coarse.
RECENT = 2 * 10**9


class Contents:
    """What the files of the runs in a folder hold. Each run's folder is looked at once.

    Args:
        runs: the folder of the runs.
        cache: the cache's file; None if there is none.

    Raises:
        ValueError: if the cache is damaged; the message says why.
    """

    def __init__(self, runs: str, cache: bytes | None = None) -> None:
        self._runs, self._begun = runs, time.time_ns()
        self._held: dict[str, Held] = {}  # by the run's name
        self._open: dict[str, tuple[dict[str, Stamp | None], Held, Held]] = {}  # files, `_held` and recent, by folder
        self._new = False
        if cache is not None:
            seal.check(cache)
            self._held = json.loads(cache[cache.index(b"\n") :])

    def files(self, folder: str) -> dict[str, Stamp | None]:
        """`files_below`, as they were when they were first looked at."""
        return self._opened(folder)[0]

    def _opened(self, folder: str) -> tuple[dict[str, Stamp | None], Held, Held]:
        if folder not in self._open:
            parent, run = os.path.split(folder)
            held = self._held.setdefault(run, {}) if parent == self._runs else {}
            self._open[folder] = files_below(folder), held, {}
        return self._open[folder]

    def forget(self, folder: str) -> None:
        """To be called after a file in the folder was written."""
        self._open.pop(folder, None)

    def of(self, folder: str, name: str, read: Callable[[str], Any]) -> Any:
        """What `read` makes of a file, given its path, now or when the file was last read. Errors are not kept."""
        files, held, recent = self._opened(folder)
        stamp = files.get(name)
        if stamp is None:
            return read(f"{folder}/{name}")
        known = recent.get(name) or held.get(name)
        if known is None or (known[0], known[1]) != stamp:
            known = (*stamp, read(f"{folder}/{name}"))
            if stamp[1] < self._begun - RECENT:
                held[name], self._new = known, True
            else:
                recent[name] = known
        return known[2]

    def cache(self) -> bytes | None:
        """The cache's file; None if it has not changed. Left out are removed runs and what changed recently."""
        if not self._new:
            return None
        there = set(os.listdir(self._runs))
        kept = {run: held for run, held in self._held.items() if run in there}
        return seal.sealed_text(json.dumps(kept, separators=(",", ":")))


def files_below(folder: str) -> dict[str, Stamp | None]:
    """Each file in a folder and the folders in it, by its relative path; None for whatever is not a file."""
    found: dict[str, Stamp | None] = {}
    waiting = [""]
    while waiting:
        within = waiting.pop()
        with suppress(OSError), os.scandir(f"{folder}/{within}") as entries:
            for entry in entries:
                found[within + entry.name] = stamp_of(entry)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{within}{entry.name}/")
    return found


def stamp_of(file: str | os.DirEntry[str]) -> Stamp | None:
    """Size and time of a file; None where there is none."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns) if S_ISREG(stat.st_mode) else None
