"""python -m mtselect.comet {install,score}

Installs COMET into an environment of its own, since it needs older libraries than mtselect, and scores files with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.errors import DataError
from mtselect.metrics._comet.install import environment, install

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.parser_of("comet", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("install", help="make COMET's environment (some minutes, 1.5 GB without and 6 GB with CUDA)")
    command.add_argument("--path", type=Path, default=environment(),
                         help="its folder (default: $MTSELECT_COMET_ENV, else %(default)s)")
    command = commands.add_parser("score", help="print the mean COMET score of a file of translations, a sentence a line")
    command.add_argument("--model", default="Unbabel/wmt22-comet-da", help="hub name or folder (default: %(default)s)")
    command.add_argument("--batch-size", type=int, default=16, help="sentences at once (default: %(default)s)")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE",
                         help="source, translation and, if the model needs it, reference")
    arguments = parser.parse_args(argv)
    if arguments.command == "install":
        return cli.run(lambda console: _install(arguments.path.expanduser().absolute(), console),
                       again="COMET is not installed; the same command starts anew.")
    if len(arguments.files) not in (2, 3):
        parser.error("give two files (source, translation) or three (and reference)")
    return cli.run(lambda console: _score(arguments, console), again="Nothing was kept; run the same command again.")


def _install(path: Path, console: Console) -> None:
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=console, transient=True,
                  disable=not console.is_terminal) as bars:
        bar = bars.add_task(f"making {path}")
        made = install(path, lambda line: bars.update(bar, description=escape(line[:80])))
    console.print(f"COMET is {'now' if made else 'already'} installed in {path}", soft_wrap=True)
    if path != environment():
        console.print(f"next: export MTSELECT_COMET_ENV={path}", soft_wrap=True)
    else:
        console.print("next: evaluation.metrics: [bleu, chrf, comet] in a sweep, or python -m mtselect.comet score SOURCE "
                      "TRANSLATION REFERENCE", soft_wrap=True)


def _score(arguments: argparse.Namespace, console: Console) -> None:
    from mtselect.metrics._comet.client import CometScorer
    from mtselect.progress import ConsoleProgress

    columns = [_lines(path) for path in arguments.files]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{path} has {len(column):,}" for path, column in zip(arguments.files, columns, strict=True))
        raise DataError(f"the files must have equally many lines: {counts}")
    sources, hypotheses, *references = columns
    with closing(CometScorer()) as scorer, ConsoleProgress(console).task("COMET", len(sources)) as advance:
        scores = scorer.score(arguments.model, sources, hypotheses, references[0] if references else None,
                              batch_size=arguments.batch_size, advance=advance)
    console.print(f"{arguments.model}  {sum(scores) / len(scores):.4f}  mean of {len(scores):,} sentences", soft_wrap=True)


def _lines(path: Path) -> list[str]:
    """A file's lines; at least one."""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as UTF-8 text: {error}: give a file with a sentence a line") from error


if __name__ == "__main__":
    sys.exit(main())
