"""The one place where Lightning's Trainer is configured (no logger, checkpoint, summary or bar of its own), and a pass over
examples with it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy

from mtselect.data.examples import Example
from mtselect.progress import Advance
from mtselect.training.batching import Batch, loader
from mtselect.training.language_model import LanguageModel, Model


def make_trainer(*, accelerator: str, devices: int = 1, strategy: str = "ddp", **arguments: Any) -> L.Trainer:
    """A quiet Trainer. MLflow, the stage store and the progress bar are ours; the processes of several devices, too
    (`processes.py`), and which examples each of them takes.

    Args:
        accelerator: Lightning's.
        devices: of this machine; this process is one of as many.
        strategy: of several devices: `ddp`, or `fsdp`, FSDP2, of which the module's `configure_model` does the first half.
        arguments: of the Trainer.
    """
    if devices > 1:
        shared = ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False)
        arguments |= {"strategy": shared if strategy == "fsdp" else "ddp", "plugins": [LightningEnvironment()],
                      "use_distributed_sampler": False, "inference_mode": False}  # FSDP2 trains with what it gathered on dev
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="predict returned None")
    warnings.filterwarnings("ignore", message="You defined a `validation_step` but")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__`")
    return L.Trainer(accelerator=accelerator, devices=devices, logger=False, enable_checkpointing=False,
                     enable_model_summary=False, enable_progress_bar=False, **arguments)


class _Pass(L.LightningModule):
    """Shows each batch to a function, which is given it where Lightning has put the model."""

    def __init__(self, model: Model, look: Callable[[Batch], None], advance: Advance) -> None:
        super().__init__()
        self.model = model.eval()
        self._look, self._advance = look, advance

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        self._look(batch)
        self._advance(len(batch.rows))


def run_pass(lm: LanguageModel, examples: Sequence[Example], look: Callable[[Batch], None], *, batch_size: int,
             accelerator: str, advance: Advance, rows: range | None = None, inference_mode: bool = True) -> None:
    """Look at all examples, or some rows of them, in batches of like length, which are where the model is for that long."""
    make_trainer(accelerator=accelerator, inference_mode=inference_mode).predict(
        _Pass(lm.model, look, advance), loader(examples, batch_size, lm.pad_id, rows=rows), return_predictions=False)
