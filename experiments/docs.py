"""The generated pages of docs/: every setting and every metric, from their declarations.

    python -m experiments.docs

A test compares the committed pages with what this writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from experiments.report.render import render
from experiments.settings import NOT_OF_THE_RESULT, Settings
from experiments.store import write_atomic
from vae.config import settings
from vae.metrics import FAMILIES, METRICS

ROOT = Path(__file__).parent.parent


def setting_rows() -> list[dict[str, Any]]:
    """One row per setting: name, default, what is allowed, unit, meaning, which kinds of its group use it."""
    rows = []
    for name, value, meta, _ in settings(Settings()):
        if name.startswith("study."):
            continue
        bounds = [
            f"{sign} {meta[key]:g}" for key, sign in (("gt", ">"), ("ge", "≥"), ("le", "≤")) if meta[key] is not None
        ]
        users = [*meta["kinds"], *meta["optional"]]
        rows.append({
            "name": name.removesuffix(".kind"),
            "default": value if value is not None else option_default(name, users),
            "allowed": [f"`{c}`" for c in meta["choices"]] or bounds,
            "unit": meta["unit"],
            "meaning": meta["doc"],
            "kinds": users,
            "free": name in NOT_OF_THE_RESULT,
        })  # fmt: skip
    return rows


def option_default(name: str, kinds: list[str]) -> Any:
    """The default that the first option using a setting gives it, where the schema has none."""
    group, _, key = name.partition(".")
    for kind in kinds:
        path = ROOT / "conf" / group / f"{kind}.yaml"
        if path.exists() and (own := yaml.safe_load(path.read_text())).get(key) is not None:
            return own[key]
    return None


def option_rows() -> list[tuple[str, str, str]]:
    """Group, option and the first comment of its file."""
    rows = []
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        comments = [
            line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#") and "@" not in line
        ]
        if path.parent.name not in ("experiment", "claims") and comments:
            rows.append((path.parent.name, path.stem, comments[0]))
    return rows


def pages() -> dict[str, str]:
    """The text of each generated page, by file name."""
    families = {
        family: [metric for metric in METRICS.values() if metric.family == name] for name, family in FAMILIES.items()
    }
    return {
        "settings.md": render("docs_settings.md.j2", settings=setting_rows(), options=option_rows()),
        "metrics.md": render("docs_metrics.md.j2", families=families),
    }


def main() -> None:
    for name, text in pages().items():
        write_atomic(ROOT / "docs" / name, text)
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
