"""What passes between the pieces of work and the process of the study: how far they are, and whether a trial may go on.

A piece writes on the board, an actor beside the study's process, which looks at it several times a second. At the end of an
epoch a piece whose trial may be pruned waits until that was seen.
"""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

from mtselect.progress import Advance, Progress

POLL_SECONDS = 0.2  # how often the board is looked at
_SAY_SECONDS = 1.0  # how often a piece says how far it is


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a piece says.

    Args:
        kind: of it: a bar begins, goes on or ends, or an epoch has ended.
        who: host and process.
        name: of the bar.
        amount: total of a bar that begins, what was done since of one that goes on; number of the epoch.
        loss: on dev after the epoch.
    """

    kind: Literal["begin", "advance", "end", "epoch"]
    who: str
    name: str = ""
    amount: int = 0
    loss: float = 0.0


class Board:
    """The actor. A batch of pieces that are waited for together has a number."""

    def __init__(self) -> None:
        self._said: dict[int, list[Message]] = defaultdict(list)
        self._passed: set[tuple[int, int]] = set()
        self._over: set[int] = set()

    def say(self, batch: int, message: Message) -> None:
        """By a piece."""
        self._said[batch].append(message)

    def heard(self, batch: int) -> list[Message]:
        """What was said since it was last asked for."""
        return self._said.pop(batch, [])

    def let_pass(self, batch: int, epoch: int) -> None:
        """A trial may go on after an epoch."""
        self._passed.add((batch, epoch))

    def end(self, batch: int) -> None:
        """Nobody waits for these pieces any more."""
        self._over.add(batch)

    def may_pass(self, batch: int, epoch: int) -> bool | None:
        """Whether it may; null where its batch has ended."""
        return None if batch in self._over else (batch, epoch) in self._passed


def sender() -> str:
    """Names this process in messages."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True)
class SentProgress:
    """Progress of a piece, which is shown elsewhere.

    Args:
        say: takes a message there.
    """

    say: Callable[[Message], None]

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        """Say it now and then."""
        self.say(Message(kind="begin", who=sender(), name=name, amount=total))
        unsaid, since = 0, time.monotonic()

        def advance(n: int) -> None:
            nonlocal unsaid, since
            unsaid += n
            if time.monotonic() - since >= _SAY_SECONDS:
                self.say(Message(kind="advance", who=sender(), name=name, amount=unsaid))
                unsaid, since = 0, time.monotonic()

        try:
            yield advance
        finally:
            self.say(Message(kind="end", who=sender(), name=name, amount=unsaid))


class Bars:
    """The bars of a batch of pieces, in the study's process; those of a node that died end with the batch."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[tuple[str, str], tuple[AbstractContextManager[Advance], Advance]] = {}

    def show(self, message: Message) -> None:
        """Draw what a piece said."""
        bar = (message.who, message.name)
        if message.kind == "begin":
            self._end(bar)
            task = self._progress.task(message.name, message.amount)
            self._open[bar] = task, task.__enter__()
        elif bar in self._open:
            self._open[bar][1](message.amount)
            if message.kind == "end":
                self._end(bar)

    def close(self) -> None:
        """End them all."""
        for bar in list(self._open):
            self._end(bar)

    def _end(self, bar: tuple[str, str]) -> None:
        if bar in self._open:
            self._open.pop(bar)[0].__exit__(None, None, None)
