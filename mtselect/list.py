"""python -m mtselect.list {selectors,metrics,readers}

What a sweep file can name, a line each: ways to choose (selection.method, study.baselines), scores (evaluation.metrics), and
forms of sources (data.pool, seeds, dev, test). Parts of other packages that are installed are among them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import getdoc, getmodule
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.plugins import part_names

if TYPE_CHECKING:
    from rich.console import Console

KINDS = ("selectors", "metrics", "readers")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.parser_of("list", __doc__)
    parser.add_argument("kind", choices=KINDS)
    arguments = parser.parse_args(argv)
    return cli.run(lambda console: show(arguments.kind, console), again="Nothing was done.")


def show(kind: str, console: Console) -> None:
    """Print the parts of a kind. Raises ConfigError for one that cannot be imported."""
    found = dict(parts(kind))
    width = max(map(len, found))
    for name, about in found.items():
        console.print(f"{name:<{width}}  {about}", markup=False, soft_wrap=True)


def parts(kind: str) -> Iterator[tuple[str, str]]:
    """Name and what it is, as the first paragraph of its module or its class says. Raises ConfigError, likewise."""
    from mtselect.metrics.base import METRICS
    from mtselect.readers.base import READERS
    from mtselect.selectors.base import SELECTORS

    for name in part_names(f"mtselect.{kind}"):
        part = (SELECTORS if kind == "selectors" else METRICS if kind == "metrics" else READERS).load(name)
        said = getdoc(getmodule(part)) or getdoc(part) or ""
        first = " ".join(said.split("\n\n")[0].split()).removeprefix(f"{name}: ").removesuffix(".")
        yield name, f"{first} ({READERS.load(name)().about})" if kind == "readers" else first


if __name__ == "__main__":
    sys.exit(main())
