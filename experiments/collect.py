"""The collector: a sweep's report from its run folders.

    python -m experiments.collect EXPERIMENT [--output-dir outputs]

It reads the manifest outputs/reports/EXPERIMENT/sweep.json and the runs that this names, and nothing else in
outputs/runs; it writes report.md, runs.csv, tables/ and figures/ beside the manifest, and outputs/reports/index.md.
The same runs give the same report. Without torch, so that it takes seconds, but for the pictures of runs that are not
drawn yet.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from experiments import advice, figures, search_report, tables
from experiments.pictures import draw, present
from experiments.report import (
    SETTING,
    Cell,
    Report,
    ReportError,
    Run,
    described,
    read,
    reports,
    reports_dir,
    short,
    words,
)
from experiments.statistics import Interval, mean_interval, paired_interval, rate_difference, wilson_interval
from experiments.store import RunFolder, write_atomic, write_json
from experiments.tables import escape, interval, metric, number, signed
from vae.config import ConfigError
from vae.status import KL_FLOOR

FORMULAS = {
    "elbo": "SSE/(2·x_var) + (D/2)·ln(2π·x_var) + beta·KL",
    "per_dim": "SSE/D + beta·KL/k",
}
EFFECTIVE = {"elbo": "beta·x_var", "per_dim": "beta·D/(2k)"}
STUDY_COLUMN_TEXTS = {
    "elbo": "Study A reports KL + k/2 (so that its minimum at k = 100 is 50.0) and SSE/2 or SSE/(2·x_var), it does not "
    "say which.",
    "per_dim": "Study B's figures are taken as sums over a batch of 128 images: its KLD is 128·KL/k, its R 128·SSE/D.",
}
TRADEOFF = "tradeoff.png"
ROUNDING = 1e-5  # relative, of a closed form from the eigenvalues as a report keeps them, with six digits
SHARED = ("versions", "git_commit", "git_dirty", "device", "device_name", "threads", "host_system")


def collect(name: str, output_dir: str | Path) -> Path:
    """Makes a report and brings the index of all reports up to date.

    Args:
        name: of the folder in outputs/reports that holds the manifest.

    Returns:
        The path of report.md.

    Raises:
        ReportError: if there is no such report, its manifest cannot be used, or nothing can be written.
    """
    report = read(name, output_dir)
    search = search_report.Search(report) if "search" in report.manifest else None
    if search is None:
        _draw_pictures(report)
    others = [r for other in reports(output_dir) if (r := report if other == name else _read(other, output_dir))]
    all_tables = search_report.tables(search) if search else tables.all_tables(report)
    drawn = search_report.drawn(search) if search else figures.all_figures(report)
    joints = {
        _joint_name(report, data, others): figure
        for data in report.datasets
        if (figure := figures.joint(others, data)) is not None
    }
    findings = search_report.findings(search) if search else key_findings(report)
    advices = [] if search else advice.advise(report)
    tradeoff = figures.tradeoff(advices)
    drawn |= figures.of_the_pick(advices)
    pictures = drawn if tradeoff is None else {**drawn, TRADEOFF: tradeoff}
    try:
        _replace(report.folder / "tables", {
            **{f"{slug}.md": table.markdown().encode() for slug, table in all_tables.items()},
            **{f"{slug}.csv": table.csv().encode() for slug, table in all_tables.items()},
        })  # fmt: skip
        _replace(report.folder / "figures", {file: figure.png for file, figure in pictures.items()})
        for file, figure in joints.items():
            write_atomic(reports_dir(output_dir) / file, figure.png)
        write_atomic(report.folder / "runs.csv", tables.runs_csv(report).encode())
        advised = search_report.advised(search, output_dir) if search else advice_section(advices, tradeoff)
        headline = figures.headline_runs(advices)
        text = markdown(report, all_tables, drawn, joints, findings, advised, headline, output_dir)
        write_atomic(report.folder / "report.md", text.encode())
        write_json(report.folder / "summary.json", summary(report, findings, advices))
        write_atomic(reports_dir(output_dir) / "index.md", index(output_dir).encode())
    except OSError as e:
        raise ReportError(f"{report.folder}: the report cannot be written ({e.strerror})") from None
    return report.folder / "report.md"


def _read(name: str, output_dir: str | Path) -> Report | None:
    """Another report, for the joint figure; None if it cannot be used, which is for its own collection to say."""
    try:
        return read(name, output_dir)
    except ReportError:
        return None


def _draw_pictures(report: Report) -> None:
    """Draws the pictures of the runs whose samples are shown, where they are not drawn yet; what fails is one line."""
    without_data = set()  # the next run of the same data would only try for as long and say the same
    for run in figures.representatives(report):
        if (run.path / "model.pt").exists() and run.dataset_hash not in without_data:
            try:
                draw(RunFolder(run.path))
            except (ConfigError, OSError, RuntimeError) as e:
                without_data.add(run.dataset_hash)
                print(f"collect: no pictures of {run.name}: {' '.join(str(e).split())}", file=sys.stderr)


def _joint_name(report: Report, dataset_hash: str, others: Sequence[Report]) -> str:
    """After the dataset, and its content too where several have the name."""
    name = report.datasets[dataset_hash]["name"]
    same = {h for other in others for h, data in other.datasets.items() if data["name"] == name}
    name = "".join(c if c.isalnum() or c in "-_.," else "_" for c in name)
    return f"{name}-joint.png" if len(same) == 1 else f"{name}-{dataset_hash[:6]}-joint.png"


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Makes a folder hold these files, and none of an earlier report's."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in (".md", ".csv", ".png") and old.name not in files:
            old.unlink()
    for name, data in files.items():
        write_atomic(folder / name, data)


# ---------------------------------------------------------------------------------------------- findings


def key_findings(report: Report) -> list[str]:
    """What the numbers say, a sentence or two each, in markdown; the most important first."""
    if not report.usable:
        reasons = Counter(run.reason for run in report.runs).most_common(3)
        listed = "; ".join(f"{reason} ({n})" for reason, n in reasons)
        return [f"None of the {len(report.runs)} runs has usable numbers: {listed}."]
    found = [*_trend(report), *_effects(report), *_generation(report), *_failing(report), *_against_theory(report)]
    if len(report.usable) == 1:
        found.insert(0, _single(report))
    return found


def _single(report: Report) -> str:
    run = report.usable[0]
    return (
        f"One run: KL {number(run.value('test_kl'))} nats and SSE {number(run.value('test_sse'))} on held-out images."
    )


def _plus_minus(cell: Cell, column: str) -> str:
    return interval(metric(cell, column)).removesuffix(" (n = 1)")


def _trend(report: Report) -> list[str]:
    """How KL and SSE go from one end of the main setting to the other, on the first line."""
    if report.main is None:
        return []
    rest, cells = report.lines[0]
    cells = [cell for cell in cells if cell.usable]
    if len(cells) < 2:
        return []
    if report.is_number(report.main):
        cells = sorted(cells, key=lambda cell: cell.settings[report.main or ""])
        last, first = cells[0], cells[-1]
    else:
        first, last = (f(cells, key=lambda cell: cell.mean("test_sse")) for f in (max, min))
    parts = []
    for column, name, unit in (("test_kl", "KL", " nats"), ("test_sse", "SSE", "")):
        a, b = ({run.seed: run.value(column) for run in cell.usable} for cell in (first, last))
        change = paired_interval(a, b)
        ends = f"{_plus_minus(first, column)} to {_plus_minus(last, column)}{unit}"
        if change.excludes_zero:
            parts.append(f"{name} {'rises' if change.mean > 0 else 'falls'} from {ends}")
        elif change.n > 1:
            parts.append(f"{name} does not differ beyond the interval ({ends})")
        else:
            parts.append(f"{name} goes from {ends} (one seed: no interval)")
    ends = [words(cell.settings[report.main]) for cell in (first, last)]
    where = f" ({described(rest)})" if rest else ""
    return [f"From {short(report.main)} {ends[0]} to {ends[1]}{where}, held-out {' and '.join(parts)}."]


def _effects(report: Report) -> list[str]:
    """What each label setting, and each setting beside the main one, changes against its reference."""
    found = []
    for key in report.keys:
        if len(report.values(key)) < 2 or (key == report.main and key not in tables.LABEL_SETTINGS):
            continue
        reference = tables.reference_value(report, key)
        same, parts = [], []
        for value in [v for v in report.values(key) if v != reference]:
            kl, sse = (tables.effect(report, key, reference, value, c) for c in ("test_kl", "test_sse"))
            if kl.n < 2:
                continue
            if kl.excludes_zero or sse.excludes_zero:
                parts.append(f"at {words(value)} KL is {_change(kl)} and SSE {_change(sse)}")
            else:
                same.append(words(value))
        if same:
            parts.append(f"at {', '.join(same)} neither KL nor SSE differs beyond its interval")
        over = ", averaged over the other settings" if len(report.keys) > 1 else ""
        if parts:
            found.append(f"Against {short(key)} {words(reference)}{over}: {'; '.join(parts)}.")
        else:
            found.append(f"With fewer than two seeds in common, nothing is said about differences by {short(key)}.")
    return found


def _change(difference: Interval) -> str:
    if not difference.excludes_zero:
        return f"no different beyond the interval ({signed(difference)})"
    return f"{'higher' if difference.mean > 0 else 'lower'} ({signed(difference)})"


def _generation(report: Report) -> list[str]:
    cells = [cell for cell in report.cells if cell.values("sample_accuracy")]
    if len(cells) < 2:
        return []
    # A collapsed decoder that is given the label draws the mean of the class: always of it, and nothing of interest.
    cells = [cell for cell in cells if 2 * sum(run.died for run in cell.usable) <= len(cell.usable)] or cells
    best, worst = (f(cells, key=lambda cell: cell.mean("sample_accuracy")) for f in (max, min))
    return [
        "Samples are of the class asked for most often at "
        f"{described(best.settings)} ({_plus_minus(best, 'sample_accuracy')} of them), "
        f"least often at {described(worst.settings)} ({_plus_minus(worst, 'sample_accuracy')})."
    ]


def _failing(report: Report) -> list[str]:
    found = []
    for runs, test, what in (
        (report.runs, lambda run: not run.usable, "without usable numbers and left out of every mean"),
        (report.usable, lambda run: run.health == "dead", "dead: its error is that of a dark image"),
        (report.usable, lambda run: run.health == "collapsed", "collapsed: the posterior equals the prior"),
        (
            report.usable,
            lambda run: run.health == "hole",
            "good in reconstruction but not in samples (a hole)",
        ),
    ):
        if n := sum(map(test, runs)):
            ends = wilson_interval(n, len(runs))
            verb = "is" if n == 1 else "are"
            found.append(
                f"{n} of {len(runs)} runs ({100 * ends.low:.0f}–{100 * ends.high:.0f} %) {verb} {what}; "
                f"{_where(report, test)}."
            )
    return found or [f"All {len(report.runs)} runs have usable numbers, and none is dead, collapsed or with a hole."]


def _where(report: Report, test: Callable[[Run], bool]) -> str:
    """The cells with runs of that kind, those with the most first."""
    counts = [(sum(map(test, cell.runs)), cell) for cell in report.cells]
    hit = sorted((pair for pair in counts if pair[0]), key=lambda pair: -pair[0])
    parts = [f"{n} of {len(cell.runs)} at {described(cell.settings) or 'the only setting'}" for n, cell in hit[:4]]
    return ", ".join(parts) + (f", and {len(hit) - 4} settings more" if len(hit) > 4 else "")


def _against_theory(report: Report) -> list[str]:
    """Settings, and single runs, that have not learned what PCA knows: more training error than the closed form."""
    worse: list[tuple[float, str]] = []  # by how much, and where
    alone: list[tuple[float, str]] = []  # runs of settings of which that cannot be said
    empty, n, n_runs = [], 0, 0
    for cell in report.cells:
        ratios = [(r, run) for run in cell.usable if math.isfinite(r := tables.against_theory(report, run))]
        if ratios and cell.mean("theory_kl_high") == 0:  # what PCA knows is nothing there
            empty.append(described(cell.settings))
        elif ratios:
            n, n_runs = n + 1, n_runs + len(ratios)
            mean = mean_interval(r for r, _ in ratios)
            above = [(r - 1, run) for r, run in ratios if r > 1 + ROUNDING]
            if mean.low > 1 + ROUNDING or len(above) == len(ratios):
                worse.append((mean.mean - 1, described(cell.settings)))
            else:
                alone += [(share, described(cell.settings | {"seed": run.seed})) for share, run in above]

    def have(found: list[tuple[float, str]]) -> str:
        return "has" if len(found) == 1 else "have"

    def most(found: list[tuple[float, str]]) -> str:
        share, where = max(found)
        at = " ".join(filter(None, ("the most" if len(found) > 1 else "", f"at {where}" if where else "")))
        return f"{', ' * bool(at)}{at}, by {number(100 * share, 2)} %"

    found = []
    if worse:
        found.append(
            f"At equal KL {len(worse)} of {n} settings {have(worse)} more training error than the linear closed "
            f"form{most(worse)}: what PCA knows has not been learned there, and better training would gain."
        )
        if alone:
            found.append(
                f"{len(alone)} single {'run' if len(alone) == 1 else 'runs'} beside {have(alone)}{most(alone)}."
            )
    elif alone:
        found.append(
            "At equal KL no setting has more training error than the linear closed form beyond its interval, but "
            f"{len(alone)} of {n_runs} runs {have(alone)}{most(alone)}."
        )
    elif n:
        found.append("At equal KL no run has more training error than the linear closed form.")
    if found and empty:
        found.append(f"Not counted: {'; '.join(empty)}, where the closed form keeps no KL.")
    return found


# ---------------------------------------------------------------------------------------------- report.md


def markdown(
    report: Report,
    all_tables: dict[str, tables.Table],
    drawn: dict[str, figures.Drawn],
    joints: dict[str, figures.Drawn],
    findings: Sequence[str],
    advised: Sequence[str],
    headline: dict[str, Run],
    output_dir: str | Path,
) -> str:
    study = report.manifest["study"]
    parts = [f"# {escape(title(report))}"]
    if study.get("question"):
        parts.append(f"*{escape(study['question'])}*")
    parts += [_data(report), f"**Key findings.** {' '.join(map(escape, findings))}", *advised]
    parts += _what_was_run(report)
    parts += _convention(report)
    for slug, table in all_tables.items():
        parts += [f"## {escape(table.title)}", table.markdown().rstrip()]
        if table.note:
            parts.append(escape(table.note))
        parts += TABLE_NOTES.get(slug, lambda r: [])(report)
        if slug == "failures":
            parts += _deaths(report)
    parts.append("## Figures")
    if not drawn:
        parts.append("No run has numbers or pictures to draw.")
    for file, figure in drawn.items():
        parts += [f"![{file.removesuffix('.png')}](figures/{file})", escape(figure.caption)]
    for file, figure in joints.items():
        parts += [f"![all runs on these data](../{quote(file)})", escape(figure.caption)]
    parts += _more_pictures(headline)
    parts += _provenance(report)
    parts += _again(report, output_dir)
    return "\n\n".join(parts) + "\n"


def advice_section(advices: Sequence[advice.Advice], tradeoff: figures.Drawn | None) -> list[str]:
    """Which setting to pick, for each dataset, and which to avoid."""
    parts = ["## Which setting to pick"]
    for found in advices:
        where = f"{escape(found.dataset)}: " if len(advices) > 1 else ""
        parts.append(" ".join([f"**{where}{escape(found.verdict)}**", *map(escape, found.reasons)]))
        if found.alternatives:
            parts.append("\n".join(f"- {escape(line)}" for line in found.alternatives))
        if found.avoid:
            parts += ["To avoid:", "\n".join(f"- {escape(line)}" for line in found.avoid)]
    if tradeoff is not None:
        parts += [f"![trade-off](figures/{TRADEOFF})", escape(tradeoff.caption)]
    return [*parts, "The rule is in outputs/README.md, under Advice."]


def _more_pictures(headline: dict[str, Run]) -> list[str]:
    """Links to the pictures in the folders of the headline runs."""
    lines = []
    for setting, run in headline.items():
        names = present(RunFolder(run.path))
        links = ", ".join(f"[{name}](../../runs/{quote(run.name)}/{name}.png)" for name in names)
        lines += [f"- {escape(setting)}, seed {run.seed}: {links}"] if names else []
    if not lines:
        return []
    return [
        "More pictures of the choice and of its runner-up, in the folders of their runs, which are not under version "
        "control:",
        "\n".join(lines),
    ]


def title(report: Report) -> str:
    study = report.manifest["study"]
    return str(study.get("title") or study.get("name") or report.name)


def _data(report: Report) -> str:
    lines = []
    for data in report.datasets.values():
        c, h, w = data["image_shape"]
        lines.append(
            f"**Data.** {escape(data['name'])} ({escape(data['source'])}): {data['n_train']:,} training and "
            f"{data['n_test']:,} held-out images, {h}×{w}×{c}, so D = {c * h * w:,}; {data['n_classes']} classes."
        )
    return "\n\n".join(lines)


def _what_was_run(report: Report) -> list[str]:
    space = report.manifest.get("search", {}).get("space", {})
    lines = [
        f"- searched: {escape(short(key))} in {escape(space[key])}"
        if key in space
        else f"- swept: {escape(short(key))} = {escape('; '.join(words(v) for v in report.values(key)))}"
        for key in report.keys
    ]
    if report.keys == [SETTING]:
        reference = {k: v for k, v in report.runs[0].point.items() if k != "seed" and v is not None}
        lines.append(f"- the reference: {escape(described(reference))}; every other setting changes what it names")
    seeds = sorted({run.seed for run in report.runs if run.seed is not None})
    lines.append(f"- seeds: {_ranges(seeds)} ({len(seeds)} a setting)" if seeds else "- seeds: not known")
    groups: dict[str, list[str]] = {}
    for key, value in report.manifest["fixed"].items():
        group, _, rest = key.rpartition(".")
        if key not in ("training_version", "seed"):
            groups.setdefault(group, []).append(words(value) if rest == "kind" else f"{rest} {words(value)}")
    lines += [f"- {escape(group)}: {escape(', '.join(values))}" for group, values in groups.items()]
    n = f"{len(report.usable)} of {len(report.runs)}"
    return ["## What was run", f"{n} runs have numbers; {len(report.cells)} settings.", "\n".join(lines)]


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _convention(report: Report) -> list[str]:
    lines = [
        f"- `{kind}`: loss per image = {escape(FORMULAS[kind])}; effective x_var = {EFFECTIVE[kind]}. "
        f"{STUDY_COLUMN_TEXTS[kind]}"
        for kind in report.objectives
    ]
    return [
        "## Loss convention",
        "\n".join(lines),
        "R-loss is the squared error SSE = ‖x − x̂‖², z sampled, summed over the D pixels of an image; KLD is "
        "KL(q(z\\|x, y) ‖ N(0, I)), summed over the k latent dimensions, in nats. Both are means over images, pixels "
        "in [0, 1]. For a loss a·SSE + b·KL the optimum depends on effective x_var = b/(2a) alone. The closed form is "
        "a linear VAE (probabilistic PCA; Lucas et al. 2019) at that variance on the training images.",
    ]


def _deaths(report: Report) -> list[str]:
    """Where training ends with nothing in z, how soon, and what the changes of the reference do to its rate."""

    lost = [run for run in report.usable if run.died]
    if not lost or len(report.cells) < 2:
        return []
    groups: dict[str, list[str]] = {"in all runs": [], "in some": [], "in none": []}
    rates = {
        id(cell): tables.Rate(sum(run.died for run in cell.usable), len(cell.usable))
        for cell in report.cells
        if cell.usable
    }
    for cell in report.cells:
        if (found := rates.get(id(cell))) is None:
            continue
        how = "in all runs" if found.count == found.n else "in some" if found.count else "in none"
        low, high = cell.mean("theory_kl_low"), cell.mean("theory_kl_high")
        expected = (
            ", as the closed form has it" if high == 0 else "" if low > 0 else ", which the closed form leaves open"
        )
        groups[how].append(f"{described(cell.settings)} ({tables.rate(found)}{expected if found.count else ''})")
    lines = [f"- **{how}**: {escape('; '.join(names))}" for how, names in groups.items() if names]
    parts = ["## Where training dies", "\n".join(lines)]
    data = next(iter(report.datasets.values()))
    within, over_all = (number(data[key][0], 3) for key in ("eigenvalues_within", "eigenvalues"))
    below = [run for run in lost if run.value("theory_kl_low") > 0]
    parts.append(
        f"Dead or collapsed, of the runs with numbers. A linear VAE collapses for certain at an effective x_var from "
        f"l_1 on, {within} within classes and {over_all} over all; {len(below)} of the {len(lost)} runs died below, "
        "where the optimum keeps KL: their training failed."
    )
    alive = [run for run in report.usable if run not in lost]
    parts += _how_soon(below) + _revived(alive) + _dead_units(lost, alive)
    if report.keys == [SETTING] and len(rates) > 1:
        parts += _changed_rates(report, rates)
    return parts


def _fallen(runs: Sequence[Run]) -> list[int]:
    """The epoch in which the training KL fell to the floor, of each run in which it did."""
    found = []
    for run in runs:
        try:
            rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
            found.append(next(i for i, row in enumerate(rows, start=1) if float(row["train_kl"]) <= KL_FLOOR))
        except (OSError, ValueError, LookupError, StopIteration):
            continue
    return found


def _how_soon(runs: Sequence[Run]) -> list[str]:
    ends = _fallen(runs)
    if not ends:
        return []
    first = sorted(ends)[: math.ceil(0.9 * len(ends))][-1]
    steps = math.ceil(runs[0].value("n_train") / runs[0].value("trainer.batch_size"))
    return [
        f"When: in nine of ten the training KL fell to {KL_FLOOR:g} nats by epoch {first} ({first * steps:,} steps)."
    ]


def _revived(alive: Sequence[Run]) -> list[str]:
    n = len(_fallen(alive))
    if not n:
        return []
    return [
        f"{n} of the {len(alive)} runs that are alive at the end had fallen as low and came back: nothing in z is a "
        "saddle, which a run can leave."
    ]


def _dead_units(lost: Sequence[Run], alive: Sequence[Run]) -> list[str]:
    names = ("test_encoder_dead_units", "test_decoder_dead_units")
    means = [
        [mean_interval(v for run in runs if math.isfinite(v := run.value(name))) for name in names]
        for runs in (lost, alive)
    ]
    if any(value.n < 2 for row in means for value in row):
        return []
    (encoder, decoder), (encoder_alive, decoder_alive) = ([interval(v) for v in row] for row in means)
    return [
        f"Hidden ReLU units that are 0 for every image: of the encoder {encoder} of them in runs that died, "
        f"{encoder_alive} in the others; of the decoder {decoder} and {decoder_alive}."
    ]


def _changed_rates(report: Report, rates: dict[int, tables.Rate]) -> list[str]:
    """Each setting's rate against that of the setting before it that differs from it in the fewest settings."""

    cells = [cell for cell in report.cells if id(cell) in rates]
    rows: list[list[Any]] = [[described(cells[0].settings), rates[id(cells[0])], "", ""]]
    for i, cell in enumerate(cells[1:], start=1):
        control = min(cells[:i], key=lambda other: len(tables.changed(cell, other)))
        base, found = rates[id(control)], rates[id(cell)]
        change = rate_difference(base.count, base.n, found.count, found.n)
        word = "fewer die" if change.high < 0 else "more die" if change.low > 0 else "no difference shown"
        ends = f"{100 * change.mean:+.0f} points, {100 * change.low:+.0f} to {100 * change.high:+.0f}"
        rows.append([described(cell.settings), found, described(control.settings), f"{ends}: {word}"])
    columns = [("setting", "setting"), ("died", "died"), ("control", "against"), ("change", "difference")]
    return [
        tables.Table("deaths", "", columns, rows).markdown().rstrip(),
        "Each against the setting further up that differs from it in the fewest settings. Differences of rates with "
        "Newcombe's 95 % interval (1998, method 10).",
    ]


