"""Names damaged files on stderr: whoever reads one says so, and goes on without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_listeners: list[dict[str, None]] = []


@contextmanager
def damage_named(command: str) -> Iterator[Mapping[str, None]]:
    """Names on stderr, once and in one line, each damaged file that is met in the meantime.

    Args:
        command: what the lines begin with.

    Yields:
        The lines so far.
    """
    found = _Named(command)
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)


class _Named(dict[str, None]):
    """The lines of `damage_named`; a new one is printed."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    def __setitem__(self, line: str, value: None) -> None:
        if line not in self:
            print(f"{self.command}: {line}", file=sys.stderr)
        super().__setitem__(line, value)


def damaged(problem: object) -> None:
    """Tells the innermost `damage_named` of a damaged file, in a line that begins with its path."""
    if _listeners:
        _listeners[-1][str(problem)] = None
