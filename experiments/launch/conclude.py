"""The end of a sweep: the report, the page, and whether every run has a result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.launch.cli import SweepFailed
from experiments.launch.job import measure
from experiments.plan import Run
from experiments.reading import read
from experiments.report.build import ReportError, collect, ending
from experiments.report.compare import compare, line
from experiments.site.build import refresh
from experiments.store import RunFolder, reports_dir, runs_dir, snapshot


def conclude(manifest: dict[str, Any], runs: Sequence[Run], output_dir: str | Path) -> None:
    """Measures what is trained, builds the report and the page, and prints the answer and where they are.

    Raises:
        SweepFailed: if the report cannot be built; the message is one line.
    """
    with snapshot(output_dir):
        measure(runs)
        try:
            path = collect(manifest["name"], output_dir)
        except ReportError as e:
            raise SweepFailed(str(e)) from e
        if comparison := compare(read(manifest["name"], output_dir, measure=False)):
            print(line(comparison), file=sys.stderr)
        print(f"\n{ending(path.parent)}\n\nreport: {path}", file=sys.stderr)
        refresh(output_dir)


def check_complete(manifest: dict[str, Any], output_dir: str | Path) -> None:
    """Looks at every run of a sweep.

    Raises:
        SweepFailed: if the training of a run did not end, or it diverged; the message is one line.
    """
    names = [row["run"] for row in manifest["runs"]]
    bad = [name for name in names if RunFolder(runs_dir(output_dir) / name).status() != "ok"]
    if bad:
        path = reports_dir(output_dir) / manifest["name"] / "report.md"
        raise SweepFailed(
            f"{len(bad)} of {len(names)} runs have no usable result, the first {bad[0]}; {path} lists them, "
            "and the same command tries again the runs that did not diverge"
        )
