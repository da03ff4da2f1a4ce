"""python -m mtselect.check [SWEEP.yaml] [--FIELD VALUE ...]

Looks at all that can be known before any work, in seconds, as every sweep does when it begins: files, columns and licence;
the model's layers; warm-up and budgets against the pool; objectives against metrics and against the study in the storage;
memory for curvature and seeds; disk; MLflow, the database and COMET. Prints what was found and chosen, and a line for each
thing that is wrong. Where data.dev and data.test are both null, it looks at what a set alone (`mtselect select`) needs.
Computes and writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import Sweep

if TYPE_CHECKING:
    from rich.console import Console

COMMAND = "python -m mtselect.check"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    def command(arguments: list[str], console: Console) -> None:
        check(cli.read_arguments(arguments, checked=False), console)

    return cli.run_on_fields(argv, COMMAND, str(__doc__), command)


def check(sweep: Sweep, console: Console) -> None:
    """Print what was found.

    Raises:
        Faults: something is wrong.
    """
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.preflight import preflight

    data = sweep.experiment.data
    alone = data.dev is None and data.test is None
    found = preflight(bench, sweep, alone)
    found.show(console)
    found.raise_faults()
    python = cli.program("python")
    then = ("select with the same arguments and --out FILE; a sweep also needs data.dev and data.test" if alone
            else "sweep with the same arguments")
    console.print(f"nothing is wrong; next: {python} -m mtselect.{then}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
