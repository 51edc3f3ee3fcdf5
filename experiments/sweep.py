"""Trains a list of runs: what is finished is skipped, what can be stacked is, and no run's failure is another's.

Used alike for one run (`python run.py`), by the stacked launcher for a sweep, and by each process of Hydra's other
launchers.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import io
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import OmegaConf

from experiments import loggers, result
from experiments.progress import Progress
from experiments.store import RunFolder, fingerprint, readable, runs_dir
from vae import data as vae_data
from vae import pictures
from vae.config import Config, ConfigError, Dataset, identity, validate
from vae.data import Facts, ImageData
from vae.diagnostics import diagnose
from vae.evaluate import evaluate
from vae.judge import Judge
from vae.judge import scores as judge_scores
from vae.layers import generator
from vae.model import Architecture, ConditionalVAE, resolve
from vae.objective import effective_x_var
from vae.stack import Stack
from vae.train import diverged, train_epoch
from vae.trained import TrainedVAE, pack, unpack

CHECKPOINT_SHARE = 0.02  # of the training time that writing checkpoints may take
CPU_STACK = 16  # more runs at once gain nothing on a CPU and are lost together in memory
MAX_WORKERS = 8  # stacks trained at once on a CPU: of a step about a tenth holds Python's lock


class Interrupted(KeyboardInterrupt):
    """The user or the system asked to stop, and every run in training was checkpointed."""


@dataclass(frozen=True)
class Run:
    """One run, ready to be trained: its settings checked against its data."""

    config: Config
    arch: Architecture
    data: ImageData
    facts: Facts
    folder: RunFolder

    def images_left(self) -> int:
        return 0 if self.folder.result() else self.config.trainer.epochs * len(self.data.train_x)


@dataclass(frozen=True)
class Outcome:
    """How a run stands: its result, or why there is none."""

    run: Run
    result: dict[str, Any] | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.result is not None and self.result["status"] == "ok"

    @property
    def reason(self) -> str:
        if self.result is not None:
            return f"diverged in epoch {self.result['diverged_epoch']}"
        return self.error or "not run"


def plan(configs: Sequence[Config]) -> list[Run]:
    """Checks every run and loads its data, before any is trained; what fails a check has written nothing.

    Raises:
        ConfigError: for the first setting that cannot be used.
    """
    for config in configs:
        validate(config)
    for config in configs:
        images = _load(dataclasses.astuple(config.dataset))
        resolve(config, images.image_shape, images.n_classes, ())  # for its checks: the spectrum only chooses z_dim=pca
        if config.trainer.batch_size > len(images.train_x):
            raise ConfigError(
                f"trainer.batch_size={config.trainer.batch_size}: out of range; "
                f"allowed: at most {len(images.train_x)}, the training images"
            )
        if config.trainer.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.device=cuda: there is no usable GPU; allowed here: auto, cpu")
        loggers.check(config)
    runs = []
    for config in configs:
        images = _load(dataclasses.astuple(config.dataset))
        facts = _facts(images, config.output_dir)
        arch = resolve(config, images.image_shape, images.n_classes, facts.eigenvalues)
        name = f"{readable(config, images.name, arch.z_dim)}-{fingerprint(config, images.content_hash)}"
        runs.append(Run(config, arch, images, facts, RunFolder(runs_dir(config.output_dir) / name)))
    return runs


@functools.lru_cache(maxsize=4)
def _load(dataset: tuple[Any, ...]) -> ImageData:
    return vae_data.load(Dataset(*dataset))


@functools.lru_cache(maxsize=4)
def _facts(images: ImageData, output_dir: str) -> Facts:
    return vae_data.facts(images, Path(output_dir) / ".cache")


def device_of(config: Config) -> torch.device:
    name = config.trainer.device
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def prepare_output(output_dir: str | Path) -> None:
    """Makes the folder of the runs.

    Raises:
        ConfigError: if nothing can be written there.
    """
    folder = runs_dir(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise ConfigError(
            f"output_dir={output_dir}: cannot be written to ({e.strerror}); allowed: a folder of yours"
        ) from None


def execute(runs: Sequence[Run], progress: Progress, hydra_nodes: Sequence[dict[str, Any] | None]) -> list[Outcome]:
    """Trains what is not finished, stack by stack.

    Args:
        runs: of `plan`; the same run may stand there more than once.
        hydra_nodes: for each, the files of its `.hydra/` by name, or None.

    Returns:
        An outcome for each of `runs`, in their order.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint of every run in training written.
    """
    prepare_output(runs[0].config.output_dir)
    unique = {run.folder.name: (run, node) for run, node in zip(runs, hydra_nodes, strict=True)}
    outcomes: dict[str, Outcome] = {}
    for name, (run, _) in unique.items():
        if (done := run.folder.result()) is not None:
            outcomes[name] = Outcome(run, done)
            record(run, progress)
    progress.done = len(outcomes)
    with _signals() as stopping:
        waiting = [run for name, (run, _) in unique.items() if name not in outcomes]
        threads = runs[0].config.trainer.threads or torch.get_num_threads()
        workers = workers_for(waiting, threads)
        nodes = {name: node for name, (_, node) in unique.items()}
        trainer = _Trainer(progress, nodes, stopping, max(1, threads // workers))
        announced = False
        while waiting:
            before = len(waiting)
            with ThreadPoolExecutor(workers) as pool:
                for found in pool.map(trainer.train, stacks(waiting, workers)):
                    outcomes |= {outcome.run.folder.name: outcome for outcome in found}
            waiting = [run for run in waiting if run.folder.name not in outcomes]
            if waiting and len(waiting) == before:  # another process has them
                if not announced:
                    progress.note(f"waiting for {len(waiting)} runs that another process is training")
                    announced = True
                time.sleep(0.5)
                if stopping():
                    raise Interrupted
    progress.close()
    return [outcomes[run.folder.name] for run in runs]


def record(run: Run, progress: Progress) -> None:
    """Copies the run to the logger that it asks for; where that fails the training goes on."""
    try:
        loggers.record(run)
    except Exception as e:
        progress.note(f"logger={run.config.logger.kind}: cannot record {run.folder.name}: {_one_line(e)}")


def set_up_torch(config: Config, threads: int) -> None:
    """What holds for the training of a stack; the first two hold for the calling thread alone."""
    torch.set_flush_denormal(True)  # denormal numbers make a step many times slower on some CPUs
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = config.trainer.tf32
    torch.backends.cudnn.allow_tf32 = config.trainer.tf32


def workers_for(runs: Sequence[Run], threads: int) -> int:
    """How many stacks to train at once, each with its share of the threads.

    Two stacks with a thread each are a quarter faster than one with two threads, and where all arithmetic is matrix
    products the numbers are the same bit by bit. The gradient of a convolution depends on the number of threads in its
    last bits, so that such runs take all threads, alone as in a sweep.
    """
    if any(device_of(run.config).type != "cpu" or run.arch.kind == "conv" for run in runs):
        return 1
    return max(1, min(threads, len(runs), MAX_WORKERS))


def stacks(runs: Sequence[Run], workers: int = 1) -> Iterator[list[Run]]:
    """Groups the runs that have one shape and one length of training, in pieces of the stack size.

    Args:
        workers: stacks trained at once. The pieces are no more than half of a worker's share of all runs, so that no
            worker is left with nothing to do for long.
    """
    share = len(runs) if workers == 1 else -(-len(runs) // (2 * workers))
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        t = run.config.trainer
        key = (run.arch, run.data.content_hash, t.epochs, t.batch_size, t.tf32, t.device, t.stack_size)
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        size = group[0].config.trainer.stack_size or min(share, automatic_stack_size(group[0], workers))
        pieces = -(-len(group) // size)
        size = -(-len(group) // pieces)  # even pieces: 17 runs at 16 a stack are 9 and 8, not 16 and 1
        for start in range(0, len(group), size):
            yield group[start : start + size]


def run_bytes(run: Run) -> int:
    """A rough upper estimate of what one run of a stack takes in training."""
    arch, n = run.arch, len(run.data.train_x)
    weights = sum(p.numel() for p in ConditionalVAE(arch, [generator(0, "init")]).parameters())
    layers = 4 * (arch.input_dim + sum(arch.hidden) + 2 * arch.z_dim)
    if arch.kind == "conv":
        _, h, w = arch.image_shape
        layers += 4 * sum(c * (h >> i + 1) * (w >> i + 1) for i, c in enumerate(arch.channels))
    return 4 * (5 * weights + 4 * run.config.trainer.batch_size * layers + n * (arch.z_dim + 2))


def automatic_stack_size(run: Run, workers: int) -> int:
    """As many runs as fit into half of the free memory, in all workers together; on a CPU at most CPU_STACK."""
    if device_of(run.config).type == "cuda":
        free, limit = torch.cuda.mem_get_info()[0], 1024
    else:
        free, limit = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), CPU_STACK
    return max(1, min(limit, int(0.5 * free / workers / run_bytes(run))))


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


class _Trainer:
    """Trains stacks of runs and writes their folders; several threads may train at once.

    Args:
        threads: of torch, for each stack.
    """

    def __init__(
        self,
        progress: Progress,
        hydra_nodes: dict[str, dict[str, Any] | None],
        stopping: Callable[[], bool],
        threads: int,
    ) -> None:
        self.progress, self.hydra_nodes, self.stopping, self.threads = progress, hydra_nodes, stopping, threads
        self.lock = threading.Lock()  # of the two caches
        self.on_device: tuple[str, str, dict[str, torch.Tensor]] | None = None
        self.judges: dict[str, Judge] = {}

    def tensors(self, run: Run, device: torch.device) -> dict[str, torch.Tensor]:
        """The run's data on the device, flat; kept until another dataset or device is asked for."""
        key = run.data.content_hash, str(device)
        with self.lock:
            if self.on_device is None or self.on_device[:2] != key:
                d = run.data
                flat = {"train_x": d.train_x.flatten(1), "test_x": d.test_x.flatten(1)}
                moved = {k: v.to(device) for k, v in {**flat, "train_y": d.train_y, "test_y": d.test_y}.items()}
                self.on_device = (*key, moved)
            return self.on_device[2]

    def scores(self, run: Run, model: TrainedVAE) -> dict[str, Any]:
        """How good the run's samples and reconstructions are, by the judge of its data."""
        d = run.data
        with self.lock:
            if d.content_hash not in self.judges:
                self.judges[d.content_hash] = Judge.of(d, Path(run.config.output_dir) / ".cache")
            judge = self.judges[d.content_hash]
        x, y = d.test_x[judge.held_out], d.test_y[judge.held_out]
        conditional = run.config.label_placement.kind != "none"
        samples = model.sample(y, seed=run.config.seed)
        return {
            **judge_scores(judge, samples, y if conditional else None, model.reconstruct(x, y)),
            "judge": judge.hash,
            "judge_accuracy": judge.test_accuracy,
        }

    def train(self, runs: Sequence[Run]) -> list[Outcome]:
        """Outcomes of those runs that this process could lock; the others are somebody else's at the moment."""
        if self.stopping():
            raise Interrupted
        outcomes: list[Outcome] = []
        with ExitStack() as locks:
            mine: list[Run] = []
            for run in runs:
                try:
                    held = locks.enter_context(run.folder.locked())
                except OSError as e:
                    outcomes.append(self._failed(run, e))
                    continue
                if not held:
                    continue
                if (done := run.folder.result()) is not None:  # finished by another process since
                    outcomes.append(Outcome(run, done))
                else:
                    mine.append(run)
            outcomes += self._train_or_split(mine)
            for outcome in outcomes:
                if outcome.result is not None:
                    record(outcome.run, self.progress)
        self.progress.ended(len(outcomes))
        return outcomes

    def _train_or_split(self, runs: list[Run]) -> list[Outcome]:
        """Trains the runs, those at the same position of their training as one stack.

        Where that fails, each half is tried for itself, down to the run that is to blame.
        """
        positions: dict[tuple[int, int], list[tuple[Run, dict[str, Any] | None]]] = {}
        for run in runs:
            state = run.folder.load_checkpoint()
            if state is not None and state["device"] != device_of(run.config).type:
                run.folder.log(
                    f"the checkpoint is of a {state['device']}, whose random numbers are others: from the start"
                )
                state = None
            positions.setdefault((state["epoch"], state["step"]) if state else (0, 0), []).append((run, state))
        outcomes: list[Outcome] = []
        for members in positions.values():
            group = [run for run, _ in members]
            try:
                outcomes += self._train_stack(group, [state for _, state in members if state is not None])
                continue
            except Exception as e:
                if len(group) == 1:
                    outcomes.append(self._failed(group[0], e))
                    continue
                reason = _one_line(e)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.progress.note(f"a stack of {len(group)} runs failed ({reason}); trying it in two halves")
            half = len(group) // 2
            outcomes += self._train_or_split(group[:half]) + self._train_or_split(group[half:])
        return outcomes

    def _failed(self, run: Run, error: Exception) -> Outcome:
        reason = _one_line(error)
        record = {"reason": reason, "traceback": "".join(traceback.format_exception(error)), "time": _now()}
        try:
            run.folder.write("failed.json", record)
            run.folder.log(f"failed: {reason}")
        except OSError:
            pass  # a full disk or an unwritable folder: the reason is still shown and reported
        self.progress.note(f"failed: {run.folder.name}: {reason}")
        return Outcome(run, None, reason)

    def _train_stack(self, runs: list[Run], states: list[dict[str, Any]]) -> list[Outcome]:
        config = runs[0].config
        set_up_torch(config, self.threads)  # for each stack: a sweep can vary trainer.tf32
        device = device_of(config)
        data = self.tensors(runs[0], device)
        started, seen = _now(), 0
        configs = [run.config for run in runs]
        if states:
            stack = Stack.of(configs, runs[0].arch, device, states)
            skipped = stack.epoch * len(data["train_x"]) + stack.step * config.trainer.batch_size
            self.progress.n_images -= skipped * len(runs)
        else:
            stack = Stack(configs, runs[0].arch, device)
        for run in runs:
            self._open(run, stack, started)
        outcomes: list[Outcome] = []
        clock = time.monotonic()
        checkpointer = _Checkpointer(config.trainer.checkpoint_seconds)

        def pause(n_images: int) -> bool:
            nonlocal seen
            seen += n_images
            self.progress.tick(n_images)
            return self.stopping() or checkpointer.due_inside_epoch()

        while stack.epoch < config.trainer.epochs and stack.n_runs:
            self.progress.stack(stack.n_runs, stack.epoch + 1, config.trainer.epochs)
            ended = train_epoch(stack, data["train_x"], data["train_y"], pause)
            if ended and (bad := diverged(stack)):
                for k in bad:
                    outcomes.append(self._finish_diverged(runs[k], stack, k))
                keep = [k for k in range(stack.n_runs) if k not in bad]
                runs = [runs[k] for k in keep]
                if not keep:
                    return outcomes
                stack = stack.select(keep)
            last = stack.epoch == config.trainer.epochs
            if self.stopping() and not last:
                checkpointer.write(runs, stack)
                raise Interrupted
            if not last and checkpointer.due(ended):
                checkpointer.write(runs, stack)
                for k, run in enumerate(runs):  # after the checkpoint: the record is never ahead of it
                    run.folder.write("history.csv", history_csv(stack.history[k]))
                    record(run, self.progress)
        times = {
            "started": started,
            "finished": _now(),
            "train_seconds": round(time.monotonic() - clock, 3),
            "stack_size": len(runs),
            "images_per_second": round(seen / max(time.monotonic() - clock, 1e-9), 1),
        }
        return outcomes + self._finish(runs, stack, data, times)

    def _open(self, run: Run, stack: Stack, started: str) -> None:
        """Writes what is known of a run before it is trained."""
        folder = run.folder
        folder.write("config.yaml", OmegaConf.to_yaml(OmegaConf.structured(run.config)))
        node = self.hydra_nodes.get(folder.name)
        if node is not None:
            (folder.path / ".hydra").mkdir(exist_ok=True)
            for name, content in node.items():
                (folder.path / ".hydra" / name).write_text(content)
        folder.write("provenance.json", provenance(run, stack.device) | {"started": started})
        how = f"epoch {stack.epoch + 1}, step {stack.step + 1}" if stack.epoch or stack.step else "the start"
        folder.log(f"training from {how} in a stack of {stack.n_runs} on {stack.device}")

    def _finish_diverged(self, run: Run, stack: Stack, k: int) -> Outcome:
        folder = run.folder
        folder.write("history.csv", history_csv(stack.history[k]))
        row = result.row(run, _n_parameters(stack), stack.epoch, None)
        folder.write("result.json", row)
        folder.log(f"diverged in epoch {stack.epoch}")
        folder.drop_checkpoints()
        self.progress.note(f"diverged: {folder.name} in epoch {stack.epoch}")
        return Outcome(run, row)

    def _finish(
        self, runs: list[Run], stack: Stack, data: dict[str, torch.Tensor], times: dict[str, Any]
    ) -> list[Outcome]:
        train = evaluate(stack, data["train_x"], data["train_y"])
        test = evaluate(stack, data["test_x"], data["test_y"])
        for row, more in zip(test, diagnose(stack, data["test_x"], data["test_y"]), strict=True):
            row |= more
        outcomes = []
        for k, run in enumerate(runs):
            try:
                outcomes.append(self._finish_one(run, stack, k, train[k], test[k], times))
            except OSError as e:  # its siblings are trained too, and may still be written
                outcomes.append(self._failed(run, e))
        return outcomes

    def _finish_one(
        self, run: Run, stack: Stack, k: int, train: dict[str, Any], test: dict[str, Any], times: dict[str, Any]
    ) -> Outcome:
        folder, state = run.folder, stack.state(k)
        parameters = {name: value[0] if name == "log_x_var" else value for name, value in state["parameters"].items()}
        packed = pack(run.arch, parameters, run.data.classes)
        model = unpack(packed)
        folder.write("model.pt", packed)
        folder.write("history.csv", history_csv(stack.history[k]))
        folder.write("samples.png", png(pictures.sheet(*pictures.sample_rows(model))))
        folder.write("reconstructions.png", png(pictures.sheet(*pictures.reconstruction_rows(model, run.data))))
        measured = result.Measured(
            x_var=model.x_var,
            effective_x_var=effective_x_var(run.config, model.x_var, run.arch.input_dim, run.arch.z_dim),
            model_sha256=hashlib.sha256(packed).hexdigest(),
            train=train,
            test=test,
            scores=self.scores(run, model),
        )
        row = result.row(run, _n_parameters(stack), stack.epoch, measured)
        folder.write("provenance.json", provenance(run, stack.device) | times)
        folder.write("result.json", row)
        folder.log(f"finished: test SSE {row['test_sse']:.4g}, KL {row['test_kl']:.4g} nats")
        folder.drop_checkpoints()
        return Outcome(run, row)


