"""Ctrl-C: one line and status 130, whenever it comes. Imports nothing that takes time.

Until the settings are checked there is nothing to finish, so the program ends at once. Later on KeyboardInterrupt is
raised, or the training's own handler is called, and what is being written is finished first; if that takes long, a
line says so.
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
PATIENCE = 1.5  # seconds before a line says what is being waited for


def at_once(command: str) -> None:
    """From now on Ctrl-C ends the process."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), f"{command}: {LINE}\n".encode())
        os._exit(STATUS)

    signal.signal(signal.SIGINT, leave)


@contextlib.contextmanager
def after_writing(command: str) -> Iterator[None]:
    """Meanwhile Ctrl-C lets what is being written be finished; says so if that takes long.

    Only the main thread may call it; in any other it does nothing.
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
                "(Ctrl-C again: at once)",
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
