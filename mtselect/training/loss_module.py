"""Forward passes alone: the loss of each example, as a LightningModule."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import numpy as np
from numpy.typing import NDArray
from torch import nn

from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance
from mtselect.training.batching import Batch, loader
from mtselect.training.language_model import LanguageModel, target_logits, target_losses
from mtselect.training.trainer import make_trainer


class LossModule(L.LightningModule):
    """Collects losses, summed over target tokens and EOS.

    Args:
        model: causal LM or encoder-decoder.
        losses: [N], filled in.
        advance: called with the number of examples done.
    """

    def __init__(self, model: nn.Module, losses: NDArray[np.float64], advance: Advance) -> None:
        super().__init__()
        self.model = model.eval()
        self._losses, self._advance = losses, advance

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch."""
        losses = target_losses(target_logits(self.model, batch).float(), batch.targets)
        self._losses[batch.rows.cpu().numpy()] = losses.double().cpu().numpy()
        self._advance(len(batch.rows))


def example_losses(lm: LanguageModel, examples: Sequence[Example], *, batch_size: int, accelerator: str,
                   advance: Advance) -> NDArray[np.float64]:
    """Cross-entropy of each example, [N], summed over its target tokens and EOS.

    Raises:
        NonFiniteError: one is NaN or infinite; names its row.
    """
    losses = np.zeros(len(examples))
    if len(examples):
        trainer = make_trainer(accelerator=accelerator)
        trainer.predict(LossModule(lm.model, losses, advance), loader(examples, batch_size, lm.pad_id),
                        return_predictions=False)
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise NonFiniteError(f"the loss of row {bad[0]} is NaN or infinite at the model that scores: lower "
                             "warmup.learning_rate, or set model.dtype to float32")
    return losses
