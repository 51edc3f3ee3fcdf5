"""Where, when and from what a run was made: what is worth knowing and must not change its numbers. Imports no torch."""

from __future__ import annotations

import ast
import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import vae

# Modules of vae/ that decide a trained model's numbers, besides those of vae/data/.
NUMBERS = (
    "buggy", "likelihoods", "model", "networks", "objectives", "optimizers", "priors", "seeding", "stack", "terms",
    "train",
)  # fmt: skip


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process."""
    return shlex.join(["python", os.path.basename(sys.argv[0]), *sys.argv[1:]])


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that matter to the numbers and figures."""
    names = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pandas", "matplotlib")
    return {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in names}}


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the code that runs; None outside a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # Without outputs/: a regenerated report does not change the code.
    status = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)outputs")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}


@functools.cache
def training_code() -> str:
    """A hash of the modules that decide a trained model's numbers."""
    library = Path(vae.__file__).parent
    files = [library / f"{name}.py" for name in NUMBERS]
    digest = hashlib.sha256()
    for path in [*files, *sorted((library / "data").glob("*.py"))]:
        digest.update(without_texts(path.read_text()).encode())
    return digest.hexdigest()[:16]


def without_texts(source: str) -> str:
    """The code of a module, the same for whatever comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return _shape(tree)


def _shape(node: Any) -> str:
    """A syntax tree without its empty fields. `ast.dump` has them, and each version of Python has others."""
    if isinstance(node, list):
        return f"[{','.join(map(_shape, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    given = [f"{name}={_shape(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({','.join(given)})"


@functools.cache
def cpu_name() -> str:
    """The processor's model, where the system tells it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def provenance() -> dict[str, Any]:
    """What all runs of this process share: command, versions, code and system."""
    code = {**git_state(), "training_code": training_code()}
    return {"command": command(), "versions": versions(), **code, "host_system": platform.system()}
