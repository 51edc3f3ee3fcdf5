"""Which runs a report is made from, and when it is made.

A sweep writes its manifest, outputs/reports/<report>/sweep.json, before it trains: the very runs, their swept settings,
the data's facts and the command. The collector makes the report from these runs alone. Reading them needs no torch, so
that a report is made in seconds.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.launch.cli import SweepFailed
from experiments.result import SCHEMA_VERSION, facts_json
from experiments.store import RunFolder, runs_dir, write_json
from vae import config as vae_config
from vae.status import status as health

MANIFEST_VERSION = 1
NONE = "–"  # where there is nothing
SETTING = "setting"  # stands for all swept settings where a sweep changes one thing at a time
LONGEST_NAME = 100


def reports_dir(output_dir: str | Path) -> Path:
    return Path(output_dir) / "reports"


def manifest(runs: Sequence[Any], swept: Sequence[str], name: str, job: DictConfig) -> dict[str, Any]:
    """All that the collector needs beside the runs' results.

    Args:
        runs: what experiments.sweep.plan gave.
        swept: keys of the settings that differ between the runs.
        name: of the report.
        job: any of the sweep's composed configs.
    """
    from experiments.sweep import command, git_state, versions

    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    affects = {key: meta["affects_result"] for key, _, meta, _ in vae_config.settings(runs[0].config)}
    plain = (key.lstrip("+") for key in swept)
    swept = list(dict.fromkeys("dataset" if key == "dataset.name" else key for key in plain))  # the data's own name
    swept = [key for key in swept if affects.get(key, affects.get(f"{key}.kind", True)) or key == "dataset"]
    identities = {id(run): vae_config.identity(run.config) for run in runs}
    rows, datasets = [], {}
    for run in runs:
        # A setting without a part in this run (label_repeat where no network is given the label) is null.
        used = identities[id(run)]
        settings = {key: used.get(key, used.get(f"{key}.kind")) for key in swept}
        if "dataset" in settings:
            settings["dataset"] = run.data.name
        row = {"run": run.folder.name, "settings": settings, "dataset_hash": run.data.content_hash}
        if row not in rows:
            rows.append(row)
        datasets[run.data.content_hash] = {
            "name": run.data.name,
            "source": run.data.source,
            "n_train": len(run.data.train_x),
            "n_test": len(run.data.test_x),
            "image_shape": list(run.data.image_shape),
            "n_classes": run.data.n_classes,
            **facts_json(run.facts),
        }
    first, *others = identities.values()
    fixed = {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
        and not any(key in (s, f"{s}.kind") for s in swept)
    }
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": name,
        "study": OmegaConf.to_container(job.study, resolve=True),
        "command": command(),
        "versions": versions(),
        **git_state(),
        "swept": list(swept),
        "fixed": fixed,
        "datasets": datasets,
        "runs": rows,
    }


def write_manifest(content: dict[str, Any], output_dir: str | Path) -> None:
    from experiments.sweep import prepare_output

    prepare_output(output_dir)
    folder = reports_dir(output_dir) / content["name"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", content)


def conclude(content: dict[str, Any], output_dir: str | Path) -> None:
    """Makes the report and the page, and says where they are."""
    from experiments.browse import refresh
    from experiments.collect import collect

    path = collect(content["name"], output_dir)
    print(f"report: {path}", file=sys.stderr)
    refresh(output_dir)


def check_complete(content: dict[str, Any], output_dir: str | Path) -> None:
    """Raises SweepFailed, in one line, if a run has no usable result."""
    bad = []
    for row in content["runs"]:
        if not read_run(runs_dir(output_dir) / row["run"], {}, "").usable:
            bad.append(row["run"])
    if bad:
        n = len(content["runs"])
        path = reports_dir(output_dir) / content["name"] / "report.md"
        raise SweepFailed(
            f"{len(bad)} of {n} runs have no usable result, the first {bad[0]}; {path} lists them, "
            "and the same command tries again those that can be"
        )


def words(value: Any) -> str:
    """A setting's value."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(words(v) for v in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def short(key: str) -> str:
    """A setting's name as the command line has it, without what says nothing."""
    return key.removesuffix(".value").removesuffix(".kind").removeprefix("trainer.")


def described(settings: dict[str, Any]) -> str:
    """Settings in words: x_var 0.1, label_placement both."""
    return ", ".join(words(v) if k == SETTING else f"{short(k)} {words(v)}" for k, v in settings.items())


class ReportError(ValueError):
    """A report that cannot be made; the message is one line."""


