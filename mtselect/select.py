"""python -m mtselect.select [SWEEP.yaml] --out selected.jsonl [--FIELD VALUE ...]

Only the subset: reads the `experiment` of a sweep file, selects, and writes a row for each pair: id, src, tgt, and what the
selector saw of it. The form is the ending's: .jsonl, .tsv (each also .gz, .zst), .parquet, or .de-en for two files of a
sentence a line (Moses), selected.de and selected.en. No finetuning.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import Sweep
from mtselect.errors import ConfigError
from mtselect.named import NAMES, read_sweep, say_whose

if TYPE_CHECKING:
    from rich.console import Console

COMMAND = "python -m mtselect.select"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.Parser(prog=COMMAND, add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, nargs="?")
    arguments, rest = parser.parse_known_args(argv)

    def command(given: list[str], console: Console) -> None:
        if arguments.out is None:
            raise ConfigError("--out is missing: name the file to write, such as --out selected.jsonl")
        write_selection(read_sweep(given, console), arguments.out, console)

    return cli.run_on_fields(rest, COMMAND, f"{__doc__}{NAMES}", command)


def write_selection(sweep: Sweep, out: Path, console: Console) -> None:
    """Select and write the set; it appears whole or not at all."""
    from mtselect.data.output import check_output, write_rows

    check_output("--out", out)
    say_whose(sweep, console)
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.stages.corpus import corpus_of
    from mtselect.stages.selection import select_pairs
    from mtselect.stages.trial import noise_share

    chosen = sweep.experiment.selection
    with bench.progress.task("select", 1) as advance:
        lineage = cli.lineage_of(sweep, bench)
        selection = select_pairs(lineage)
        advance(1)
    wrong = noise_share(corpus_of(lineage), [pair.id for pair in selection.pairs])
    write_rows(out, [pair.row() for pair in selection.pairs])
    console.print(f"{len(selection.pairs):,} of {selection.n_candidates:,} candidates written to {out}"
                  f" ({selection.n_passed:,} passed gate {chosen.gate} and threshold {chosen.threshold:g})"
                  + ("" if wrong is None else f"; {wrong:.1%} of them are wrong by data.label_column"))


if __name__ == "__main__":
    sys.exit(main())
