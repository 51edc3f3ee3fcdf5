"""What a run's record says about the code."""

import subprocess
from pathlib import Path

import pytest

from experiments import provenance


def test_reports_made_again_do_not_make_the_code_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*args: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *args], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("experiments/code.py", "outputs/report.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("as committed")
    git("add", ".")
    git("commit", "-m", "all")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "experiments" / "code.py"))
    found = []
    for changed in ("outputs/report.md", "experiments/code.py"):
        (tmp_path / changed).write_text("changed")
        found.append(provenance.git_state.__wrapped__()["git_dirty"])
    assert found == [False, True]


def test_comments_and_docstrings_are_no_other_code():
    plain = "def f(x):\n    return x + 1\n"
    described = 'def f(x):  # adds\n    """One more."""\n    return x + 1\n'
    assert provenance.without_texts(described) == provenance.without_texts(plain)
    assert provenance.without_texts(plain.replace("1", "2")) != provenance.without_texts(plain)


def test_the_code_reads_the_same_in_every_version_of_python():
    """Python 3.12 added fields to these nodes, and 3.13 leaves out empty ones."""
    source = 'class A:\n    def f(self, x=()):\n        return f"{x!r:>{3}}"\n'
    expected = (
        "Module(body=[ClassDef(name='A',body=[FunctionDef(name='f',args=arguments(args=[arg(arg='self'),arg(arg='x')],"
        "defaults=[Tuple(ctx=Load())]),body=[Return(value=JoinedStr(values=[FormattedValue(value=Name(id='x',ctx=Load()),"
        "conversion=114,format_spec=JoinedStr(values=[Constant(value='>'),FormattedValue(value=Constant(value=3),"
        "conversion=-1)]))]))])])])"
    )
    assert provenance.without_texts(source) == expected
    assert len(provenance.training_code()) == 16
