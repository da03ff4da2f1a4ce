"""kiwi: quality of every candidate as COMET's reference-free model sees it (CometKiwi, Rei et al., arXiv 2209.06243).

An index with `kiwi`, 0 to 1 for most models, [N]; rows.npy [N] (in the pool).
"""

from __future__ import annotations

from contextlib import closing

from mtselect.config import Experiment
from mtselect.data.fingerprint import local_digest
from mtselect.metrics._comet.client import CometScorer
from mtselect.stages.candidates import READS, CandidateIndex, candidate_pairs, index_shards, pass_parts
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.tokens import POOL_TOKENS


def _run(work: Work) -> None:
    candidates = candidate_pairs(work)
    with closing(CometScorer()) as scorer:
        for shard, advance in index_shards(work, "CometKiwi", candidates, values=("kiwi",)):
            pairs = [candidates[row] for row in shard.rows]
            shard.values["kiwi"][:] = scorer.score(work.experiment.adequacy.kiwi, [pair.src for pair in pairs],
                                                   [pair.tgt for pair in pairs], None, advance=advance)


def _sources(experiment: Experiment) -> list[str]:
    digest = local_digest(experiment.adequacy.kiwi)
    return [digest] if digest else []


KIWI = Stage(name="kiwi", version=1, parts=pass_parts, inputs=lambda _: [POOL, POOL_TOKENS], run=_run,
             reads=("adequacy.kiwi", *READS), sources=_sources)
KIWI_SCORED = Output(stage=KIWI, opens=CandidateIndex)
