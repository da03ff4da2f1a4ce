"""Which pair somebody asks about, and why it is in the set or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtselect.data.normalise import sentence_key
from mtselect.data.pairs import Pair, pair_id
from mtselect.data.rows import SourceRow, one_line, read_rows
from mtselect.errors import ConfigError
from mtselect.stages.corpus import CORPUS, POOL, SEEDS
from mtselect.stages.verdicts import why

if TYPE_CHECKING:
    from mtselect.stages.lineage import Lineage


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A pair.

    Args:
        pair: of the pool; null where the row is not among those that were read from it.
        why: it is in the set or not, in a line.
    """

    pair: Pair | None
    why: str


def of_rows(lineage: Lineage, rows: Sequence[int]) -> list[Asked]:
    """Pairs of the pool."""
    pairs = POOL.read(lineage).take(np.asarray(rows, np.int64))
    return [Asked(pair=pair, why=said) for pair, said in zip(pairs, why(lineage, rows), strict=True)]


def of_text(lineage: Lineage, text: str) -> list[Asked]:
    """The pairs that a text stands for: an id, a source sentence (of several pairs, perhaps), or a line of the pool's source,
    as the quarantine counts them. Of a text that is none of these the corpus alone is asked, and no stage after it.

    Raises:
        ConfigError: there is none; it names the lines there are.
    """
    pool, sentence = POOL.read(lineage), one_line(text)
    found = np.flatnonzero(pool.among([text]))
    found = found if len(found) else np.flatnonzero(pool.with_source(sentence))
    if len(found):
        return of_rows(lineage, found.tolist())
    number = int(text) if text.isdecimal() else None
    first = last = 0
    for row in read_rows(lineage.experiment.data, "pool"):
        if row.line == number or (number is None and row.src == sentence):
            return list(_read(lineage, row))
        first, last = first or row.line, row.line
    raise ConfigError(f"--pair: {text!r} is no id, line or source sentence of data.pool ({lineage.experiment.data.pool}): "
                      f"the pool has lines {first:,} to {last:,}, correct it")


def _read(lineage: Lineage, row: SourceRow) -> Iterator[Asked]:
    """A row of the pool's source."""
    if row.reason is not None:
        quarantine = lineage.path(CORPUS) / "quarantine.jsonl"
        yield Asked(pair=None, why=f"out: line {row.line} cannot be used, {row.reason} ({quarantine}): {row.excerpt}")
        return
    there = np.flatnonzero(POOL.read(lineage).among([pair_id(row.src, row.tgt)]))
    if len(there):
        yield from of_rows(lineage, there.tolist())
        return
    seeds = {sentence_key(pair.src, pair.tgt) for pair in SEEDS.read(lineage)}
    seed = sentence_key(row.src, row.tgt) in seeds
    reason = "is one of the seeds" if seed else "has a source sentence of dev or test"
    yield Asked(pair=None, why=f"out: line {row.line} {reason}: {row.src} ||| {row.tgt}")
