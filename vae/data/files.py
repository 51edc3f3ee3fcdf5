"""The user's files: where they are, and what is said if they cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vae.config import ConfigError, Dataset


def root_of(config: Dataset) -> Path:
    """`dataset.root` as a path.

    Raises:
        ConfigError: it is not given.
    """
    if not config.root:
        raise ConfigError(f"dataset.root={config.root}: must be given; allowed: the place of dataset={config.kind}")
    return Path(config.root).expanduser()


@contextlib.contextmanager
def complaining(text: str) -> Iterator[None]:
    """Turns any exception inside into a ConfigError of one line: `text`, and the reason in brackets.

    Only for code of other packages that reads files or the network, which raises almost any type of exception.
    A ConfigError passes unchanged.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{text} ({reason})") from error