class _Checkpointer:
    """Says when a checkpoint is due, and writes those of a stack."""

    def __init__(self, interval: float) -> None:
        self.interval, self.wait = interval, interval
        self.last = time.monotonic()

    def due_inside_epoch(self) -> bool:
        return self.interval > 0 and time.monotonic() - self.last > self.wait

    def due(self, epoch_ended: bool) -> bool:
        return self.due_inside_epoch() or (self.interval == 0 and epoch_ended)

    def write(self, runs: Sequence[Run], stack: Stack) -> None:
        begun = time.monotonic()
        for k, run in enumerate(runs):
            run.folder.save_checkpoint(stack.state(k))
        self.last = time.monotonic()
        self.wait = max(self.interval, (self.last - begun) / CHECKPOINT_SHARE)


def _n_parameters(stack: Stack) -> int:
    return sum(p.numel() for p in stack.model.parameters()) // stack.n_runs


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def history_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


@functools.cache
def versions() -> dict[str, str]:
    names = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pandas", "matplotlib")
    return {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in names}}


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the code that runs; None outside a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # Without outputs/: a report that is made again is no change of the code.
    status = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)outputs")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}


@functools.cache
def cpu_name() -> str:
    """The processor's model, where the system tells it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def command() -> str:
    return shlex.join(["python", os.path.basename(sys.argv[0]), *sys.argv[1:]])


def provenance(run: Run, device: torch.device) -> dict[str, Any]:
    """Where, when and from what a run was made: all that is worth knowing and must not change its numbers."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "command": command(),
        "versions": versions(),
        **git_state(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "host_system": platform.system(),
        "seed": run.config.seed,
        "dataset_root": run.config.dataset.root,
        "dataset_hash": run.data.content_hash,
        "dataset_source": run.data.source,
        "identity": identity(run.config),
        "architecture": dataclasses.asdict(run.arch),
    }
