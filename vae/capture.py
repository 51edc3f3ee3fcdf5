"""A function of tensors captured as a CUDA graph: the same work, started by one call instead of a hundred.

The pattern is that of PyTorch's notes on CUDA graphs, "whole-network capture": some calls on a side stream to warm up,
one that is recorded, and replays of it with new values copied into its input tensors.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WARM_UP = 3  # calls before the recorded one, in which libraries choose their kernels and optimizers make their state


def eagerly(function: Callable[..., None], fixed: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
    """Calls function(*fixed, *inputs)."""
    function(*fixed, *inputs)


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device: libraries keep memory for each stream, 130 MB on an H200."""
    return torch.cuda.Stream(device)


class CudaGraphs:
    """How a function is warmed up and recorded on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.stream = side_stream(device)
        # The graphs run one after the other and leave nothing behind in it, so that they can share one memory.
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], None]) -> None:
        """Calls the function on the stream of the capture: libraries have a state for each stream."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            function()
        current.wait_stream(self.stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Records what the function starts, without running it, and returns what runs it."""
        graph = torch.cuda.CUDAGraph()
        # The outer `with` brings the stream back also where a capture fails as it begins.
        with torch.cuda.stream(self.stream), torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            function()
        return graph.replay


class Captured:
    """Calls a function as `eagerly` does, but through a graph for each shape of its inputs.

    The function must do the same work on the same memory each time: it draws no random numbers, brings no value to the
    host, and has its effect on tensors that stay where they are. Every call counts, those to warm up too. Where a
    function cannot be captured it is called eagerly, and the log says so once.
    """

    def __init__(self, graphs: CudaGraphs) -> None:
        self.graphs = graphs
        self.recorded: dict[Hashable, tuple[Callable[[], None], tuple[Tensor, ...]]] = {}
        self.calls: Counter[Hashable] = Counter()
        self.works = True

    def __call__(self, function: Callable[..., None], fixed: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
        """Calls function(*fixed, *inputs).

        Args:
            function: the same, or one that does the same, in every call.
            fixed: tensors that are read where they lie.
            inputs: tensors whose values are other ones in each call.
        """
        key = (*(t.data_ptr() for t in fixed), *(t.shape for t in inputs))
        if self.works and key not in self.recorded and self.calls[key] >= WARM_UP:
            self._record(key, function, fixed, inputs)
        self.calls[key] += 1
        if key not in self.recorded:
            self.graphs.warm_up(lambda: function(*fixed, *inputs))
            return
        replay, places = self.recorded[key]
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value)
        replay()

    def _record(
        self, key: Hashable, function: Callable[..., None], fixed: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
    ) -> None:
        places = tuple(t.clone() for t in inputs)
        try:
            self.recorded[key] = self.graphs.record(lambda: function(*fixed, *places)), places
        except RuntimeError as e:  # what CUDA refuses, and too little memory
            self.works = False
            log.warning("training continues without CUDA graphs: %s", " ".join(str(e).split()))
