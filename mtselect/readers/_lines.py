"""Lines of a text file, whatever bytes it holds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import IO

MAX_LINE_BYTES = 2**24  # a longer line is never parsed; 16 MiB holds any pair of sentences many times over
TOO_LONG = "longer than data.max_chars"
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what the error handler `surrogateescape` makes of a bad byte


def lines(stream: IO[bytes]) -> Iterator[tuple[int, str | None]]:
    """Number and text of each line, without its end; null for a line that is too long to be parsed.

    Bytes that are not UTF-8 become lone surrogates, which `ESCAPED_BYTE` finds.
    """
    for number in itertools.count(1):
        line = stream.readline(MAX_LINE_BYTES)
        if not line:
            return
        rest = line
        while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").rstrip("\r\n")
        yield number, text if rest is line else None
