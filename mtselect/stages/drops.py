"""seeded: the model that scores after a short training on the seeds; drops: every candidate's loss there.

seeded has curve.jsonl, cost.json and model/, or adapter/ with LoRA. drops is an index with `loss`, summed over target tokens,
[N]; rows.npy [N] (in the pool).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtselect.config import TrainConfig
from mtselect.stages.candidates import READS, CandidateIndex, candidate_tokens, index_shards, pass_parts
from mtselect.stages.corpus import SEEDS
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.stages.losses import MEASURED
from mtselect.stages.models import encode, load_weights
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.training import keep, train
from mtselect.stages.warmup import WARM_MODEL
from mtselect.training.forward_module import example_losses

EPOCHS = 3  # over the seeds: short, so that what drops is what they share, and not they by heart
_TRAINING = ("learning_rate", "batch_size", "weight_decay", "ramp_share", "max_grad_norm")  # as trials are finetuned


def _train(work: Work) -> None:
    experiment, start = work.experiment, work.read(WARM_MODEL)
    examples = encode(experiment, start.name, work.read(SEEDS)[:])
    config = TrainConfig(epochs=EPOCHS, **{name: getattr(experiment.finetune, name) for name in _TRAINING})
    lm = train(work, start, examples, [], config, "seeded")
    keep(work, lm)


SEEDED = Stage(name="seeded", version=1, inputs=lambda _: [SEEDS, WARM_MODEL], run=_train, trains=True,
               reads=("model", "data.src_lang", "data.tgt_lang", "seed", *(f"finetune.{name}" for name in _TRAINING)))
TRAINED = Output[Path](stage=SEEDED)


def _measure(work: Work) -> None:
    experiment, runtime, trained = work.experiment, work.bench.runtime, work.read(TRAINED)
    adapter = str(trained / "adapter") if experiment.model.lora_rank else None
    lm = load_weights(experiment, runtime, work.read(WARM_MODEL).name if adapter else str(trained / "model"), adapter=adapter)
    candidates = candidate_tokens(work)
    for shard, advance in index_shards(work, "pool losses after the seeds", candidates, values=("loss",)):
        examples = [candidates[row] for row in shard.rows]
        shard.values["loss"][:] = example_losses(lm, examples, batch_size=4 * runtime.batch_size,
                                                 accelerator=runtime.accelerator, advance=advance, section="finetune",
                                                 first=shard.rows.start)


DROPS = Stage(name="drops", version=1, parts=pass_parts, inputs=lambda _: [POOL_TOKENS, WARM_MODEL, TRAINED], run=_measure,
              reads=("model", *READS))
DROPPED = Output(stage=DROPS, opens=CandidateIndex)


def load_drops(work: Work) -> NDArray[np.float64]:
    """Share of its loss that each candidate lost with the training, [N]: (before - after) / before."""
    before, after = (work.read(given).column("loss") for given in (MEASURED, DROPPED))
    found: NDArray[np.float64] = (before - after) / np.maximum(before, 1e-12)
    return found
