"""duplicates: groups of near-duplicates among the candidates, groups.npy [N]: the first row of each one's group
(`selection/duplicates.py`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtselect.attribution.index import reserve
from mtselect.config import SelectionConfig
from mtselect.selection.duplicates import N_BANDS, N_MINIMA, groups, minima
from mtselect.selectors.base import SELECTORS
from mtselect.stages.candidates import READS, candidate_pairs
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.store import derive_seed

_BATCH = 4096


def _run(work: Work) -> None:
    candidates, seed = candidate_pairs(work), derive_seed(work.experiment.seed, "duplicates")
    similarity = work.experiment.selection.near_duplicates
    assert similarity is not None, "declared where it is set"
    scratch = work.out / "minima.npy"  # 512 bytes a pair
    found = reserve(scratch, (N_BANDS, len(candidates), N_MINIMA // N_BANDS), np.uint32)
    with work.bench.progress.task("near-duplicates", len(candidates)) as advance:
        for start in range(0, len(candidates), _BATCH):
            pairs = candidates[start : start + _BATCH]
            found[:, start : start + _BATCH] = minima([(pair.src, pair.tgt) for pair in pairs], seed)
            advance(len(pairs))
    np.save(work.out / "groups.npy", groups(found, similarity))
    del found
    scratch.unlink()


DUPLICATES = Stage(name="duplicates", version=1, inputs=lambda _: [POOL, POOL_TOKENS], run=_run,
                   reads=("selection.near_duplicates", *READS))


GROUPED: Output[NDArray[np.int64]] = Output(stage=DUPLICATES, opens=lambda folder: np.load(folder / "groups.npy"))


def is_thinned(chosen: SelectionConfig) -> bool:
    """Whether one of each group passes."""
    return SELECTORS.load(chosen.method).gated and chosen.near_duplicates is not None
