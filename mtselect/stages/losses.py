"""losses: of every candidate at the model that scores, summed over target tokens.

An index with `loss` of the pair, `other` of its target after another candidate's source, and `tokens`, each [N]; rows.npy [N]
(in the pool).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtselect.config import RuntimeConfig
from mtselect.data.examples import Example
from mtselect.progress import Advance
from mtselect.stages.candidates import READS, CandidateIndex, candidate_tokens, index_shards, pass_parts
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.models import load_weights
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import derive_seed
from mtselect.training.forward_module import example_losses
from mtselect.training.language_model import LanguageModel

NAMES = ("loss", "other", "tokens")


def _run(work: Work) -> None:
    experiment, runtime = work.experiment, work.bench.runtime
    lm = load_weights(experiment, runtime, work.read(WARM_MODEL).name)
    candidates = candidate_tokens(work)
    others = other_rows(len(candidates), experiment.seed)
    for shard, advance in index_shards(work, "pool losses", candidates, passes=2, values=NAMES):
        examples, with_others = ([candidates[row] for row in rows] for rows in (shard.rows, others[shard.rows]))
        fill_losses(lm, examples, with_others, shard.values, runtime, advance, shard.rows.start)


def other_rows(n_rows: int, seed: int) -> NDArray[np.int64]:
    """For each of some rows another one, drawn at random: all in one circle."""
    circle = np.random.default_rng(derive_seed(seed, "other sources")).permutation(n_rows)
    others = np.empty(n_rows, dtype=np.int64)
    others[circle] = np.roll(circle, 1)
    return others


def fill_losses(lm: LanguageModel, examples: Sequence[Example], with_others: Sequence[Example],
                values: Mapping[str, NDArray[np.float64]], runtime: RuntimeConfig, advance: Advance, first: int = 0) -> None:
    """Losses of examples, and of their targets after the sources of others, into arrays of `NAMES`; `first` is what errors call
    the first row."""
    swapped = [Example(other.prompt, example.target, example.start)
               for example, other in zip(examples, with_others, strict=True)]
    run = partial(example_losses, lm, batch_size=4 * runtime.batch_size, accelerator=runtime.accelerator, advance=advance,
                  first=first)
    values["loss"][:], values["other"][:] = run(examples), run(swapped)
    values["tokens"][:] = [len(example.target) for example in examples]


LOSSES = Stage(name="losses", version=1, parts=pass_parts, inputs=lambda _: [POOL_TOKENS, WARM_MODEL], run=_run,
               reads=("model", *READS))
MEASURED = Output(stage=LOSSES, opens=CandidateIndex)


def loss_per_token(index: CandidateIndex) -> NDArray[np.float64]:
    """Of every candidate of a losses entry, [N]."""
    mean: NDArray[np.float64] = index.column("loss") / index.column("tokens")
    return mean
