"""The page of all experiments and runs, outputs/index.html.

python -m experiments.browse [--output-dir outputs]
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from experiments.damage import damage_named
from experiments.site.build import write


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.browse", description="Writes and opens the page.")
    parser.add_argument(
        "--output-dir", default="outputs", help="folder that holds runs/ and reports/ (default: outputs)"
    )
    output_dir = Path(parser.parse_args(argv).output_dir)
    if not output_dir.is_dir():
        print(f"browse: {output_dir}: no such folder", file=sys.stderr)
        return 1
    try:
        with damage_named("browse") as found:
            address = write(output_dir).resolve().as_uri()
    except OSError as e:
        print(f"browse: {output_dir}: the page cannot be written ({e.strerror})", file=sys.stderr)
        return 1
    print(address)
    if sys.stdout.isatty() and (
        sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    ):
        webbrowser.open(address)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
