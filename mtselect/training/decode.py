"""Batched generation: prompts -> hypotheses.

What is decided in `EvaluationConfig` is all that decides: the `generation_config` that a model comes with (penalties, sampling,
lengths) is put aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from mtselect.config import EvaluationConfig
from mtselect.data.prompts import target_frame
from mtselect.progress import Advance
from mtselect.training.language_model import LanguageModel


def decode(lm: LanguageModel, prompts: Sequence[list[int]], config: EvaluationConfig, *, batch_size: int, dtype: str,
           advance: Advance) -> list[str]:
    """Translate prompts (token ids), in batches of like length; hypotheses come back in the prompts' order.

    Greedy for `num_beams` 1, else beam search; generation stops at EOS, `stop` or `max_new_tokens`, and padding is never
    generated. Whitespace runs, newlines too, become one space, so that a hypothesis is one line.
    """
    model, tokenizer, pad_id = lm.model.eval(), lm.tokenizer, lm.pad_id
    fresh = type(model.generation_config)
    # `generate` fills in from it what it is not told; below LoRA adapters it may be the model's own that is called.
    for part in (model, model.get_base_model()) if hasattr(model, "get_base_model") else (model,):
        part.generation_config = fresh()
    settings = fresh(**generation_fields(config), do_sample=False, pad_token_id=pad_id,
                     eos_token_id=tokenizer.eos_token_id,
                     suppress_tokens=[pad_id] if pad_id != tokenizer.eos_token_id else None,
                     stop_strings=None if config.stop is None else [config.stop])
    side, first = "left", None  # token of the hypothesis; null: the one behind the prompt
    if lm.decoder_start is not None:  # sources are padded as in training: positions of some models count from the left
        side = "right"
        settings.decoder_start_token_id, head = target_frame(tokenizer, lm.decoder_start)
        settings.forced_bos_token_id, first = head[0] if head else None, 1 + len(head)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    hypotheses = [""] * len(prompts)
    device = model.device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            some = [torch.tensor(prompts[row], device=device) for row in rows]
            ids = pad_sequence(some, True, pad_id, side)
            mask = pad_sequence([torch.ones_like(one) for one in some], True, 0, side)
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, tokenizer=tokenizer)
            texts = tokenizer.batch_decode(output[:, ids.shape[1] if first is None else first :], skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                hypotheses[row] = " ".join((text if config.stop is None else text.split(config.stop)[0]).split())
            advance(len(rows))
    return hypotheses


def generation_fields(config: EvaluationConfig) -> dict[str, Any]:
    """What of the settings decides the hypotheses, by the names of transformers' GenerationConfig."""
    names = ("num_beams", "max_new_tokens", "length_penalty", "early_stopping", "repetition_penalty", "no_repeat_ngram_size")
    return {name: getattr(config, name) for name in names}


def decoding_signature(config: EvaluationConfig, dtype: str) -> str:
    """What decides the hypotheses beside the model and its prompts, in the form of sacreBLEU's signatures."""
    stop = {} if config.stop is None else {"stop": repr(config.stop)}
    fields = {**generation_fields(config), **stop, "dtype": dtype, "transformers": version("transformers")}
    return "|".join(f"{name}:{value}" for name, value in fields.items())
