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
from typing import Any

import torch

from experiments.bench import tables
from experiments.provenance import cpu_name, git_state, versions
from experiments.report.render import render
from experiments.settings import Settings
from experiments.store import reports_dir, write_atomic, write_json
from experiments.training import set_up_torch


def write(output_dir: str | Path, repetitions: int) -> Path:
    """Measures, and writes the report after each part of it; returns its path."""
    set_up_torch(Settings(), torch.get_num_threads())
    folder = reports_dir(output_dir) / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    times, rows = tables.training(repetitions)
    of_gpu: list[dict[str, Any]] = []

    def write_what_is_known() -> None:
        answer = render("benchmark_answer.md.j2", met=sum(row.met != "no" for row in rows), total=len(rows)).strip()
        text = render(
            "benchmark.md.j2",
            answer=answer,
            rows=rows,
            times=times,
            gpu=of_gpu,
            gpu_name=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            cpu={"name": cpu_name(), "cores": os.cpu_count(), "instructions": torch.backends.cpu.get_cpu_capability()},
            threads=torch.get_num_threads(),
            system=platform.system(),
            versions={name: versions()[name] for name in ("python", "torch")},
            git=git_state(),
            repetitions=repetitions,
        )
        write_atomic(folder / "report.md", text)
        write_json(folder / "summary.json", {"title": "Speed", "answer": answer})

    write_what_is_known()
    for row in tables.gpu(repetitions):
        of_gpu.append(row)
        write_what_is_known()
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
