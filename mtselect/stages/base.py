"""base: a small Llama with random weights and a tokenizer trained on the pool, where no model is named.

A named model is its own output: a folder, known by its files, or a pinned hub name.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtselect.config import Experiment
from mtselect.data.fingerprint import local_digest
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Lineage, Stage, Work
from mtselect.stages.models import Weights
from mtselect.store import derive_seed
from mtselect.training.language_model import build_small_llama


def _run(work: Work) -> None:
    texts = (text for pair in work.read(POOL) for text in (pair.src, pair.tgt))
    build_small_llama(work.experiment.model, texts, derive_seed(work.experiment.seed, "base"), work.out)


# The prompt is in no text that the tokenizer is trained on, and yet hashed: sections are read whole.
BASE = Stage(name="base", version=1, reads=("model", "seed"), inputs=lambda _: [POOL], run=_run)


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The input that is the base model."""

    def stages(self, experiment: Experiment) -> list[Stage]:
        """The one that builds it; a named model has none."""
        return [BASE] if experiment.model.name is None else []

    def key(self, lineage: Lineage) -> str:
        """Of the entry, or of the folder's files, or the pinned name."""
        name = lineage.experiment.model.name
        if name is None:
            return lineage.key(BASE)
        return local_digest(name) or name

    def read(self, lineage: Lineage) -> Weights:
        return Weights(name=lineage.experiment.model.name or str(lineage.path(BASE)))


BASE_MODEL = BaseModel()
