"""states: a vector for every candidate and seed, from hidden states of the model that scores (`training/forward_module.py`).

An index with `states` [N, D], of unit length; seeds.npy [Q, D]; rows.npy [N] (in the pool).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from mtselect.attribution.index import SketchIndex
from mtselect.selectors.base import States
from mtselect.stages.candidates import READS, candidate_tokens, index_shards, pass_parts
from mtselect.stages.corpus import SEEDS
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.models import encode, load_weights
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import write_whole
from mtselect.training.forward_module import example_states


def _run(work: Work) -> None:
    experiment, runtime, weights = work.experiment, work.bench.runtime, work.read(WARM_MODEL)
    lm = load_weights(experiment, runtime, weights.name)
    candidates = candidate_tokens(work)
    run = partial(example_states, lm, batch_size=4 * runtime.batch_size, accelerator=runtime.accelerator)
    seeds = encode(experiment, weights.name, work.read(SEEDS)[:])
    with work.bench.progress.task("states of seeds", len(seeds)) as advance:
        vectors = run(seeds, advance=advance)
    write_whole(work.out / "seeds.npy", partial(np.save, arr=vectors))
    for shard, advance in index_shards(work, "pool states", candidates, columns={"states": vectors.shape[1]}):
        shard.columns["states"][:] = run([candidates[row] for row in shard.rows], advance=advance, first=shard.rows.start)


STATES = Stage(name="states", version=1, parts=pass_parts, inputs=lambda _: [SEEDS, POOL_TOKENS, WARM_MODEL], run=_run,
               reads=("model", "data.src_lang", "data.tgt_lang", *READS))


def load_states(folder: Path) -> States:
    """Of an entry."""
    return States(pool=SketchIndex(folder).column("states"), seeds=np.load(folder / "seeds.npy"))


READ_STATES = Output(stage=STATES, opens=load_states)
