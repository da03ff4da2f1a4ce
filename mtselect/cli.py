"""What the commands share: arguments, the console, errors as one line, and a clean stop."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mtselect.config import RuntimeConfig, Sweep, load
from mtselect.errors import UserError
from mtselect.progress import ConsoleProgress, Interruption
from mtselect.remote import redact
from mtselect.said import CLOSED, say

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.stages.lineage import Bench, Lineage


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Print it and exit with status 2."""
        self.exit(2, f"error: {message}: `{self.prog} --help` says what is allowed\n")

    def print_help(self, file: object = None) -> None:
        """Print it, or exit where nobody reads it."""
        if status := say(self.format_help().rstrip("\n")):
            self.exit(status)


class FieldsParser(Parser):
    """Of a command whose options are the fields of a sweep file, which `parse_known_args` leaves for `read_arguments`, and its
    own, if any, which `about` explains; --help prints that and every field."""

    def __init__(self, command: str, about: str) -> None:
        super().__init__(prog=f"python -m mtselect.{command}", description=about, allow_abbrev=False)

    def format_help(self) -> str:
        """Imports nothing heavy."""
        from mtselect.config.schema import help_text

        return f"{self.description}\n{help_text(self.prog)}"


def parser_of(command: str, about: str | None) -> Parser:
    """Of a command that has no fields for options; of its module's text --help says all but how it is typed."""
    return Parser(prog=f"python -m mtselect.{command}", description=str(about).split("\n\n", 1)[1],
                  formatter_class=argparse.RawDescriptionHelpFormatter)


def run(main: Callable[[Console], object],
        again: str = "Finished stages are kept: the same command goes on from here.") -> int:
    """Call a command; a user's error becomes one line and status 2, Ctrl-C or SIGTERM one line, which ends in `again`, and 130;
    and where nobody reads what it prints any more it ends without a word and with 141."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 110
    try:
        with Interruption().installed():
            main(console)
    except UserError as error:
        for line in error.lines:
            print(f"error: {redact(line)}", file=sys.stderr)  # what it quotes may hold a password
        return 2
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
        if console.quiet:  # by rich, which found the pipe closed
            return CLOSED
        print(f"\nstopped. {again}", file=sys.stderr)
        return 130
    return 0


def read_arguments(argv: list[str], *, checked: bool = True) -> Sweep:
    """The sweep file (first argument; the quickstart if there is none) with overrides; `checked` as for `config.load`."""
    path: str | Path = quickstart_file()
    if argv and not argv[0].startswith("-"):
        path, argv = argv[0], argv[1:]
    return load(path, argv, checked=checked)


def program(command: str) -> str:
    """A command as it can be typed here: with its path where this Python's folder of programs is below the working directory,
    such as an environment that is not activated."""
    folder = Path(sys.executable).parent
    return str(folder.relative_to(Path.cwd()) / command) if folder.is_relative_to(Path.cwd()) else command


def as_typed(command: str, *arguments: str) -> str:
    """Another command of mtselect with its arguments quoted, and without passwords, in the form in which this one was typed:
    `mtselect sweep`, `python -m mtselect sweep` or `python -m mtselect.sweep`."""
    typed = Path(sys.argv[0])
    start = (f"{program('mtselect')} {command}" if typed.stem == "mtselect" else
             f"{program('python')} -m mtselect{' ' if typed.parts[-2:] == ('mtselect', '__main__.py') else '.'}{command}")
    return redact(" ".join([start, *map(shlex.quote, arguments)]))


def quickstart_file() -> Path:
    """The quickstart's sweep file: beside this module in a wheel, in `sweeps/` in a checkout."""
    packaged = Path(__file__).parent / "quickstart.yaml"
    return packaged if packaged.exists() else Path(__file__).parent.parent / "sweeps" / "quickstart.yaml"


def before_torch() -> None:
    """Set what torch and its libraries read once, when they are loaded."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin for long stall each other on a shared machine (20 times slower was seen); those that never spin are
    # slow on an idle one (2.5 times). This many turns was as fast as the default when idle.
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large pages, as fresh small ones cost more than copying


def make_bench(runtime: RuntimeConfig, console: Console) -> Bench:
    """Set torch's threads and open the stage store."""
    before_torch()
    import torch
    from joblib import cpu_count

    from mtselect.stages.lineage import Bench
    from mtselect.store import Store

    threads = runtime.threads or cpu_count()  # what affinity and the cgroup's quota grant
    torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # the tokenizers'
    handler = signal.getsignal(signal.SIGINT)  # as `run` installed it
    progress = ConsoleProgress(console, handler if isinstance(handler, Interruption) else None)
    return Bench(store=Store(Path(runtime.workdir) / "store"), runtime=runtime, progress=progress)


def lineage_of(sweep: Sweep, bench: Bench) -> Lineage:
    """The entries of a sweep's experiment; what is open is decided as its study did, if that was begun."""
    from mtselect.resolve import resolve
    from mtselect.search.storage import continued
    from mtselect.stages.lineage import Lineage

    begun = continued(sweep)
    return Lineage(bench, resolve(begun.experiment, sweep.runtime, begun.search))
