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


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    _, fields = cli.FieldsParser("check", str(__doc__)).parse_known_args(argv)
    return cli.run(lambda console: check(cli.read_arguments(fields, checked=False), fields, console))


def check(sweep: Sweep, arguments: Sequence[str], console: Console) -> None:
    """Print what was found, and the command that comes next, with the arguments of this one. Raises Faults."""
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.preflight import preflight

    data = sweep.experiment.data
    alone = data.dev is None and data.test is None
    found = preflight(bench, sweep, alone)
    found.show(console)
    found.raise_faults()
    then = (f"{cli.as_typed('select', *arguments)} --out FILE; a sweep also needs data.dev and data.test" if alone
            else cli.as_typed("sweep", *arguments))
    console.print(f"nothing is wrong; next: {then}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main())
