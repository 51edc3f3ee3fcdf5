"""Random generators that depend on a run's seed and on what the numbers are for, and on nothing else."""

from __future__ import annotations

import hashlib

import torch


def seed_of(seed: int, purpose: str) -> int:
    """A seed of 63 bits for one purpose of a run, such as "init" or "train 3/0"."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose of a run."""
    return torch.Generator(device=device).manual_seed(seed_of(seed, purpose))
