"""The generated pages of docs/: every setting, metric and part, from their declarations and docstrings.

    python -m experiments.docs

A test compares the committed pages with what this writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from experiments.report.render import render
from experiments.settings import NOT_OF_THE_RESULT, Settings
from experiments.store import write_atomic
from vae import buggy, likelihoods, networks, objectives, optimizers, priors
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
            f"{sign} {bound(meta[key])}"
            for key, sign in (("gt", ">"), ("ge", "≥"), ("le", "≤"))
            if meta[key] is not None
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
            product = re.fullmatch(r"\$\{times:([\d.]+),\$\{([\w.]+)\}\}", str(own[key]))
            return f"{product[1]} × {product[2]}" if product else own[key]
    return None


def bound(value: float) -> str:
    return "2⁶³ − 1" if value == 2**63 - 1 else f"{value:g}"


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


def part_groups() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Title, note and parts of each group; a part is its option and the first paragraphs of its docstring."""
    goals = {
        "elbo": objectives.elbo,
        "per_dim": objectives.per_dim,
        "iwae": objectives.Iwae,
        "beta_tc": objectives.BetaTc,
        "mmd": objectives.Mmd,
        "capacity": objectives.Capacity,
    }
    return [
        ("Networks", prose(networks), documented("model", networks.ENCODERS)),
        ("Likelihoods", prose(likelihoods), documented("likelihood", likelihoods.KINDS)),
        ("Priors", prose(priors), documented("prior", priors.KINDS)),
        ("Objectives", prose(objectives), documented("objective", goals)),
        ("Bugs", prose(buggy), of_group("bug")),
        ("Optimizers", prose(optimizers), of_group("optimizer")),
    ]


def of_group(group: str) -> list[tuple[str, str]]:
    return [(f"{group}={option}", meaning) for own, option, meaning in option_rows() if own == group]


def documented(group: str, parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"{group}={option}", prose(part)) for option, part in parts.items()]


def prose(documented: Any) -> str:
    """A docstring without its sections, such as `Args:`."""
    return re.split(r"\n\n(?=(?:Args|Attributes|Returns|Raises):)", inspect.getdoc(documented) or "")[0]


def pages() -> dict[str, str]:
    """The text of each generated page, by file name."""
    families = {
        family: [metric for metric in METRICS.values() if metric.family == name] for name, family in FAMILIES.items()
    }
    return {
        "settings.md": render("docs_settings.md.j2", settings=setting_rows(), options=option_rows()),
        "parts.md": render("docs_parts.md.j2", groups=part_groups()),
        "metrics.md": render("docs_metrics.md.j2", families=families),
    }


def main() -> None:
    for name, text in pages().items():
        write_atomic(ROOT / "docs" / name, text)
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
