"""Which rows of the pool can be selected, which the warm-up learns, and the index of what a stage finds of each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtselect.attribution.index import IndexWriter, Layout, Shard, SketchIndex
from mtselect.config import Experiment
from mtselect.data.examples import ExampleTable
from mtselect.data.pairs import PairTable
from mtselect.errors import DataError
from mtselect.progress import Advance
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Lineage, Work
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.store import derive_seed, write_whole

# Fields that decide the candidates, beside the pool's tokens.
READS = ("model.max_tokens", "warmup.epochs", "warmup.exclude", "warmup.rows", "seed")

# Candidates of a shard: what a killed pass loses.
SHARD_ROWS = 4096

_PARTS = 4  # of a pass, for each process that there is room for: what the last of them waits for, and what a node's death costs


def usable_rows(experiment: Experiment, pool: ExampleTable) -> NDArray[np.int64]:
    """Rows that fit `model.max_tokens`. Raises DataError if there are none."""
    rows = np.flatnonzero(pool.lengths <= experiment.model.max_tokens)
    if not len(rows):
        raise DataError(f"no pool row fits model.max_tokens ({experiment.model.max_tokens}): raise it; "
                        f"the shortest row has {pool.lengths.min()} tokens")
    return rows


def warmup_rows(experiment: Experiment, usable: NDArray[np.int64]) -> NDArray[np.int64]:
    """Usable rows that the warm-up learns: `warmup.rows` of them, drawn at random."""
    rows = experiment.warmup.rows
    if rows is None:
        return usable
    rng = np.random.default_rng(derive_seed(experiment.seed, "warmup rows"))
    return np.sort(rng.permutation(usable)[:rows])


def candidate_rows(experiment: Experiment, pool: ExampleTable) -> NDArray[np.int64]:
    """Pool rows that can be selected. Raises DataError if `warmup.exclude` leaves none."""
    usable = usable_rows(experiment, pool)
    if not (experiment.warmup.exclude and experiment.warmup.epochs):
        return usable
    rows = np.setdiff1d(usable, warmup_rows(experiment, usable), assume_unique=True)
    if not len(rows):
        raise DataError(f"warmup.exclude leaves no candidate: warmup.rows ({experiment.warmup.rows}) must be below "
                        f"the {len(usable)} usable pool rows: lower it")
    return rows


def candidate_pairs(work: Work) -> PairTable:
    """The candidates' texts."""
    return work.read(POOL).take(candidate_rows(work.experiment, work.read(POOL_TOKENS)))


def candidate_tokens(work: Work) -> ExampleTable:
    """The candidates' token ids."""
    pool = work.read(POOL_TOKENS)
    return pool.take(candidate_rows(work.experiment, pool))


def pass_parts(lineage: Lineage, room: int) -> int:
    """In how many parts so many processes do a pass over the candidates; computes the pool's tokens if they are not in the
    store."""
    shards = math.ceil(len(candidate_rows(lineage.experiment, POOL_TOKENS.read(lineage))) / SHARD_ROWS)
    return min(shards, _PARTS * room)


class CandidateIndex(SketchIndex):
    """What `index_shards` has written."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Of the candidates in the pool, [N]."""
        found: NDArray[np.int64] = np.load(self._folder / "rows.npy")
        return found


def index_shards(work: Work, title: str, candidates: PairTable | ExampleTable, *, passes: int = 1, width: int = 0,
                 columns: Mapping[str, int] | None = None, values: Sequence[str] = ()) -> Iterator[tuple[Shard, Advance]]:
    """Write an entry that has parts: an index of the candidates (`attribution/index.py`), with their rows.npy beside it.

    Args:
        work: of the stage; what it did before counts in the manifest's seconds.
        title: of the progress.
        candidates: all of them, as `candidate_pairs` or `candidate_tokens` gives them.
        passes: over each candidate, for the progress.
        width: of sketches; 0 where nothing is sketched.
        columns: name -> width of further float32 arrays.
        values: names of further float64 arrays, one number a candidate.

    Yields:
        Each shard that is missing, to be filled in, and what is told how many candidates of it are done.
    """
    write_whole(work.out / "rows.npy", partial(np.save, arr=candidates.places))
    layout = Layout(n_rows=len(candidates), width=width, shard_rows=SHARD_ROWS, content=work.recipe.key,
                    columns=dict(columns or {}), values=list(values))
    writer = IndexWriter(work.out, layout, work.recipe.content(), time.monotonic() - work.began, work.bench.part)
    with work.bench.progress.task(title, passes * sum(map(len, writer.missing()))) as advance:
        for shard in writer.shards():
            yield shard, advance
