"""Progress bars with time left, behind one small interface so that no stage knows how they are drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int], None]


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

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = console
        self._bars = Bars(TextColumn("{task.description:<26}"), BarColumn(bar_width=30), MofNCompleteColumn(),
                          TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                          console=console, transient=True, disable=not console.is_terminal)
        self._depth = 0

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        """Show one bar while the block runs, then one line with its duration."""
        start = time.monotonic()
        bar = self._bars.add_task(name, total=total)
        self._depth += 1
        self._bars.start()
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            self._bars.advance(bar, n)

        try:
            yield advance
        finally:
            self._bars.remove_task(bar)
            self._depth -= 1
            if not self._depth:
                self._bars.stop()
            self._console.print(f"  {name:<26} {done:>7,} of {total:,} in {time.monotonic() - start:.1f} s",
                                style="dim", highlight=False)
