"""What is in outputs/runs, and how to go on with it or be rid of it.

python -m experiments.runs list                      every run: status, disk use, age, reports that use it
python -m experiments.runs show RUN ...              settings, final numbers and provenance
python -m experiments.runs pictures RUN ...          draws traversals, interpolations and more into the runs' folders
python -m experiments.runs rerun RUN ...             trains runs that are not finished, from their own settings
python -m experiments.runs prune [RUN ...]           removes runs; --failed, --unfinished, --orphaned pick some
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from experiments.pictures import draw, read_config
from experiments.progress import duration
from experiments.store import RunFolder, all_runs, runs_dir
from vae.config import ConfigError

SHOWN = ("test_sse", "test_kl", "test_elbo", "test_bits_per_dim", "test_active_units", "effective_x_var", "z_dim")


@dataclass(frozen=True)
class Row:
    """One run as the list shows it.

    Attributes:
        status: ok, diverged, failed, unfinished, or running (in a process that holds its lock).
        size: bytes on disk.
        age: seconds since anything in it changed.
        reports: names of the reports made from it.
    """

    run: RunFolder
    status: str
    size: int
    age: float
    reports: list[str]


def status(run: RunFolder) -> str:
    if (result := run.result()) is not None:
        return result["status"]
    descriptor = os.open(run.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    finally:
        os.close(descriptor)
    return "failed" if run.failure() is not None else "unfinished"


def uses(output_dir: str | Path) -> dict[str, list[str]]:
    """The reports that each run is part of, by the run's name."""
    found: dict[str, list[str]] = {}
    for manifest in sorted((Path(output_dir) / "reports").glob("*/sweep.json")):
        for row in json.loads(manifest.read_text())["runs"]:
            found.setdefault(row["run"], []).append(manifest.parent.name)
    return found


def rows(output_dir: str | Path) -> list[Row]:
    used = uses(output_dir)
    made = []
    for run in all_runs(output_dir):
        stats = [p.stat() for p in run.path.rglob("*") if p.is_file()] or [run.path.stat()]
        age = time.time() - max(s.st_mtime for s in stats)
        made.append(Row(run, status(run), sum(s.st_size for s in stats), age, used.get(run.name, [])))
    return made


def show_list(output_dir: str) -> None:
    found = rows(output_dir)
    width = max((len(r.run.name) for r in found), default=3)
    print(f"{'run':<{width}}  {'status':<10}  {'size':>8}  {'age':>9}  reports")
    for r in found:
        reports = ", ".join(r.reports) or "none (orphaned)"
        print(f"{r.run.name:<{width}}  {r.status:<10}  {r.size / 1e6:5.1f} MB  {duration(r.age):>9}  {reports}")
    counts = {s: sum(r.status == s for r in found) for s in dict.fromkeys(r.status for r in found)}
    total = ", ".join(f"{n} {s}" for s, n in counts.items()) or "none"
    print(f"{len(found)} runs ({total}), {sum(r.size for r in found) / 1e6:.1f} MB in {runs_dir(output_dir)}")


def show_run(run: RunFolder) -> None:
    print(run.path)
    print((run.path / "config.yaml").read_text() if (run.path / "config.yaml").exists() else "no settings yet")
    result, failure = run.result(), run.failure()
    if result is not None:
        print(f"status: {result['status']}")
        print("\n".join(f"{key}: {result[key]:.6g}" for key in SHOWN if result.get(key) is not None))
    else:
        print(f"status: {status(run)}" + (f" ({failure['reason']})" if failure else ""))
    if (run.path / "provenance.json").exists():
        provenance = json.loads((run.path / "provenance.json").read_text())
        keys = ("command", "git_commit", "git_dirty", "device_name", "threads", "started", "finished", "train_seconds")
        print("\n".join(f"{key}: {provenance.get(key)}" for key in keys))


def rerun(runs: list[RunFolder]) -> int:
    """Trains runs from the settings in their folders."""
    from experiments.progress import Progress
    from experiments.sweep import execute, plan

    for run in runs:
        if run.result() is not None:
            return _complain(f"{run.name} is finished, and nothing finished is trained again; prune it first")
    try:
        configs = [read_config(run) for run in runs]
    except ConfigError as e:
        return _complain(f"{e} to train from")
    planned = plan(configs)
    for run, new in zip(runs, planned, strict=True):
        if new.folder.name != run.name:
            print(f"{run.name} is now {new.folder.name}: its data or the training changed since", file=sys.stderr)
    outcomes = execute(planned, Progress(len(planned), sum(r.images_left() for r in planned)), [None] * len(planned))
    return 0 if all(o.ok for o in outcomes) else 1


def draw_pictures(runs: list[RunFolder]) -> int:
    """Draws the pictures that the runs lack, and names them."""
    for run in runs:
        try:
            drawn = draw(run)
        except ConfigError as e:
            return _complain(str(e))
        print("\n".join(map(str, drawn)) or f"{run.path} has all its pictures")
    return 0


def prune(picked: list[Row], yes: bool) -> int:
    """Removes runs, after naming each and asking."""
    if not picked:
        print("nothing to remove")
        return 0
    for r in picked:
        print(
            f"{r.run.name}  {r.status}  {r.size / 1e6:.1f} MB" + (f"  used by {', '.join(r.reports)}" * bool(r.reports))
        )
    if not yes:
        try:
            answer = input(f"remove these {len(picked)} runs? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 1
    for r in picked:
        with r.run.locked() as held:
            if held:
                shutil.rmtree(r.run.path)
            else:
                print(f"{r.run.name} is in training and was not removed", file=sys.stderr)
    return 0


def _complain(line: str) -> int:
    print(f"experiments.runs: {line}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="experiments.runs", description="The runs in an output folder.")
    parser.add_argument("--output-dir", default="outputs", help="folder that holds runs/ and reports/")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every run: status, disk use, age, reports that use it")
    for name, text in (
        ("show", "settings, final numbers, provenance"),
        ("pictures", "draw what the folders lack: traversals, interpolations, nearest training images and more"),
        ("rerun", "train what is not finished"),
    ):
        commands.add_parser(name, help=text).add_argument("run", nargs="+")
    removal = commands.add_parser("prune", help="remove runs; each is named first")
    removal.add_argument("run", nargs="*")
    for kind in ("failed", "unfinished", "orphaned"):
        removal.add_argument(f"--{kind}", action="store_true", help=f"all that are {kind}")
    removal.add_argument("--yes", action="store_true", help="do not ask")
    args = parser.parse_args(argv)

    if args.command == "list":
        show_list(args.output_dir)
        return 0
    found = {r.run.name: r for r in rows(args.output_dir)}
    missing = [name for name in args.run if name.rstrip("/").split("/")[-1] not in found]
    if missing:
        return _complain(f"{missing[0]}: no such run in {runs_dir(args.output_dir)}; python -m experiments.runs list")
    picked = [found[name.rstrip("/").split("/")[-1]] for name in args.run]
    if args.command == "show":
        for r in picked:
            show_run(r.run)
        return 0
    if args.command == "pictures":
        return draw_pictures([r.run for r in picked])
    if args.command == "rerun":
        return rerun([r.run for r in picked])
    for r in found.values():
        wanted = (args.failed and r.status == "failed") or (args.unfinished and r.status == "unfinished")
        if wanted or (args.orphaned and not r.reports and r.status != "running"):
            picked += [r] * (r not in picked)
    return prune(picked, args.yes)


if __name__ == "__main__":
    sys.exit(main())
