"""What a command prints to a pipe whose reader has ended, as `head` does: it ends without a word, as other programs do."""

from __future__ import annotations

import os
import sys

CLOSED = 141  # what a shell says of a program that wrote to a closed pipe: 128 and SIGPIPE


def say(text: str) -> int:
    """Print at once; the exit status."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # what is left in the buffer is written when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    return 0
