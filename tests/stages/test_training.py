"""What the two trainings share: what they write depends on nothing but their key."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtselect.config import load, with_fields
from mtselect.progress import SilentProgress
from mtselect.stages.finetune import FINETUNE
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.warmup import WARMUP
from mtselect.store import Store
from mtselect.training import finetune_module

DEVICES = 1e-3  # of gradients summed in another order, through six steps of AdamW


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


def test_a_training_on_two_devices_is_the_same_entry(warm_lab: Callable[..., Any], relative: Any,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same key, within rounding: weights, curve and cost, each written once. And the adapters' merged base."""
    lab, started, original = warm_lab(), [], finetune_module.on_devices
    monkeypatch.setattr(finetune_module, "on_devices", lambda count, *rest: started.append(count) or original(count, *rest))
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", ["--runtime.accelerator", "cpu"])
        experiment = with_fields(sweep.experiment, {
            "model.lora_rank": 2, "warmup.epochs": 1, "warmup.rows": 40, "warmup.exclude": False, "warmup.batch_size": 7})
        found = []
        for devices in (1, 2):
            runtime = replace(sweep.runtime, devices_per_trial=devices)
            lineage = Lineage(Bench(store=Store(lab.store), runtime=runtime, progress=SilentProgress()), experiment)
            entry = lineage.entry(WARMUP)
            assert entry.computed
            curve = [json.loads(line) for line in (entry.path / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
            cost = json.loads((entry.path / "cost.json").read_text(encoding="utf-8"))
            assert cost["steps"] == len(curve) == 6 and cost["seconds"] > 0
            weights = [torch.cat([tensor.float().flatten() for _, tensor in sorted(load_file(file).items())])
                       for file in (entry.path / "model" / "model.safetensors",
                                    entry.path / "adapter" / "adapter_model.safetensors")]
            found.append((entry.key, [point["train_loss"] for point in curve], *weights))
            lineage.discard(WARMUP)
    assert started == [2]
    assert found[0][0] == found[1][0]
    for one, two in zip(found[0][1:], found[1][1:], strict=True):
        assert relative(two, one) < DEVICES
