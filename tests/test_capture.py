"""Captured steps: on the CPU with a tape in the graph's place, and where there is a GPU the graphs themselves."""

import gc
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import tiny_config
from tests.models import new_stack
from tests.test_train import fit, never, varied
from vae import capture
from vae.capture import WARM_UP, Captured, CudaGraphs, eagerly
from vae.config import Config, XVar
from vae.data import ImageData
from vae.model import resolve
from vae.stack import Stack
from vae.train import diverged, train_epoch

STEPS = 5  # of an epoch of the toy data: four batches of 64 and one of 44


class Tape(TorchDispatchMode):
    """Writes down the operations that a function starts: as in a CUDA graph numbers are frozen, and memory is fixed.

    The function runs while it is written down, where a graph's does not, so that the first replay does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, tree_leaves(made)))
        return made

    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return
        with torch.no_grad():
            for func, args, kwargs, places in self.operations:
                for place, value in zip(places, tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                        place.copy_(value)


class Tapes(CudaGraphs):
    """Tapes for graphs."""

    def __init__(self) -> None:
        self.made: list[Tape] = []

    def warm_up(self, function: Callable[[], None]) -> None:
        function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        self.made.append(Tape())
        with self.made[-1]:
            function()
        return self.made[-1].replay


def taped(stack: Stack) -> tuple[Stack, Tapes]:
    tapes = Tapes()
    stack.call = Captured(tapes)
    return stack, tapes


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def assert_same(a: Stack, b: Stack) -> None:
    assert all(same(a.state(k), b.state(k)) for k in range(a.n_runs))


def configs_of(kind: str, epochs: int) -> list[Config]:
    """Runs of a stack, one with a warm-up of beta, with a learned x_var."""
    return varied(kind, trainer__epochs=epochs, x_var=XVar("learned", 0.3))


def test_what_is_frozen_and_what_is_not():
    """The tape and the calls: values of inputs and of memory are each call's own, a number of Python is the first's."""
    total, unit, number = torch.zeros(2), torch.ones(()), 1.0

    def add(x: Tensor, y: Tensor) -> None:
        total.add_(x * y * unit, alpha=number)

    call, x = Captured(tapes := Tapes()), torch.tensor([1.0, 2.0])
    for i in range(WARM_UP):
        call(add, (x,), (torch.tensor(float(i)),))
    assert not tapes.made
    for i in (10, 20):
        call(add, (x,), (torch.tensor(float(i)),))
    assert total.tolist() == [33.0, 66.0]
    unit.fill_(2)
    x[1] = 0
    number = 1000.0
    call(add, (x,), (torch.tensor(5.0),))
    assert total.tolist() == [43.0, 66.0]
    assert [t.replays for t in tapes.made] == [3]
    call(add, (x,), (torch.tensor([1.0, 1.0]),))
    call(add, (x.clone(),), (torch.tensor(1.0),))
    assert len(tapes.made) == 1, "another shape, and other memory, are warmed up anew"


@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
def test_replayed_steps_give_the_numbers_of_the_plain_loop(toy: ImageData, kind: str):
    configs = configs_of(kind, epochs=WARM_UP + 3)
    stack, tapes = taped(new_stack(toy, *configs))
    fit(stack, toy)
    whole, last = tapes.made
    assert whole.replays == (STEPS - 1) * configs[0].trainer.epochs - WARM_UP
    assert last.replays == configs[0].trainer.epochs - WARM_UP
    assert_same(stack, fit(new_stack(toy, *configs), toy))


@pytest.mark.parametrize("stop_after", [2, 4, 8, 15, 17])
def test_a_captured_stack_is_left_and_gone_on_from_anywhere(toy: ImageData, stop_after: int):
    configs = configs_of("mlp", epochs=5)
    stack, seen = taped(new_stack(toy, *configs))[0], []
    x = toy.train_x.flatten(1)

    def pause(n_images: int) -> bool:
        seen.append(n_images)
        return len(seen) == stop_after

    while len(seen) < stop_after:
        train_epoch(stack, x, toy.train_y, pause)
    assert (stack.epoch, stack.step) == divmod(stop_after, STEPS)
    resumed, tapes = taped(stack.select([1, 3]))
    eager = stack.select([1, 3])
    fit(resumed, toy)
    assert tapes.made, "what was captured of the whole stack is not used for a part of it"
    assert_same(resumed, fit(eager, toy))
    fit(stack, toy)  # the same stack goes on, too
    assert_same(stack, fit(new_stack(toy, *configs), toy))


def test_a_run_that_diverges_under_a_graph_leaves_its_siblings_as_they_are(toy: ImageData):
    good = [tiny_config(seed=s, trainer__epochs=5) for s in (0, 1)]
    bad = tiny_config(seed=2, trainer__epochs=5, beta__value=1e39)  # infinite in single precision
    stack, tapes = taped(new_stack(toy, good[0], bad, good[1]))
    x = toy.train_x.flatten(1)
    for _ in range(4):
        train_epoch(stack, x, toy.train_y, never)
    assert len(tapes.made) == 2
    assert diverged(stack) == [1]
    kept, without = fit(taped(stack.select([0, 2]))[0], toy), fit(new_stack(toy, *good), toy)
    for k in range(2):
        torch.testing.assert_close(kept.model_state(k), without.model_state(k), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("breaks", ["losses", "optimizer_step"])
def test_where_a_capture_fails_training_goes_on_without_and_says_so_once(
    toy: ImageData, caplog: pytest.LogCaptureFixture, breaks: str
):
    """Forward or backward is done by then, and nothing of it may be left: neither gradients nor sums."""
    configs = configs_of("mlp", epochs=5)
    stack, tapes = taped(new_stack(toy, *configs))

    class Refusing(Tapes):
        def record(self, function: Callable[[], None]) -> Callable[[], None]:
            def refused(*args: Any) -> None:
                raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(stack, breaks, refused)
                function()
            raise AssertionError

    stack.call = Captured(Refusing())
    with caplog.at_level(logging.WARNING):
        fit(stack, toy)
    assert [r.getMessage() for r in caplog.records] == [
        "training continues without CUDA graphs: CUDA error: operation not permitted when stream is capturing"
    ]
    assert not tapes.made
    assert_same(stack, fit(new_stack(toy, *configs), toy))


def test_a_mistake_in_the_step_is_no_failed_capture():
    mistakes = []

    def step(x: Tensor) -> None:
        if mistakes:
            raise ValueError("shapes differ")

    call, x = Captured(Tapes()), torch.zeros(1)
    for _ in range(WARM_UP):
        call(step, (), (x,))
    mistakes.append(1)
    with pytest.raises(ValueError, match="shapes differ"):
        call(step, (), (x,))


def test_streams_wait_for_each_other_as_the_notes_on_cuda_graphs_have_it(monkeypatch: pytest.MonkeyPatch):
    """Without a GPU: the order of the calls of torch.cuda, and that a failed capture brings the stream back."""
    done: list[str] = []

    class Stream:
        device = "cuda:0"

        def __init__(self, name: Any) -> None:
            self.name = "current" if name == "current" else "side"

        def wait_stream(self, other: "Stream") -> None:
            done.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def stream(side: Stream) -> Iterator[None]:
        done.append(f"on {side.name}")
        try:
            yield
        finally:
            done.append(f"off {side.name}")

    @contextmanager
    def graph(graph: Any, pool: Any, stream: Stream) -> Iterator[None]:
        done.append(f"capture on {stream.name} in {pool}")
        yield
        done.append("captured")

    class Graph:
        def replay(self) -> None:
            done.append("replay")

    fakes = {"Stream": Stream, "stream": stream, "graph": graph, "CUDAGraph": Graph}
    fakes |= {"graph_pool_handle": lambda: "pool", "current_stream": lambda device: Stream("current")}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(capture, "side_stream", Stream)
    graphs = CudaGraphs(torch.device("cuda"))
    graphs.warm_up(lambda: done.append("work"))
    assert done == ["side waits for current", "on side", "work", "off side", "current waits for side"]
    done.clear()
    graphs.record(lambda: done.append("work"))()
    assert done == ["on side", "capture on side in pool", "work", "captured", "off side", "replay"]
    done.clear()

    def refused() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        graphs.record(refused)
    assert done[-1] == "off side"


def test_a_dropped_stack_is_gone_at_once(toy: ImageData):
    """Nothing points back to it, so that its memory, and that of its graphs, is free for the next."""
    stack = fit(taped(new_stack(toy, tiny_config(trainer__epochs=5)))[0], toy)
    seen = weakref.ref(stack)
    gc.disable()
    try:
        del stack
        assert seen() is None
    finally:
        gc.enable()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def on_gpu(data: ImageData, configs: Sequence[Config]) -> tuple[Stack, Tensor, Tensor]:
    """A stack and the images on the GPU, with the precision of a sweep: by default, convolutions use TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda")
    archs = [resolve(config, data.image_shape, data.n_classes, []) for config in configs]
    return Stack(configs, archs, len(data.train_x), device), data.train_x.flatten(1).to(device), data.train_y.to(device)


