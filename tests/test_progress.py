"""How far the work is, where nobody can see a bar."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Task, TaskID

from mtselect import progress
from mtselect.progress import ConsoleProgress


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A console that is no terminal; lines come soon."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    return Console(file=io.StringIO(), width=110)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_comes_while_a_step_takes_long(log: Console, wait_for: Callable[..., Any]) -> None:
    with ConsoleProgress(log).task("pool gradients", 3000) as advance:
        wait_for(lambda: re.search(r"pool gradients +0 of 3,000  0.0/s  0:00:0\d gone  \? left", printed(log)))
        advance(2000)
        wait_for(lambda: re.search(r"pool gradients +2,000 of 3,000  [\d,.]+/s  0:00:0\d gone  0:00:0\d left", printed(log)))


def test_the_innermost_task_is_named_and_the_outer_one_between_two(log: Console, wait_for: Callable[..., Any]) -> None:
    shown = ConsoleProgress(log)
    with shown.task("trials", 10) as advance:
        with shown.task("finetune", 5):
            wait_for(lambda: " finetune " in printed(log))
            assert " trials " not in printed(log)
        advance(1)
        wait_for(lambda: re.search(r"trials +1 of 10  .* left", printed(log)))


def test_after_the_last_task_nothing_is_said(log: Console, wait_for: Callable[..., Any]) -> None:
    import threading

    with ConsoleProgress(log).task("work", 1):
        wait_for(lambda: " left" in printed(log))
    wait_for(lambda: all("_say" not in thread.name for thread in threading.enumerate()))
    assert re.search(r"work +0 of 1 in \d", printed(log).splitlines()[-1])


def test_half_a_minute_is_the_longest_silence() -> None:
    assert progress.LINE_SECONDS <= 30


@pytest.mark.parametrize(("done", "seconds", "line"), [
    (50, 100.0, "  work                            50 of 200  2.0 s each  0:01:40 gone  0:05:00 left"),
    (4000, 2.0, "  work                         4,000 of 200  2,000.0/s  0:00:02 gone"),
])
def test_rate_and_time_left(done: int, seconds: float, line: str) -> None:
    task = Task(TaskID(0), "work", 200, done, _get_time=lambda: seconds)
    task.start_time = 0.0
    assert progress._line(task).startswith(line)
