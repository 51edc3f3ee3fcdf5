"""The runs in an output folder.

python -m experiments.runs list                      every run: outcome of training, disk use, age, reports
python -m experiments.runs show RUN ...              settings, numbers and provenance
python -m experiments.runs pictures RUN ...          draws traversals, interpolations and more into the runs' folders
python -m experiments.runs sample RUN                draws samples: --label 7 -n 10 --out sevens.png
python -m experiments.runs reconstruct RUN IMAGES    draws your images and their reconstructions
python -m experiments.runs encode RUN IMAGES         writes the latents of your images: --out z.npz
python -m experiments.runs rerun RUN ...             trains unfinished runs from their own settings
python -m experiments.runs prune [RUN ...]           removes runs; --failed, --missing, --in-no-report and
                                                     --other-code select them

RUN is a name, a fingerprint, a part of the name that no other run has, a path, or best:REPORT.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.damage import damage_named, damaged
from experiments.find import find
from experiments.progress import duration
from experiments.settings import read_settings
from experiments.store import RunFolder, all_runs, read_sealed, read_sound, reports_dir, runs_dir, snapshot
from vae.config import ConfigError

SHOWN = ("test_sse", "test_kl", "test_elbo", "test_bits_per_dim", "test_active_units", "effective_x_var")
MADE_BY = ("command", "git_commit", "git_dirty", "device_name", "threads", "started", "finished", "train_seconds")


@dataclass(frozen=True)
class Row:
    """One run as the list shows it.

    Attributes:
        status: state of its training: ok, diverged, failed or missing.
        outcome: as its reports say it (`outcome_of`).
        running: whether a process is training it.
        size: bytes on disk.
        age: seconds since the last change.
        reports: names of the reports that it is part of.
    """

    run: RunFolder
    status: str
    outcome: str
    running: bool
    size: int
    age: float
    reports: list[str]

    @property
    def shown_outcome(self) -> str:
        return self.outcome + " (running)" * self.running


def outcome_of(run: RunFolder, status: str) -> str:
    """How a run ended, as its reports say it; of a run without measurements, how its training ended: the status."""
    from experiments.frame import read_run

    if status != "ok":
        return status
    outcome = read_run(run)["outcome"]
    return f"{status} (not measured)" if outcome in ("failed", "missing") else outcome


def is_running(run: RunFolder) -> bool:
    """Whether a process holds an unfinished run."""
    if run.result() is not None:
        return False
    with run.locked() as held:
        return not held


def uses(output_dir: str | Path) -> dict[str, list[str]]:
    """The reports that each run is part of, by the run's name. Damaged manifests are left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(reports_dir(output_dir).glob("*/sweep.json")):
        read_sound(path.with_name("summary.json"))
        manifest = read_sound(path) or {"runs": []}
        try:
            names = [row["run"] for row in manifest["runs"]]
        except (LookupError, TypeError):
            damaged(f"{path}: names no runs")
            continue
        for name in names:
            found.setdefault(name, []).append(path.parent.name)
    return found


def rows(runs: Sequence[RunFolder], output_dir: str | Path) -> list[Row]:
    """One row for each run. Each damaged file is reported in one line."""
    used = uses(output_dir)
    made = []
    with snapshot(output_dir):
        for run in runs:
            run.check()
            stamps = [stamp for stamp in run.files().values() if stamp is not None]
            changed = max((changed for _, changed in stamps), default=run.path.stat().st_mtime_ns)
            size = sum(size for size, _ in stamps)
            age = time.time() - changed / 1e9
            status = run.status()
            outcome = outcome_of(run, status)
            made.append(Row(run, status, outcome, is_running(run), size, age, used.get(run.name, [])))
    return made


