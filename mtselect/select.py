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
from mtselect.errors import ConfigError
from mtselect.named import NAMES, read_sweep, say_whose

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.FieldsParser("select", f"{__doc__}{NAMES}")
    parser.add_argument("--out", type=Path, nargs="?")
    arguments, fields = parser.parse_known_args(argv)
    return cli.run(lambda console: write_selection(fields, arguments.out, console))


def write_selection(fields: list[str], out: Path | None, console: Console) -> None:
    """Select and write the set; it appears whole or not at all."""
    from mtselect.data.output import check_output, write_rows

    if out is None:
        raise ConfigError("--out is missing: name the file to write, such as --out selected.jsonl")
    sweep = read_sweep(fields, console)
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
