"""Ctrl-C ends the program with one line and status 130, at any time. Imports nothing that is slow to import.

Until the settings are checked, there is nothing to finish, so the program ends at once. After that, KeyboardInterrupt
is raised, or the handler of the training is called, and the program first finishes what it is writing. If that takes
long, it prints a line that says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

LINE = "stopped; the same command continues from here"
STATUS = 130
PATIENCE = 1.5  # seconds until a line says what the program is waiting for


def at_once(command: str) -> None:
    """From now on, Ctrl-C ends the process at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), f"{command}: {LINE}\n".encode())
        os._exit(STATUS)

    signal.signal(signal.SIGINT, leave)


@contextlib.contextmanager
def after_writing(command: str) -> Iterator[None]:
    """Inside this context, Ctrl-C first finishes what is being written, and says so if that takes long.

    It works only in the main thread; in any other thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    done = threading.Event()

    def wait() -> None:
        while signal.SIGINT not in (received := ours.recv(1)):
            if not received:
                return
        if not done.wait(PATIENCE):
            print(
                f"{command}: stopping; the checkpoint, evaluation or report in progress is finished first "
                "(press Ctrl-C again to stop at once)",
                file=sys.stderr,
            )

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    woken = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGINT, before)
        pythons.close()
        thread.join()
        ours.close()
