"""Recorded texts of templates, compared whole. UPDATE_SNAPSHOTS=1 records them again; read the difference then."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def check(name: str, text: str) -> None:
    """Compares a rendered text with the recorded one."""
    path = FOLDER / name
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; UPDATE_SNAPSHOTS=1 records the new text"
