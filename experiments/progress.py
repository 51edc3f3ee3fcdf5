"""One progress display for a whole sweep: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO


def duration(seconds: float) -> str:
    """45 s, 3:05 min, 2:10 h."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60}:{s % 60:02} min" if s < 3600 else f"{s // 3600}:{s % 3600 // 60:02} h"


class Progress:
    """Counts runs and images, and shows them; several threads may count.

    Args:
        n_runs: of the sweep, those finished before included.
        n_images: images to be seen in training over all runs that are left.
        stream: where to show it.
        every: seconds between plain lines where the stream is no terminal.
    """

    def __init__(self, n_runs: int, n_images: int, stream: TextIO | None = None, every: float = 15.0) -> None:
        self.n_runs, self.n_images = n_runs, max(n_images, 1)
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every = 0.2 if self.live else every
        self.done = 0
        self.seen = 0
        self.positions: dict[int, tuple[int, int, int]] = {}  # of each thread that trains: runs, epoch, epochs
        self.lock = threading.RLock()
        self.started = self.shown = time.monotonic()

    def stack(self, n_runs: int, epoch: int, epochs: int) -> None:
        """The stack that this thread now trains, and its epoch."""
        with self.lock:
            self.positions[threading.get_ident()] = (n_runs, epoch, epochs)

    def ended(self, n_runs: int) -> None:
        """This thread's stack is done, and so many runs with it."""
        with self.lock:
            self.done += n_runs
            self.positions.pop(threading.get_ident(), None)

    def tick(self, images: int) -> None:
        """So many more images were seen."""
        with self.lock:
            self.seen += images
            now = time.monotonic()
            if now - self.shown >= self.every:
                self.shown = now
                self._show()

    def _position(self) -> str:
        positions = list(self.positions.values())
        n_runs = sum(n for n, _, _ in positions)
        _, epoch, epochs = min(positions, key=lambda p: p[1] / p[2], default=(0, 0, 0))
        where = f"epoch {epoch}/{epochs}"
        if len(positions) > 1:
            return f"{len(positions)} stacks of together {n_runs} runs, {where}"
        return f"stack of {n_runs}, {where}" if n_runs > 1 else where

    def _show(self) -> None:
        elapsed = time.monotonic() - self.started
        rate = self.seen / elapsed if elapsed else 0.0
        left = (self.n_images - self.seen) / rate if rate else 0.0
        share = min(self.seen / self.n_images, 1.0)
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share)) + " " if self.live else ""
        text = (
            f"{bar}{share:4.0%} · {self.done}/{self.n_runs} runs · {self._position()} · {rate:,.0f} images/s · "
            f"{duration(left)} left"
        )
        self.stream.write(f"\r{text}\x1b[K" if self.live else text + "\n")
        self.stream.flush()

    def note(self, line: str) -> None:
        """A line that stays."""
        with self.lock:
            self.stream.write(f"\r\x1b[K{line}\n" if self.live else line + "\n")
            self.stream.flush()

    def close(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
