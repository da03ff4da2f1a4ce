"""Two processes train what one trains: the same steps, losses and weights within rounding; what stops one stops all.

On a CPU they talk by gloo. Each start of two takes seconds, so that a test looks at all that there is to see.
"""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtselect.config import FinetuneConfig, ModelConfig, RuntimeConfig
from mtselect.errors import ConfigError, NonFiniteError
from mtselect.executors.choose import look_at_executor
from mtselect.training.finetune_module import Training, finetune
from mtselect.training.language_model import LanguageModel, add_lora

# Of losses, and of the way that the weights went: of gradients summed in another order AdamW divides small ones, of which
# rounding is all there is (biases of keys), by their own size.
ROUNDING = {"float32": (1e-5, 5e-3), "bfloat16": (1e-2, 0.2)}
# Some of the gradients' norms (0.9 to 3.2) are clipped: AdamW itself would not see a gradient of half the size.
CONFIG = FinetuneConfig(steps=7, learning_rate=1e-3, batch_size=4, max_grad_norm=1.7)


def weights(lm: LanguageModel) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in lm.model.parameters()])


def train(tiny: SimpleNamespace, lm: LanguageModel, config: FinetuneConfig = CONFIG, **how: Any) -> Training:
    """9 examples: the last batch of an epoch has one, which is no share for the second process."""
    names = {field.name for field in fields(RuntimeConfig)}
    runtime = RuntimeConfig(**{"batch_size": 3, "accelerator": "cpu", **{name: how.pop(name) for name in names & how.keys()}})
    settings: dict[str, Any] = {"n_steps": 7, "name": "finetune", "seed": 0, "dtype": "float32",
                                "advance": lambda n: None, **how}
    start = tiny.start if lm.model.config.is_encoder_decoder else None
    return finetune(lm, tiny.examples(9, start=start), tiny.examples(5, seed=1, start=start), config, runtime, **settings)


@pytest.mark.parametrize(("architecture", "rank", "dtype", "how"), [
    ("llama", 0, "float32", {"micro_batch": 1, "checkpointing": True}),
    ("llama", 2, "bfloat16", {"strategy": "fsdp", "checkpointing": True}),
    ("marian", 0, "float32", {"strategy": "fsdp", "micro_batch": 1}),
], ids=str)
def test_two_processes_equal_one(architecture: str, rank: int, dtype: str, how: dict[str, Any], tiny: SimpleNamespace,
                                 relative: Any) -> None:
    still = {"dropout": 0.0} if architecture == "marian" else {}  # another on each device
    found = []
    for devices in (1, 2):
        lm = tiny.model(architecture, dtype=getattr(torch, dtype), **still)
        if rank:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                lm = LanguageModel(model=add_lora(lm.model, ModelConfig(lora_rank=rank)), tokenizer=lm.tokenizer)
        before, done, told = weights(lm), [], []
        training = train(tiny, lm, devices_per_trial=devices, dtype=dtype, advance=done.append,
                         on_epoch=lambda epoch, loss, told=told: told.append((epoch, loss)), **(how if devices > 1 else {}))
        assert training.seconds > 0
        found.append(SimpleNamespace(moved=weights(lm) - before, curve=training.curve, done=sum(done), told=told))
    one, two = found
    rounding, way = ROUNDING[dtype]
    assert [(point.step, point.epoch, point.dev_loss is None) for point in two.curve] == [
        (point.step, point.epoch, point.dev_loss is None) for point in one.curve]
    assert relative([point.train_loss for point in two.curve], [point.train_loss for point in one.curve]) < rounding
    assert two.told == [(point.epoch, point.dev_loss) for point in two.curve if point.dev_loss is not None]
    assert relative(two.told, one.told) < rounding and len(two.told) == 3
    assert two.done == one.done
    apart = float((two.moved - one.moved).norm() / one.moved.norm())
    assert apart < way, f"moved elsewhere by {apart:.1e}"


def test_what_stops_one_process_stops_all(tiny: SimpleNamespace, stopping: SimpleNamespace) -> None:
    lm = tiny.model("llama")
    before = weights(lm)
    with pytest.raises(stopping.error):
        train(tiny, lm, devices_per_trial=2, on_epoch=stopping.on_epoch)
    assert stopping.seen == [0, 1]
    assert torch.equal(weights(lm), before), "what was not trained to its end came back"
    assert not torch.multiprocessing.active_children()


def test_an_error_of_a_process_is_that_of_the_training(tiny: SimpleNamespace) -> None:
    with pytest.raises(NonFiniteError, match=r"finetune loss is (nan|inf) at step [1-9]: lower finetune.learning_rate"):
        train(tiny, tiny.model("llama"), FinetuneConfig(steps=7, learning_rate=1e30, batch_size=4), devices_per_trial=2)


def test_more_gpus_than_there_are_are_refused(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.model("llama")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"^runtime.devices_per_trial must be at most 2, the GPUs that CUDA sees here, got 3: "
                                          "lower it, or set runtime.executor to ray"):
        train(tiny, lm, devices_per_trial=3, accelerator="auto")
    for executor in ("local", "ray"):
        with pytest.raises(ConfigError, match=r"at most 2, .* got 3"):
            look_at_executor(RuntimeConfig(devices_per_trial=3, executor=executor))
