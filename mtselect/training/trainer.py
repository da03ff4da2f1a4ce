"""The one place where Lightning's Trainer is configured: no logger, checkpoint, summary or bar of its own."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy


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
    return L.Trainer(accelerator=accelerator, devices=devices, logger=False, enable_checkpointing=False,
                     enable_model_summary=False, enable_progress_bar=False, **arguments)
