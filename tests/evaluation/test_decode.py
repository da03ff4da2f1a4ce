"""Decoding does what the settings say, whatever the model came with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mtselect.config import EvaluationConfig
from mtselect.evaluation.decode import decode, decoding_signature

SETTINGS = EvaluationConfig(max_new_tokens=12)


class Spelled:
    """A tokenizer whose tokens are their numbers."""

    eos_token_id = 2

    def batch_decode(self, ids: Any, skip_special_tokens: bool) -> list[str]:
        return [" ".join(str(one) for one in row if one > 2 or not skip_special_tokens) for row in ids.tolist()]


def decoded(tiny: SimpleNamespace, config: EvaluationConfig = SETTINGS, **theirs: Any) -> list[str]:
    lm = tiny.model("llama")
    for name, value in theirs.items():
        setattr(lm.model.generation_config, name, value)
    prompts = [example.prompt for example in tiny.examples(6)]
    return decode(lm.model, Spelled(), prompts, config, pad_id=tiny.pad, batch_size=4, dtype="float32", advance=lambda n: None)


@pytest.mark.parametrize("theirs", [
    {"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"num_beams": 4, "length_penalty": 9.0}, {"min_new_tokens": 12},
    {"do_sample": True, "temperature": 50.0}, {"suppress_tokens": list(range(3, 20))}, {"forced_eos_token_id": 7}])
def test_what_a_model_came_with_decides_nothing(theirs: dict[str, Any], tiny: SimpleNamespace) -> None:
    assert decoded(tiny, **theirs) == decoded(tiny)


@pytest.mark.parametrize("changed", [{"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"max_new_tokens": 3},
                                     {"num_beams": 4, "length_penalty": 9.0}])
def test_what_is_configured_decides(changed: dict[str, Any], tiny: SimpleNamespace) -> None:
    config = EvaluationConfig(**{"max_new_tokens": 12, **changed})
    assert decoded(tiny, config) != decoded(tiny)
    one, two = decoding_signature(config, "float32"), decoding_signature(SETTINGS, "float32")
    assert all(f"{name}:{value}" in one for name, value in changed.items()) and one != two


def test_padding_is_never_generated(tiny: SimpleNamespace) -> None:
    lm = tiny.model("llama")
    lm.model.lm_head.weight.data[tiny.pad] = 100 * lm.model.lm_head.weight.data.sum(0)
    texts = decode(lm.model, Spelled(), [[1, 5, 7]], SETTINGS, pad_id=tiny.pad, batch_size=1, dtype="float32",
                   advance=lambda n: None)
    assert len(texts[0].split()) > 0
