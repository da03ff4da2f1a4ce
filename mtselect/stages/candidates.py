"""Which rows of the pool can be selected, and which the warm-up learns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtselect.config import Experiment
from mtselect.data.examples import ExampleTable
from mtselect.errors import DataError
from mtselect.store import derive_seed

# Fields that decide the candidates, beside the pool's tokens.
READS = ("model.max_tokens", "warmup.epochs", "warmup.exclude", "warmup.rows", "seed")


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
    rows = np.setdiff1d(usable, warmup_rows(experiment, usable))
    if not len(rows):
        raise DataError(f"warmup.exclude leaves no candidate: warmup.rows ({experiment.warmup.rows}) must be below "
                        f"the {len(usable)} usable pool rows: lower it")
    return rows
