"""What the README says can be done is done here."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from experiments import cli, report, sweep
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


@pytest.mark.parametrize(
    ("settings", "name", "n_rows"),
    [(["x_var"], "xvar-mnist", 5), (["z_dim", "beta"], "beta-cifar10-jpeg", 8)],
)
def test_a_headline_table_is_that_of_the_linked_report(settings: list[str], name: str, n_rows: int):
    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|").split("|")]

    table = README[README.index(f"| {' | '.join(settings)} | KL") :].split("\n\n")[0]
    reported = [cells(line) for line in (ROOT / "outputs/reports" / name / "report.md").read_text().splitlines()]
    rows = [cells(line) for line in table.splitlines()[2:]]
    assert len(rows) == n_rows
    for row in rows:
        key = row[: len(settings)]
        assert set(row) <= {cell for line in reported if line[: len(settings)] == key for cell in line}, row


def test_the_counts_of_verdicts_are_those_of_the_claims_reports():
    counts = re.findall(r"\[(\d+ hold, \d+ do\s+not\s+hold,\s+\d+\s+undecided)\]\(([^)]+)\)", README)
    assert [link for _, link in counts] == [
        f"outputs/reports/{name}/report.md" for name in ("claims-mnist,cifar10-jpeg", "claims")
    ]
    for count, link in counts:
        assert " ".join(count.split()) in (ROOT / link).read_text()