@needs_gpu
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("kind", ["mlp", "conv", "resnet", "linear"])
def test_graphs_agree_with_eager_calls_on_a_gpu(toy: ImageData, kind: str, schedule: str):
    """Losses of every epoch within 1e-4 relative: the same kernels, but libraries may choose others for a graph."""
    configs = configs_of(kind, epochs=6)
    for c in configs:
        c.trainer.lr_schedule = schedule
    histories = []
    for eager in (False, True):
        stack, x, y = on_gpu(toy, configs)
        call = stack.call
        if eager:
            stack.call = eagerly
        while stack.epoch < 6:
            train_epoch(stack, x, y, never)
        histories.append([[row["train_loss"] for row in rows] for rows in stack.history])
        assert isinstance(call, Captured)
        assert call.works
        assert len(call.recorded) == (0 if eager else 2)
    torch.testing.assert_close(torch.tensor(histories[0]), torch.tensor(histories[1]), rtol=1e-4, atol=1e-4)


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_waits_for_the_gpu(toy: ImageData):
    """Neither those to warm up, nor replays: only a capture itself may, and the end of an epoch."""
    stack, x, y = on_gpu(toy, configs_of("mlp", epochs=8))
    steps = 0

    def pause(n_images: int) -> bool:
        nonlocal steps
        steps += 1
        capturing = steps == WARM_UP or stack.step == STEPS - 1  # the next step may be a capture
        waits = capturing or stack.step == STEPS
        torch.cuda.set_sync_debug_mode("default" if waits else "error")
        return False

    try:
        while stack.epoch < 8:
            train_epoch(stack, x, y, pause)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == 8 * STEPS


