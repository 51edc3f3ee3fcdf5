"""Computes the metrics of trained runs that are missing or outdated. Nothing is trained, and no other file is touched.

    python -m experiments.evaluate [REPORT | RUN ...]

Each family of metrics (vae/metrics) of a run has its own file, metrics/<family>.json, and some have arrays and pictures
beside it. Whatever raises an exception becomes the failure of that family of that run, with its traceback, and the rest
goes on. Deleted files are computed again with the same bytes.

Several runs are evaluated at once, each by one thread of this process: torch releases Python's lock while it computes.
On two cores processes are no better for few runs (6 runs in 11 s, threads 10 s) and little better for many (50 runs in
26 s, threads 32 s). This module imports torch only when there is something to compute.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import hashlib
import io
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments import stopping
from experiments.damage import damage_named
from experiments.progress import Steps
from experiments.settings import Settings, read_settings
from experiments.store import RunFolder, all_runs, read_json, reports_dir, runs_dir, write_json
from vae.config import ConfigError
from vae.metrics import BUILT_IN, DEFAULT_FAMILIES, FAMILIES, METRICS, Metric, Result, Subject, compute

MAX_WORKERS = 8  # runs evaluated at once
RECORD = re.compile(r"metrics/[^/]+\.json$")  # of a family, in a run's folder


def evaluate(
    folders: Sequence[RunFolder],
    families: Sequence[str] = DEFAULT_FAMILIES,
    *,
    retry: bool = False,
    progress: bool = True,
    trust: bool = False,
) -> None:
    """Computes what is missing or outdated; a run that is not trained, or diverged, is left alone.

    Args:
        families: names of families of metrics.
        retry: whether families that failed are computed again.
        progress: whether stderr says how far it is.
        trust: whether models with parts of their own are imported, which runs their code.

    Raises:
        KeyError: if there is no such family. Nothing else is raised: a failure is written into the run's folder.
    """
    unique = {folder.path: folder for folder in folders}.values()
    todo = [(folder, wanted) for folder in unique if (wanted := missing(folder, families, retry))]
    if not todo:
        return
    shown = Steps("runs evaluated", len(todo), None if progress else io.StringIO())
    by_data: dict[str, list[_Work]] = {}
    for folder, wanted in todo:
        try:
            work = _Work(folder, wanted, read_settings(folder.path))
            by_data.setdefault(repr(work.config.dataset), []).append(work)
        except ConfigError as e:
            _fail(folder, wanted, e, shown.note)
            shown.step()
    for group in by_data.values():
        _evaluate_group(group, shown, trust)
    shown.close()


def missing(folder: RunFolder, families: Sequence[str] = DEFAULT_FAMILIES, retry: bool = False) -> list[str]:
    """The families to be computed for a run: none if it has no model.

    Raises:
        KeyError: if there is no such family.
    """
    found = []
    for name, record in _records(folder, families):
        if (
            record is None
            or (retry and "failure" in record)
            or (
                "failure" not in record
                and FAMILIES[name].arrays
                and not folder.sound(f"{name}.npz", f"metrics/{name}.json")
            )
        ):
            found.append(name)
    return found


def read_metrics(folder: RunFolder, families: Sequence[str] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """The metrics of a run by column, and why families failed, by family. What is outdated or missing is left out.

    Args:
        families: names; None for all that have a file. Families of the user's own declare their metrics in it.
    """
    values, failures = {}, {}
    if families is None:
        there = (name.removeprefix("metrics/").removesuffix(".json") for name in folder.files() if RECORD.match(name))
        families = sorted(there)
    for name, record in _records(folder, families):
        for metric in (record or {}).get("metrics", ()):
            METRICS.setdefault(metric["name"], Metric(**metric))
        if record and "failure" in record:
            failures[name] = record["failure"]["reason"]
        elif record:
            values |= record["values"]
    return values, failures


def _records(folder: RunFolder, families: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Each family with the content of its file, or None if there is none for this version and model."""
    model = (folder.result() or {}).get("model_sha256")
    if model is None:
        return
    for name in families:
        record = folder.read(f"metrics/{name}.json")
        wanted = {"model_sha256": model}
        if name in FAMILIES:
            wanted["version"] = FAMILIES[name].version
        yield name, record if record and wanted.items() <= record.items() else None


