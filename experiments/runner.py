"""Trains a list of runs: finished ones are skipped, runs of one shape are stacked, and a failure stays with its run.

Used alike for one run (`python run.py`), by the stacked launcher for a sweep, and by each process of Hydra's other
launchers.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import torch

from experiments import loggers
from experiments.plan import Run
from experiments.progress import Progress
from experiments.stacking import phases, stacks
from experiments.store import prepare_output
from experiments.training import Interrupted, Outcome, Trainer

RETRY_SECONDS = 0.5  # between two looks at runs that another process is training


def execute(
    runs: Sequence[Run], progress: Progress, hydra_files: Sequence[Mapping[str, str] | None] | None = None
) -> list[Outcome]:
    """Trains what is not finished, stack by stack.

    Args:
        runs: of `plan`; the same run may be listed more than once.
        hydra_files: for each run, the files of its `.hydra/` by name, or None.

    Returns:
        How the training of each run ended, in the order of `runs`.

    Raises:
        ConfigError: if nothing can be written to the output folder.
        Interrupted: after SIGINT or SIGTERM, with a checkpoint of every run in training written.
    """
    prepare_output(runs[0].config.output_dir)
    unique = {run.folder.name: run for run in runs}
    files = {run.folder.name: f for run, f in zip(runs, hydra_files or [None] * len(runs), strict=True)}
    outcomes: dict[str, Outcome] = {}
    for name, run in unique.items():
        if (done := run.folder.result()) is not None:
            outcomes[name] = Outcome(run, done)
            loggers.record(run, progress.note)
    progress.done = len(outcomes)
    if other := [name for name in outcomes if unique[name].folder.trained_by_other_code()]:
        progress.note(
            f"{len(other)} of {len(unique)} runs were trained by other code than this, {other[0]} among them; "
            "to train them again, remove them: python -m experiments.runs prune --other-code"
        )
    waiting = [run for name, run in unique.items() if name not in outcomes]
    with _signals() as stopping:
        threads = runs[0].config.trainer.threads or torch.get_num_threads()
        announced = False
        while waiting:
            before = len(waiting)
            for workers, together in phases(waiting, threads):
                trainer = Trainer(progress, files, stopping, max(1, threads // workers))
                with ThreadPoolExecutor(workers) as pool:
                    for found in pool.map(trainer.train, stacks(together)):
                        outcomes |= {outcome.run.folder.name: outcome for outcome in found}
            waiting = [run for run in waiting if run.folder.name not in outcomes]
            if waiting and len(waiting) == before:  # another process has them
                if not announced:
                    progress.note(f"waiting for {len(waiting)} runs that another process is training")
                    announced = True
                time.sleep(RETRY_SECONDS)
                if stopping():
                    raise Interrupted
    progress.close()
    return [outcomes[run.folder.name] for run in runs]


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag; the second acts as it would without us."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for n, handler in before.items():
            signal.signal(n, handler)

    try:
        before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
