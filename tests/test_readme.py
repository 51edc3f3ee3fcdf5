"""What the README says can be done is done here."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from experiments import report, sweep
from experiments.launch import cli
from experiments.progress import Progress
from tests.conftest import tiny_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_examples_run_and_have_the_shapes_that_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    runs = sweep.plan([tiny_config(x_var__value=value) for value in (0.1, 1.0)])  # on the embedded digits
    sweep.execute(runs, Progress(2, 1), [None, None])
    job = OmegaConf.create({"study": {"name": "xvar"}})
    report.write_manifest(report.manifest(runs, ["x_var.value"], "xvar", job), "outputs")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(code, names)
    assert names["runs"]["x_var.value"].tolist() == [0.1, 1.0]
    assert names["best"] in {run.folder.name for run in runs}
    assert names["digits"].shape == (10, 1, 28, 28)
    assert names["mu"].shape == names["logvar"].shape == (5, 4)
    assert names["x_hat"].shape == (5, 1, 28, 28)
    assert isinstance(names["x_hat"], torch.Tensor)
    assert names["data"].test_x.shape == (1000, 1, 28, 28)
    for file in ("samples.png", "traversals.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width > 500


def test_every_command_of_the_readme_is_understood():
    """The short forms are rewritten without a complaint; tests/test_cli.py and others run what they stand for."""
    commands = re.findall(r"^python run\.py ?([^#\n]*)", README, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        cli.rewrite(command.split())


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"ablation-xvar", "test", "bench"} <= named
    assert named <= targets


def test_every_linked_file_of_the_readme_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_reports_and_pictures_are_small_enough_to_be_kept():
    kept = [p for p in (ROOT / "outputs" / "reports").rglob("*.png") if p.is_file()]
    assert [p.name for p in kept if p.stat().st_size > 300 * 1024] == []


def rows(text: str) -> list[list[str]]:
    """The cells of a table in markdown."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


HEADLINES = {  # report -> number of settings, rows, and the columns behind the settings, by table
    "xvar-mnist": (
        1,
        5,
        [
            *(("headline", c) for c in ("KL (nats)", "KL, closed form", "SSE", "SSE, closed form")),
            ("generation", "samples of the class asked for (share)"),
            ("generation", "FFD, samples"),
            ("failures", "hole"),
        ],
    ),
    "beta-cifar10-jpeg": (
        2,
        8,
        [
            *(("headline", f"128·KL/k{c}") for c in (" (study B's KLD)", ", closed form", ", published")),
            *(("headline", f"128·SSE/D{c}") for c in (" (study B's R)", ", closed form", ", published")),
            ("generation", "FFD, samples"),
            ("failures", "hole"),
        ],
    ),
}


@pytest.mark.parametrize(
    ("name", "first"), [("xvar-mnist", "| x_var | KL"), ("beta-cifar10-jpeg", "| z_dim | beta | KL")]
)
def test_a_headline_table_is_that_of_the_linked_report(name: str, first: str):
    n_settings, n_rows, columns = HEADLINES[name]

    def column(table: str, heading: str) -> dict[tuple[str, ...], str]:
        head, _, *body = rows((ROOT / "outputs/reports" / name / "tables" / f"{table}.md").read_text())
        return {tuple(row[:n_settings]): row[head.index(heading)] for row in body}

    found = [column(table, heading) for table, heading in columns]
    _, _, *shown = rows(README[README.index(first) :].split("\n\n")[0])
    assert len(shown) == n_rows
    for row in shown:
        assert row[n_settings:] == [cells[tuple(row[:n_settings])] for cells in found]


def test_the_counts_of_verdicts_are_those_of_the_claims_reports():
    counts = re.findall(r"\[(\d+ hold, \d+ do\s+not\s+hold,\s+\d+\s+undecided)\]\(([^)]+)\)", README)
    assert [link for _, link in counts] == [
        f"outputs/reports/{name}/report.md" for name in ("claims-mnist,cifar10-jpeg", "claims")
    ]
    for count, link in counts:
        assert " ".join(count.split()) in (ROOT / link).read_text()
