"""Finetuning: the loss falls, the same seed gives the same bytes, a NaN stops it, the curve says what happened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtselect.config import FinetuneConfig, ModelConfig, RuntimeConfig
from mtselect.errors import ModelError, NonFiniteError
from mtselect.training import finetune_module
from mtselect.training.batching import collate
from mtselect.training.finetune_module import CurvePoint, FinetuneModule, finetune
from mtselect.training.language_model import LanguageModel, add_lora, target_logits, target_losses

# Mean of per-batch sums in float32.
ROUNDING = 1e-5
# Of gradients summed in another order, through seven steps of AdamW, which divides small ones by their own size.
MICRO_ROUNDING = 1e-2
CONFIG = FinetuneConfig(epochs=3, learning_rate=1e-2, batch_size=4)


def train(tiny: SimpleNamespace, lm: LanguageModel, config: FinetuneConfig = CONFIG, **how: Any) -> list[CurvePoint]:
    runtime = RuntimeConfig(batch_size=3, accelerator="cpu", **{name: how.pop(name) for name in ("micro_batch", "checkpointing")
                                                                if name in how})
    settings: dict[str, Any] = {"n_steps": config.steps_for(10), "name": "finetune", "seed": 0, "dtype": "float32",
                                "advance": lambda n: None, **how}
    examples, dev = settings.pop("examples", tiny.examples(10)), settings.pop("dev", tiny.examples(5, seed=1))
    return finetune(lm, examples, dev if examples[0].start is None else [], config, runtime, **settings).curve


def weights(lm: LanguageModel) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in lm.model.parameters()])


def test_steps_decide_whatever_the_size(tiny: SimpleNamespace) -> None:
    """3 batches an epoch: 7 steps are two epochs and a third of one, 2 are not even one; each ends with a dev loss."""
    for steps, epochs in ((7, [0, 0, 0, 1, 1, 1, 2]), (2, [0, 0])):
        told: list[int] = []
        config = FinetuneConfig(steps=steps, batch_size=4)
        curve = train(tiny, tiny.model("llama"), config, on_epoch=lambda epoch, loss, told=told: told.append(epoch))
        assert [point.epoch for point in curve] == epochs
        assert [point.step for point in curve] == list(range(steps))
        assert told == sorted(set(epochs))
        assert curve[-1].dev_loss is not None


def test_whole_epochs_are_the_same_by_steps(tiny: SimpleNamespace) -> None:
    one, other = tiny.model("llama"), tiny.model("llama")
    assert train(tiny, one, CONFIG) == train(tiny, other, FinetuneConfig(steps=9, learning_rate=1e-2, batch_size=4))
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("architecture", ["llama", "marian", "t5"])
@pytest.mark.parametrize("how", [{"micro_batch": 1}, {"micro_batch": 3}, {"checkpointing": True}], ids=str)
def test_what_takes_less_memory_changes_nothing(how: dict[str, Any], architecture: str, tiny: SimpleNamespace, relative: Any
                                                ) -> None:
    """Summed over a step's tokens, not means of means: the last batch of an epoch has 2 of 4 examples."""
    start = tiny.start if architecture != "llama" else None
    examples = tiny.examples(10, start=start)
    still = {"llama": {}, "marian": {"dropout": 0.0}, "t5": {"dropout_rate": 0.0}}[architecture]  # drawn for each pass
    one, other, before = (tiny.model(architecture, **still) for _ in range(3))
    curves = [train(tiny, lm, FinetuneConfig(steps=7, learning_rate=1e-3, batch_size=4), examples=examples, **some)
              for lm, some in ((one, {}), (other, how))]
    assert [point.step for point in curves[1]] == list(range(7))
    assert relative([point.train_loss for point in curves[1]], [point.train_loss for point in curves[0]]) < MICRO_ROUNDING
    moved = [weights(lm) - weights(before) for lm in (one, other)]
    assert relative(moved[1], moved[0]) < MICRO_ROUNDING


def test_only_a_micro_batch_is_in_memory_at_a_time(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """And layers run once more for the backward pass where they are checkpointed."""
    lm, seen, ran = tiny.model("llama"), [], []
    original = finetune_module.target_logits
    monkeypatch.setattr(finetune_module, "target_logits", lambda model, batch: seen.append(batch) or original(model, batch))
    layer = lm.model.model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: ran.append(1))  # what it gives is not computed to its end again
    train(tiny, lm, FinetuneConfig(steps=1, batch_size=8), micro_batch=3, checkpointing=True, dev=[])
    assert [len(batch.rows) for batch in seen] == [3, 3, 2]
    assert all(batch.mask.any(0).all() for batch in seen), "columns of nothing but padding"
    assert len(ran) == 2 * len(seen)
    ran.clear()
    train(tiny, lm, FinetuneConfig(steps=1, batch_size=8), micro_batch=3, dev=[])
    assert len(ran) == len(seen) / 2 == 3, "checkpointing outlives the training that asked for it"


def test_a_model_that_cannot_be_checkpointed_is_refused(tiny: SimpleNamespace) -> None:
    lm = tiny.model("llama")
    lm.model.supports_gradient_checkpointing = False
    with pytest.raises(ModelError, match=r"runtime.checkpointing is true, and LlamaForCausalLM .* runtime.micro_batch"):
        train(tiny, lm, checkpointing=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_falls(dtype: str, tiny: SimpleNamespace) -> None:
    lm = tiny.model("llama")
    curve = train(tiny, lm, FinetuneConfig(epochs=12, learning_rate=1e-2, batch_size=4), dtype=dtype)
    first, last = (sum(point.train_loss for point in part) / 3 for part in (curve[:3], curve[-3:]))
    assert last < 0.5 * first, f"from {first:.2f} to {last:.2f}"
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.float32}


