"""Batched generation: prompts -> hypotheses.

What is decided in `EvaluationConfig` is all that decides: the `generation_config` that a model comes with (penalties, sampling,
lengths) is put aside.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from mtselect.config import EvaluationConfig
from mtselect.data.prompts import Tokenizer, target_frame
from mtselect.progress import Advance
from mtselect.training.language_model import Model

if TYPE_CHECKING:
    from transformers import GenerationConfig


def decode(model: Model, tokenizer: Tokenizer, prompts: Sequence[list[int]], config: EvaluationConfig, *, pad_id: int,
           batch_size: int, dtype: str, advance: Advance, decoder_start: int | None = None) -> list[str]:
    """Translate prompts (token ids), in batches of like length; hypotheses come back in the prompts' order.

    Greedy for `num_beams` 1, else beam search; generation stops at EOS, `stop` or `max_new_tokens`, and padding is never
    generated.
    Whitespace runs, newlines too, become one space, so that a hypothesis is one line. `decoder_start` is an encoder-decoder's
    (`LanguageModel`).
    """
    model.eval()
    fresh = type(model.generation_config)
    for part in (model, *_wrapped(model)):
        part.generation_config = fresh()  # `generate` fills in from it what it is not told
    settings = fresh(**generation_fields(config), do_sample=False, pad_token_id=pad_id,
                     eos_token_id=tokenizer.eos_token_id,
                     suppress_tokens=[pad_id] if pad_id != tokenizer.eos_token_id else None,
                     stop_strings=None if config.stop is None else [config.stop])
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    hypotheses = [""] * len(prompts)
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            some = [prompts[row] for row in rows]
            texts = (_generate(model, tokenizer, some, settings, device) if decoder_start is None
                     else _translate(model, tokenizer, some, settings, device, decoder_start))
            for row, text in zip(rows, texts, strict=True):
                hypotheses[row] = " ".join((text if config.stop is None else text.split(config.stop)[0]).split())
            advance(len(rows))
    return hypotheses


def _wrapped(model: Model) -> list[Any]:
    """The model below LoRA adapters, whose own `generate` may be the one that is called."""
    return [model.get_base_model()] if hasattr(model, "get_base_model") else []


def generation_fields(config: EvaluationConfig) -> dict[str, Any]:
    """What of the settings decides the hypotheses, by the names of transformers' GenerationConfig."""
    names = ("num_beams", "max_new_tokens", "length_penalty", "early_stopping", "repetition_penalty", "no_repeat_ngram_size")
    return {name: getattr(config, name) for name in names}


def decoding_signature(config: EvaluationConfig, dtype: str) -> str:
    """What decides the hypotheses beside the model and its prompts, in the form of sacreBLEU's signatures."""
    stop = {} if config.stop is None else {"stop": repr(config.stop)}
    fields = {**generation_fields(config), **stop, "dtype": dtype, "transformers": version("transformers")}
    return "|".join(f"{name}:{value}" for name, value in fields.items())


def _generate(model: Model, tokenizer: Tokenizer, prompts: list[list[int]], settings: GenerationConfig,
              device: torch.device) -> list[str]:
    pad_id = settings.pad_token_id
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    output = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, tokenizer=tokenizer)
    return list(tokenizer.batch_decode(output[:, width:], skip_special_tokens=True))


def _translate(model: Model, tokenizer: Tokenizer, sources: list[list[int]], settings: GenerationConfig, device: torch.device,
               decoder_start: int) -> list[str]:
    """By an encoder-decoder: sources are padded right, as in training; positions of some models count from the left."""
    width = max(len(source) for source in sources)
    ids = torch.tensor([source + [settings.pad_token_id] * (width - len(source)) for source in sources], device=device)
    mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources], device=device)
    start, head = target_frame(tokenizer, decoder_start)
    settings = copy.copy(settings)
    settings.decoder_start_token_id, settings.forced_bos_token_id = start, head[0] if head else None
    output = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, tokenizer=tokenizer)
    return list(tokenizer.batch_decode(output[:, 1 + len(head) :], skip_special_tokens=True))
