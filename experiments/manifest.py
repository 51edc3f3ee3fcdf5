"""The manifest of a sweep, outputs/reports/<report>/sweep.json (stub: the core branch has the real one)."""

from pathlib import Path

MANIFEST_VERSION = 2


def reports_dir(output_dir):
    return Path(output_dir) / "reports"


def reference_dir(output_dir):
    return Path(output_dir) / "reference"
