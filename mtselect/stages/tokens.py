"""tokens: the pool's token ids, row for row (`data/examples.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice

import torch

from mtselect.data.examples import Example, ExampleTable, write_examples
from mtselect.data.prompts import encode_pairs
from mtselect.environment import environment_variable
from mtselect.progress import Advance
from mtselect.stages.base import BASE_MODEL
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Output, Stage, Work
from mtselect.training.language_model import decoder_start, load_tokenizer

_AT_A_TIME = 4096


def _run(work: Work) -> None:
    pool, base, experiment = work.read(POOL), work.read(BASE_MODEL).name, work.experiment
    tokenizer, start = load_tokenizer(base), decoder_start(base)

    def examples(advance: Advance) -> Iterator[Example]:
        pairs = iter(pool)
        while some := list(islice(pairs, _AT_A_TIME)):
            # Not beyond the call: a process that is forked later would wait for threads that it has not.
            with (environment_variable("TOKENIZERS_PARALLELISM", "true", anyway=True) if torch.get_num_threads() > 1
                  else nullcontext()):
                encoded = encode_pairs(some, tokenizer, experiment.data, experiment.model, start)
            yield from encoded
            advance(len(some))

    with work.bench.progress.task("tokens", len(pool)) as advance:
        write_examples(examples(advance), work.out)


TOKENS = Stage(name="tokens", version=2, reads=("model.prompt", "model.chat_template", "data.src_lang", "data.tgt_lang"),
               inputs=lambda _: [POOL, BASE_MODEL], run=_run)
POOL_TOKENS = Output(stage=TOKENS, opens=ExampleTable)
