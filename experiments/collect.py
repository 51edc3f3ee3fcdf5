"""The collector."""

from pathlib import Path


def collect(name: str, output_dir: str | Path) -> Path:
    return Path(output_dir) / "reports" / name / "report.md"