def show_list(output_dir: str) -> None:
    found = rows(all_runs(output_dir), output_dir)
    width = max((len(r.run.name) for r in found), default=3)
    print(f"{'run':<{width}}  {'outcome':<17}  {'size':>8}  {'age':>9}  reports")
    for r in found:
        reports = ", ".join(r.reports) or "in no report"
        print(f"{r.run.name:<{width}}  {r.shown_outcome:<17}  {r.size / 1e6:5.1f} MB  {duration(r.age):>9}  {reports}")
    counts = Counter(r.outcome for r in found)
    total = ", ".join(f"{n} {s}" for s, n in counts.items()) or "none"
    print(f"{len(found)} runs ({total}), {sum(r.size for r in found) / 1e6:.1f} MB in {runs_dir(output_dir)}")


def show_run(row: Row) -> None:
    from experiments.evaluate import read_metrics

    run = row.run
    print(run.path)
    try:
        print(read_sealed(run.path / "config.yaml").decode().partition("\n")[2])
    except FileNotFoundError:
        print("no settings yet")
    except ValueError:  # already reported
        print("its settings are damaged")
    failure = run.failure() if row.status == "failed" else None
    print(f"outcome: {row.shown_outcome}" + (f" ({failure['reason']})" if failure else ""))
    values, failures = read_metrics(run)
    print("".join(f"{key}: {values[key]:.6g}\n" for key in SHOWN if values.get(key) is not None), end="")
    print("".join(f"{family}: not evaluated ({reason})\n" for family, reason in failures.items()), end="")
    provenance = run.read("provenance.json")
    if provenance is not None:
        print("\n".join(f"{key}: {provenance.get(key)}" for key in MADE_BY))


def rerun(runs: Sequence[RunFolder]) -> int:
    """Trains runs from the settings in their folders."""
    for run in runs:
        if run.result() is not None:
            return _complain(f"{run.name} is finished and is not trained again; to do so, first remove it with prune")
    from experiments.plan import plan
    from experiments.progress import Progress
    from experiments.runner import execute

    try:
        planned = plan([read_settings(run.path) for run in runs])
    except ConfigError as e:
        damaged(e)
        return 2
    for run, new in zip(runs, planned, strict=True):
        if new.folder.name != run.name:
            print(f"{run.name} is now {new.folder.name}, because its data or code changed", file=sys.stderr)
    outcomes = execute(planned, Progress(len(planned), sum(r.images_left() for r in planned)))
    return 0 if all(o.ok for o in outcomes) else 1


def draw_pictures(runs: Sequence[RunFolder]) -> int:
    """Draws the gallery of each run that has none, and prints the paths of the pictures."""
    from experiments.evaluate import evaluate, read_metrics

    unfinished = [run.name for run in runs if run.status() != "ok"]
    if unfinished:
        return _complain(f"{unfinished[0]} has no trained model to draw pictures with")
    evaluate(runs, ["gallery"], retry=True)
    failed = 0
    for run in runs:
        reason = read_metrics(run, ["gallery"])[1].get("gallery")
        if reason is not None:
            failed = _complain(f"{run.name}: {reason}")
        else:
            print(*sorted(run.path.glob("*.png")), sep="\n")
    return failed


def prune(picked: Sequence[Row], yes: bool) -> int:
    """Lists the runs, asks, and removes them. A run whose status changed in the meantime is kept."""
    if not picked:
        print("there is nothing to remove")
        return 0
    for r in picked:
        used = f"  used by {', '.join(r.reports)}" * bool(r.reports)
        print(f"{r.run.name}  {r.shown_outcome}  {r.size / 1e6:.1f} MB{used}")
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
            if not held:
                _complain(f"{r.run.name} is in training and was not removed")
            elif (status := r.run.status()) != r.status:
                _complain(f"{r.run.name} is now {status} and was not removed")
            elif r.run.path.exists():
                (r.run.path / "result.json").unlink(missing_ok=True)  # first: half a run must not count as finished
                shutil.rmtree(r.run.path)
    return 0


def _complain(line: str) -> int:
    print(f"experiments.runs: {line}", file=sys.stderr)
    return 2


