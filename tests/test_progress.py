"""What a long command says of itself, to a terminal and to a file."""

import io

import pytest

from experiments.progress import Progress, Steps, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (3599, "59:59 min"), (7800, "2:10 h")]
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_steps_in_a_file_are_whole_lines():
    stream = io.StringIO()
    steps = Steps("runs evaluated", 4, stream, every=0.0)
    for _ in range(4):
        steps.step()
    steps.close()
    lines = stream.getvalue().splitlines()
    assert [line.split(" · ")[:2] for line in lines] == [
        [f" {25 * i}%" if i < 4 else "100%", f"{i}/4 runs evaluated"] for i in range(1, 5)
    ]


def test_lines_are_as_far_apart_as_asked():
    stream = io.StringIO()
    steps = Steps("runs", 1000, stream, every=60.0)
    for _ in range(1000):
        steps.step()
    assert stream.getvalue() == ""


def test_a_terminal_has_one_line_from_the_start_that_goes_away_and_notes_that_stay():
    stream = Terminal()
    steps = Steps("runs evaluated", 4, stream)
    assert "0/4 runs evaluated" in stream.getvalue()
    steps.note("failed: this run")
    steps.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\r\x1b[K")


def test_training_counts_runs_stacks_and_images():
    stream = io.StringIO()
    progress = Progress(3, 100, stream, every=0.0)
    progress.stack(2, 1, 5)
    progress.tick(50)
    progress.ended(2)
    progress.tick(50)
    first, second = stream.getvalue().splitlines()
    assert first == " 50% · 0/3 runs · stack of 2, epoch 1/5"
    assert second.startswith("100% · 2/3 runs · ")


def test_the_time_left_is_that_of_the_steps_without_the_start(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(1, 1000, stream, every=0.0)
    progress.stack(1, 1, 1)
    now[0] = 60.0  # the data are read and the GPU is warmed up
    for _ in range(3):
        progress.tick(100)
        now[0] += 2.0
    assert [line.partition("epoch 1/1")[2] for line in stream.getvalue().splitlines()] == [
        "",
        " · 50 images/s · 16 s left",
        " · 50 images/s · 14 s left",
    ]