def _headline_notes(report: Report) -> list[str]:
    notes = [
        "Mean ± 95 % interval over seeds (Student's t); n counts the runs with numbers, and n = 1 gives no interval. "
        "Intervals are each for themselves, not corrected for the number of comparisons."
    ]
    if any(run.died for run in report.usable):
        notes.append(
            "The mean of a setting with dead or collapsed runs mixes kinds of run: see Failures and the single runs."
        )
    placements = {run.result["label_placement.kind"] for run in report.usable if run.result}
    if "decoder" in placements:
        notes.append(
            "For label_placement decoder the closed form is given as the pair within-class–unconditional: it lies "
            "between them in the rate-distortion plane, and need not in KL or SSE alone."
        )
    rows = report.manifest["study"]["published"]
    if any(tables.published(report, cell) for cell in report.cells):
        source = report.manifest["study"].get("source") or "the study"
        figures_there = any(set(tables.split_published(row)[1]) - {"note"} for row in rows)
        if figures_there:
            notes.append(
                f"Published figures are quoted from {escape(source)}; they are of the study's own data and network. "
                "What it says beside them is in our words."
            )
        else:
            notes.append(f"What the study says is in our words, after {escape(source)}.")
        missing = [
            settings
            for settings, _ in map(tables.split_published, rows)
            if not any(
                all(tables.same(report.setting(cell, k), v) for k, v in settings.items()) for cell in report.cells
            )
        ]
        if missing:
            notes.append(f"Without a setting here: the study's {escape('; '.join(map(described, missing)))}.")
    return notes


