"""What README and docs say can be done is done here."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import diagnose
from experiments.claims import studies
from experiments.hypotheses import Diagnosis, Row, read_spectrum
from experiments.published import LOSS
from experiments.wording import number

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "outputs" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("command", re.findall(r"^python -m experiments\.diagnose ([^#\n]*)", README, re.MULTILINE))
def test_a_diagnosis_of_the_readme_runs(command: str, capsys: pytest.CaptureFixture[str]):
    assert diagnose.main(command.split()) == 0
    assert "variance_as_std" in capsys.readouterr().out.splitlines()[0]


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"ablation-xvar", "test", "evaluate"} <= named
    assert named <= targets


def test_make_passes_on_a_dataset_with_a_space_and_quotes():
    command = ["make", "-so", ".venv/.made", "train", "PY=printf '<%s>'", 'DATASET=My "own" Pictures', "ARGS=z_dim=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == '<run.py><dataset=My "own" Pictures><z_dim=2>'


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_linked_file_exists(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_reference_pictures_are_small_and_can_be_opened():
    pictures = sorted((ROOT / "outputs" / "reference").rglob("*.png"))
    assert pictures
    assert [p.name for p in pictures if p.stat().st_size > 300 * 1024] == []
    for picture in pictures:
        with Image.open(picture) as opened:
            opened.verify()


def test_page_one_of_the_reference_reports_is_short():
    """Of those in the current format, which has a second page."""
    pages = [path.with_name("report.md") for path in (ROOT / "outputs" / "reference").glob("*/details.md")]
    assert pages
    assert {str(p): n for p in pages if (n := len(p.read_text().split())) > 700} == {}


def test_no_reference_report_has_an_absolute_path():
    pages = [p for ending in ("md", "csv", "json") for p in (ROOT / "outputs" / "reference").rglob(f"*.{ending}")]
    assert [str(p) for p in pages if re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/\w", p.read_text())] == []


def column(table: str, heading: str, n_settings: int) -> dict[tuple[str, ...], str]:
    """A column of a table in markdown, by the first cells of its rows."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {tuple(row[:n_settings]): row[head.index(heading)] for row in rows}


def test_the_figures_that_the_readme_quotes_are_those_of_the_report():
    folder = ROOT / "outputs/reference/xvar-mnist/tables"
    sse = column((folder / "headline.md").read_text(), "SSE", 1)
    accuracy = column((folder / "headline.md").read_text(), "sample accuracy", 1)
    ends = [float(sse[x,].split(" ")[0]) for x in ("1", "0.01")]
    shares = [100 * float(accuracy[x,].split(" ")[0]) for x in ("1", "0.01")]
    assert f"SSE falls from {ends[0]:.1f} to {ends[1]:.1f}" in " ".join(README.split())
    assert f"requested digit falls from {shares[0]:.1f} % to {shares[1]:.0f} %" in " ".join(README.split())


def test_the_counts_of_claims_are_those_of_the_verdicts():
    verdicts = pd.read_csv(ROOT / "outputs/reference/claims-mnist,cifar10-jpeg/verdicts.csv", index_col="id")["verdict"]
    claims = {claim.id: claim for study in studies() for claim in study.claims}
    counted = verdicts[[not claims[i].ours for i in verdicts.index]]
    holding = counted.index[counted == "holds"].tolist()
    n = counted.value_counts()
    text = " ".join(README.split())
    assert f"Of {len(counted)} claims of the two studies, {n['holds']} hold on their own data" in text
    assert f"{n['does not hold']} do not, and {n['undecided']} are undecided." in text
    later = sum(bool(claims[i].earlier) for i in holding)
    assert f"For {later} of the {len(holding)}, the criterion was written after the results were known." in text


def test_the_numbers_of_runs_that_die_are_those_of_the_reports():
    def died(report: str) -> dict[tuple[float, str], str]:
        """How many runs of the network of the reference died, by learning rate and kind of beta."""
        runs = pd.read_csv(ROOT / "outputs/reference" / report / "runs.csv")
        usual = {"model.hidden": "[512, 256, 128]", "x_var.value": 1, "model.init": "uniform"}
        usual |= {"model.output": "identity", "model.activation": "relu"}
        deep = runs[np.all([runs[key] == value for key, value in usual.items()], axis=0)]
        groups = deep.groupby(["trainer.lr", "beta.kind"])["outcome"]
        return {key: f"{own.isin(('collapsed', 'dead')).sum()} of {len(own)}" for key, own in groups}  # type: ignore[misc]

    mnist, digits = died("death-mnist-epochs=2"), died("death")
    text = " ".join(README.split())
    assert f"On MNIST, {mnist[0.007, 'constant']} runs die at lr 0.007, all at 0.01 and none at 0.003" in text
    assert (mnist[0.01, "constant"], mnist[0.003, "constant"]) == ("20 of 20", "0 of 20")
    assert f"on the digits, {digits[0.007, 'constant']} die at 0.007" in text
    assert f"{mnist[0.007, 'warmup']} still die on MNIST, and {digits[0.007, 'warmup']} on the digits" in text


