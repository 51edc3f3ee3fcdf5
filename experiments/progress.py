"""How far a long command is, on stderr: a live line on a terminal, a plain line now and then elsewhere."""

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


class Display:
    """Shows one line that changes; several threads may use it.

    Args:
        stream: where to show it.
        every: seconds between plain lines if the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 15.0) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every = 0.2 if self.live else every
        self.lock = threading.RLock()
        self.shown = time.monotonic()
        self.origin: tuple[float, float] | None = None  # time and share after the first step

    def pace(self, share: float) -> float:
        """The share that is done per second since the end of the first step; until then 0."""
        now = time.monotonic()
        if self.origin is None:
            self.origin = now, share
        begun, first = self.origin
        return (share - first) / (now - begun) if now > begun else 0.0

    def show(self, share: float, text: str) -> None:
        """Shows the share that is done and a text, unless it is too soon after the last time."""
        with self.lock:
            share = min(share, 1.0)
            pace, now = self.pace(share) if share else 0.0, time.monotonic()
            if now - self.shown < self.every:
                return
            self.shown = now
            left = f" · {duration((1 - share) / pace)} left" if pace else ""
            bar = "█" * round(20 * share) + "·" * (20 - round(20 * share)) + " " if self.live else ""
            line = f"{bar}{share:4.0%} · {text}{left}"
            self.stream.write(f"\r{line}\x1b[K" if self.live else line + "\n")
            self.stream.flush()

    def note(self, line: str) -> None:
        """A line that stays."""
        with self.lock:
            self.stream.write(f"\r\x1b[K{line}\n" if self.live else line + "\n")
            self.stream.flush()

    def close(self) -> None:
        """Removes the live line."""
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


class Steps(Display):
    """Counts the equal steps of a command.

    Args:
        what: for example "runs evaluated".
        n: the number of steps.
    """

    def __init__(self, what: str, n: int, stream: TextIO | None = None, every: float = 15.0) -> None:
        super().__init__(stream, every)
        self.what, self.n, self.done = what, n, 0
        if self.live:  # the first step can take long
            self.shown -= self.every
            self.show(0.0, f"0/{n} {what}")

    def step(self) -> None:
        """One more step is done."""
        with self.lock:
            self.done += 1
            self.show(self.done / self.n, f"{self.done}/{self.n} {self.what}")


class Progress(Display):
    """Counts runs and images of a sweep.

    Args:
        n_runs: of the sweep, including those finished before.
        n_images: images to be seen in training over all runs that are left.
    """

    def __init__(self, n_runs: int, n_images: int, stream: TextIO | None = None, every: float = 15.0) -> None:
        super().__init__(stream, every)
        self.n_runs, self.n_images = n_runs, max(n_images, 1)
        self.done = 0
        self.seen = 0
        self.positions: dict[int, tuple[int, int, int]] = {}  # of each thread that trains: runs, epoch, epochs

    def stack(self, n_runs: int, epoch: int, epochs: int) -> None:
        """The stack that this thread now trains, and its epoch."""
        with self.lock:
            self.positions[threading.get_ident()] = (n_runs, epoch, epochs)

    def ended(self, n_runs: int) -> None:
        """This thread's stack is done, and with it this number of runs."""
        with self.lock:
            self.done += n_runs
            self.positions.pop(threading.get_ident(), None)

    def tick(self, images: int) -> None:
        """So many more images were seen."""
        with self.lock:
            self.seen += images
            share = self.seen / self.n_images
            rate = self.pace(share) * self.n_images
            speed = f" · {rate:,.0f} images/s" if rate else ""
            self.show(share, f"{self.done}/{self.n_runs} runs · {self._position()}{speed}")

    def _position(self) -> str:
        positions = list(self.positions.values())
        n_runs = sum(n for n, _, _ in positions)
        _, epoch, epochs = min(positions, key=lambda p: p[1] / p[2], default=(0, 0, 0))
        where = f"epoch {epoch}/{epochs}"
        if len(positions) > 1:
            return f"{len(positions)} stacks, {n_runs} runs in all, {where}"
        return f"stack of {n_runs}, {where}" if n_runs > 1 else where
