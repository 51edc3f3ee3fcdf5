"""Writes outputs/reports/benchmark/report.md.

python -m experiments.bench [--repetitions 5] [--output-dir outputs]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.bench import tables
from experiments.provenance import cpu_name, git_state, versions
from experiments.report.render import render
from experiments.settings import Settings
from experiments.store import reports_dir, write_atomic, write_json
from experiments.training import set_up_torch


def write(output_dir: str | Path, repetitions: int) -> Path:
    """Measures, and writes the report; returns its path."""
    set_up_torch(Settings(), torch.get_num_threads())
    times, rows = tables.training(repetitions)
    text = render(
        "benchmark.md.j2",
        rows=rows,
        times=times,
        gpu=tables.gpu(repetitions),
        gpu_name=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        machine=f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} used by torch, {platform.system()}",
        versions={name: versions()[name] for name in ("python", "torch")},
        git=git_state(),
        repetitions=repetitions,
    )
    folder = reports_dir(output_dir) / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "report.md", text)
    met = sum(row.met != "no" for row in rows)
    write_json(folder / "summary.json", {"title": "Speed", "answer": f"{met} of {len(rows)} goals are met."})
    return folder / "report.md"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description="Measures the speed of training.")
    parser.add_argument("--repetitions", type=int, default=5, help="how many times each row is timed (default: 5)")
    parser.add_argument("--output-dir", default="outputs", help="folder that holds reports/ (default: outputs)")
    args = parser.parse_args(argv)
    path = write(args.output_dir, args.repetitions)
    print(path.read_text(), path, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
