"""The claims report: each claim of the two studies compared with runs of this project.

    python -m experiments.claims [dataset=A,B] [reports=FOLDER] [setting=value ...]

This trains what is missing of the experiments that the claims need: study A's on the dataset A, study B's on B. Then it
writes outputs/reports/claims/. With reports=FOLDER, it trains nothing and takes the numbers of the reports in a folder,
such as the shipped ones in outputs/reference. The claims and their criteria are in conf/claims/. Imports no torch.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from hydra.errors import HydraException

from experiments.criteria import Check, Met, Reports, every, judged
from experiments.damage import damage_named, damaged
from experiments.frame import Report, ReportError
from experiments.launch.cli import explain, rewrite
from experiments.reading import read, recorded, reports
from experiments.report.build import index, summary
from experiments.report.render import render
from experiments.site.build import refresh
from experiments.store import MANIFEST_VERSION, read_sound, reports_dir, write_atomic, write_json
from vae.config import ConfigError

ROOT = Path(__file__).parent.parent
VERDICTS = {True: "holds", False: "does not hold", None: "undecided"}
RUN = [str(ROOT / "run.py")]
USAGE = 2  # exit status


@dataclass(frozen=True)
class Claim:
    """A claim of a study.

    Attributes:
        id, said: its name in the list of claims, and what the study said, in our words.
        holds_if: the criterion in words.
        criterion: conditions that must all be met (experiments/criteria.py).
        also: conditions shown beside the verdict, which do not count.
        theory, note: what the closed form says, and a remark.
        earlier: the criterion before the results were known, if this one was written after them.
        earlier_verdict: the verdict by it on the embedded data, when this one was written; empty if there was none.
        ours: whether it is our reading of the study, and not counted among its claims.
    """

    id: str
    said: str
    holds_if: str
    criterion: Sequence[Mapping[str, Any]]
    also: Sequence[Mapping[str, Any]] = ()
    theory: str = ""
    note: str = ""
    earlier: str = ""
    earlier_verdict: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Study:
    """A file of conf/claims: its claims, and the experiments that they need as arguments of run.py, by name.

    Attributes:
        remark: when the criteria were written, and what was changed afterwards.
    """

    dataset: str
    remark: str
    experiments: Mapping[str, Sequence[str]]
    other_data: Mapping[str, Sequence[str]]
    claims: Sequence[Claim]

    def arguments(self, dataset: str, more: Sequence[str]) -> dict[str, list[str]]:
        """The arguments of run.py for each experiment on this dataset, with these settings."""
        own = dataset == self.dataset or any(a.startswith("trainer.epochs=") for a in more)
        return {
            name: [*given, f"dataset={dataset}", *([] if own else self.other_data.get(name, [])), *more]
            for name, given in self.experiments.items()
        }


@dataclass(frozen=True)
class Finding:
    """A claim, whether it holds (None: undecided), the figures that decide it and those beside it."""

    claim: Claim
    met: Met
    checks: Sequence[Check]
    also: Sequence[Check]

    @property
    def verdict(self) -> str:
        return VERDICTS[self.met]


def studies() -> list[Study]:
    """The studies of conf/claims, in the order of their names."""
    found = []
    for path in sorted((ROOT / "conf" / "claims").glob("*.yaml")):
        raw = yaml.safe_load(path.read_text())
        claims = [Claim(**claim) for claim in raw["claims"]]
        found.append(Study(raw["dataset"], raw["remark"], raw["experiments"], raw.get("other_data", {}), claims))
    return found


def judge(claim: Claim, known: Reports) -> Finding:
    """The verdict on a claim; undecided with the reason where runs are missing."""
    parts = [judged(condition, known) for condition in claim.criterion]
    also = [check for condition in claim.also for check in judged(condition, known)[1]]
    checks = [check for _, found in parts for check in found]
    once = [check for i, check in enumerate(checks) if check not in checks[:i]]  # a reason once, not for each part
    return Finding(claim, every(met for met, _ in parts), once, also)


def train(arguments: Sequence[str], output_dir: str | Path) -> Report:
    """Runs a sweep, which trains what is missing, and reads its report: the one whose manifest the sweep wrote.

    Raises:
        subprocess.CalledProcessError: if the sweep wrote no report; it has said why.
    """

    def written() -> set[tuple[int, str]]:
        """When the manifest of each report was written."""
        folder = reports_dir(output_dir)
        return {((folder / name / "sweep.json").stat().st_mtime_ns, name) for name in reports(output_dir)}

    before = written()
    command = [sys.executable, *RUN, *arguments]
    status = subprocess.run(command, check=False).returncode
    new = written() - before
    if status not in (0, 1) or not new:  # 1: some runs have no usable result, which the report says
        raise subprocess.CalledProcessError(status or 1, command)
    return read(max(new)[1], output_dir)


def recorded_report(arguments: Sequence[str], dataset: str, folder: Path) -> Report:
    """The report in a folder of the sweep that these arguments start, on data of this name, with its recorded numbers.

    Raises:
        ReportError: if there is none, or it cannot be used.
    """
    wanted, name = _settings(rewrite(arguments)), Path(dataset).name.removesuffix(".npz")
    for path in sorted(folder.glob("*/sweep.json")):
        manifest = read_sound(path) or {}
        if manifest.get("manifest_version") != MANIFEST_VERSION:
            continue
        names = {data["name"] for data in manifest["datasets"].values()}
        if _settings(shlex.split(manifest["command"])) == wanted and names == {name}:
            return recorded(path.parent)
    sweep = " ".join(a for a in arguments if not a.startswith("output_dir="))
    raise ReportError(f"{folder}: has no report of {sweep}")


def _settings(arguments: Sequence[str]) -> set[str]:
    """Which of the arguments decide numbers, those of the data apart."""
    return {a for a in arguments if re.match(r"[\w.+]+=", a) and not re.match("output_dir=|dataset[.=]", a)}


def write(folder: Path, findings: Sequence[Finding], known: Reports, remarks: Sequence[str], command: str) -> None:
    """Writes report.md, details.md, verdicts.csv and summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    counted = [finding for finding in findings if not finding.claim.ours]
    counts = Counter(finding.verdict for finding in counted)
    later = [f for f in counted if f.met and f.claim.earlier]
    datasets = {h: data for report in known.values() for h, data in report.datasets.items()}
    values = {"findings": findings, "counted": counted, "later": later, "counts": counts, "reports": known}
    values |= {"datasets": datasets.values(), "remarks": remarks, "command": command}
    values["links"] = {name: Path(os.path.relpath(report.folder, folder)).as_posix() for name, report in known.items()}
    for name, template in (("report", "claims.md.j2"), ("details", "claims_details.md.j2")):
        write_atomic(folder / f"{name}.md", render(template, **values))
    rows = [
        {"id": f.claim.id, "said": f.claim.said, "verdict": f.verdict, "holds_if": f.claim.holds_if} for f in findings
    ]
    write_atomic(folder / "verdicts.csv", pd.DataFrame(rows).to_csv(index=False))
    answer = render("claims_counts.md.j2", counts=counts, later=later).strip()
    own = summary("The claims of the two studies", list(known.values()), answer)
    write_json(folder / "summary.json", own | {"verdicts": {f.claim.id: f.verdict for f in findings}})


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        given: its arguments.
        settings: those that go on to the sweeps.
        datasets: study A's and study B's.
        recorded_in: the folder of reports whose numbers are judged; None to train what is missing.
    """

    given: Sequence[str]
    settings: Sequence[str]
    datasets: Sequence[str]
    output_dir: str
    recorded_in: Path | None

    @classmethod
    def of(cls, given: Sequence[str], default: Sequence[str]) -> Request:
        """The request of these arguments; `default` are the data of the studies.

        Raises:
            ConfigError: if the datasets are not two, or there is no such folder of reports.
        """

        def values(name: str) -> list[str]:
            return [a.removeprefix(f"{name}=") for a in given if a.startswith(f"{name}=")]

        chosen, folders = values("dataset"), values("reports")
        datasets = chosen[0].split(",") if chosen else default
        if len(chosen) > 1 or len(datasets) != len(default) or not all(datasets):
            raise ConfigError(
                f"dataset={','.join(chosen)}: two are needed; allowed: study A's and study B's, as in "
                "dataset=mnist,cifar10"
            )
        if len(folders) > 1 or not all(Path(folder or "-").is_dir() for folder in folders):
            raise ConfigError(f"reports={','.join(folders)}: allowed: a folder of reports")
        settings = [a for a in given if not a.startswith(("dataset=", "reports="))]
        output_dir = (values("output_dir") or ["outputs"])[0]
        return cls(given, settings, datasets, output_dir, Path(folders[0]) if folders else None)

    def report(self, arguments: Sequence[str], dataset: str) -> Report:
        """The report of the sweep that these arguments of run.py start: recorded, or trained now.

        Raises:
            ReportError: if the recorded ones do not contain it, or it cannot be used.
            subprocess.CalledProcessError: if the sweep wrote no report; it has said why.
        """
        if self.recorded_in:
            return recorded_report(arguments, dataset, self.recorded_in)
        return train(arguments, self.output_dir)


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & {*given}:
        print(__doc__)
        return 0
    both = studies()
    try:
        with damage_named("claims") as found:
            _claims(both, Request.of(given, [study.dataset for study in both]))
        return int(bool(found))
    except subprocess.CalledProcessError as e:
        return e.returncode
    except (ConfigError, HydraException) as e:  # a sweep would have said it
        print(f"claims: {explain(e, given)}", file=sys.stderr)
        return USAGE


def _claims(both: Sequence[Study], request: Request) -> None:
    """Trains what is missing or reads what is recorded, judges the claims and writes the report."""
    known = {}
    for study, dataset in zip(both, request.datasets, strict=True):
        for name, arguments in study.arguments(dataset, request.settings).items():
            print(f"claims: {name}", file=sys.stderr)
            try:
                known[name] = request.report(arguments, dataset)
            except ReportError as e:
                damaged(e)
    findings = [judge(claim, known) for study in both for claim in study.claims]
    own = [study.dataset for study in both]
    shown = [",".join(Path(name).name for name in request.datasets)] if request.datasets != own else []
    shown += [a for a in request.settings if not a.startswith("output_dir=")]
    reports_folder = reports_dir(request.output_dir)
    folder = reports_folder / "-".join(["claims", *(re.sub(r"[^\w.,=+-]", "", a) for a in shown)])
    command = shlex.join(["python", "-m", "experiments.claims", *request.given])
    write(folder, findings, known, [study.remark for study in both], command)
    write_atomic(reports_folder / "index.md", index(request.output_dir))
    print(f"report: {folder / 'report.md'}", file=sys.stderr)
    refresh(request.output_dir)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
