"""Which pairs somebody asks about, and why they are in the set or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mtselect.data.normalise import sentence_key
from mtselect.data.pairs import Pair, pair_id
from mtselect.data.rows import SourceRow, one_line, read_rows
from mtselect.errors import ConfigError
from mtselect.stages.corpus import CORPUS, POOL, SEEDS
from mtselect.stages.gradients import INDEXED
from mtselect.stages.verdicts import why

if TYPE_CHECKING:
    from mtselect.stages.lineage import Lineage

# A pair of the pool, or null for a row of its source that is none, and in a line why it is in the set or not.
Told: TypeAlias = tuple[Pair | None, str]


def told_pairs(lineage: Lineage, pair: str | None, ids: str | None, top: int) -> list[Told]:
    """What `--pair` or `--ids` stands for; without both the `top` best and worst candidates.

    Raises:
        ConfigError: an id or a pair is not in the pool.
    """
    if pair is not None:
        return _of_text(lineage, pair)
    if ids is not None:
        pool, asked = POOL.read(lineage), ids.split(",")
        by_id = {pool[row].id: row for row in np.flatnonzero(pool.among(asked)).tolist()}
        for one in asked:
            if one not in by_id:
                raise ConfigError(f"--ids: {one!r} is no id of the pool: take them from a selected.jsonl of this experiment")
        return _of_rows(lineage, [by_id[one] for one in asked])
    index = INDEXED.read(lineage)
    order = np.argsort(-index.column("mean"), kind="stable")
    chosen = order if len(order) <= 2 * top else np.concatenate([order[:top], order[-top:]])
    return _of_rows(lineage, index.rows[chosen].tolist())


def _of_rows(lineage: Lineage, rows: Sequence[int]) -> list[Told]:
    pairs = POOL.read(lineage).take(np.asarray(rows, np.int64))
    return list(zip(pairs, why(lineage, rows), strict=True))


def _of_text(lineage: Lineage, text: str) -> list[Told]:
    """The pairs that a text stands for: an id, a source sentence (of several pairs, perhaps), or a line of the pool's source,
    as the quarantine counts them. Of a text that is none of these the corpus alone is asked, and no stage after it."""
    pool, sentence = POOL.read(lineage), one_line(text)
    found = np.flatnonzero(pool.among([text]))
    found = found if len(found) else np.flatnonzero(pool.with_source(sentence))
    if len(found):
        return _of_rows(lineage, found.tolist())
    number = int(text) if text.isdecimal() else None
    first = last = 0
    for row in read_rows(lineage.experiment.data, "pool"):
        if row.line == number or (number is None and row.src == sentence):
            return _of_read(lineage, row)
        first, last = first or row.line, row.line
    raise ConfigError(f"--pair: {text!r} is no id, line or source sentence of data.pool ({lineage.experiment.data.pool}): "
                      f"the pool has lines {first:,} to {last:,}, correct it")


def _of_read(lineage: Lineage, row: SourceRow) -> list[Told]:
    """A row of the pool's source."""
    if row.reason is not None:
        quarantine = lineage.path(CORPUS) / "quarantine.jsonl"
        return [(None, f"out: line {row.line} cannot be used, {row.reason} ({quarantine}): {row.excerpt}")]
    there = np.flatnonzero(POOL.read(lineage).among([pair_id(row.src, row.tgt)]))
    if len(there):
        return _of_rows(lineage, there.tolist())
    seeds = {sentence_key(pair.src, pair.tgt) for pair in SEEDS.read(lineage)}
    seed = sentence_key(row.src, row.tgt) in seeds
    reason = "is one of the seeds" if seed else "has a source sentence of dev or test"
    return [(None, f"out: line {row.line} {reason}: {row.src} ||| {row.tgt}")]
