"""Progress with time left, as bars on a terminal and lines in a log, behind one small interface so that no stage knows how it
is shown; and where work stops when it is asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

Advance = Callable[[int], None]
OnEpoch = Callable[[int, float], None]
# Without a terminal, how often a line says how far the work is, also while a step takes longer.
LINE_SECONDS = 30.0


class Interruption:
    """Signal handler that raises KeyboardInterrupt and remembers it.

    Code that runs in callbacks of the interpreter or of a C library swallows an exception now and then; the next step of a
    progress bar then raises it again.
    """

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, signum: int, frame: Any) -> None:
        self._asked = True
        raise KeyboardInterrupt

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM while the block runs."""
        before = {which: signal.signal(which, self) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was asked for."""
        if self._asked:
            raise KeyboardInterrupt


class Progress(Protocol):
    """Something that shows how far a task is."""

    def task(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Context manager that yields `advance(n)`."""


class SilentProgress:
    """Shows nothing; for tests and library use."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        yield lambda n: None


@dataclass(frozen=True)
class NamedProgress:
    """Another one's, whose tasks begin with a name."""

    inner: Progress
    name: str

    def task(self, name: str, total: int) -> AbstractContextManager[Advance]:
        return self.inner.task(f"{self.name}, {name}", total)


class ConsoleProgress:
    """Bars on a terminal (several may nest). Elsewhere, such as in a log file, a line every half minute about the innermost
    task. One line per finished task everywhere."""

    def __init__(self, console: Console, interruption: Interruption | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = console
        self._interruption = Interruption() if interruption is None else interruption
        self._bars = Bars(TextColumn("{task.description:<26}"), BarColumn(bar_width=30), MofNCompleteColumn(),
                          TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                          console=console, transient=True, disable=not console.is_terminal)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        """Show one bar while the block runs, then one line with its duration."""
        self._interruption.check()
        bar = self._bars.add_task(name, total=total)
        task = next(one for one in self._bars.tasks if one.id == bar)
        self._bars.start()
        ended = threading.Event()
        if len(self._bars.tasks) == 1 and not self._console.is_terminal:
            threading.Thread(target=self._say, args=(ended,), daemon=True).start()

        def advance(n: int) -> None:
            self._bars.advance(bar, n)
            self._interruption.check()

        try:
            yield advance
        finally:
            ended.set()
            self._bars.remove_task(bar)
            if not self._bars.tasks:
                self._bars.stop()
            self._console.print(f"  {name:<26} {task.completed:>7,} of {total:,} in {task.elapsed:.1f} s", style="dim",
                                highlight=False)

    def _say(self, ended: threading.Event) -> None:
        """A line now and then about what is done at that moment, until the outermost task has ended."""
        while not ended.wait(LINE_SECONDS):
            for task in self._bars.tasks[-1:]:
                self._console.print(_line(task), style="dim", highlight=False, soft_wrap=True)


def _line(task: Task) -> str:
    """Name, done, rate and time left."""
    seconds = task.elapsed or 0.0
    rate = task.completed / seconds if seconds else 0.0
    speed = f"{rate:,.1f}/s" if rate >= 1 or not rate else f"{1 / rate:,.1f} s each"
    left = _clock(max(0, task.remaining or 0) / rate) if rate else "?"
    return f"  {task.description:<26} {task.completed:>7,} of {task.total:,}  {speed}  {_clock(seconds)} gone  {left} left"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
