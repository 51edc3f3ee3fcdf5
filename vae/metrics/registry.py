"""What is measured from a trained model: one entry per number, one function per group of numbers.

A module of this package holds a family: its declarations and the functions that compute them. To add a metric, write a
function of a `Subject` in one of these modules, or in a new one, and decorate it:

    similarity = Family("similarity", version=1)

    @similarity.computes(Metric("test_psnr", "dB", "peak signal-to-noise ratio of ...", "higher", "PSNR (dB)"))
    def psnr(subject: Subject) -> float:
        import torch
        ...

A new module is found by itself. Modules import torch inside their functions only, so that reports can read the
declarations without it. Raise a family's version when its numbers change or a metric joins it: whatever was computed
with another version is computed again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from vae.config import Config
    from vae.data import Facts, ImageData
    from vae.trained import TrainedVAE

P = ParamSpec("P")
T = TypeVar("T")
Function = Callable[["Subject"], Any]

SPLITS = {"train": "training", "val": "validation", "test": "held-out"}  # prefix of a column: which images


@dataclass(frozen=True)
class Metric:
    """The declaration of one number of a run.

    Attributes:
        name: of the column.
        unit: "nats", "dB" and the like; "" for a plain number.
        meaning: one line.
        direction: which values are better, `lower` or `higher`; "" where neither is.
        heading: short, for tables; the name if not given.
        family: name of the family; filled in by `Family.computes`.
    """

    name: str
    unit: str
    meaning: str
    direction: str = ""
    heading: str = ""
    family: str = ""


@dataclass(frozen=True, eq=False)
class Result:
    """What a family computes for one run.

    Attributes:
        values: by the names of metrics; a number, a text, a list of numbers or None, where it does not apply.
        arrays: by the names in the family's npz file.
        images: drawn from the arrays, by the names of their PNG files without the suffix.
    """

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model and what it is measured on, all on the CPU.

    Attributes:
        model: the trained model.
        data: the images that it was trained with.
        config: its settings.
        facts: of `data`.
        cache: folder for what is computed once per dataset.
        results: of functions decorated with `shared`.
    """

    model: TrainedVAE
    data: ImageData
    config: Config
    facts: Facts
    cache: Path
    results: dict[Any, Any] = field(default_factory=dict)

    def images(self, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) uint8 and labels (N,) of `train`, `val` or `test`."""
        return getattr(self.data, f"{split}_x"), getattr(self.data, f"{split}_y")

    def splits(self) -> list[str]:
        """The splits that have images."""
        return [split for split in SPLITS if len(self.images(split)[0])]


def shared(function: Callable[Concatenate[Subject, P], T]) -> Callable[Concatenate[Subject, P], T]:
    """Decorates a function of a subject that several metrics need: it is computed once for each subject."""

    @functools.wraps(function)
    def once(subject: Subject, *args: P.args, **kwargs: P.kwargs) -> T:
        key = function, args, tuple(kwargs.items())
        if key not in subject.results:
            subject.results[key] = function(subject, *args, **kwargs)
        return subject.results[key]

    return once


FAMILIES: dict[str, Family] = {}
METRICS: dict[str, Metric] = {}  # by the name of the column


class Family:
    """Metrics that are computed, stored and versioned together.

    Args:
        name: of the family, and of its file.
        version: raised when its numbers change.
        arrays: whether it has arrays and images besides values.
        on_request: whether it is computed only where it is asked for by name.

    Raises:
        ValueError: if there is a family of that name already.
    """

    def __init__(self, name: str, version: int, *, arrays: bool = False, on_request: bool = False) -> None:
        if name in FAMILIES:
            raise ValueError(f"there is a family {name!r} already")
        self.name, self.version, self.arrays, self.on_request = name, version, arrays, on_request
        self.functions: list[tuple[tuple[str, ...], Function]] = []
        FAMILIES[name] = self

    def computes(self, *metrics: Metric) -> Callable[[Function], Function]:
        """Decorates the function that computes these metrics.

        It returns the value of its only metric, a dictionary of values by name, or a `Result`. A metric that does not
        apply to a run is None or left out.

        Raises:
            ValueError: if a metric of that name is declared already.
        """
        for metric in metrics:
            if metric.name in METRICS:
                raise ValueError(f"metric {metric.name!r} is declared twice")
            heading = metric.heading or metric.name
            METRICS[metric.name] = dataclasses.replace(metric, heading=heading, family=self.name)

        def register(function: Function) -> Function:
            self.functions.append((tuple(metric.name for metric in metrics), function))
            return function

        return register


def each_split(*metrics: Metric) -> list[Metric]:
    """The same metrics on training, validation and held-out images, with the prefixes of SPLITS."""
    return [
        dataclasses.replace(
            metric,
            name=f"{split}_{metric.name}",
            meaning=f"{metric.meaning}; {images} images",
            heading=metric.heading if split == "test" else f"{metric.heading}, {images}",
        )
        for split, images in SPLITS.items()
        for metric in metrics
    ]


def compute(family: str, subject: Subject) -> Result:
    """All that a family says about a trained model. The same subject gives the same result, to the last bit.

    Raises:
        KeyError: if there is no such family.
        Exception: whatever one of its functions raises.
    """
    import torch

    total = Result()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the last digits depend on the number of threads
    try:
        with torch.no_grad():
            for names, function in FAMILIES[family].functions:
                returned = function(subject)
                if not isinstance(returned, Result):
                    returned = Result(returned if isinstance(returned, dict) else {names[0]: returned})
                undeclared = returned.values.keys() - set(names)
                assert not undeclared, f"{family} has no metrics {sorted(undeclared)}"
                total.values.update(returned.values)
                total.arrays.update(returned.arrays)
                total.images.update(returned.images)
    finally:
        torch.set_num_threads(threads)
    return total