def _failure_notes(report: Report) -> list[str]:
    notes = [
        "Rates with Wilson's 95 % interval. Without numbers: diverged (the loss or a parameter stopped being finite, "
        "or the held-out error exceeds D), failed (an error), missing (not finished) or unreadable. Of the runs with "
        "numbers: dead, the error of a dark image, or worse than the mean image's; collapsed, the posterior equals the "
        "prior (KL and active units at the floor); hole, good reconstructions but samples that are not, by Frechet "
        "distance, coverage and class. The thresholds are in outputs/README.md; runs.csv says of each run why."
    ]
    holes = [run for run in report.runs if not run.usable]
    if holes:
        notes.append("\n".join(f"- `{run.name}`: {run.status}, {escape(run.reason)}" for run in holes))
    return notes


def _generation_notes(report: Report) -> list[str]:
    notes = [
        "Judged by a frozen classifier of the dataset (vae/judge.py). Its own accuracy is that on held-out images, "
        "which blurred samples of the class asked for can exceed. FFD is the Frechet distance in its features to the "
        "held-out images, no Inception FID; of real images it is that of training images. Samples at that value are as "
        "good as real ones; reconstructions, made from the held-out images, can lie below it. Density and coverage: "
        "Naeem et al. 2020. Sharpness is the variance of the Laplacian: below that of real images is blurred, above it "
        "is noise."
    ]
    judges = {(run.dataset_hash, run.result.get("judge")) for run in report.usable if run.result}
    if len(judges) > len({data for data, _ in judges}):
        notes.append("> **Warning:** the runs were judged by different classifiers; their FFD cannot be compared.")
    return notes


