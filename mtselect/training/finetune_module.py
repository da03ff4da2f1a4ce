"""Finetuning as a LightningModule: masked loss, AdamW, linear schedule; the curve comes back as rows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from mtselect.config import RuntimeConfig, TrainConfig
from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.progress import Advance, OnEpoch
from mtselect.training.batching import Batch, loader
from mtselect.training.device import compute_device, require_devices, require_shared_memory
from mtselect.training.language_model import LanguageModel, Model, checkpointed, target_logits, target_losses
from mtselect.training.processes import on_devices
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
        micro_batch: examples of a step that are in a device's memory at a time; null is all.
        name: what the error of a NaN loss calls this training; all but `warmup` have the settings of `finetune`.
        advance: called with the number of pairs done.
        on_epoch: called with (epoch, dev loss) at each epoch's end; may raise to stop.
    """

    def __init__(self, model: Model, config: TrainConfig, n_steps: int, name: str, advance: Advance,
                 on_epoch: OnEpoch | None, micro_batch: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False  # Lightning's accumulation means over micro-batches, not over a step's tokens
        self._micro_batch = micro_batch or config.batch_size
        self.model = model.train()
        self.curve: list[CurvePoint] = []
        self._config, self._n_steps, self._name = config, n_steps, name
        self._advance, self._on_epoch = advance, on_epoch
        self._dev_sums = np.zeros(2)
        self.seconds = 0.0  # of forward and backward passes and of the optimiser, without loading and dev loss

    def configure_model(self) -> None:
        """Where a strategy shards, cut the weights up: a layer at a time is gathered."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        layers, mesh = set(self.model._no_split_modules or ()), self.device_mesh["data_parallel"]
        for module in [part for part in self.model.modules() if type(part).__name__ in layers] + [self.model]:
            fully_shard(module, mesh=mesh)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimiser step down the mean cross-entropy over the batch's target tokens, whose gradients are summed over
        devices and micro-batches. Raises NonFiniteError with the step, on every device."""
        begun = time.perf_counter()
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        step = self.global_step
        optimizer.zero_grad()
        tokens, value, left, devices = _target_tokens(batch), 0.0, len(batch.rows), self.trainer.world_size
        for part in batch.share(self.global_rank, devices).parts(self._micro_batch):
            loss = self._loss(part, tokens)
            value += float(loss.detach())
            self.manual_backward(loss * devices)  # whose mean is taken over them
            done = min(left, devices * len(part.rows))
            left -= done
            self._advance(done)
        value = self._finite(self._over_devices(value), "loss", f"at step {step}")
        self.curve.append(CurvePoint(step=step, epoch=self.current_epoch, train_loss=value))
        torch.nn.utils.clip_grad_norm_(self.parameters(), self._config.max_grad_norm)
        optimizer.step()
        schedule.step()
        self.seconds += time.perf_counter() - begun

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add to the dev loss."""
        tokens = _target_tokens(batch)
        mine = batch.share(self.global_rank, self.trainer.world_size)
        self._dev_sums += (float(self._loss(mine, tokens)) * tokens, tokens)

    def on_validation_epoch_end(self) -> None:
        """Close the epoch's dev loss and report it. Raises NonFiniteError with the epoch."""
        last = self.curve[-1]
        dev_loss = self._finite(self._over_devices(float(self._dev_sums[0])) / float(self._dev_sums[1]), "dev loss",
                                f"after epoch {last.epoch}")
        self._dev_sums[:] = 0
        self.curve[-1] = replace(last, dev_loss=dev_loss)
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

    def _over_devices(self, value: float) -> float:
        """Its sum over them."""
        if self.trainer.world_size == 1:
            return value
        mine = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self.trainer.strategy.reduce(mine, reduce_op="sum"))

    def _finite(self, value: float, what: str, when: str) -> float:
        if not math.isfinite(value):
            section = "warmup" if self._name == "warmup" else "finetune"
            raise NonFiniteError(f"{self._name} {what} is {value} {when}: lower {section}.learning_rate "
                                 f"({self._config.learning_rate}) or {section}.max_grad_norm ({self._config.max_grad_norm})")
        return value

    def _loss(self, batch: Batch, tokens: int) -> Tensor:
        return target_losses(target_logits(self.model, batch), batch.targets).sum() / tokens


