"""One gradient pass as a LightningModule: it hands (a, g) of each batch to attribution and holds no maths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtselect.attribution.gradients import Capture, GradientConsumer
from mtselect.attribution.tokens import along
from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance
from mtselect.training.batching import Batch, loader
from mtselect.training.language_model import LanguageModel, target_logits, target_losses
from mtselect.training.trainer import make_trainer


class GradientModule(L.LightningModule):
    """Runs forward and backward of the summed loss per batch and feeds a consumer.

    Args:
        model: frozen causal LM or encoder-decoder; only activation gradients are computed.
        layers: tracked layers by name.
        consumer: gets what each batch captured.
        advance: called with the number of examples done.
        uniforms: [N, K] numbers in (0, 1); if given, row i's targets are drawn from the model with them (true
            Fisher), the same whatever the batches; else the reference targets count.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], consumer: GradientConsumer, advance: Advance,
                 uniforms: NDArray[np.float64] | None = None) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self._layers = dict(layers)
        self._consumer = consumer
        self._advance = advance
        self._uniforms = None if uniforms is None else torch.as_tensor(uniforms)

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Capture one batch. Raises NonFiniteError naming the row whose loss is NaN."""
        encoder = None if batch.decoder_ids is None else self.model.get_encoder()  # type: ignore[operator]
        with torch.enable_grad(), Capture(self._layers, encoder) as capture:
            logits = target_logits(self.model, batch)
            losses = target_losses(logits, self._targets(logits.detach(), batch))
            _check_finite(losses, batch.rows)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            captured = (capture.take(batch.rows, batch.mask) if encoder is None
                        else capture.take(batch.rows, batch.targets != -100, source_mask=batch.mask))
        self._consumer.update(captured)
        self._advance(len(batch.rows))

    def _targets(self, logits: Tensor, batch: Batch) -> Tensor:
        if self._uniforms is None:
            return batch.targets
        wanted = batch.targets != -100
        place = (wanted.cumsum(1) - 1).clamp_min(0).cpu()
        uniforms = self._uniforms[batch.rows.cpu().unsqueeze(1), place].to(logits)[wanted]
        return batch.targets.masked_scatter(wanted, sample_tokens(logits, uniforms))


def sample_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Token ids [...] drawn from softmax(logits [..., V]) by inverting its distribution at uniforms [...]."""
    cumulative = logits.softmax(-1).cumsum(-1)
    ids = torch.searchsorted(cumulative, (uniforms.unsqueeze(-1) * cumulative[..., -1:]))
    return ids.squeeze(-1).clamp_max(logits.shape[-1] - 1)


def run_gradient_pass(lm: LanguageModel, layers: Mapping[str, nn.Module], examples: Sequence[Example],
                      consumer: GradientConsumer, *, batch_size: int, accelerator: str, advance: Advance,
                      uniforms: NDArray[np.float64] | None = None, rows: range | None = None) -> None:
    """Feed every example's gradients (or those of some rows) to the consumer, in batches of like length."""
    module = GradientModule(lm.model, layers, consumer, advance, uniforms)
    trainer = make_trainer(accelerator=accelerator, inference_mode=False)
    trainer.predict(module, loader(examples, batch_size, lm.pad_id, rows=rows), return_predictions=False)


def token_benefits(lm: LanguageModel, layers: Mapping[str, nn.Module], direction: Mapping[str, Tensor],
                   examples: Sequence[Example], *, batch_size: int, advance: Advance) -> list[Tensor]:
    """Benefits of each example's target tokens and EOS, [its targets] float32, in the order of the examples.

    Args:
        lm: causal LM or encoder-decoder, where it is to run.
        layers: tracked layers by name.
        direction: the seeds' mean preconditioned gradient [O, I] per layer (`attribution.tokens.MeanSeed`).
        examples: pairs.
        batch_size: examples at a time.
        advance: called with the number of examples done.
    """
    model = lm.model.requires_grad_(False).eval()
    direction = {name: tensor.to(model.device) for name, tensor in direction.items()}
    found: dict[int, Tensor] = {}
    for batch in loader(examples, batch_size, lm.pad_id):
        here = batch.to(model.device)
        wanted = here.targets != -100

        def losses(here: Batch = here, wanted: Tensor = wanted) -> Tensor:
            return nn.functional.cross_entropy(target_logits(model, here), here.targets[wanted], reduction="none")

        parts = torch.split_with_sizes(along(losses, layers, direction).float().cpu(), wanted.sum(1).tolist())
        found |= dict(zip(batch.rows.tolist(), parts, strict=True))
        advance(len(batch.rows))
    return [found[row] for row in range(len(examples))]


def _check_finite(losses: Tensor, rows: Tensor) -> None:
    finite = torch.isfinite(losses)
    if not finite.all():
        raise NonFiniteError(f"the loss of row {int(rows[~finite][0])} is NaN or infinite at the model that scores: "
                             "lower warmup.learning_rate, or set model.dtype to float32")
