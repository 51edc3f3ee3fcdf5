"""One progress display for a whole sweep: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


def duration(seconds: float) -> str:
    """45 s, 3:05 min, 2:10 h."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60}:{s % 60:02} min" if s < 3600 else f"{s // 3600}:{s % 3600 // 60:02} h"


class Progress:
    """Counts runs and images, and shows them.

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
        self.position = ""
        self.started = self.shown = time.monotonic()

    def stack(self, n_runs: int, epoch: int, epochs: int) -> None:
        """The stack now in training and its epoch."""
        self.position = f"stack of {n_runs}, epoch {epoch}/{epochs}" if n_runs > 1 else f"epoch {epoch}/{epochs}"

    def tick(self, images: int) -> None:
        """So many more images were seen."""
        self.seen += images
        now = time.monotonic()
        if now - self.shown >= self.every:
            self.shown = now
            self._show()

    def _show(self) -> None:
        elapsed = time.monotonic() - self.started
        rate = self.seen / elapsed if elapsed else 0.0
        left = (self.n_images - self.seen) / rate if rate else 0.0
        share = min(self.seen / self.n_images, 1.0)
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share)) + " " if self.live else ""
        text = (
            f"{bar}{share:4.0%} · {self.done}/{self.n_runs} runs · {self.position} · {rate:,.0f} images/s · "
            f"{duration(left)} left"
        )
        self.stream.write(f"\r{text}\x1b[K" if self.live else text + "\n")
        self.stream.flush()

    def note(self, line: str) -> None:
        """A line that stays."""
        self.stream.write(f"\r\x1b[K{line}\n" if self.live else line + "\n")
        self.stream.flush()

    def close(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
