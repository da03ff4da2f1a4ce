"""The one place where Lightning's Trainer is configured: no logger, checkpoint, summary or bar of its own."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L


def make_trainer(*, accelerator: str, **arguments: Any) -> L.Trainer:
    """A quiet Trainer on one device. MLflow, the stage store and the progress bar are ours."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="predict returned None")
    warnings.filterwarnings("ignore", message="You defined a `validation_step` but")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    return L.Trainer(accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False,
                     enable_model_summary=False, enable_progress_bar=False, **arguments)
