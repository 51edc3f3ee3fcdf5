"""Finds a run by its path, name, fingerprint or part of its name, or as the best of a report."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.advice import advise
from experiments.frame import ReportError
from experiments.reading import read
from experiments.search_findings import Search
from experiments.store import RunFolder, all_runs, runs_dir

if TYPE_CHECKING:
    from vae.trained import TrainedVAE

BEST = "best:"


def find(name: str | Path, output_dir: str | Path = "outputs") -> RunFolder:
    """The run that a name refers to.

    Args:
        name: a path (with a slash), the name of a run's folder, its fingerprint (the end of that name), a part of
            the name that no other run has, or best:REPORT.

    Raises:
        ValueError: if the name fits no run or several runs; the message is one line.
    """
    text = str(name)
    if text.startswith(BEST):
        return RunFolder(best(text.removeprefix(BEST), output_dir))
    if "/" in text:
        if Path(text).is_dir():
            return RunFolder(Path(text))
        raise ValueError(f"{text}: there is no such run folder")
    runs = all_runs(output_dir)
    named = [run for run in runs if run.name == text]
    marked = [run for run in runs if run.name.rpartition("-")[2] == text]
    found = named or marked or [run for run in runs if text in run.name]
    if len(found) == 1:
        return found[0]
    if found:
        some = f"{found[0].name} and {found[1].name}"
        raise ValueError(f"{text}: {len(found)} runs have this in their names, such as {some}; allowed: a longer part")
    near = difflib.get_close_matches(text, [run.name for run in runs], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"{text}: no such run in {runs_dir(output_dir)}{hint}; python -m experiments.runs list shows them")


def load_run(
    name: str | Path, output_dir: str | Path = "outputs", device: str = "cpu", trust: bool = False
) -> TrainedVAE:
    """The trained model of a finished run. Nothing in its folder is executed.

    Args:
        name: as in `find`.
        device: where the model is put, such as "cuda".
        trust: whether custom parts of the model may be imported. Importing them runs their code.

    Raises:
        FileNotFoundError: if the run is not finished, or diverged.
        ValueError: if the name fits no run or several runs, the model's file is damaged, or the model has custom
            parts and `trust` is False.
    """
    from vae import trained

    return trained.load_run(find(name, output_dir).path, device, trust)


def best(name: str, output_dir: str | Path = "outputs") -> Path:
    """The folder of a run of the setting that a report recommends: the run with the lowest seed.

    Args:
        name: name of the report, a folder in outputs/reports.

    Raises:
        ReportError: if there is no such report, or it recommends no setting; the message is one line.
    """
    report = read(name, output_dir)
    if "search" in report.manifest:
        chosen = [trial.run for trial in Search(report).best]
    else:
        chosen = [advice.best.cell.first for advice in advise(report) if advice.best is not None]
    if not chosen or chosen[0] is None:
        raise ReportError(f"{BEST}{name}: the report recommends no setting; allowed: the name of one of its runs")
    return Path(chosen[0]["path"])
