"""python -m mtselect.select [SWEEP.yaml] --out selected.jsonl [--FIELD VALUE ...]

Only the subset: reads the `experiment` of a sweep file, selects, and writes one JSON line per pair (id, src, tgt, benefit,
benefit_share, cluster). No finetuning, no MLflow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import Sweep
from mtselect.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

COMMAND = "python -m mtselect.select"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    def command(arguments: list[str], console: Console) -> None:
        out, rest = _take_out(arguments)
        write_selection(cli.read_arguments(rest), out, console)

    return cli.run_on_fields(argv, COMMAND, str(__doc__), command)


def write_selection(sweep: Sweep, out: Path, console: Console) -> None:
    """Select and write the set; it appears whole or not at all."""
    folder = out.parent
    if out.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"--out {str(out)!r} cannot be written: name a file in a folder that exists and may be written to")
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.resolve import resolve
    from mtselect.search.storage import continued
    from mtselect.stages.lineage import Lineage
    from mtselect.stages.selection import select_pairs
    from mtselect.store import write_lines, write_whole

    chosen = sweep.experiment.selection
    with bench.progress.task("select", 1) as advance:
        begun = continued(sweep)
        selection = select_pairs(Lineage(bench, resolve(begun.experiment, sweep.runtime, begun.search)))
        advance(1)
    write_whole(out, lambda path: write_lines(path, (pair.row() for pair in selection.pairs)))
    console.print(f"{len(selection.pairs):,} of {selection.n_candidates:,} candidates written to {out}"
                  f" ({selection.n_passed:,} passed gate {chosen.gate} and threshold {chosen.threshold:g})")


def _take_out(arguments: list[str]) -> tuple[Path, list[str]]:
    """Split off `--out PATH` or `--out=PATH`."""
    for i, argument in enumerate(arguments):
        if argument == "--out" and i + 1 < len(arguments):
            return Path(arguments[i + 1]), arguments[:i] + arguments[i + 2 :]
        if argument.startswith("--out="):
            return Path(argument.removeprefix("--out=")), arguments[:i] + arguments[i + 1 :]
    raise ConfigError("--out is missing: name the file to write, such as --out selected.jsonl")


if __name__ == "__main__":
    sys.exit(main())
