"""What the two trainings share: what they write depends on nothing but their key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from mtselect.config import load, with_fields
from mtselect.progress import SilentProgress
from mtselect.stages.finetune import FINETUNE
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.warmup import WARMUP
from mtselect.store import Store


def test_adapters_begin_with_the_same_weights_in_every_process(warm_lab: Callable[..., Any]) -> None:
    """torch's own seed is another one in each process."""
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", [])
        experiment = with_fields(sweep.experiment, {
            "model.lora_rank": 2, "warmup.epochs": 1, "warmup.rows": 40, "warmup.exclude": False, "finetune.steps": 2,
            "selection.method": "random", "selection.budget": 20, "selection.gate": None})
        lineage = Lineage(Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress()), experiment)
        curves = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            curves.append([(lineage.path(stage) / "curve.jsonl").read_text(encoding="utf-8") for stage in (WARMUP, FINETUNE)])
            for stage in (FINETUNE, WARMUP):
                lineage.discard(stage)
    assert curves[0] == curves[1]