@dataclass(frozen=True)
class Run:
    """One run of a report, read from its folder.

    Attributes:
        name: of its folder.
        settings: the swept settings, the seed among them, by dotted name; null where one has no part in this run. Of a
            sweep that changes one thing at a time: `setting`, in words what is changed, and the seed.
        result: the content of result.json, or None: then `status` is failed, missing or unreadable.
        status: that of result.json, or why there is none.
        reason: why the numbers cannot be used, in words; empty where they can.
        point: the swept settings by dotted name, whatever `settings` has.
    """

    name: str
    path: Path
    settings: dict[str, Any]
    dataset_hash: str
    result: dict[str, Any] | None
    status: str
    reason: str
    point: dict[str, Any] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the run has its final numbers."""
        return not self.reason

    @cached_property
    def _health(self) -> tuple[str, str]:
        return health(self.result) if self.usable and self.result is not None else (self.status, self.reason)

    @property
    def health(self) -> str:
        """What its numbers say: ok, dead, collapsed or hole (vae/status.py); without numbers its status."""
        return self._health[0]

    @property
    def died(self) -> bool:
        """Whether training ended with nothing in z: dead or collapsed."""
        return self.health in ("dead", "collapsed")

    @property
    def health_reason(self) -> str:
        """The same in a sentence with the figures."""
        return self._health[1]

    @property
    def seed(self) -> int | None:
        return self.settings.get("seed", (self.result or {}).get("seed"))

    def value(self, column: str) -> float:
        """A number of result.json, NaN where there is none."""
        value = (self.result or {}).get(column)
        return float(value) if isinstance(value, int | float) else math.nan

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The content of provenance.json, empty where it cannot be read."""
        try:
            content = json.loads((self.path / "provenance.json").read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Cell:
    """The runs that differ in the seed only.

    Attributes:
        settings: their swept settings but the seed.
        runs: all of them, by seed, holes included.
    """

    settings: dict[str, Any]
    runs: list[Run]

    @property
    def usable(self) -> list[Run]:
        return [run for run in self.runs if run.usable]

    @property
    def point(self) -> dict[str, Any]:
        """The swept settings by dotted name, also where the sweep names them as one."""
        return self.runs[0].point or self.settings

    @property
    def first(self) -> Run | None:
        """The usable run of the lowest seed."""
        return next(iter(self.usable), None)

    def values(self, column: str) -> list[float]:
        """The finite values of a column, a run each."""
        return [v for run in self.usable if math.isfinite(v := run.value(column))]

    def mean(self, column: str) -> float:
        values = self.values(column)
        return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Report:
    """A manifest with its runs.

    Attributes:
        folder: of the report.
        manifest: the content of sweep.json.
        keys: the swept settings but the seed, by dotted name.
    """

    name: str
    folder: Path
    manifest: dict[str, Any]
    keys: list[str]
    runs: list[Run]

    @cached_property
    def cells(self) -> list[Cell]:
        """In the order in which the sweep names the values of its settings."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(json.dumps([run.settings.get(k) for k in self.keys]), []).append(run)
        ranks = [{v: i for i, v in enumerate(_texts(self.values(k)))} for k in self.keys]
        ordered = sorted(groups, key=lambda text: [r[_text(v)] for r, v in zip(ranks, json.loads(text), strict=True)])
        return [
            Cell({k: runs[0].settings.get(k) for k in self.keys}, sorted(runs, key=lambda r: r.seed or 0))
            for runs in (groups[text] for text in ordered)
        ]

    def values(self, key: str) -> list[Any]:
        """The values of a swept setting in the order of the manifest."""
        return list({_text(v): v for v in (run.settings.get(key) for run in self.runs)}.values())

    def is_number(self, key: str) -> bool:
        """Whether a swept setting can be put on an axis."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values(key))

    @cached_property
    def main(self) -> str | None:
        """The setting on the x axis: the numeric one of most values, else the one of most values."""
        several = [key for key in self.keys if len(self.values(key)) > 1]
        return max(several, key=lambda key: (self.is_number(key), len(self.values(key))), default=None)

    @cached_property
    def lines(self) -> list[tuple[dict[str, Any], list[Cell]]]:
        """The cells along the main setting, for each combination of the other settings."""
        groups: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
        for cell in self.cells:
            rest = {k: v for k, v in cell.settings.items() if k != self.main and len(self.values(k)) > 1}
            groups.setdefault(_text(rest), (rest, []))[1].append(cell)
        return list(groups.values())

    @property
    def usable(self) -> list[Run]:
        return [run for run in self.runs if run.usable]

    @cached_property
    def code(self) -> str:
        """The commits that trained the runs, that of most runs first."""
        dirty = ", with uncommitted changes"
        found = Counter(
            (p["git_commit"] or "no git checkout") + dirty * bool(p.get("git_dirty"))
            for p in (run.provenance for run in self.runs)
            if "git_commit" in p
        ).most_common()
        if len(found) < 2:
            return found[0][0] if found else "not known"
        return "; ".join(f"{text} ({n} runs)" for text, n in found)

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Facts of the data by content hash."""
        return self.manifest["datasets"]

    def setting(self, cell: Cell, key: str) -> Any:
        """A setting of a cell, swept or fixed; None where it has none. `label_placement` means its kind."""
        both = {**self.manifest["fixed"], **cell.settings, **cell.runs[0].point}
        return next((both[k] for k in (key, f"{key}.kind", key.removesuffix(".kind")) if k in both), None)

    @property
    def objectives(self) -> list[str]:
        """The objectives of the runs."""
        found = {self.setting(cell, "objective") for cell in self.cells}
        return [kind for kind in ("elbo", "per_dim") if kind in found]


def _text(value: Any) -> str:
    return json.dumps(value)


def _texts(values: Sequence[Any]) -> list[str]:
    return [_text(v) for v in values]


def reports(output_dir: str | Path) -> list[str]:
    """The names of the reports that have a manifest."""
    return sorted(path.parent.name for path in reports_dir(output_dir).glob("*/sweep.json"))


def read(name: str, output_dir: str | Path) -> Report:
    """A report's manifest and its runs; whatever else lies in the folder of the runs is left alone.

    Raises:
        ReportError: if there is no such report or its manifest cannot be used.
    """
    folder = reports_dir(output_dir) / name
    known = reports(output_dir)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        there = f"it has {', '.join(known)}" if known else "it has none, a sweep makes one: python run.py -m sweep"
        raise ReportError(f"{name}: no such report in {reports_dir(output_dir)}{hint}; {there}")
    path = folder / "sweep.json"
    try:
        manifest = json.loads(path.read_text())
        version = manifest["manifest_version"]
        if version != MANIFEST_VERSION:
            raise ReportError(
                f"{path}: of manifest_version {version}, this program reads {MANIFEST_VERSION}; run the sweep again"
            )
        several = len(manifest["datasets"]) > 1 and "dataset" not in manifest["swept"]
        swept = [*manifest["swept"], *(["dataset"] if several else [])]
        names = Counter(data["name"] for data in manifest["datasets"].values())
        runs = []
        for row in manifest["runs"]:
            settings = {key: row["settings"].get(key) for key in swept}
            data = manifest["datasets"][row["dataset_hash"]]["name"]
            if "dataset" in swept:
                settings["dataset"] = data if names[data] == 1 else f"{data} {row['dataset_hash'][:6]}"
            runs.append(read_run(runs_dir(output_dir) / row["run"], settings, row["dataset_hash"]))
        _check(manifest, {"study": dict, "fixed": dict, "datasets": dict, "versions": dict, "command": str})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        if isinstance(e, ReportError):
            raise
        raise ReportError(f"{path}: not a usable manifest ({type(e).__name__}: {e}); run the sweep again") from None
    if not runs:
        raise ReportError(f"{path}: names no runs; run the sweep again")
    keys = [key for key in swept if key != "seed"]
    if "search" not in manifest and changes_one_thing(runs, keys):
        return Report(name, folder, manifest, [SETTING], [_by_change(run, runs[0], keys) for run in runs])
    return Report(name, folder, manifest, keys, runs)


def changes_one_thing(runs: Sequence[Run], keys: Sequence[str]) -> bool:
    """Whether a sweep of several settings compares a reference, its first run, with changes of it, and is no grid.

    A grid may have holes: it is one as long as it has half of the cells.
    """
    cells = {_text([run.settings.get(key) for key in keys]) for run in runs}
    full = math.prod(len({_text(run.settings.get(key)) for run in runs}) for key in keys)
    return len(keys) > 1 and len(cells) < full / 2


def _by_change(run: Run, reference: Run, keys: Sequence[str]) -> Run:
    """The run with one setting in the place of all: what it changes of the reference."""
    changed = {key: run.settings.get(key) for key in keys if run.settings.get(key) != reference.settings.get(key)}
    text = described({key: value for key, value in changed.items() if value is not None}) or "the reference"
    seed = {"seed": run.settings["seed"]} if "seed" in run.settings else {}
    return replace(run, settings={SETTING: text, **seed}, point=run.settings)


def _check(manifest: dict[str, Any], types: dict[str, type]) -> None:
    for key, kind in types.items():
        if not isinstance(manifest[key], kind):
            raise TypeError(f"{key} is no {kind.__name__}")


def read_run(path: Path, settings: dict[str, Any], dataset_hash: str) -> Run:
    """A run as its folder has it; one that cannot be used is no error here but has a reason."""

    def run(result: dict[str, Any] | None, status: str, reason: str) -> Run:
        return Run(path.name, path, settings, dataset_hash, result, status, reason)

    try:
        result = json.loads((path / "result.json").read_text())
    except FileNotFoundError:
        try:
            failure = RunFolder(path).failure()
        except (OSError, ValueError):
            failure = None
        if failure is not None:
            return run(None, "failed", str(failure.get("reason") or "no reason given"))
        return run(None, "missing", "not finished")
    except (OSError, ValueError) as e:
        return run(None, "unreadable", f"result.json cannot be read ({type(e).__name__})")
    version = result.get("schema_version") if isinstance(result, dict) else None
    if version != SCHEMA_VERSION:
        return run(None, "unreadable", f"result.json has schema_version {version}, this program reads {SCHEMA_VERSION}")
    condition, reason = health(result)
    return run(result, condition, reason) if condition == "diverged" else run(result, "ok", "")
