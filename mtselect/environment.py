"""A variable of the environment, for libraries that ask there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def environment_variable(name: str, value: str, *, anyway: bool = False) -> Iterator[None]:
    """A variable while the block runs, unless it was set before; `anyway` also then."""
    before = os.environ.get(name)
    if anyway or before is None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
