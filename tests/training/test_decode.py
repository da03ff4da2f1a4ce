"""Decoding does what the settings say, whatever the model came with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtselect.config import EvaluationConfig, ModelConfig
from mtselect.training.decode import decode, decoding_signature
from mtselect.training.language_model import LanguageModel, add_lora, build_small_llama, load_model

SETTINGS = EvaluationConfig(max_new_tokens=12)


class Spelled:
    """A tokenizer whose tokens are their numbers."""

    eos_token_id = 2

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, text: str = "", text_target: str = "", **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [self.eos_token_id]}

    def batch_decode(self, ids: Any, skip_special_tokens: bool) -> list[str]:
        return [" ".join(str(one) for one in row if one > 2 or not skip_special_tokens) for row in ids.tolist()]


def decoded(tiny: SimpleNamespace, config: EvaluationConfig = SETTINGS, **theirs: Any) -> list[str]:
    lm = tiny.model("llama")
    for name, value in theirs.items():
        setattr(lm.model.generation_config, name, value)
    return decode(LanguageModel(model=lm.model, tokenizer=Spelled(tiny.pad)), [example.prompt for example in tiny.examples(6)],
                  config, batch_size=4, dtype="float32", advance=lambda n: None)


THEIRS: list[dict[str, Any]] = [
    {"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"num_beams": 4, "length_penalty": 9.0}, {"min_new_tokens": 12},
    {"do_sample": True, "temperature": 50.0}, {"bad_words_ids": [[token] for token in range(3, 20)]},
    {"forced_eos_token_id": 7}, {"exponential_decay_length_penalty": (1, 9.0)}]


@pytest.mark.parametrize("theirs", THEIRS)
def test_what_a_model_came_with_decides_nothing(theirs: dict[str, Any], tiny: SimpleNamespace) -> None:
    assert decoded(tiny, **theirs) == decoded(tiny)


def translated(tiny: SimpleNamespace, lora: bool, **theirs: Any) -> list[str]:
    lm = tiny.model("marian")
    model = add_lora(lm.model, ModelConfig(lora_rank=2)) if lora else lm.model
    for name, value in theirs.items():
        setattr(lm.model.generation_config, name, value)
    return decode(LanguageModel(model=model, tokenizer=Spelled(tiny.pad)), [example.prompt for example in tiny.examples(6)],
                  SETTINGS, batch_size=4, dtype="float32", advance=lambda n: None)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("theirs", [*THEIRS, {"forced_eos_token_id": 0}, {"encoder_no_repeat_ngram_size": 1}])
def test_nor_does_what_an_encoder_decoder_came_with(theirs: dict[str, Any], lora: bool, tiny: SimpleNamespace) -> None:
    """With adapters it is their wrapper whose `generate` is called."""
    assert translated(tiny, lora, **theirs) == translated(tiny, lora)


@pytest.mark.parametrize("changed", [{"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"max_new_tokens": 3},
                                     {"num_beams": 4, "length_penalty": 9.0}])
def test_what_is_configured_decides(changed: dict[str, Any], tiny: SimpleNamespace) -> None:
    config = EvaluationConfig(**{"max_new_tokens": 12, **changed})
    assert decoded(tiny, config) != decoded(tiny)
    one, two = decoding_signature(config, "float32"), decoding_signature(SETTINGS, "float32")
    assert all(f"{name}:{value}" in one for name, value in changed.items()) and one != two


def test_padding_is_never_generated(tiny: SimpleNamespace) -> None:
    def first(logits: Any) -> Any:
        logits[..., tiny.pad] = 1e4
        return logits

    lm = tiny.model("llama")
    lm.model.lm_head.register_forward_hook(lambda module, inputs, logits: first(logits))
    assert lm.model.generate(torch.tensor([[1, 5, 7]]), max_new_tokens=12, do_sample=False).tolist()[0][3:] == [tiny.pad] * 12
    texts = decode(LanguageModel(model=lm.model, tokenizer=Spelled(tiny.pad)), [[1, 5, 7]], SETTINGS, batch_size=1,
                   dtype="float32", advance=lambda n: None)
    assert len(texts[0].split()) > 1


def test_a_hypothesis_ends_at_stop(tmp_path: Path) -> None:
    """As if it was cut off afterwards, and the model is not asked for more."""
    build_small_llama(ModelConfig(hidden_size=16, n_layers=1, n_heads=2, vocab_size=300), ["a b c d e f g"] * 20, 1, tmp_path)
    lm = load_model(str(tmp_path), torch.float32)
    prompts = [lm.tokenizer("a b c")["input_ids"]]
    steps: list[int] = []
    lm.model.register_forward_hook(lambda module, inputs, output: steps.append(1))

    def one(config: EvaluationConfig) -> tuple[str, int]:
        steps.clear()
        texts = decode(lm, prompts, config, batch_size=1, dtype="float32", advance=lambda n: None)
        return texts[0], len(steps)

    long, many = one(EvaluationConfig(max_new_tokens=40))
    stop = long.split()[-1][-1]
    cut, few = one(EvaluationConfig(max_new_tokens=40, stop=stop))
    assert few < many and stop not in cut
    assert cut == " ".join(long.split(stop)[0].split()) != long
    assert "|stop:" in decoding_signature(EvaluationConfig(stop=stop), "float32")