@needs_gpu
@pytest.mark.parametrize("kind", ["mlp", "conv", "resnet", "linear"])
def test_vmap_and_loop_agree_on_a_gpu(toy: ImageData, kind: str):
    """Parameters after 20 steps: 1e-5 of their size."""
    configs = configs_of(kind, epochs=4)

    def states(some: Sequence[Config]) -> list[Tensor]:
        stack, x, y = on_gpu(toy, some)
        while stack.epoch < 4:
            train_epoch(stack, x, y, never)
        return [torch.cat([v.flatten() for v in stack.model_state(k).values()]) for k in range(stack.n_runs)]

    for together, config in zip(states(configs), configs, strict=True):
        alone = states([config])[0]
        assert (together - alone).norm() / alone.norm() < 1e-5


@needs_gpu
def test_a_run_alone_agrees_with_itself_in_a_stack_on_a_gpu(toy: ImageData):
    """Losses of every epoch within 1e-3 relative: batched products of another number of runs round otherwise."""
    configs = [tiny_config(seed=s, trainer__epochs=6) for s in range(8)]

    def losses(some: Sequence[Config]) -> list[list[float]]:
        stack, x, y = on_gpu(toy, some)
        while stack.epoch < 6:
            train_epoch(stack, x, y, never)
        return [[row["train_loss"] for row in rows] for rows in stack.history]

    together, alone = losses(configs), [losses([c])[0] for c in configs]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), rtol=1e-3, atol=1e-3)


@needs_gpu
def test_a_stack_is_gone_with_its_graphs(toy: ImageData):
    """Nothing keeps a dropped stack: a sweep trains one after another in the same memory."""
    used = []
    for _ in range(3):
        stack, x, y = on_gpu(toy, configs_of("mlp", epochs=5))
        while stack.epoch < 5:
            train_epoch(stack, x, y, never)
        del stack
        torch.cuda.empty_cache()
        used.append(torch.cuda.memory_reserved())
    assert used[2] <= used[0]
