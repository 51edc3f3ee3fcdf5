"""Where an unfinished run continues: its state, written now and then, with a checksum and the state before."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import time
from collections.abc import Sequence
from typing import Any

import torch

from experiments.store import RunFolder, write_atomic
from vae.stack import Stack

MAGIC = b"VAECKPT1"
CURRENT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
SHARE = 0.02  # of the training time that writing checkpoints may take


def save(folder: RunFolder, state: dict[str, Any]) -> None:
    """Replaces the run's checkpoint, keeping the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    current = folder.path / CURRENT
    if current.exists():
        os.replace(current, folder.path / PREVIOUS)
    write_atomic(current, MAGIC + hashlib.sha256(payload).digest() + payload)


def load(folder: RunFolder) -> dict[str, Any] | None:
    """The newest sound checkpoint, or None; the log reports a damaged one."""
    for name in (CURRENT, PREVIOUS):
        try:
            data = (folder.path / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as e:
            folder.log(f"{name} cannot be read ({e.strerror}) and was ignored")
            continue
        head = len(MAGIC) + hashlib.sha256().digest_size
        payload = data[head:]
        if data[:head] == MAGIC + hashlib.sha256(payload).digest():
            with contextlib.suppress(pickle.UnpicklingError, RuntimeError, EOFError):  # a sound file of something else
                state = torch.load(io.BytesIO(payload), weights_only=True)
                if isinstance(state, dict) and state.keys() >= {"device", "epoch", "step"}:
                    return state
        folder.log(f"{name} is damaged and was ignored")
    return None


def drop(folder: RunFolder) -> None:
    """Removes what a finished run no longer needs: its checkpoints and the reason of an earlier failure."""
    for name in (CURRENT, PREVIOUS, "failed.json"):
        (folder.path / name).unlink(missing_ok=True)


class Checkpointer:
    """Says when a checkpoint is due, and writes those of a stack.

    Args:
        interval: seconds between checkpoints, longer where writing takes more than its share of the time. 0: one after
            each epoch.
    """

    def __init__(self, interval: float) -> None:
        self.interval, self.wait = interval, interval
        self.last = time.monotonic()

    def due_inside_epoch(self) -> bool:
        return self.interval > 0 and time.monotonic() - self.last > self.wait

    def due(self, epoch_ended: bool) -> bool:
        return self.due_inside_epoch() or (self.interval == 0 and epoch_ended)

    def write(self, folders: Sequence[RunFolder], stack: Stack) -> None:
        """Writes the state of each run of the stack into its folder."""
        begun = time.monotonic()
        for k, folder in enumerate(folders):
            save(folder, stack.state(k))
        self.last = time.monotonic()
        self.wait = max(self.interval, (self.last - begun) / SHARE)
