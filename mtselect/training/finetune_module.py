"""Finetuning as a LightningModule: masked loss, AdamW, linear schedule; the curve comes back as rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from mtselect.config import TrainConfig
from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance
from mtselect.training.batching import Batch, loader
from mtselect.training.language_model import LanguageModel, Model, checkpointed, target_logits, target_losses
from mtselect.training.trainer import make_trainer


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Loss per target token: of one optimiser step, and of dev at the end of an epoch."""

    step: int
    epoch: int
    train_loss: float
    dev_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a finetuning leaves beside the weights.

    Args:
        curve: a point a step.
        seconds: of the steps alone.
    """

    curve: list[CurvePoint]
    seconds: float


class FinetuneModule(L.LightningModule):
    """Trains the parameters that require a gradient.

    Args:
        model: causal LM or encoder-decoder, with LoRA adapters or not.
        config: optimiser and schedule.
        n_steps: optimiser steps in all, for the schedule.
        micro_batch: examples of a step that are in memory at a time; null is all.
        name: what the error of a NaN loss calls this training (`warmup` or `finetune`).
        advance: called with the number of pairs done.
        on_epoch: called with (epoch, dev loss) at each epoch's end; may raise to stop.
    """

    def __init__(self, model: Model, config: TrainConfig, n_steps: int, name: str, advance: Advance,
                 on_epoch: Callable[[int, float], None] | None, micro_batch: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False  # Lightning's accumulation means over micro-batches, not over a step's tokens
        self._micro_batch = micro_batch or config.batch_size
        self.model = model.train()
        self.curve: list[CurvePoint] = []
        self._config, self._n_steps, self._name = config, n_steps, name
        self._advance, self._on_epoch = advance, on_epoch
        self._dev_sums = np.zeros(2)
        self.seconds, self._begun = 0.0, 0.0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Start the clock of a step."""
        self._begun = time.perf_counter()

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Stop it: forward, backward and optimiser, without loading and dev loss."""
        self.seconds += time.perf_counter() - self._begun

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimiser step down the mean cross-entropy over the batch's target tokens, whose gradients are summed over
        micro-batches. Raises NonFiniteError with the step."""
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        step = self.global_step
        optimizer.zero_grad()
        tokens, value = _target_tokens(batch), 0.0
        for part in batch.parts(self._micro_batch):
            loss = self._loss(part, tokens)
            value = self._finite(value + float(loss.detach()), "loss", f"at step {step}")
            self.manual_backward(loss)
            self._advance(len(part.rows))
        self.curve.append(CurvePoint(step=step, epoch=self.current_epoch, train_loss=value))
        torch.nn.utils.clip_grad_norm_(self.parameters(), self._config.max_grad_norm)
        optimizer.step()
        schedule.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add to the dev loss."""
        tokens = _target_tokens(batch)
        self._dev_sums += (float(self._loss(batch, tokens)) * tokens, tokens)

    def on_validation_epoch_end(self) -> None:
        """Close the epoch's dev loss and report it. Raises NonFiniteError with the epoch."""
        last = self.curve[-1]
        dev_loss = self._finite(float(self._dev_sums[0] / self._dev_sums[1]), "dev loss", f"after epoch {last.epoch}")
        self._dev_sums[:] = 0
        self.curve[-1] = CurvePoint(step=last.step, epoch=last.epoch, train_loss=last.train_loss, dev_loss=dev_loss)
        if self._on_epoch is not None:
            self._on_epoch(last.epoch, dev_loss)

    def configure_optimizers(self) -> Any:
        """AdamW, learning rate rising over `ramp_share` of the steps and falling linearly to 0.

        Matrices decay; norms, biases and embeddings (also one that is the head's weight) do not.
        """
        embeddings = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups[parameter.ndim > 1 and id(parameter) not in embeddings].append(parameter)
        optimizer = torch.optim.AdamW([{"params": groups[True], "weight_decay": self._config.weight_decay},
                                       {"params": groups[False], "weight_decay": 0.0}],
                                      lr=self._config.learning_rate, fused=True)
        ramp = max(1, round(self._config.ramp_share * self._n_steps))

        def scale(step: int) -> float:
            return min((step + 1) / ramp, max(0.0, (self._n_steps - step) / max(1, self._n_steps - ramp)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _finite(self, value: float, what: str, when: str) -> float:
        if not math.isfinite(value):
            raise NonFiniteError(f"{self._name} {what} is {value} {when}: lower {self._name}.learning_rate "
                                 f"({self._config.learning_rate}) or {self._name}.max_grad_norm "
                                 f"({self._config.max_grad_norm})")
        return value

    def _loss(self, batch: Batch, tokens: int) -> Tensor:
        return target_losses(target_logits(self.model, batch), batch.targets).sum() / tokens


def _target_tokens(batch: Batch) -> int:
    return int((batch.targets != -100).sum())


def finetune(lm: LanguageModel, examples: Sequence[Example], dev: Sequence[Example], config: TrainConfig, *, n_steps: int,
             name: str, seed: int, dtype: str, batch_size: int, accelerator: str, advance: Advance,
             on_epoch: Callable[[int, float], None] | None = None, micro_batch: int | None = None,
             checkpointing: bool = False) -> Training:
    """Train the model in place.

    Args:
        examples: training set, shuffled anew each epoch.
        dev: its loss closes each epoch, also one that the last step cuts off; may be empty.
        config: optimiser and schedule.
        n_steps: optimiser steps; epochs repeat or stop as needed.
        name: `warmup` or `finetune`, for errors.
        seed: of the shuffling and of dropout.
        dtype: of the arithmetic; weights that train stay float32.
        batch_size: of the dev loss only; `config.batch_size` trains.
        accelerator: Lightning's.
        advance: called with the number of pairs done.
        on_epoch: called with (epoch, dev loss); may raise to stop.
        micro_batch: examples of a step that are in memory at a time; null is all.
        checkpointing: keep the layers' inputs alone, and compute what else the backward pass needs once more.

    Raises:
        NonFiniteError: the loss became NaN or infinite.
    """
    module = FinetuneModule(lm.model, config, n_steps, name, advance, on_epoch, micro_batch)
    trainer = make_trainer(accelerator=accelerator, max_steps=n_steps, max_epochs=-1, num_sanity_val_steps=0,
                           precision="bf16-mixed" if dtype == "bfloat16" else "32-true")
    held_out = loader(dev, batch_size, lm.pad_id) if dev else None
    with torch.random.fork_rng(), checkpointed(lm.model) if checkpointing else nullcontext():
        torch.manual_seed(seed)
        trainer.fit(module, loader(examples, config.batch_size, lm.pad_id, np.random.default_rng(seed)), held_out)
        if held_out is not None and module.curve and module.curve[-1].dev_loss is None:
            trainer.validate(module, held_out, verbose=False)
    return Training(curve=module.curve, seconds=module.seconds)
