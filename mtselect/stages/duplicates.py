"""duplicates: groups of near-duplicates among the candidates, groups.npy [N]: the first row of each one's group
(`selection/duplicates.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtselect.attribution.index import reserve
from mtselect.config import SelectionConfig
from mtselect.selection.duplicates import N_BANDS, N_MINIMA, groups, minima
from mtselect.selectors.base import SELECTORS
from mtselect.stages.candidates import READS, candidate_rows
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.store import derive_seed

_BATCH = 4096


def _run(work: Work) -> None:
    experiment, pool = work.experiment, work.read(POOL)
    similarity = experiment.selection.near_duplicates
    assert similarity is not None, "declared where it is set"
    rows, seed = candidate_rows(experiment, work.read(POOL_TOKENS)), derive_seed(experiment.seed, "duplicates")
    scratch = work.out / "minima.npy"  # 512 bytes a pair
    shape = (N_BANDS, len(rows), N_MINIMA // N_BANDS)
    found = reserve(scratch, shape, np.uint32) if len(rows) else np.empty(shape, np.uint32)
    with work.bench.progress.task("near-duplicates", len(rows)) as advance:
        for start in range(0, len(rows), _BATCH):
            pairs = pool.take(rows[start : start + _BATCH])
            found[:, start : start + _BATCH] = minima([(pair.src, pair.tgt) for pair in pairs], seed)
            advance(len(pairs))
    np.save(work.out / "groups.npy", groups(found, similarity))
    del found
    scratch.unlink(missing_ok=True)


DUPLICATES = Stage(name="duplicates", version=1, inputs=lambda _: [POOL, POOL_TOKENS], run=_run,
                   reads=("selection.near_duplicates", *READS))


def _load_groups(folder: Path) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.load(folder / "groups.npy")
    return found


GROUPED = Output(stage=DUPLICATES, opens=_load_groups)


def is_thinned(chosen: SelectionConfig) -> bool:
    """Whether one of each group passes."""
    return SELECTORS.load(chosen.method).gated and chosen.near_duplicates is not None
