"""Batched generation: prompts -> hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mtselect.config import EvaluationConfig
from mtselect.data.prompts import target_frame
from mtselect.progress import Advance


def decode(model: Any, tokenizer: Any, prompts: Sequence[list[int]], config: EvaluationConfig, *, pad_id: int,
           batch_size: int, dtype: str, advance: Advance, decoder_start: int | None = None) -> list[str]:
    """Translate prompts (token ids), in batches of like length; hypotheses come back in the prompts' order.

    Greedy for `num_beams` 1, else beam search; generation stops at EOS or `max_new_tokens`. Whitespace runs, newlines
    too, become one space, so that a hypothesis is one line. `decoder_start` is an encoder-decoder's (`LanguageModel`).
    """
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    hypotheses = [""] * len(prompts)
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            some = [prompts[row] for row in rows]
            texts = (_generate(model, tokenizer, some, config, pad_id, device) if decoder_start is None
                     else _translate(model, tokenizer, some, config, pad_id, device, decoder_start))
            for row, text in zip(rows, texts, strict=True):
                hypotheses[row] = " ".join(text.split())
            advance(len(rows))
    return hypotheses


def _generate(model: Any, tokenizer: Any, prompts: list[list[int]], config: EvaluationConfig, pad_id: int,
              device: torch.device) -> list[str]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=config.max_new_tokens,
                            num_beams=config.num_beams, do_sample=False, pad_token_id=pad_id,
                            eos_token_id=tokenizer.eos_token_id)
    return list(tokenizer.batch_decode(output[:, width:], skip_special_tokens=True))


def _translate(model: Any, tokenizer: Any, sources: list[list[int]], config: EvaluationConfig, pad_id: int,
               device: torch.device, decoder_start: int) -> list[str]:
    """By an encoder-decoder: sources are padded right, as in training; positions of some models count from the left."""
    width = max(len(source) for source in sources)
    ids = torch.tensor([source + [pad_id] * (width - len(source)) for source in sources], device=device)
    mask = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources], device=device)
    start, head = target_frame(tokenizer, decoder_start)
    output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=config.max_new_tokens,
                            num_beams=config.num_beams, do_sample=False, pad_token_id=pad_id,
                            eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=start,
                            **({"forced_bos_token_id": head[0]} if head else {}))
    return list(tokenizer.batch_decode(output[:, 1 + len(head) :], skip_special_tokens=True))
