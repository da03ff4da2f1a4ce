"""Per-example gradients from hooks against a loop of autograd, in several architectures, whatever the batch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mtselect.attribution import gradients
from mtselect.attribution.gradients import Capture, Captured, example_gradients, layer_shape
from mtselect.config import ModelConfig
from mtselect.data.examples import Example
from mtselect.errors import ModelError
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, add_lora, tracked_layers

# float32, sums over a dozen tokens in another order; a wrong mask or shift is off by 0.1 and more.
TOLERANCE = 1e-5
N = 7
ARCHITECTURES = ("llama", "mistral", "gpt2", "qwen2", "qwen3", "bloom", "gemma2", "gemma3_text")
ENCODER_DECODERS = ("marian", "mbart", "m2m_100", "t5")


def worst(actual: dict[int, Any], expected: list[dict[str, Any]], relative: Any) -> float:
    assert sorted(actual) == list(range(len(expected)))
    return max(relative(actual[row][name], wanted) for row, one in enumerate(expected) for name, wanted in one.items())


def equal_the_loop_at_any_batch_size(lm: Any, layers: Any, examples: list[Example], tiny: SimpleNamespace,
                                     relative: Any) -> Iterator[Any]:
    """What each pass collected, once its gradients were found to be those of autograd."""
    expected = [tiny.loop(lm, layers, example) for example in examples]
    for batch_size in (1, 3, N):
        collected = tiny.run(lm, layers, examples, tiny.Collector(), batch_size)
        ratio = worst(collected.gradients, expected, relative)
        assert ratio < TOLERANCE, f"batch {batch_size}: relative error {ratio:.1e}"
        yield collected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_an_autograd_loop_at_any_batch_size(architecture: str, tiny: SimpleNamespace, pattern: str,
                                                  relative: Any) -> None:
    lm, examples = tiny.model(architecture), tiny.examples(N)
    layers = tracked_layers(lm.model, pattern)
    for collected in equal_the_loop_at_any_batch_size(lm, layers, examples, tiny, relative):
        assert collected.tokens == {row: len(example) for row, example in enumerate(examples)}
    assert len(set(collected.tokens.values())) > 1, "the largest batch must have padding"


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_of_encoder_decoders_equal_an_autograd_loop_at_any_batch_size(architecture: str, tiny: SimpleNamespace, pattern: str,
                                                                      relative: Any) -> None:
    """The encoder's layers and cross-attention's keys and values see the source's tokens, the others the target's.

    In float64: T5 does not scale its attention, and the gradients of saturated heads are differences of rounding.
    """
    lm, examples = tiny.model(architecture, dtype=torch.float64), tiny.examples(N - 1, start=tiny.start)
    examples.append(Example([1, 5, 6], [7, 8, 2], tiny.start))  # as wide on both sides: width does not tell which mask is whose
    layers = tracked_layers(lm.model, pattern)
    for collected in equal_the_loop_at_any_batch_size(lm, layers, examples, tiny, relative):
        assert collected.tokens == {row: len(example.target) for row, example in enumerate(examples)}
        cross = {name for name in layers if re.search(r"(encoder_attn|EncDecAttention)\.[kv](_proj)?$", name)}
        assert len(cross) == 4
        assert set(collected.source_lengths) == cross | {name for name in layers if re.match(r"(model\.)?encoder\.", name)}
    assert len({len(example.prompt) for example in examples}) > 1, "the largest batch must have padding"


def test_of_lora_adapters_equal_an_autograd_loop(tiny: SimpleNamespace, relative: Any) -> None:
    """At A and B of adapters that are not merged, the base's layers left alone."""
    plain = tiny.model("llama")
    model = add_lora(plain.model, ModelConfig(lora_rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # peft starts it at zero, and A would have no gradient
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    lm, examples = LanguageModel(model=model, tokenizer=plain.tokenizer), tiny.examples(N)
    layers = tracked_layers(model, "lora_[AB]")
    assert len(layers) == 2 * 14
    assert {layer_shape(layer)[0 if "lora_A" in name else 1] for name, layer in layers.items()} == {2}
    expected = [tiny.loop(lm, layers, example) for example in examples]
    ratio = worst(tiny.run(lm, layers, examples, tiny.Collector(), 3).gradients, expected, relative)
    assert ratio < TOLERANCE, f"relative error {ratio:.1e}"


@pytest.mark.parametrize("architecture", ["llama", "marian"])
def test_checkpointing_of_activations_is_off_while_gradients_are_taken(architecture: str, tiny: SimpleNamespace,
                                                                       pattern: str) -> None:
    """Layers that run again in the backward pass would be captured twice. Transformers checkpoints in training mode only."""
    examples = tiny.examples(3, start=tiny.start if architecture == "marian" else None)
    collected = []
    for checkpointing in (False, True):
        lm = tiny.model(architecture)
        if checkpointing:
            lm.model.gradient_checkpointing_enable()
            lm.model.train()
        collected.append(tiny.run(lm, tracked_layers(lm.model, pattern), examples, tiny.Collector(), 3).gradients)
    assert lm.model.is_gradient_checkpointing
    for row, plain in collected[0].items():
        for name, gradient in plain.items():
            assert torch.equal(gradient, collected[1][row][name])


def test_do_not_depend_on_the_order(tiny: SimpleNamespace, pattern: str, relative: Any) -> None:
    lm, examples = tiny.model("llama"), tiny.examples(N)
    layers = tracked_layers(lm.model, pattern)
    forward = tiny.run(lm, layers, examples, tiny.Collector(), 3).gradients
    backward = tiny.run(lm, layers, examples[::-1], tiny.Collector(), 3).gradients
    ratio = worst({row: backward[N - 1 - row] for row in range(N)}, [forward[row] for row in range(N)], relative)
    assert ratio < TOLERANCE, f"relative error {ratio:.1e}"


@pytest.mark.parametrize(("prompt", "target"), [(3, 0), (0, 3), (2, 2)])
def test_a_longer_neighbour_changes_nothing(prompt: int, target: int, tiny: SimpleNamespace, pattern: str,
                                            relative: Any) -> None:
    """The same example beside one with a longer prompt, a longer target, or both."""
    lm, example = tiny.model("llama"), Example([1, 5, 6], [7, 8, 2])
    other = Example(example.prompt + [9] * prompt, [9] * target + example.target)
    layers = tracked_layers(lm.model, pattern)
    collected = tiny.run(lm, layers, [example, other], tiny.Collector(), 2)
    ratio = max(relative(collected.gradients[0][name], wanted)
                for name, wanted in tiny.loop(lm, layers, example).items())
    assert collected.tokens == {0: 6, 1: 6 + prompt + target}
    assert ratio < TOLERANCE, f"relative error {ratio:.1e}"


def test_layers_that_read_the_same_input_share_it(tiny: SimpleNamespace, pattern: str) -> None:
    lm = tiny.model("llama")
    found = []

    class Keep:
        def update(self, captured: Captured) -> None:
            found.append(captured.groups())

    tiny.run(lm, tracked_layers(lm.model, pattern), tiny.examples(3), Keep())
    assert [[name.removeprefix("model.layers.0.") for name in names] for names in found[0] if ".0." in names[0]] == [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"]]


def test_prompt_tokens_carry_no_loss(tiny: SimpleNamespace, pattern: str) -> None:
    """In the last block, g of `o_proj` at t comes from the loss at t alone: zero in the prompt but for its last token,
    which predicts the first target, and zero at EOS, which predicts nothing."""
    lm, example = tiny.model("llama"), Example([1, 5, 6, 7, 8], [9, 10, 2])
    name = "model.layers.1.self_attn.o_proj"

    class Keep:
        def update(self, captured: Captured) -> None:
            self.g = captured.layers[name][1]

    keep = tiny.run(lm, {name: tracked_layers(lm.model, pattern)[name]}, [example], Keep())
    with_loss = keep.g.abs().sum(1) > 0
    first = len(example.prompt) - 1
    assert with_loss.tolist() == [False] * first + [True] * len(example.target) + [False]


class Toy(nn.Module):
    """A linear layer that runs `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.times = nn.Linear(3, 3), times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = self.layer(x)
        return x


@pytest.mark.parametrize(("times", "message"), [(2, "'layer' ran twice"), (0, r"\['layer'\] saw no gradient")])
def test_a_layer_that_runs_twice_or_not_at_all_raises(times: int, message: str) -> None:
    toy, mask = Toy(times), torch.ones(2, 4, dtype=torch.bool)

    def one_pass() -> None:
        with Capture({"layer": toy.layer}) as capture:
            toy(torch.ones(2, 4, 3, requires_grad=True)).sum().backward()
            capture.take(torch.arange(2), mask)

    with pytest.raises(ModelError, match=message):
        one_pass()


def test_a_layer_with_flat_tokens_raises() -> None:
    """Mixtures of experts flatten [B, T] to [B * T]: whose gradient is whose would be lost."""
    layer = nn.Linear(3, 3)
    with pytest.raises(ModelError, match=r"'layer' takes \[8, 3\]"), Capture({"layer": layer}):
        layer(torch.ones(8, 3, requires_grad=True))


def test_a_layer_with_other_positions_than_the_mask_raises() -> None:
    layer, x = nn.Linear(3, 3), torch.ones(2, 4, 3, requires_grad=True)
    with Capture({"layer": layer}) as capture:
        layer(x).sum().backward()
        with pytest.raises(ModelError, match=r"'layer' sees \[2, 4\] positions, not \[2, 5\]"):
            capture.take(torch.arange(2), torch.ones(2, 5, dtype=torch.bool))


def test_hooks_are_gone_after_the_pass() -> None:
    layer = nn.Linear(3, 3)
    with pytest.raises(ZeroDivisionError), Capture({"layer": layer}):
        raise ZeroDivisionError
    assert not layer._forward_hooks


def test_weights_get_no_gradient(tiny: SimpleNamespace, pattern: str) -> None:
    lm = tiny.model("llama")
    tiny.run(lm, tracked_layers(lm.model, pattern), tiny.examples(2), tiny.Collector())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in lm.model.parameters())


def test_shape_and_contraction_of_gpt2s_transposed_layer(tiny: SimpleNamespace) -> None:
    layer = tiny.model("gpt2").model.transformer.h[0].mlp.c_fc
    assert layer_shape(layer) == (64, 16)
    assert layer_shape(nn.Linear(16, 64)) == (64, 16)
    g, a = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    expected = torch.einsum("bto,bti->boi", g, a)
    torch.testing.assert_close(example_gradients(a.flatten(0, 1), g.flatten(0, 1), [5, 5]), expected)


@pytest.mark.parametrize("bytes_at_once", [1, 4 * 12 * 2, 10**6])
def test_chunks_hold_every_example_in_order(bytes_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gradients._BUFFER_BYTES, "cpu", bytes_at_once)
    lengths = [3, 1, 4, 2, 2]
    a, g = torch.randn(12, 4), torch.randn(12, 3)
    expected = [y.T @ x for x, y in zip(a.split(lengths), g.split(lengths), strict=True)]
    chunks = [chunk.clone() for chunk in gradients.GradientBuffer().chunks(a, g, lengths)]
    assert max(map(len, chunks)) == max(1, min(5, bytes_at_once // 48))
    torch.testing.assert_close(torch.cat(chunks), torch.stack(expected))


def test_a_row_without_finite_loss_is_named(tiny: SimpleNamespace, pattern: str) -> None:
    from mtselect.errors import NonFiniteError

    lm, examples = tiny.model("llama"), tiny.examples(4)
    poison = 39
    examples = [Example([t for t in e.prompt if t != poison], [t for t in e.target if t != poison]) for e in examples]
    examples[2].prompt.append(poison)
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[poison] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the loss of row 2 is NaN.*lower warmup.learning_rate"):
        tiny.run(lm, tracked_layers(lm.model, pattern), examples, tiny.Collector(), 4)


def test_rows_and_progress(tiny: SimpleNamespace, pattern: str) -> None:
    """Every row comes once; progress adds up to the number of examples."""
    lm, seen, done = tiny.model("llama"), [], []

    class Rows:
        def update(self, captured: Captured) -> None:
            seen.extend(captured.rows.tolist())

    run_gradient_pass(lm, tracked_layers(lm.model, pattern), tiny.examples(N), Rows(), batch_size=3, accelerator="cpu",
                      advance=done.append)
    assert sorted(seen) == list(range(N))
    assert sum(done) == N