def _posterior_notes(report: Report) -> list[str]:
    return [
        "KL = I(x; z) + KL(q(z) ‖ p(z)), Hoffman and Johnson 2016: what z tells of its image, and how unlike the prior "
        "all posteriors together are, over M held-out images. M images show at most ln M, so that the second "
        "term is given by what it is at most, and at least (of the Gaussian of the same moments). KL = 0 is collapse; "
        "a large KL(q(z) ‖ p(z)) is the hole between aggregate posterior and prior, where samples fall. The "
        "importance-weighted bound (Burda et al. 2016) has 64 samples; it and the ELBO that it exceeds are of the same "
        f"images{_of_how_many(report)}."
    ]


def _of_how_many(report: Report) -> str:
    """How many images the ceiling ln M is of."""
    sizes = {round(math.exp(v)) for run in report.usable if (v := run.value("test_mutual_information_ceiling")) < 30}
    return f", M = {', '.join(f'{m:,}' for m in sorted(sizes))}" if sizes else ""


TABLE_NOTES: dict[str, Callable[[Report], list[str]]] = {
    "headline": _headline_notes,
    "failures": _failure_notes,
    "generation": _generation_notes,
    "posterior": _posterior_notes,
}


def _provenance(report: Report) -> list[str]:
    manifest = report.manifest
    known = [run.provenance for run in report.runs if run.provenance]
    of_the_runs = (p.get("versions") for p in known)
    versions = next((v for v in of_the_runs if isinstance(v, dict)), manifest["versions"])  # a warning names others
    lines = [
        f"- started by: `{manifest['command']}`",
        f"- code of the runs: {report.code}",
        f"- versions: {', '.join(f'{k} {v}' for k, v in versions.items())}",
    ]
    for key in ("device", "device_name", "threads"):
        if values := _distinct(known, key):
            lines.append(f"- {key.replace('_', ' ')}: {', '.join(values)}")
    times = [(p["started"], p["finished"]) for p in known if "started" in p and "finished" in p]
    if times:
        seconds = sum(p.get("train_seconds", 0) / max(1, p.get("stack_size", 1)) for p in known)
        first, last = min(t[0] for t in times), max(t[1] for t in times)
        lines.append(f"- trained: {first} to {last}, {_duration(seconds)} of training in all")
    warnings = [
        f"> **Warning:** the runs differ in {key.replace('_', ' ')}: {escape('; '.join(_distinct(known, key)))}."
        for key in SHARED
        if len(_distinct(known, key)) > 1
    ]
    without = [run for run in report.usable if not run.provenance]
    if without:
        warnings.append(f"> **Warning:** {len(without)} runs have no readable provenance.json.")
    parts = ["## Runs and provenance", "\n".join(lines)]
    if warnings:
        parts.append("\n>\n".join(warnings))
    parts.append(
        "Every run with its settings and all numbers: [runs.csv](runs.csv). "
        "Tables with full precision: [tables/](tables)."
    )
    return parts


