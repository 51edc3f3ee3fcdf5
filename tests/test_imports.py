"""Imports run one way, and no module uses another's private names."""

import ast
from collections.abc import Iterator
from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parent.parent
FILES = [path for top in ("vae", "experiments", "hydra_plugins") for path in sorted((ROOT / top).rglob("*.py"))]
LONGEST = 450  # lines of a file


def test_the_contracts_of_make_lint_are_kept(monkeypatch):
    """The layers of .importlinter, with imports inside functions and under TYPE_CHECKING; no cycles."""
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(config_filename=".importlinter", no_cache=True) == 0


def private_uses(path: Path) -> Iterator[str]:
    """Private names of other modules of the project that a module imports or reads."""
    tree = ast.parse(path.read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("vae", "experiments"):
            for alias in node.names:
                modules.add(alias.asname or alias.name)
                if alias.name.startswith("_"):
                    yield f"{path.relative_to(ROOT)}: from {node.module} import {alias.name}"
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules):
            continue
        if node.attr.startswith("_") and not node.attr.startswith("__"):
            yield f"{path.relative_to(ROOT)}: {node.value.id}.{node.attr}"


def test_no_module_uses_private_names_of_another():
    assert [use for path in FILES for use in private_uses(path)] == []


def test_no_file_is_too_long():
    texts = [*FILES, *sorted((ROOT / "experiments").rglob("*.j2")), *sorted((ROOT / "experiments").rglob("*.js"))]
    assert {str(p.relative_to(ROOT)): n for p in texts if (n := len(p.read_text().splitlines())) > LONGEST} == {}
