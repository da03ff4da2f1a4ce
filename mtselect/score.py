"""python -m mtselect.score [SWEEP.yaml] --out scores.parquet [--signals NAME,NAME] [--FIELD VALUE ...]

All that is known of every pair of the pool, as a table: benefits for the seeds, losses, PMI, how near the sides are in meaning,
whether the gate lets it through, and whether `select` takes it, its rank and why. --signals says what to look at instead:
benefits (a gradient pass), losses, pmi, tokens, adequacy, seeded_losses, set, drops, kiwi. The form is the ending's: .parquet,
.jsonl, .tsv. No finetuning.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.api import SIGNALS
from mtselect.errors import ConfigError
from mtselect.named import NAMES, read_sweep, say_whose

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.stages.lineage import Lineage


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.FieldsParser("score", f"{__doc__}{NAMES}")
    parser.add_argument("--signals", default=",".join(SIGNALS))
    parser.add_argument("--out", type=Path)
    arguments, fields = parser.parse_known_args(argv)
    return cli.run(lambda console: write_scores(fields, arguments.signals.split(","), arguments.out, console))


def write_scores(fields: list[str], signals: Sequence[str], out: Path | None, console: Console) -> None:
    """Compute and write; the file appears whole or not at all."""
    from mtselect.data.output import check_output, write_rows

    if out is None:
        raise ConfigError("--out is missing: name the file to write, such as --out scores.parquet")
    sweep = read_sweep(fields, console)
    check_output("--out", out)
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.stages.scores import open_scores, scores_stage

    stage = scores_stage(signals)
    say_whose(sweep, console)
    with bench.progress.task("score", 1) as advance:
        lineage = cli.lineage_of(sweep, bench)
        scores = open_scores(lineage.path(stage))
        advance(1)
    write_rows(out, scores)
    console.print(f"{len(scores):,} candidates written to {out}, with {', '.join(scores.column_names[3:])}")
    if others := _no_candidates(lineage):
        console.print(f"rows of the pool that are no candidates: {others}", soft_wrap=True)


def _no_candidates(lineage: Lineage) -> str:
    """How many rows of the pool are none, and why."""
    import numpy as np

    from mtselect.stages.candidates import candidate_rows
    from mtselect.stages.corpus import CORPUS, corpus_of
    from mtselect.stages.tokens import POOL_TOKENS

    summary, tokens, experiment = corpus_of(lineage).summary, POOL_TOKENS.read(lineage), lineage.experiment
    n_long = int(np.sum(tokens.lengths > experiment.model.max_tokens))
    counts = {f"unusable ({lineage.path(CORPUS) / 'quarantine.jsonl'})": summary["pool/quarantined"],
              "among the seeds": summary["pool/seeds_dropped"], "in dev or test": summary["pool/leaked_dropped"],
              "the same pair again": summary["pool/duplicates"], "longer than model.max_tokens": n_long,
              "learnt by the warm-up (warmup.exclude)": len(tokens) - n_long - len(candidate_rows(experiment, tokens))}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


if __name__ == "__main__":
    sys.exit(main())
