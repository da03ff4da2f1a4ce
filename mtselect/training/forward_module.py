"""Forward passes alone: what is read of each example.

The loss is summed over target tokens and EOS. The vector of hidden states is

    v(z) = Σ_t t · h_t / Σ_t t      over the tokens t = 1, 2, ... of the pair, prompt and target

with h the last layer's output (of an encoder-decoder its decoder's): the weighted mean of RDS+ (Ivison et al., arXiv
2503.01807) and of SGPT before it (Muennighoff, arXiv 2202.08904). Later states of a causal model have seen more of the pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance
from mtselect.training.batching import Batch
from mtselect.training.language_model import LanguageModel, Model, target_logits, target_losses
from mtselect.training.trainer import run_pass


def example_losses(lm: LanguageModel, examples: Sequence[Example], *, batch_size: int, accelerator: str,
                   advance: Advance, section: str = "warmup", first: int = 0) -> NDArray[np.float64]:
    """Cross-entropy of each example, [N], summed over its target tokens and EOS.

    Args:
        section: of the sweep file, that the model was trained by last, for errors.
        first: what errors call the first row.

    Raises:
        NonFiniteError: one is NaN or infinite; names its row.
    """
    losses = np.zeros(len(examples))
    _read_all(lm, examples, _losses, losses, batch_size, accelerator, advance)
    _check(losses, "the loss of row {} is", section, first)
    return losses


def example_states(lm: LanguageModel, examples: Sequence[Example], *, batch_size: int, accelerator: str,
                   advance: Advance, first: int = 0) -> NDArray[np.float32]:
    """Vectors [N, D] of examples, of unit length; `first` is what errors call the first row.

    Raises:
        NonFiniteError: one is NaN or infinite; names its row.
    """
    states = np.zeros((len(examples), lm.model.config.get_text_config().hidden_size), np.float32)
    _read_all(lm, examples, _states, states, batch_size, accelerator, advance)
    _check(states, "the hidden states of row {} are", "warmup", first)
    return states


def _losses(model: Model, batch: Batch) -> Tensor:
    return target_losses(target_logits(model, batch).float(), batch.targets).double()


def _states(model: Model, batch: Batch) -> Tensor:
    found = model(**batch.inputs(), use_cache=False, output_hidden_states=True)
    if batch.decoder_ids is None:
        hidden, mask = found.hidden_states[-1], batch.mask
    else:
        hidden, mask = found.decoder_hidden_states[-1], batch.targets != -100
    weights = mask.cumsum(1) * mask
    return nn.functional.normalize(torch.einsum("btd,bt->bd", hidden.float(), weights.float()), dim=1)


def _read_all(lm: LanguageModel, examples: Sequence[Example], read: Callable[[Model, Batch], Tensor], found: NDArray[Any],
              batch_size: int, accelerator: str, advance: Advance) -> None:
    """Fill in found [N, ...] with what is read of each batch, [B, ...]."""
    def look(batch: Batch) -> None:
        found[batch.rows.cpu().numpy()] = read(lm.model, batch).cpu().numpy()

    if examples:
        run_pass(lm, examples, look, batch_size=batch_size, accelerator=accelerator, advance=advance)


def _check(found: NDArray[Any], said: str, section: str, first: int) -> None:
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        raise NonFiniteError(f"{said.format(first + bad[0, 0])} NaN or infinite at the model that scores: lower "
                             f"{section}.learning_rate, or set model.dtype to float32")