def _target_tokens(batch: Batch) -> int:
    return int((batch.targets != -100).sum())


def finetune(lm: LanguageModel, examples: Sequence[Example], dev: Sequence[Example], config: TrainConfig,
             runtime: RuntimeConfig, *, n_steps: int, name: str, seed: int, dtype: str, advance: Advance,
             on_epoch: OnEpoch | None = None) -> Training:
    """Train the model in place.

    Args:
        examples: training set, shuffled anew each epoch.
        dev: its loss closes each epoch, also one that the last step cuts off; may be empty.
        config: optimiser and schedule.
        runtime: how it is done. Its batch size is of the dev loss only; `config.batch_size` trains. Each of its
            `devices_per_trial` takes its share of every batch; of several the model comes from the CPU and goes back there.
        n_steps: optimiser steps; epochs repeat or stop as needed.
        name: `warmup`, `finetune` or `seeded`, for errors.
        seed: of the shuffling and of dropout, which is another on each device.
        dtype: of the arithmetic; weights that train stay float32.
        advance: called with the number of pairs done.
        on_epoch: called with (epoch, dev loss); may raise to stop.

    Raises:
        NonFiniteError: the loss became NaN or infinite.
        ConfigError: there are not so many devices.
        StorageError: there is not so much shared memory.
    """
    fit = partial(_fit, examples=examples, dev=dev, config=config, runtime=runtime, n_steps=n_steps, name=name, seed=seed,
                  dtype=dtype)
    require_devices(runtime.accelerator, runtime.devices_per_trial)
    if runtime.devices_per_trial == 1:
        with torch.random.fork_rng():
            return fit(lm, 0, advance, on_epoch)[0]
    require_shared_memory(sum(int(tensor.nbytes) for tensor in lm.model.state_dict().values()))
    return on_devices(runtime.devices_per_trial, partial(_fit_there, lm, fit), advance, on_epoch)


def _fit_there(lm: LanguageModel, fit: partial[tuple[Training, L.Trainer]], rank: int, advance: Advance,
               on_epoch: OnEpoch | None) -> Training:
    """In one of several processes: `lm` lies in memory that they share, where the first leaves what was trained."""
    kept = lm.model.state_dict()
    if compute_device(fit.keywords["runtime"].accelerator).type == "cpu":
        lm = replace(lm, model=deepcopy(lm.model))  # a GPU has its own anyway
    training, trainer = fit(lm, rank, advance, on_epoch)
    trained = trainer.strategy.lightning_module_state_dict()  # of all of them
    if rank == 0:
        for name, tensor in kept.items():
            tensor.copy_(trained[f"model.{name}"])
    return training


def _fit(lm: LanguageModel, rank: int, advance: Advance, on_epoch: OnEpoch | None, *, examples: Sequence[Example],
         dev: Sequence[Example], config: TrainConfig, runtime: RuntimeConfig, n_steps: int, name: str, seed: int, dtype: str
         ) -> tuple[Training, L.Trainer]:
    module = FinetuneModule(lm.model, config, n_steps, name, advance, on_epoch, runtime.micro_batch)
    trainer = make_trainer(accelerator=runtime.accelerator, max_steps=n_steps, max_epochs=-1, num_sanity_val_steps=0,
                           precision="bf16-mixed" if dtype == "bfloat16" else "32-true",
                           devices=runtime.devices_per_trial, strategy=runtime.strategy)
    held_out = loader(dev, runtime.batch_size, lm.pad_id) if dev else None
    with checkpointed(lm.model) if runtime.checkpointing else nullcontext():
        torch.manual_seed(seed + rank)
        trainer.fit(module, loader(examples, config.batch_size, lm.pad_id, np.random.default_rng(seed)), held_out)
        if held_out is not None and module.curve and module.curve[-1].dev_loss is None:
            trainer.validate(module, held_out, verbose=False)
    return Training(curve=module.curve, seconds=module.seconds), trainer