def test_the_finding_on_the_beta_table_is_what_its_figures_give():
    """Trained networks from the reference report, closed forms and misfits from the shipped spectrum."""
    published = {(10, 0.01): (80, 3.0), (100, 0.1): (11, 2.5), (100, 0.05): (20, 2.2), (100, 0.01): (64, 1.0)}
    published[100, 0.005] = (85, 0.8)
    rows = [Row(k, beta, 1.0, *pair) for (k, beta), pair in published.items()]
    given = np.array(list(published.values()))
    spectrum = read_spectrum("cifar10")
    stated, free = Diagnosis(rows, spectrum, stated=LOSS, batch_size=128), Diagnosis(rows, spectrum)
    closed = {r.hypothesis.bug: r for r in stated.best_of_bug(stated.misfits(given))}
    runs = pd.read_csv(ROOT / "outputs/reference/beta-cifar10-jpeg/runs.csv")
    buggy = runs["bug.kind"] == "variance_as_std"
    kld = 128 * runs["train_printed_kl"].where(buggy, runs["train_kl"]) / runs["z_dim.value"]
    r = 128 * runs["train_printed_r"].where(buggy, runs["train_sse"]) / 3072
    groups = runs[["bug.kind", "z_dim.value", "beta.value"]].assign(kld=kld, r=r)
    groups = groups.groupby(["bug.kind", "z_dim.value", "beta.value"])
    trained = {key: (own["kld"].mean(), own["r"].mean()) for key, own in groups}
    text = " ".join(README.split())
    off: dict[str, list[float]] = {}
    for i, ((k, beta), pair) in enumerate(published.items()):
        cells = [f"{k}, {beta:g}" if k == 100 else "10, 0.1 (read as 0.01)", f"{pair[0]} / {pair[1]:.1f}"]
        for bug, hypothesis in (("none", "correct"), ("variance_as_std", "variance_as_std")):
            values = closed[hypothesis].predicted[i], trained[bug, k, beta]
            cells += [f"{number(kld, 3)} / {number(r, 3)}" for kld, r in values]
            off.setdefault(bug, []).extend(np.log(np.divide(values[1], pair)))
        assert f"| {' | '.join(cells)} |" in text
    misfit = {bug: 100 * np.sqrt(np.mean(np.square(ratios))) for bug, ratios in off.items()}
    of = {bug: 100 * ranked.misfit for bug, ranked in closed.items()}
    correct = next(r for r in free.best_of_bug(free.misfits(given)) if r.hypothesis.bug == "correct")
    assert f"is {of['variance_as_std']:.1f} % off the ten published figures" in text
    assert f"networks trained with the bug are {misfit['variance_as_std']:.1f} % off" in text
    assert f"Without the bug, the closed form is {of['correct']:.1f} % off, and" in text
    assert f"trained networks are {misfit['none']:.1f} % off." in text
    assert f"of {len(stated.hypotheses)} hypotheses about the loss as stated" in text
    assert f"(the KL has half its weight) is {of['half_kl']:.1f} % off" in text
    by = correct.hypothesis
    assert (by.error, by.range) == ("half", "-11")
    assert (
        f"a correct VAE is also {100 * correct.misfit:.1f} % off, with a batch of {by.batch_size}, half the squared "
        "error and pixels in [-1, 1]." in text
    )
    assert f"loss of {3.0 + 0.1 * 80:.1f} is higher than that of the mean image, " in text
    assert f"{128 * spectrum.eigenvalues.sum() / 3072:.2f}." in text


def test_the_times_on_a_gpu_are_those_of_the_file():
    times = pd.read_csv(ROOT / "outputs/reference/benchmark/gpu-h100.csv")
    for row in times.to_dict("records"):
        seconds = [row[f"{name}_seconds"] for name in ("loader", "plain", "eager", "graph")]
        cells = [row["network"], str(row["runs"]), *(number(s, 3) for s in (*seconds, seconds[1] / seconds[3]))]
        assert f"| {' | '.join(cells)} |" in README


def test_the_last_epochs_of_the_beta_table_are_those_of_the_file():
    text = " ".join((ROOT / "outputs/reference/README.md").read_text().split())
    rows = pd.read_csv(ROOT / "outputs/reference/beta-cifar10-jpeg/last-epochs.csv")
    correct = rows[rows["bug.kind"] == "none"]
    assert len(correct) == 10
    change = {
        name: 100 * (rows[f"train_{name}_epoch_30"] / rows[f"train_{name}_epoch_25"] - 1) for name in ("sse", "kl")
    }
    for name, values in change.items():
        np.testing.assert_allclose(rows[f"{name}_change_percent"], values, atol=1e-2)
    (low, high), (kl_low, kl_high) = ((v[correct.index].min(), v[correct.index].max()) for v in change.values())
    assert f"changes by {low:.2f} to {high:.2f} %, and KL by {kl_low:.2f} to {kl_high:.2f} %" in text
    bug = rows.index[rows["bug.kind"] == "variance_as_std"]
    assert len(bug) == 6
    (low, high), (kl_low, kl_high) = ((v[bug].min(), v[bug].max()) for v in change.values())
    assert f"change by {low:.2f} to {high:.2f} % and {kl_low:.1f} to {kl_high:.2f} %." in text
    known = pd.read_csv(ROOT / "outputs/reference/beta-cifar10-jpeg/runs.csv")["run"]
    assert set(rows["run"]) <= set(known)
