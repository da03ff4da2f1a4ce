"""Sentence pair -> token ids, with the boundary between prompt and target.

The prompt carries no loss. Prompt and target are tokenised apart and joined as ids, so that the same target has
the same tokens in training, in the gradient pass and in decoding. The tokenizer is passed in: this module
imports no model library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtselect.config import DataConfig, ModelConfig
from mtselect.data.corpus import Pair


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of its target, EOS included."""

    prompt: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def prompt_text(source: str, data: DataConfig, model: ModelConfig) -> str:
    """The prompt of one source sentence. `str.replace`, since sentences may hold braces."""
    text = model.prompt.replace("{src_lang}", data.src_lang).replace("{tgt_lang}", data.tgt_lang)
    return text.replace("{src}", source)


def encode_prompts(sources: Sequence[str], tokenizer: Any, data: DataConfig, model: ModelConfig) -> list[list[int]]:
    """Token ids of the prompts, with the tokenizer's chat template or its BOS."""
    texts = [prompt_text(source, data, model) for source in sources]
    if model.chat_template and getattr(tokenizer, "chat_template", None):
        texts = [tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True,
                                               tokenize=False) for text in texts]
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [bos + ids for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, data: DataConfig, model: ModelConfig) -> list[Example]:
    """Examples of the pairs, in their order. Empty in, empty out."""
    if not pairs:
        return []
    prompts = encode_prompts([pair.src for pair in pairs], tokenizer, data, model)
    targets = tokenizer([pair.tgt for pair in pairs], add_special_tokens=False)["input_ids"]
    return [Example(prompt, [*target, tokenizer.eos_token_id]) for prompt, target in zip(prompts, targets, strict=True)]
