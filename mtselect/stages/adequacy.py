"""adequacy: how near each candidate's target lies to its source, as sentence embeddings have it.

An index with `cosine` of the two sides' vectors and `overlap` of their characters (`selection/features.py`), each [N]; rows.npy
[N] (in the pool).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from joblib import cpu_count

from mtselect.attribution.index import SketchIndex
from mtselect.config import Experiment, RuntimeConfig
from mtselect.data.fingerprint import local_digest
from mtselect.data.pairs import Pair
from mtselect.selection.features import trigram_overlap
from mtselect.selectors.base import Adequacy
from mtselect.stages.candidates import READS, candidate_pairs, index_shards, pass_parts
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.training.device import compute_device
from mtselect.training.sentence_encoder import load_encoder

_BATCH = 256  # pairs that are encoded between two steps of the progress bar


def _run(work: Work) -> None:
    candidates, compare = candidate_pairs(work), comparer(work.experiment, work.bench.runtime)
    for shard, advance in index_shards(work, "adequacy", candidates, values=("cosine", "overlap")):
        for begin in range(0, len(shard.rows), _BATCH):
            here = slice(begin, begin + _BATCH)
            pairs = [candidates[row] for row in shard.rows[here]]
            found = compare(pairs)
            shard.values["cosine"][here], shard.values["overlap"][here] = found.cosine, found.overlap
            advance(len(pairs))


def comparer(experiment: Experiment, runtime: RuntimeConfig) -> Callable[[Sequence[Pair]], Adequacy]:
    """Compares pairs, by the encoder of `adequacy.encoder`."""
    encode = load_encoder(experiment.adequacy.encoder, compute_device(runtime.accelerator).type, runtime.threads or cpu_count())

    def compare(pairs: Sequence[Pair]) -> Adequacy:
        sources, targets = encode([pair.src for pair in pairs]), encode([pair.tgt for pair in pairs])
        return Adequacy(cosine=np.einsum("nd,nd->n", sources, targets),
                        overlap=np.array([trigram_overlap(pair.src, pair.tgt) for pair in pairs]))

    return compare


def encoder_digest(experiment: Experiment) -> list[str]:
    """What an encoder's folder holds; a name is what it says."""
    digest = local_digest(experiment.adequacy.encoder)
    return [digest] if digest else []


ADEQUACY = Stage(name="adequacy", version=1, parts=pass_parts, inputs=lambda _: [POOL, POOL_TOKENS], run=_run,
                 reads=("adequacy.encoder", *READS), sources=encoder_digest)


def load_adequacy(folder: Path) -> Adequacy:
    """Of an entry."""
    index = SketchIndex(folder)
    return Adequacy(cosine=index.column("cosine"), overlap=index.column("overlap"))


COMPARED = Output(stage=ADEQUACY, opens=load_adequacy)
