"""mtselect COMMAND [ARGUMENTS]: all commands under one name; `python -m mtselect.COMMAND` is the same."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import mtselect
from mtselect.said import say

COMMANDS = {
    "init": "a sweep file with comments, from a look at your files",
    "sweep": "find the pairs worth finetuning on, and compare them with everything else",
    "check": "all that can be known to be wrong before any work",
    "select": "the selected set of one experiment, as a file",
    "score": "all that is known of every pair of the pool, as a table",
    "promote": "a study's best set, checked again, as the next version of a dataset",
    "explain": "why a pair is in the set or not, and which of its words help the seeds",
    "diff": "two selected sets side by side",
    "list": "selectors, metrics or readers, a line each",
    "prune": "delete what no study refers to",
    "comet": "install COMET, or score files with it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    if "_ARGCOMPLETE" in os.environ:
        from mtselect.completion import complete

        complete(COMMANDS)
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        listed = "\n".join(f"  {command:<9}{about}" for command, about in COMMANDS.items())
        return say(f"usage: mtselect COMMAND [ARGUMENTS]\n\n{listed}\n\n`mtselect COMMAND --help` lists its arguments.")
    if name == "--version":
        return say(f"mtselect {mtselect.__version__}")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        print(f"error: {name!r} is no command of {', '.join(COMMANDS)}" + (f": did you mean {near[0]!r}?" if near else ""),
              file=sys.stderr)
        return 2
    status: int = import_module(f"mtselect.{name}").main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