# --- computing


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is to be computed for one run."""

    folder: RunFolder
    families: list[str]
    config: Settings


def _evaluate_group(group: Sequence[_Work], progress: Steps, trust: bool) -> None:
    """Evaluates runs of one dataset, which is loaded once."""
    import torch

    from experiments import plan
    from vae.data import facts
    from vae.trained import load_run

    cache = runs_dir(group[0].config.output_dir).parent / ".cache"
    try:
        data = plan.load_data(group[0].config.dataset)
        known = facts(data, cache)
    except Exception as e:
        for work in group:
            _fail(work.folder, work.families, e, progress.note)
            progress.step()
        return

    stopped = threading.Event()

    def set_up_torch() -> None:  # as in training; both hold for the calling thread
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)

    def evaluate_one(work: _Work) -> None:
        try:
            if data.content_hash != (work.folder.result() or {}).get("dataset_hash"):
                raise ValueError(f"{data.source} has changed since the run was trained")
            subject = Subject(load_run(work.folder.path, trust=trust), data, work.config, known, cache)
        except Exception as e:
            _fail(work.folder, work.families, e, progress.note)
        else:
            for name in work.families:
                if stopped.is_set():
                    return
                try:
                    _write(work.folder, name, compute(name, subject))
                except Exception as e:
                    _fail(work.folder, [name], e, progress.note)
        progress.step()

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(len(group), threads, MAX_WORKERS), initializer=set_up_torch)
    try:
        pool.submit(evaluate_one, group[0]).result()  # alone: what all runs share, such as the judge, is made once
        rest: list[Future[None]] = [pool.submit(evaluate_one, work) for work in group[1:]]
        for future in rest:
            future.result()
    except KeyboardInterrupt:
        stopped.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a new thread would otherwise start with that of the pool's


def _write(folder: RunFolder, family: str, result: Result) -> None:
    """Writes a family's files, the JSON last: if it is there, the others are too."""
    files = {}
    if FAMILIES[family].arrays:
        import numpy as np

        arrays = io.BytesIO()
        np.savez_compressed(arrays, **result.arrays)  # pyright: ignore[reportArgumentType]
        folder.write(f"{family}.npz", arrays.getvalue())
        files[f"{family}.npz"] = hashlib.sha256(arrays.getvalue()).hexdigest()
        for name, image in result.images.items():
            drawn = io.BytesIO()
            image.save(drawn, "PNG")
            folder.write(f"{name}.png", drawn.getvalue())
    _write_record(folder, family, {"values": result.values} | ({"files": files} if files else {}))


def _fail(folder: RunFolder, families: Sequence[str], error: Exception, note: Callable[[str], None]) -> None:
    """Writes an exception as the failure of some families."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    failure = {"reason": reason, "traceback": "".join(traceback.format_exception(error))}
    note(f"{folder.name}: cannot compute {', '.join(families)}: {reason}")
    for family in families:
        with contextlib.suppress(OSError):  # a full disk: the line above has said it
            _write_record(folder, family, {"failure": failure})


def _write_record(folder: RunFolder, family: str, content: dict[str, Any]) -> None:
    (folder.path / "metrics").mkdir(exist_ok=True)
    head = {
        "family": family,
        "version": FAMILIES[family].version,
        "model_sha256": (folder.result() or {}).get("model_sha256"),
    }
    if family not in BUILT_IN:  # whoever reads the file need not import the module
        head["metrics"] = [dataclasses.asdict(metric) for metric in METRICS.values() if metric.family == family]
    write_json(folder.path / "metrics" / f"{family}.json", head | content, sort_keys=True)


# --- the command


def runs_of(names: Sequence[str], output_dir: str | Path) -> list[RunFolder]:
    """The runs that are meant by the names of reports and runs.

    Raises:
        ValueError: if there is no such report or run, or a report's manifest cannot be read.
    """
    runs = {run.name: run for run in all_runs(output_dir)}
    reports = {path.parent.name: path for path in sorted(reports_dir(output_dir).glob("*/sweep.json"))}
    found = []
    for name in (Path(name).name for name in names):
        if name in reports:
            rows = read_json(reports[name]).get("runs", [])
            found += [RunFolder(runs_dir(output_dir) / row["run"]) for row in rows]
        elif name in runs:
            found.append(runs[name])
        else:
            near = difflib.get_close_matches(name, [*reports, *runs], n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"{name}: no such report or run in {output_dir}{hint}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate",
        description="Computes missing and outdated metrics of trained runs. Trains nothing.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="REPORT|RUN", help="names of the folders of reports or runs (default: all runs)"
    )
    parser.add_argument(
        "--output-dir", default="outputs", help="folder that holds runs/ and reports/ (default: outputs)"
    )
    parser.add_argument("--retry", action="store_true", help="try again what failed before")
    parser.add_argument("--trust", action="store_true", help="import custom parts of models, which runs their code")
    parser.add_argument(
        "--family",
        action="append",
        choices=list(FAMILIES),
        help=f"a family of metrics; can be given several times; {', '.join(DEFAULT_FAMILIES)} by default",
    )
    arguments = parser.parse_args(argv)
    families = arguments.family or DEFAULT_FAMILIES
    try:
        runs = runs_of(arguments.names, arguments.output_dir) if arguments.names else all_runs(arguments.output_dir)
    except (ValueError, OSError) as e:
        print(f"evaluate: {e}", file=sys.stderr)
        return 2
    with damage_named("evaluate") as found:
        try:
            with stopping.after_writing("evaluate"):
                evaluate(runs, families, retry=arguments.retry, trust=arguments.trust)
        except KeyboardInterrupt:
            print(f"evaluate: {stopping.LINE}", file=sys.stderr)
            return stopping.STATUS
    failures = [(run, family, why) for run in runs for family, why in read_metrics(run, families)[1].items()]
    for run, family, why in failures:
        print(f"evaluate: {run.name}: {family} failed: {why}", file=sys.stderr)
    trained = sum(run.result() is not None for run in runs)
    print(f"{trained} of {len(runs)} runs are trained; {len(failures)} families of metrics failed", file=sys.stderr)
    return 1 if failures or found else 0


if __name__ == "__main__":
    sys.exit(main())
