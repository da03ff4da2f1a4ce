"""Passes that differentiate: they hand (a, g) of each batch, or a direction, to attribution and hold no maths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtselect.attribution.gradients import Capture, GradientConsumer
from mtselect.attribution.tokens import along
from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance
from mtselect.training.batching import Batch
from mtselect.training.language_model import LanguageModel, target_logits, target_losses
from mtselect.training.trainer import run_pass


def run_gradient_pass(lm: LanguageModel, layers: Mapping[str, nn.Module], examples: Sequence[Example],
                      consumer: GradientConsumer, *, batch_size: int, accelerator: str, advance: Advance,
                      uniforms: NDArray[np.float64] | None = None, rows: range | None = None) -> None:
    """Feed every example's gradients (or those of some rows) to the consumer: of its summed loss, in batches of like length.

    Args:
        lm: causal LM or encoder-decoder; frozen: only activation gradients are computed.
        layers: tracked layers by name.
        examples: pairs.
        consumer: gets what each batch captured.
        batch_size, accelerator: examples at a time, and Lightning's name of where.
        advance: called with the number of examples done.
        uniforms: [N, K] numbers in (0, 1); if given, row i's targets are drawn from the model with them (true
            Fisher), the same whatever the batches; else the reference targets count.
        rows: all unless given.

    Raises:
        NonFiniteError: a loss is NaN or infinite; names the row.
    """
    model = lm.model.requires_grad_(False)

    def look(batch: Batch) -> None:
        encoder = None if batch.decoder_ids is None else model.get_encoder()
        with torch.enable_grad(), Capture(layers, encoder) as capture:
            logits = target_logits(model, batch)
            targets = batch.targets if uniforms is None else _drawn(logits.detach(), batch, torch.as_tensor(uniforms))
            losses = target_losses(logits, targets)
            finite = torch.isfinite(losses)
            if not finite.all():
                raise NonFiniteError(f"the loss of row {int(batch.rows[~finite][0])} is NaN or infinite at the model that "
                                     "scores: lower warmup.learning_rate, or set model.dtype to float32")
            losses.sum().backward()  # type: ignore[no-untyped-call]
            captured = (capture.take(batch.rows, batch.mask) if encoder is None
                        else capture.take(batch.rows, batch.targets != -100, source_mask=batch.mask))
        consumer.update(captured)

    run_pass(lm, examples, look, batch_size=batch_size, accelerator=accelerator, advance=advance, rows=rows,
             inference_mode=False)


def _drawn(logits: Tensor, batch: Batch, uniforms: Tensor) -> Tensor:
    wanted = batch.targets != -100
    place = (wanted.cumsum(1) - 1).clamp_min(0).cpu()
    here = uniforms[batch.rows.cpu().unsqueeze(1), place].to(logits)[wanted]
    return batch.targets.masked_scatter(wanted, sample_tokens(logits, here))


def sample_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Token ids [...] drawn from softmax(logits [..., V]) by inverting its distribution at uniforms [...]."""
    cumulative = logits.softmax(-1).cumsum(-1)
    ids = torch.searchsorted(cumulative, (uniforms.unsqueeze(-1) * cumulative[..., -1:]))
    return ids.squeeze(-1).clamp_max(logits.shape[-1] - 1)


def token_benefits(lm: LanguageModel, layers: Mapping[str, nn.Module], direction: Mapping[str, Tensor],
                   examples: Sequence[Example], *, batch_size: int, accelerator: str, advance: Advance) -> list[Tensor]:
    """Benefits of each example's target tokens and EOS, [its targets] float32, in the order of the examples.

    Args:
        lm, layers, examples, batch_size, accelerator, advance: as for `run_gradient_pass`.
        direction: the seeds' mean preconditioned gradient [O, I] per layer (`attribution.tokens.MeanSeed`), on the device.
    """
    model = lm.model.requires_grad_(False)
    found: dict[int, Tensor] = {}

    def look(batch: Batch) -> None:
        wanted = batch.targets != -100

        def losses() -> Tensor:
            return nn.functional.cross_entropy(target_logits(model, batch), batch.targets[wanted], reduction="none")

        parts = torch.split_with_sizes(along(losses, layers, direction).float().cpu(), wanted.sum(1).tolist())
        found.update(zip(batch.rows.tolist(), parts, strict=True))

    run_pass(lm, examples, look, batch_size=batch_size, accelerator=accelerator, advance=advance, inference_mode=False)
    return [found[row] for row in range(len(examples))]
