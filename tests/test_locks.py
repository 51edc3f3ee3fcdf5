"""Locks on runs: exclusive between processes and threads, and gone with their process."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from experiments.store import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from experiments.store import RunFolder
with RunFolder(Path(sys.argv[1])).locked() as held:
    print(held, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path):
    path = tmp_path / "runs" / "run"
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
    with RunFolder(path).locked() as held:
        assert held


def test_a_lock_is_exclusive_within_a_process_too(tmp_path: Path):
    runs = [RunFolder(tmp_path / "runs" / name) for name in ("a", "b")]
    with runs[0].locked() as first, runs[1].locked() as other, runs[0].locked() as again:
        assert (first, other, again) == (True, True, False)
    with runs[0].locked() as held:
        assert held


def test_letting_go_of_one_lock_keeps_the_others(tmp_path: Path):
    kept, dropped = (RunFolder(tmp_path / "runs" / name) for name in ("kept", "dropped"))
    ask = [sys.executable, "-c", HOLD.replace("time.sleep(60)", ""), str(kept.path)]
    with kept.locked():
        with dropped.locked():
            pass
        assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "False\n"
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "True\n"


def test_any_number_of_locks_takes_one_descriptor(tmp_path: Path):
    def n_open() -> int:
        return len(os.listdir("/dev/fd"))

    before = n_open()
    with contextlib.ExitStack() as locks:
        held = [locks.enter_context(RunFolder(tmp_path / "runs" / str(i)).locked()) for i in range(300)]
        assert all(held)
        assert n_open() == before + 1
    assert n_open() == before
