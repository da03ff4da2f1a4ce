"""python -m mtselect.explain [SWEEP.yaml] [--pair PAIR | --ids ID,ID | --top N] [--out PAGE.html] [--FIELD VALUE ...]

Why a pair is in the set or not, and which words make it help or harm: the benefit of each target word for the seeds. A pair's
words, and the end of its sentence, add up to its benefit. PAIR is an id, a source sentence, or a line of the pool's file.
Without it and --ids the N candidates with the largest and the N with the smallest benefit (--top, 5). --out writes a page
(.html) or one JSON line per pair (.jsonl).
"""

from __future__ import annotations

import io
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import Sweep
from mtselect.errors import ConfigError
from mtselect.named import NAMES, read_sweep, say_whose

if TYPE_CHECKING:
    from rich.console import Console, Group

    from mtselect.data.pairs import Pair

END = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
# Blue helps, orange harms: told apart by colour-blind eyes. What does neither is white.
HELPS, HARMS = (110, 170, 255), (255, 165, 80)


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A pair, why it is in the set or not, and the benefits of its target words, in order; the last one is the end of the
    sentence."""

    pair: Pair
    why: str
    words: list[tuple[str, float]]

    @property
    def benefit(self) -> float:
        """Mean benefit over the seeds."""
        return sum(benefit for _, benefit in self.words)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.FieldsParser("explain", f"{__doc__}{NAMES}")
    parser.add_argument("--pair")
    parser.add_argument("--ids")
    parser.add_argument("--top", default="5")
    parser.add_argument("--out", type=Path)
    arguments, fields = parser.parse_known_args(argv)

    def command(console: Console) -> None:
        if not arguments.top.isdecimal() or int(arguments.top) < 1:
            raise ConfigError(f"--top must be a number of pairs above 0, got {arguments.top!r}")
        if arguments.ids is not None and arguments.pair is not None:
            raise ConfigError("--pair and --ids are two ways to name pairs, got both: leave one out")
        explain(read_sweep(fields, console), arguments.pair, arguments.ids, int(arguments.top), arguments.out, console)

    return cli.run(command)


def explain(sweep: Sweep, pair: str | None, ids: str | None, top: int, out: Path | None, console: Console) -> None:
    """Compute and show; without a pair and ids the `top` best and worst candidates.

    Raises:
        ConfigError: an id or a pair is not in the pool, or `out` is neither a page nor JSON lines.
    """
    if out is not None and (out.suffix not in (".html", ".jsonl") or not out.parent.is_dir() or out.is_dir()):
        raise ConfigError(f"--out must be a .html or .jsonl file in a folder that exists, got {str(out)!r}")
    say_whose(sweep, console)
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.asked import told_pairs
    from mtselect.stages.token_benefits import benefits_of_tokens
    from mtselect.store import write_text_whole

    with bench.progress.task("explain", 2) as advance:
        lineage = cli.lineage_of(sweep, bench)
        told = told_pairs(lineage, pair, ids, top)
        advance(1)
        there = {one: why for one, why in told if one is not None}
        tokens = benefits_of_tokens(lineage, list(there)) if there else []
        found = [Explained(pair=one, why=why, words=into_words(words))
                 for (one, why), words in zip(there.items(), tokens, strict=True)]
        advance(1)
    for one, why in told:
        if one is None:
            console.print(why, markup=False, soft_wrap=True)
    for explained in found:
        console.print(picture(explained))
    colours = "blue helps the seeds, orange harms them, each pair on its own scale; " if console.color_system else ""
    if found:
        console.print(f"{colours}{END} is the end of the sentence. Benefits of single pairs are noisy: a wrong one may help.",
                      style="dim", soft_wrap=True)
    if out is not None:
        write_text_whole(out, _page(found) if out.suffix == ".html" else _lines(found))
        console.print(f"written to {out}")


def into_words(tokens: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Join tokens into words at spaces, and at every character of scripts without; the last token, EOS, stays alone."""
    words: list[tuple[str, float]] = []
    for text, benefit in tokens[:-1]:
        joins = words and (not text or not (text[0].isspace() or words[-1][0][-1:].isspace() or _wide(text[0])
                                            or _wide(words[-1][0][-1:])))
        if joins:
            words[-1] = (words[-1][0] + text, words[-1][1] + benefit)
        else:
            words.append((text, benefit))
    return [*words, (END, tokens[-1][1])]


def picture(one: Explained) -> Group:
    """Source, target with its words coloured by benefit, and these as numbers."""
    from rich.console import Group
    from rich.text import Text

    largest = max(abs(benefit) for _, benefit in one.words) or 1.0
    target = Text("  ")
    for word, benefit in one.words:
        strength = abs(benefit) / largest
        red, green, blue = (round(255 - strength * (255 - part)) for part in (HELPS if benefit > 0 else HARMS))
        target.append(word, style=f"black on rgb({red},{green},{blue})")
    heading = Text(f"{one.pair.id}  benefit {one.benefit:+.4g}  {one.why}", style="bold")
    values = Text("  " + "  ".join(f"{word.strip()} {benefit:+.3g}" for word, benefit in one.words), style="dim")
    return Group(heading, Text(f"  {one.pair.src}", style="dim"), target, values, Text())


def _wide(character: str) -> bool:
    """Whether it is of a script written without spaces (Chinese, Japanese; not Korean, which has them)."""
    return unicodedata.east_asian_width(character or "a") in ("W", "F") and not "\uac00" <= character <= "\ud7a3"


def _page(found: Sequence[Explained]) -> str:
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=120, force_terminal=True, color_system="truecolor")
    for one in found:
        console.print(picture(one))
    return console.export_html()


def _lines(found: Sequence[Explained]) -> str:
    from mtselect.store import jsonl

    return jsonl({**vars(one.pair), "why": one.why, "benefit": one.benefit,
                  "words": [{"text": word, "benefit": benefit} for word, benefit in one.words]} for one in found)


if __name__ == "__main__":
    sys.exit(main())
