"""Servers that keep a study's records: how long one that is away is waited for, and how its address is shown.

A call that finds nobody is made again until the server answers, so what it brings need not be kept elsewhere meanwhile. Only an
error that means "not there now" is waited for; a wrong request is not repeated.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 15 * 60.0  # seconds
_LONGEST_PAUSE = 10.0  # between two attempts
_SHORTEST_SECRET = 8  # characters; `1` is in every address, and nobody who has a secret has one like that
_SECRET_NAMES = re.compile(r"(PASSWORD|TOKEN|SECRET|ACCESS_KEY|CONNECTION_STRING)$")


def redact(text: str) -> str:
    """An address or a message without credentials: what stands before the host of a URL, what follows `password=` and its like,
    and the values of environment variables that hold secrets, if they are long enough to be some."""
    text = re.sub(r"://\S*@", "://***@", text)
    text = re.sub(r"(?i)((?:password|token|secret|signature|sig|credential)=)[^&\s]+", r"\1***", text)
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value.strip()) >= _SHORTEST_SECRET:
            text = text.replace(value.strip(), "***")
    return text


def first_line(error: BaseException) -> str:
    """An error's first line, short and without credentials."""
    return redact(str(error).strip().split("\n")[0])[:200]  # not the other way round: half a secret would not be found


def reason(error: BaseException) -> str:
    """The first line of what an error came from at last, such as `Connection refused`."""
    return first_line(list(causes(error))[-1])


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Patience:
    """Makes calls to one server, and again while it is away; says once that it waits and once that the server is back.

    When the time is over, the last error is raised, and as long as no call succeeds the following ones are made only once.

    Args:
        server: what it is and where, as shown to people.
        away: whether an error means that the server is not there now.
        seconds: how long to wait.
    """

    def __init__(self, server: str, away: Callable[[BaseException], bool], seconds: float = PATIENCE) -> None:
        self.server, self._away, self._seconds = server, away, seconds
        self._began: float | None = None  # of the outage that was told
        self._given_up = False
        self._failed = float("-inf")

    def __call__(self, call: Callable[[], Any], again: Callable[[], Any] | None = None) -> Any:
        """The call's result.

        Args:
            call: may have been carried out although it failed: the answer can be lost.
            again: before the call is repeated, looks for what it made; its result counts unless it is None.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

        attempts = Retrying(retry=retry_if_exception(self._is_away), before_sleep=self._tell, reraise=True,
                            stop=stop_after_delay(0 if self._given_up else self._seconds),
                            wait=wait_exponential_jitter(0.2, _LONGEST_PAUSE, jitter=0.2))
        try:
            for attempt in attempts:
                with attempt:
                    repeated = attempt.retry_state.attempt_number > 1
                    found = again() if repeated and again is not None else None
                    result = call() if found is None else found
        except Exception as error:
            self._given_up = self._away(error)
            raise
        self._given_up = False
        if self._began is not None:
            print(f"{self.server} is back after {time.monotonic() - self._began:.0f} s", file=sys.stderr)
            self._began = None
        return result

    def failed_within(self, seconds: float) -> bool:
        """Whether the server was away at some moment of the last seconds."""
        return time.monotonic() - self._failed < seconds

    def note_failure(self) -> None:
        """Remember that the server was away just now."""
        self._failed = time.monotonic()

    def _is_away(self, error: BaseException) -> bool:
        away = self._away(error)
        if away:
            self.note_failure()
        return away

    def _tell(self, state: Any) -> None:
        if state.attempt_number < 2 or self._began is not None:  # a connection may break without an outage
            return
        self._began = time.monotonic() - state.seconds_since_start
        print(f"{self.server} does not answer ({reason(state.outcome.exception())}); waiting up to "
              f"{self._seconds / 60:.0f} minutes, nothing is lost", file=sys.stderr)
