"""Progress bars with time left, behind one small interface so that no stage knows how they are drawn; and where work stops
when it is asked to."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int], None]


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


class ConsoleProgress:
    """Bars on a terminal (several may nest); one line per finished task elsewhere, such as a log file."""

    def __init__(self, console: Console, interruption: Interruption | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = console
        self._interruption = Interruption() if interruption is None else interruption
        self._bars = Bars(TextColumn("{task.description:<26}"), BarColumn(bar_width=30), MofNCompleteColumn(),
                          TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                          console=console, transient=True, disable=not console.is_terminal)
        self._depth = 0

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        """Show one bar while the block runs, then one line with its duration."""
        self._interruption.check()
        start = time.monotonic()
        bar = self._bars.add_task(name, total=total)
        self._depth += 1
        self._bars.start()
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            self._bars.advance(bar, n)
            self._interruption.check()

        try:
            yield advance
        finally:
            self._bars.remove_task(bar)
            self._depth -= 1
            if not self._depth:
                self._bars.stop()
            self._console.print(f"  {name:<26} {done:>7,} of {total:,} in {time.monotonic() - start:.1f} s",
                                style="dim", highlight=False)
