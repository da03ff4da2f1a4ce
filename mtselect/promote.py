"""python -m mtselect.promote STUDY

Takes a finished study's best trial, checks it again (same selected ids, same dev score), scores the test set with fresh
finetuning seeds, compares it with every rival of the study by a bootstrap over seeds and sentences, and registers the selected
set as the next version of the dataset `mtselect.<study>`. It becomes `champion` if its test score is better than the reigning
champion's, else `challenger`. A set that fails a gate is refused, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.parser_of("promote", __doc__)
    parser.add_argument("study", nargs="?", default="quickstart", help="the study's name (default: quickstart)")
    parser.add_argument("--force", action="store_true", help="promote to champion, or push, even if a gate is not passed")
    parser.add_argument("--dry-run", action="store_true", help="ask every gate and say what would happen; register nothing")
    parser.add_argument("--from-scratch", action="store_true", help="compute the best trial again from its sources, warm-up "
                        "and gradients included, rather than from the stage store")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--rollback", action="store_true", help="give `champion` back to the version that had it before")
    instead.add_argument("--export", metavar="PLACE", type=Path, help="write the champion to a new folder that "
                         "datasets.load_dataset opens, or its pairs to a file: .jsonl, .tsv (each also .gz, .zst), .parquet, "
                         "or .de-en for two files of a sentence a line (Moses); promotes nothing")
    instead.add_argument("--push", metavar="ORG/NAME", help="push the champion to the Hugging Face hub, as a dataset "
                         "repository with its card and a tag for each version (v1, v2); promotes only where nothing was "
                         "promoted before")
    parser.add_argument("--private", action="store_true", help="with --push: make the repository a private one")
    parser.add_argument("--licence", help="SPDX identifier of the pool's licence, where the sweep has no data.licence")
    parser.add_argument("--tracking.uri", dest="uri", help="MLflow server (default: MLflow's own)")
    parser.add_argument("--tracking.experiment", dest="experiment", help="MLflow experiment (default: the study's name)")
    parser.add_argument("--runtime.workdir", dest="workdir", default="mlruns", help="stage store (default: mlruns)")
    arguments = parser.parse_args(argv)

    def command(console: Console) -> None:
        from mtselect.promotion.order import Order
        from mtselect.promotion.promote import promote

        promote(Order(**vars(arguments)), console)

    return cli.run(command, again="Nothing was promoted; run the same command again.")


if __name__ == "__main__":
    sys.exit(main())