def use(args: argparse.Namespace) -> int:
    """Samples, reconstructs or encodes with a trained model, and prints the path of the file it writes."""
    from experiments import use as using

    try:
        model = using.load(find(args.run, args.output_dir))
        if args.command == "sample":
            using.sample(model, args.label, args.n, args.seed, args.out)
        elif args.command == "reconstruct":
            using.reconstruct(model, args.images, args.label, args.out)
        else:
            using.encode(model, args.images, args.label, args.out)
    except OSError as e:
        return _complain(f"{e.filename}: {e.strerror}")
    except ValueError as e:
        return _complain(" ".join(str(e).split()))
    print(args.out)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.runs", description="Lists, shows, uses and removes runs."
    )
    parser.add_argument(
        "--output-dir", default="outputs", help="folder that holds runs/ and reports/ (default: outputs)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every run: outcome of training, disk use, age, reports")
    which = "name, fingerprint, unique part of a name, path, or best:REPORT"
    for name, text in (
        ("show", "show the settings, numbers and provenance of a run"),
        ("pictures", "draw traversals, interpolations, nearest training images and more"),
        ("rerun", "train runs that are not finished"),
    ):
        commands.add_parser(name, help=text).add_argument("run", nargs="+", help=which)
    for name, text, out in (
        ("sample", "draw samples of a trained model", "samples.png"),
        ("reconstruct", "draw your images and their reconstructions", "reconstructions.png"),
        ("encode", "write the latents of your images: mu, logvar and names", "latents.npz"),
    ):
        own = commands.add_parser(name, help=text)
        own.add_argument("run", help=which)
        if name == "sample":
            own.add_argument("-n", type=int, default=10, help="number of samples (default: 10)")
            own.add_argument("--seed", type=int, default=0, help="seed of the samples (default: 0)")
        else:
            own.add_argument("images", nargs="+", help="pictures, folders of pictures, or .npz files with x and y")
        own.add_argument("--label", help="one class for all (default: any class, or that of an image's folder)")
        own.add_argument("--out", type=Path, default=Path(out), help=f"file to write (default: {out})")
    removal = commands.add_parser("prune", help="remove runs, after listing them and asking")
    removal.add_argument("run", nargs="*", help=which)
    for option, text in (
        ("failed", "all runs whose training ended in an error"),
        ("missing", "all runs that are unfinished and not in training"),
        ("in-no-report", "all runs that are in no report and not in training"),
        ("other-code", "all finished runs that were trained by code other than the present code"),
    ):
        removal.add_argument(f"--{option}", action="store_true", help=text)
    removal.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    try:
        args = arguments().parse_args(argv)
        with damage_named("experiments.runs") as found:
            status = call(args)
        sys.stdout.flush()
        return status or int(bool(found))
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def call(args: argparse.Namespace) -> int:
    """Carries out a command and returns the exit status."""
    if args.command == "list":
        show_list(args.output_dir)
        return 0
    if args.command in ("sample", "reconstruct", "encode"):
        return use(args)
    try:
        named = {run.path: run for run in (find(name, args.output_dir) for name in args.run)}.values()
    except ValueError as e:
        return _complain(str(e))
    with snapshot(args.output_dir):
        for run in all_runs(args.output_dir):
            run.check()
    if args.command == "pictures":
        uses(args.output_dir)
        return draw_pictures(list(named))
    if args.command == "rerun":
        return rerun(list(named))
    picked = rows(list(named), args.output_dir)
    if args.command == "show":
        for r in picked:
            show_run(r)
        return 0
    if args.failed or args.missing or args.in_no_report or args.other_code:
        taken = {r.run.path.resolve() for r in picked}
        others = [run for run in all_runs(args.output_dir) if run.path.resolve() not in taken]
        picked += [
            r
            for r in rows(others, args.output_dir)
            if (args.failed and r.status == "failed")
            or (args.missing and r.status == "missing" and not r.running)
            or (args.in_no_report and not r.reports and not r.running)
            or (args.other_code and r.run.result() is not None and r.run.trained_by_other_code())
        ]
    return prune(picked, args.yes)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names of folders that are not UTF-8
    sys.exit(main())