def test_the_curve_has_every_step_and_the_dev_loss_of_every_epoch(tiny: SimpleNamespace, relative: Any) -> None:
    lm, done, reported = tiny.model("llama"), [], []
    curve = train(tiny, lm, advance=done.append, on_epoch=lambda epoch, loss: reported.append((epoch, loss)))
    assert [point.step for point in curve] == list(range(9))
    assert [point.epoch for point in curve] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [point.dev_loss is None for point in curve] == [True, True, False] * 3
    assert reported == [(epoch, curve[3 * epoch + 2].dev_loss) for epoch in range(3)]
    assert sum(done) == 30
    batch = collate(range(5), tiny.examples(5, seed=1), tiny.pad)
    with torch.no_grad():
        total = target_losses(target_logits(lm.model.eval(), batch), batch.targets).sum()
    ratio = relative(reported[-1][1], total / (batch.targets != -100).sum())
    assert ratio < ROUNDING, f"dev loss, relative error {ratio:.1e}"


def test_the_same_seed_gives_the_same_weights(tiny: SimpleNamespace) -> None:
    """Bitwise, with GPT-2's dropout, whatever the global generator; another seed gives others."""
    trained = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        lm = tiny.model("gpt2")
        train(tiny, lm, seed=seed)
        trained.append(weights(lm))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_dropout_is_on_while_training_and_off_on_dev(tiny: SimpleNamespace) -> None:
    lm, modes = tiny.model("gpt2"), []
    lm.model.transformer.drop.register_forward_hook(lambda module, *_: modes.append(module.training))
    train(tiny, lm)
    assert modes == ([True] * 3 + [False] * 2) * 3


def test_the_global_generator_is_left_alone(tiny: SimpleNamespace) -> None:
    lm = tiny.model("gpt2")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(tiny, lm)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["warmup", "finetune"])
def test_a_loss_that_is_not_finite_names_step_and_field(name: str, tiny: SimpleNamespace) -> None:
    config = FinetuneConfig(epochs=3, learning_rate=1e30, batch_size=4)
    with pytest.raises(NonFiniteError, match=rf"{name} loss is (nan|inf) at step [1-9]: lower {name}.learning_rate "
                                             rf"\(1e\+30\) or {name}.max_grad_norm \(1.0\)"):
        train(tiny, tiny.model("llama"), config, name=name)


def test_a_dev_loss_that_is_not_finite_stops_too(tiny: SimpleNamespace) -> None:
    """The last step may break the model when no training step follows."""
    config = FinetuneConfig(epochs=1, learning_rate=1e38, batch_size=100)
    with pytest.raises(NonFiniteError, match=r"finetune dev loss is (nan|inf) after epoch 0: lower finetune.learning_rate"):
        train(tiny, tiny.model("llama"), config)


def test_gradients_are_clipped(tiny: SimpleNamespace) -> None:
    """AdamW is blind to the scale of a gradient, except in epsilon: a norm of 1e-12 leaves the weights nearly alone."""
    moved = []
    for norm in (1.0, 1e-12):
        lm = tiny.model("llama")
        before = weights(lm)
        train(tiny, lm, FinetuneConfig(epochs=1, batch_size=4, max_grad_norm=norm, weight_decay=0))
        moved.append(float((weights(lm) - before).norm()))
    assert moved[1] < 1e-2 * moved[0], f"moved {moved[1]:.1e} clipped, {moved[0]:.1e} unclipped"


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5", "marian"])
def test_norms_biases_and_embeddings_do_not_decay(architecture: str, tiny: SimpleNamespace) -> None:
    """Nor does a head whose weight is an embedding's. At a learning rate that moves nothing else, all others shrink."""
    lm = tiny.model(architecture)
    module = FinetuneModule(lm.model, FinetuneConfig(weight_decay=0.5), 1, "finetune", lambda n: None, None)
    groups = module.configure_optimizers()["optimizer"].param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    embeddings = {id(part.weight) for part in lm.model.modules() if isinstance(part, torch.nn.Embedding)}
    named = {name: parameter for name, parameter in lm.model.named_parameters() if parameter.requires_grad}
    assert decays.keys() == {id(parameter) for parameter in named.values()}
    for name, parameter in named.items():
        kept = parameter.ndim == 1 or id(parameter) in embeddings
        assert decays[id(parameter)] == (0.0 if kept else 0.5), name
    assert set(decays.values()) == {0.0, 0.5}


def test_on_epoch_may_raise_to_stop(tiny: SimpleNamespace, stopping: SimpleNamespace) -> None:
    with pytest.raises(stopping.error):
        train(tiny, tiny.model("llama"), on_epoch=stopping.on_epoch)
    assert stopping.seen == [0, 1]


def test_no_epochs_leave_the_model_as_it_is(tiny: SimpleNamespace) -> None:
    lm = tiny.model("llama")
    before = weights(lm)
    assert train(tiny, lm, FinetuneConfig(epochs=0)) == []
    assert torch.equal(weights(lm), before)


def test_lora_moves_the_adapters_and_nothing_else(tiny: SimpleNamespace) -> None:
    lm = tiny.model("llama")
    model = add_lora(lm.model, ModelConfig(lora_rank=2))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(tiny, LanguageModel(model=model, tokenizer=lm.tokenizer))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "lora_" in name}
