"""Trains stacks of runs, each from its first step or its checkpoint to result.json.

result.json says how training ended. The same run gives the same file whenever and however it is trained on one machine:
times and machines are in provenance.json.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import checkpoint, loggers
from experiments.checkpoint import Checkpointer
from experiments.identity import identity
from experiments.plan import Run
from experiments.progress import Progress
from experiments.provenance import cpu_name, now, provenance
from experiments.settings import Settings, result_settings, to_yaml
from experiments.stacking import device_of
from experiments.stacking import key as stacking_key
from experiments.store import RESULT_VERSION
from vae.model import n_parameters
from vae.stack import Stack
from vae.train import diverged, train_epoch, why_not_stackable
from vae.trained import MODEL_FILE, pack


class Interrupted(KeyboardInterrupt):
    """The user or the system asked to stop, and every run in training was checkpointed."""


@dataclass(frozen=True)
class Outcome:
    """How the training of a run ended: its result.json, or why there is none."""

    run: Run
    result: dict[str, Any] | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.result is not None and self.result["status"] == "ok"

    @property
    def reason(self) -> str:
        """Why the run has no model."""
        if self.result is not None:
            return f"diverged in epoch {self.result['diverged_epoch']}"
        return self.error or "not trained"


def set_up_torch(config: Settings, threads: int) -> None:
    """What holds for the training of a stack; the first two hold for the calling thread alone."""
    torch.set_flush_denormal(True)  # denormal numbers make a step many times slower on some CPUs
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = config.trainer.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = config.trainer.precision == "tf32"


class Trainer:
    """Trains stacks of runs and writes their folders; several threads may train at once.

    Args:
        hydra_files: by the run's name, the files of its `.hydra/` by name, or None.
        stopping: whether the user or the system asked to stop.
        threads: of torch, for each stack.
    """

    def __init__(
        self,
        progress: Progress,
        hydra_files: Mapping[str, Mapping[str, str] | None],
        stopping: Callable[[], bool],
        threads: int,
    ) -> None:
        self.progress, self.hydra_files, self.stopping, self.threads = progress, hydra_files, stopping, threads
        self._lock = threading.Lock()  # of the images
        self._images: tuple[tuple[str, str], tuple[Tensor, Tensor]] | None = None
        self._reasons: dict[Any, str | None] = {}  # why runs cannot be stacked, by what stacks have in common

    def train(self, runs: Sequence[Run]) -> list[Outcome]:
        """Trains those runs that nobody else is training at the moment.

        Returns:
            Their outcomes; none for the others.

        Raises:
            Interrupted: if asked to stop, with a checkpoint of every run in training written.
        """
        if self.stopping():
            raise Interrupted
        outcomes: list[Outcome] = []
        with ExitStack() as locks:
            mine: list[Run] = []
            for run in runs:
                try:
                    if not locks.enter_context(run.folder.locked()):
                        continue
                    run.folder.path.mkdir(exist_ok=True)
                    run.folder.remove_leftovers()
                except OSError as e:
                    outcomes.append(self._failed(run, e))
                    continue
                if (done := run.folder.result()) is not None:  # another process trained it in the meantime
                    outcomes.append(Outcome(run, done))
                else:
                    mine.append(run)
            outcomes += self._train_or_split(mine)
            for outcome in outcomes:
                if outcome.result is not None:
                    loggers.record(outcome.run, self.progress.note)
        self.progress.ended(len(outcomes))
        return outcomes

    def _train_or_split(self, runs: list[Run]) -> list[Outcome]:
        """Trains the runs, those at the same position of their training as one stack.

        If a stack fails, each half is tried on its own, down to the run that is to blame.
        """
        positions: dict[tuple[int, int], list[tuple[Run, dict[str, Any] | None]]] = {}
        for run in runs:
            state = checkpoint.load(run.folder)
            if state is not None and state["device"] != device_of(run.config).type:
                run.folder.log(
                    f"the checkpoint was made on a {state['device']}, whose random numbers differ, and is not used"
                )
                state = None
            positions.setdefault((state["epoch"], state["step"]) if state else (0, 0), []).append((run, state))
        outcomes: list[Outcome] = []
        for members in positions.values():
            group = [run for run, _ in members]
            if len(group) > 1 and self._not_stackable(group[0]):
                for run in group:
                    outcomes += self._train_or_split([run])
                continue
            try:
                outcomes += self._train_stack(group, [state for _, state in members if state is not None])
                continue
            except Exception as e:
                if len(group) == 1:
                    outcomes.append(self._failed(group[0], e))
                    continue
                reason = one_line(e)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.progress.note(f"a stack of {len(group)} runs failed ({reason}); trying again in two halves")
            half = len(group) // 2
            outcomes += self._train_or_split(group[:half]) + self._train_or_split(group[half:])
        return outcomes

    def _not_stackable(self, run: Run) -> str | None:
        """Why runs like this one are trained one after the other; the progress says so once."""
        found = stacking_key(run)
        if found not in self._reasons:
            self._reasons[found] = why_not_stackable(run.config, run.arch, len(run.data.train_x))
            if (reason := self._reasons[found]) is not None:
                self.progress.note(f"{run.config.model.kind} runs are trained one after the other, as {reason}")
        return self._reasons[found]

    def _failed(self, run: Run, error: Exception) -> Outcome:
        reason = one_line(error)
        record = {"reason": reason, "traceback": "".join(traceback.format_exception(error)), "time": now()}
        with suppress(OSError):  # a full disk or an unwritable folder: the reason is still shown
            run.folder.write("failed.json", record)
            run.folder.log(f"failed: {reason}")
        self.progress.note(f"failed: {run.folder.name}: {reason}")
        return Outcome(run, None, reason)

    def _train_stack(self, runs: list[Run], states: list[dict[str, Any]]) -> list[Outcome]:
        config = runs[0].config
        set_up_torch(config, self.threads)  # for each stack: a sweep can vary the precision
        device = device_of(config)
        images, labels = self._on_device(runs[0], device)  # (N, D), (N,)
        configs, archs = [run.config for run in runs], [run.arch for run in runs]
        if states:
            stack = Stack.of(configs, archs, len(images), device, states)
            skipped = stack.epoch * len(images) + stack.step * config.trainer.batch_size
            self.progress.n_images -= skipped * len(runs)
        else:
            stack = Stack(configs, archs, len(images), device)
        clock = _Clock()
        for run in runs:
            self._open(run, stack, clock.started)
        outcomes: list[Outcome] = []
        checkpointer = Checkpointer(config.trainer.checkpoint_seconds)

        def pause(n_images: int) -> bool:
            clock.images += n_images
            self.progress.tick(n_images)
            return self.stopping() or checkpointer.due_inside_epoch()

        while stack.epoch < config.trainer.epochs:
            self.progress.stack(stack.n_runs, stack.epoch + 1, config.trainer.epochs)
            ended = train_epoch(stack, images, labels, pause)
            if ended:
                for k, run in enumerate(runs):
                    row = stack.history[k][-1]
                    run.folder.log(
                        f"epoch {stack.epoch} of {config.trainer.epochs}: loss {row['train_loss']:.5g}, "
                        f"SSE {row['train_sse']:.4g}, KL {row['train_kl']:.4g} nats"
                    )
            if ended and (bad := diverged(stack)):
                outcomes += [self._finish_diverged(runs[k], stack, k) for k in bad]
                keep = [k for k in range(stack.n_runs) if k not in bad]
                runs = [runs[k] for k in keep]
                if not keep:
                    return outcomes
                stack = stack.select(keep)
            last = stack.epoch == config.trainer.epochs
            if self.stopping() and not last:
                checkpointer.write([run.folder for run in runs], stack)
                raise Interrupted
            if not last and checkpointer.due(ended):
                checkpointer.write([run.folder for run in runs], stack)
                for k, run in enumerate(runs):  # after the checkpoint: the record is never ahead of it
                    run.folder.write("history.csv", history_csv(stack.history[k]))
                    loggers.record(run, self.progress.note)
        times = clock.times() | {"stack_size": len(runs)}
        for k, run in enumerate(runs):
            try:
                outcomes.append(self._finish(run, stack, k, times))
            except OSError as e:  # the others of the stack are trained too, and may still be written
                outcomes.append(self._failed(run, e))
        return outcomes

    def _on_device(self, run: Run, device: torch.device) -> tuple[Tensor, Tensor]:
        """The training images, (N, D) uint8, and labels, (N,), on the device; kept until others are asked for."""
        key = run.data.content_hash, str(device)
        with self._lock:
            if self._images is None or self._images[0] != key:
                self._images = key, (run.data.train_x.flatten(1).to(device), run.data.train_y.to(device))
            return self._images[1]

    def _open(self, run: Run, stack: Stack, started: str) -> None:
        """Writes what is known of a run before it is trained."""
        folder = run.folder
        folder.write("config.yaml", to_yaml(run.config))
        files = self.hydra_files.get(folder.name)
        if files is not None:
            (folder.path / ".hydra").mkdir(exist_ok=True)
            for name, content in files.items():
                folder.write(f".hydra/{name}", content)
        folder.write("provenance.json", run_provenance(run, stack.device) | {"started": started})
        where = f"epoch {stack.epoch + 1}, step {stack.step + 1}" if stack.epoch or stack.step else "the start"
        together = f" in a stack of {stack.n_runs}" if stack.n_runs > 1 else ""
        folder.log(f"training from {where}{together} on {stack.device}")

    def _finish_diverged(self, run: Run, stack: Stack, k: int) -> Outcome:
        folder = run.folder
        folder.write("history.csv", history_csv(stack.history[k]))
        row = result(run, stack.epoch, None)
        folder.write_result(row)
        folder.log(f"diverged in epoch {stack.epoch}")
        checkpoint.drop(folder)
        self.progress.note(f"diverged: {folder.name} in epoch {stack.epoch}")
        return Outcome(run, row)

    def _finish(self, run: Run, stack: Stack, k: int, times: dict[str, Any]) -> Outcome:
        folder, last = run.folder, stack.history[k][-1]
        packed = pack(run.arch, stack.model_state(k), run.data.classes)
        folder.write(MODEL_FILE, packed)
        folder.write("history.csv", history_csv(stack.history[k]))
        folder.write("provenance.json", run_provenance(run, stack.device) | times)
        row = result(run, stack.epoch, hashlib.sha256(packed).hexdigest())
        folder.write_result(row)
        folder.log(f"finished: SSE {last['train_sse']:.4g}, KL {last['train_kl']:.4g} nats in the last epoch")
        checkpoint.drop(folder)
        return Outcome(run, row)


class _Clock:
    """When the training of a stack began, and how many images it has seen since."""

    def __init__(self) -> None:
        self.started, self.images = now(), 0
        self._begun = time.monotonic()

    def times(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._begun
        return {
            "started": self.started,
            "finished": now(),
            "train_seconds": round(seconds, 3),
            "images_per_second": round(self.images / max(seconds, 1e-9), 1),
        }


def result(run: Run, epochs_done: int, model_sha256: str | None) -> dict[str, Any]:
    """The content of result.json.

    Args:
        model_sha256: of the model's file; None for a run that diverged in the last of its epochs.
    """
    arch, data = run.arch, run.data
    return {
        "schema_version": RESULT_VERSION,
        "run": run.folder.name,
        "status": "ok" if model_sha256 else "diverged",
        "diverged_epoch": None if model_sha256 else epochs_done,
        "epochs_done": epochs_done,
        "settings": result_settings(run.config),
        "dataset": data.name,
        "dataset_source": data.source,
        "dataset_hash": data.content_hash,
        "n_train": len(data.train_x),
        "n_val": len(data.val_x),
        "n_test": len(data.test_x),
        "image_shape": list(arch.image_shape),
        "n_classes": arch.n_classes,
        "input_dim": arch.input_dim,
        "z_dim": arch.z_dim,
        "label_repeat_encoder": arch.encoder_repeat,
        "label_repeat_decoder": arch.decoder_repeat,
        "n_parameters": n_parameters(arch),
        "model_sha256": model_sha256,
    }


def history_csv(rows: list[dict[str, float]]) -> str:
    """One row per epoch, with a header."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def run_provenance(run: Run, device: torch.device) -> dict[str, Any]:
    """The content of provenance.json, without the times."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        **provenance(),
        "device": str(device),
        "device_name": name,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),  # the last digits depend on it
        "threads": torch.get_num_threads(),
        "seed": run.config.seed,
        "dataset_root": run.config.dataset.root,
        "dataset_hash": run.data.content_hash,
        "dataset_source": run.data.source,
        "identity": identity(run.config),
        "architecture": dataclasses.asdict(run.arch),
    }


def one_line(error: BaseException) -> str:
    """An error's type and message in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
