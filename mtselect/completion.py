"""What a shell completes after `mtselect`: commands, their options as `--help` lists them, and files. By argcomplete:

    eval "$(register-python-argcomplete mtselect)"        # bash and zsh; in a shell's start-up file
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
from collections.abc import Mapping
from importlib import import_module

from mtselect.list import KINDS


def complete(commands: Mapping[str, str]) -> None:
    """Answer the shell that asks, and exit; `commands` are name -> what it does."""
    import argcomplete

    line = os.environ.get("COMP_LINE", "")
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    argcomplete.autocomplete(parser(commands, words[1] if len(words) > 1 else ""), always_complete_options=False)


def parser(commands: Mapping[str, str], typed: str) -> argparse.ArgumentParser:
    """The commands, and all that the one that is typed takes."""
    top = argparse.ArgumentParser(prog="mtselect")
    below = top.add_subparsers()
    for name, about in commands.items():
        command = below.add_parser(name, help=about, add_help=False, allow_abbrev=False)
        if name == typed:
            for option in options(name):
                command.add_argument(option)
            command.add_argument("given", nargs="*", choices=KINDS if name == "list" else None)
    return top


def options(command: str) -> list[str]:
    """Those that a command's --help lists."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        import_module(f"mtselect.{command}").main(["--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", said.getvalue())))