def _distinct(known: Iterable[dict[str, Any]], key: str) -> list[str]:
    """The values of a key, those of most runs first, with the number of runs where there are several."""
    counts = Counter(json.dumps(p[key], sort_keys=True) for p in known if key in p)
    values = [(json.loads(text), n) for text, n in counts.most_common()]
    if key == "versions" and len(values) > 1:  # only what differs
        names = {k for v, _ in values for k in v if any(w.get(k) != v[k] for w, _ in values)}
        values = [({k: v[k] for k in v if k in names}, n) for v, n in values]
    if isinstance(values[0][0] if values else None, dict):
        values = [(", ".join(f"{k} {w}" for k, w in v.items()), n) for v, n in values]
    return [f"{v} ({n} runs)" if len(values) > 1 else str(v) for v, n in values]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _again(report: Report, output_dir: str | Path) -> list[str]:
    where = "" if str(output_dir) == "outputs" else f" --output-dir {output_dir}"
    return [
        "## How to make it again",
        f"```sh\n{report.manifest['command']}\n# the report alone, from the runs that are there\n"
        f"python -m experiments.collect '{report.name}'{where}\n```",
        "Runs that are finished are not trained again.",
    ]


# ---------------------------------------------------------------------------------------------- index


def summary(report: Report, findings: Sequence[str], advices: Sequence[advice.Advice]) -> dict[str, Any]:
    """What the index says of a report."""
    times = [run.provenance["finished"] for run in report.runs if "finished" in run.provenance]
    return {
        "title": title(report),
        "data": ", ".join(sorted({data["name"] for data in report.datasets.values()})),
        "n_runs": len(report.runs),
        "n_usable": len(report.usable),
        "date": max(times)[:10] if times else "",
        "finding": f"{findings[0]} {advice.line(advices)}",
    }


