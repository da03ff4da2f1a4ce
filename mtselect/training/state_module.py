"""Forward passes alone: one vector of hidden states for each example, as a LightningModule.

    v(z) = Σ_t t · h_t / Σ_t t      over the tokens t = 1, 2, ... of the pair, prompt and target

h is the last layer's output (of an encoder-decoder its decoder's): the weighted mean of RDS+ (Ivison et al., arXiv 2503.01807)
and of SGPT before it (Muennighoff, arXiv 2202.08904). Later states of a causal model have seen more of the pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance
from mtselect.training.batching import Batch, loader
from mtselect.training.language_model import LanguageModel
from mtselect.training.trainer import make_trainer


class StateModule(L.LightningModule):
    """Collects vectors.

    Args:
        model: causal LM or encoder-decoder.
        states: [N, D], filled in.
        advance: called with the number of examples done.
    """

    def __init__(self, model: nn.Module, states: NDArray[np.float32], advance: Advance) -> None:
        super().__init__()
        self.model = model.eval()
        self._states, self._advance = states, advance

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Read one batch."""
        self._states[batch.rows.cpu().numpy()] = pooled(self.model, batch).float().cpu().numpy()
        self._advance(len(batch.rows))


def pooled(model: nn.Module, batch: Batch) -> Tensor:
    """Vectors [B, D] of a batch, of unit length."""
    decoder = {} if batch.decoder_ids is None else {"decoder_input_ids": batch.decoder_ids}
    found = model(input_ids=batch.input_ids, attention_mask=batch.mask.long(), use_cache=False, output_hidden_states=True,
                  **decoder)
    if batch.decoder_ids is None:
        hidden, mask = found.hidden_states[-1], batch.mask
    else:
        hidden, mask = found.decoder_hidden_states[-1], batch.targets != -100
    weights = mask.cumsum(1) * mask
    return nn.functional.normalize(torch.einsum("btd,bt->bd", hidden.float(), weights.float()), dim=1)


def example_states(lm: LanguageModel, examples: Sequence[Example], *, batch_size: int, accelerator: str,
                   advance: Advance) -> NDArray[np.float32]:
    """Vectors [N, D] of examples, of unit length.

    Raises:
        NonFiniteError: one is NaN or infinite; names its row.
    """
    states = np.zeros((len(examples), lm.model.config.get_text_config().hidden_size), np.float32)
    trainer = make_trainer(accelerator=accelerator)
    trainer.predict(StateModule(lm.model, states, advance), loader(examples, batch_size, lm.pad_id), return_predictions=False)
    bad = np.flatnonzero(~np.isfinite(states).all(1))
    if len(bad):
        raise NonFiniteError(f"the hidden states of row {bad[0]} are NaN or infinite at the model that scores: lower "
                             "warmup.learning_rate, or set model.dtype to float32")
    return states
