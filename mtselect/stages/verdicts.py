"""verdicts: of every candidate whether it is in the set, its rank, and in a line why, verdicts.arrow; for people.

The selection once more: what it keeps is of the set alone. A rank is a place among those that were ranked, from 1; 0 where it
has none. `out: rank 512 of 2,000 (z -0.21), the budget took 360` is a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtselect.config import Experiment, SelectionConfig
from mtselect.data.pairs import PairTable
from mtselect.data.tables import table_writer
from mtselect.selection.gate import bound
from mtselect.selectors.base import SELECTORS
from mtselect.stages.candidates import candidate_rows
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Lineage, Output, Stage, Work
from mtselect.stages.selection import Choice, choose, select_pairs, selection_stage
from mtselect.stages.tokens import POOL_TOKENS

SCHEMA = pa.schema([("selected", pa.bool_()), ("rank", pa.int64()), ("why", pa.large_string())])


def _run(work: Work) -> None:
    experiment, pool = work.experiment, work.read(POOL)
    choice = choose(work)
    candidates = np.isin(choice.rows, candidate_rows(experiment, work.read(POOL_TOKENS)))  # `pool` takes from others, too
    with table_writer(work.out / "verdicts.arrow", SCHEMA) as write:
        for verdict in compress(_verdicts(choice, experiment.selection, pool), candidates):
            write(verdict)


def _verdicts(choice: Choice, chosen: SelectionConfig, pool: PairTable) -> Iterator[dict[str, object]]:
    """Of each row of a choice, by the names of `SCHEMA`."""
    selector, found, gated, method = SELECTORS.load(chosen.method), choice.found, choice.gated, chosen.method
    n_rows = len(choice.rows)
    selected = np.isin(np.arange(n_rows), found.rows)
    ranks = np.zeros(n_rows, np.int64)
    if found.order is not None:
        ranks[found.order] = np.arange(1, len(found.order) + 1)
    cut = 0.0 if gated is None else bound(gated.seeds, chosen.gate_keeps)
    took, of = f"{len(found.rows):,}", f"{found.n_passed:,}"
    clusters = chosen.n_clusters if "n_clusters" in selector.fields else 1
    evenly = f" drawn evenly from {clusters} clusters" if clusters > 1 else ""
    barred = (f"it does not reach selection.threshold ({chosen.threshold:g} on {chosen.threshold_on})"
              if "threshold" in selector.fields else f"{method} does not rank it")
    stands_for = _stands_for(choice)
    for row in range(n_rows):
        rank, by = int(ranks[row]), ", ".join(f"{name} {values[row]:.3g}" for name, values in found.ranked_by.items())
        if not choice.through[row]:
            assert gated is not None
            why = f"the gate drops it: {gated.kinds[gated.looks[row]]} (score {gated.pool[row]:.4g}, bound {cut:.4g})"
        elif stands_for is not None and stands_for[row] != row:
            why = f"a near-duplicate of {pool[int(choice.rows[stands_for[row]])].id}, which stands for both"
        elif rank:
            why = f"rank {rank:,} of {of}{by and f' ({by})'}{evenly}" + ("" if selected[row] else f", the budget took {took}")
        elif found.order is None:
            why = f"{method} took {took} of {of}" + ("" if selected[row] else ", not this one")
        else:
            why = barred
        yield {"selected": bool(selected[row]), "rank": rank, "why": f"{'in' if selected[row] else 'out'}: {why}"}


def _stands_for(choice: Choice) -> NDArray[np.int64] | None:
    """Of each row the one of its group of near-duplicates that may be taken, [N]; null where they are not thinned."""
    if choice.groups is None:
        return None
    kept = np.flatnonzero(choice.passed)
    found = np.arange(len(choice.groups))
    of_group = found.copy()
    of_group[choice.groups[kept]] = kept
    return of_group[choice.groups]


@cache
def _stage(selection: Stage) -> Stage:
    return Stage(name="verdicts", version=2, run=_run, reads=selection.reads, inputs=selection.inputs,
                 sources=selection.sources)


def load_verdicts(folder: Path) -> pa.Table:
    """Of an entry, memory-mapped."""
    with pa.memory_map(str(folder / "verdicts.arrow")) as file:
        return pa.ipc.open_file(file).read_all()


def verdicts_output(experiment: Experiment) -> Output[pa.Table]:
    """The input that is the verdicts on the set of the experiment's selector."""
    return Output(stage=_stage(selection_stage(experiment)), opens=load_verdicts)


def why(lineage: Lineage, rows: Sequence[int]) -> list[str]:
    """Of pairs of the pool, which may be no candidates, why they are in the set or not."""
    experiment, tokens = lineage.experiment, POOL_TOKENS.read(lineage)
    candidates, lengths = candidate_rows(experiment, tokens), tokens.lengths
    reasons = verdicts_output(experiment).read(lineage)["why"]
    found = []
    for row in rows:
        place = int(np.searchsorted(candidates, row))
        if place < len(candidates) and candidates[place] == row:
            found.append(reasons[place].as_py())
        elif lengths[row] > experiment.model.max_tokens:
            found.append(f"out: {lengths[row]} tokens, model.max_tokens is {experiment.model.max_tokens}")
        elif SELECTORS.load(experiment.selection.method).excludes:
            found.append("out: the warm-up learns it, and warmup.exclude leaves such pairs out")
        else:
            found.append(_why_learnt(lineage, POOL.read(lineage)[row].id))
    return found


def _why_learnt(lineage: Lineage, pair_id: str) -> str:
    """Of a pair that the warm-up learns, for a selector that takes from such, too."""
    selection, method = select_pairs(lineage), lineage.experiment.selection.method
    took = f"{method} took {len(selection.pairs):,} of {selection.n_passed:,}"
    return f"in: {took}" if any(pair.id == pair_id for pair in selection.pairs) else f"out: {took}, not this one"