def index(output_dir: str | Path) -> str:
    """The list of all reports that were made."""
    rows = []
    for name in reports(output_dir):
        try:
            row = json.loads((reports_dir(output_dir) / name / "summary.json").read_text())
            link = f"[{escape(row['title'])}]({quote(name)}/report.md)"
            n = f"{row['n_usable']}" if row["n_usable"] == row["n_runs"] else f"{row['n_usable']} of {row['n_runs']}"
            rows.append(
                f"| {link} | `{name}` | {escape(row['data'])} | {n} | {row['date']} | {escape(row['finding'])} |"
            )
        except (OSError, ValueError, LookupError, TypeError):
            continue  # its sweep is still running, or it was never collected
    head = "| report | folder | data | runs | date | finding |\n| --- | --- | --- | ---: | --- | --- |\n"
    verdicts = ""
    for path in sorted(reports_dir(output_dir).glob("claims*/summary.json")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            link = f"[{path.parent.name}]({quote(path.parent.name)}/report.md)"
            found = json.loads(path.read_text())["finding"]
            verdicts += f"\nThe claims of the two studies against these runs, {link}: {escape(found)}.\n"
    pictures = sorted(path.name for path in reports_dir(output_dir).glob("*-joint.png"))
    shown = "".join(f"\n![{escape(name)}]({quote(name)})\n" for name in pictures)
    return (
        f"# Reports\n\n{head}"
        + "".join(f"{row}\n" for row in rows)
        + verdicts
        + (f"\n## All runs by dataset\n{shown}" if shown else "")
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.collect", description="Makes a sweep's report.")
    parser.add_argument("experiment", help="name of the folder in outputs/reports")
    parser.add_argument("--output-dir", default="outputs", help="folder that holds runs/ and reports/ (outputs)")
    arguments = parser.parse_args(argv)
    try:
        print(collect(arguments.experiment, arguments.output_dir))
    except ReportError as e:
        print(f"collect: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
