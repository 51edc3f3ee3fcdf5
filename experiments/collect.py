"""The command that builds a report:

    python -m experiments.collect EXPERIMENT [--output-dir outputs] [--force] [--compare]

It reads the manifest outputs/reports/EXPERIMENT/sweep.json and the runs that this names, evaluates what is missing, and
writes the pages, tables and figures beside the manifest, and outputs/reports/index.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from experiments.damage import damage_named
from experiments.frame import ReportError
from experiments.reading import read
from experiments.report.build import collect
from experiments.report.compare import compare, line


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.collect", description="Builds the report of an experiment."
    )
    parser.add_argument("experiment", help="name of the folder in outputs/reports")
    parser.add_argument(
        "--output-dir", default="outputs", help="folder that holds runs/ and reports/ (default: outputs)"
    )
    parser.add_argument(
        "--force", action="store_true", help="build the report even if some of its runs have been removed"
    )
    parser.add_argument(
        "--compare", action="store_true", help="compare the numbers with those of the reference reports"
    )
    arguments = parser.parse_args(argv)
    with damage_named("collect") as found:
        try:
            _collect(arguments)
        except ReportError as e:
            print(f"collect: {e}", file=sys.stderr)
            return 1
    return int(bool(found))


def _collect(arguments: argparse.Namespace) -> None:
    """Builds the report, and compares it if asked to.

    Raises:
        ReportError: if there is none, or it cannot be built.
    """
    print(collect(arguments.experiment, arguments.output_dir, force=arguments.force))
    if arguments.compare:
        comparison = compare(read(arguments.experiment, arguments.output_dir, measure=False))
        print("No reference report has any of these runs." if comparison is None else line(comparison))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
