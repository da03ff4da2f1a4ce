"""Sentence pair -> token ids, with the boundary between prompt and target.

The prompt carries no loss. Prompt and target are tokenised apart and joined as ids, so that the same target has
the same tokens in training, in the gradient pass and in decoding. The tokenizer is passed in: this module
imports no model library.

    causal            [BOS, prompt template] | [target, EOS]       or the prompt as a chat turn
    encoder-decoder   [source as its tokenizer frames it]          the encoder's
                      start, [language code if any, target, EOS]   the decoder reads from start, the loss from after it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtselect.config import DataConfig, ModelConfig
from mtselect.data.examples import Example
from mtselect.data.pairs import Pair
from mtselect.errors import ConfigError

Tokenizer = Any  # transformers', whose home is training/


def prompt_text(source: str, data: DataConfig, model: ModelConfig) -> str:
    """The prompt of one source sentence. `str.replace`, since sentences may hold braces."""
    text = model.prompt.replace("{src_lang}", data.src_lang).replace("{tgt_lang}", data.tgt_lang)
    return text.replace("{src}", source)


def few_shot_prompt(shown: Sequence[Pair], data: DataConfig, model: ModelConfig) -> str:
    """The template with some pairs before it, as a model reads them that was not taught the task (Brown et al., arXiv
    2005.14165): each target ends with an empty line."""
    return "".join(f"{prompt_text(pair.src, data, model)}{pair.tgt}\n\n" for pair in shown) + model.prompt


def encode_prompts(sources: Sequence[str], tokenizer: Tokenizer, data: DataConfig, model: ModelConfig,
                   decoder_start: int | None = None) -> list[list[int]]:
    """Token ids of the prompts, with the tokenizer's chat template or its BOS.

    With a `decoder_start` (an encoder-decoder) they are the encoder's: the source with the tokenizer's EOS and language
    code, or `model.prompt` if that was changed from its default (a prefix, as T5 wants, or Marian's `>>fra<<`).
    """
    if decoder_start is not None:
        set_languages(tokenizer, data)
        bare = model.prompt == ModelConfig.prompt
        return list(tokenizer([source if bare else prompt_text(source, data, model) for source in sources])["input_ids"])
    texts = [prompt_text(source, data, model) for source in sources]
    if model.chat_template and getattr(tokenizer, "chat_template", None):
        texts = [tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True,
                                               tokenize=False) for text in texts]
        return _plain_ids(tokenizer, texts)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [bos + ids for ids in _plain_ids(tokenizer, texts)]


def encode_pairs(pairs: Sequence[Pair], tokenizer: Tokenizer, data: DataConfig, model: ModelConfig,
                 decoder_start: int | None = None) -> list[Example]:
    """Examples of the pairs, in their order. Empty in, empty out.

    Args:
        pairs: sentence pairs.
        tokenizer: of the model.
        data: the languages.
        model: the prompt.
        decoder_start: what the config of an encoder-decoder lets its decoder begin with; None for a causal LM.
    """
    if not pairs:
        return []
    prompts = encode_prompts([pair.src for pair in pairs], tokenizer, data, model, decoder_start)
    if decoder_start is not None:
        start, head = target_frame(tokenizer, decoder_start)
        texts = tokenizer(text_target=[pair.tgt for pair in pairs], add_special_tokens=False)["input_ids"]
        targets = [[*head, *ids, tokenizer.eos_token_id] for ids in texts]
        return [Example(prompt, target, start) for prompt, target in zip(prompts, targets, strict=True)]
    targets, end = _plain_ids(tokenizer, [pair.tgt for pair in pairs]), tokenizer.eos_token_id
    return [Example(prompt, [*target, end]) for prompt, target in zip(prompts, targets, strict=True)]


def _plain_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens. Where they are made in Rust, that is asked itself: transformers makes
    masks and types of each text too, which nobody reads and which takes half as long again."""
    if not tokenizer.is_fast:
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def texts_of_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to what comes before it; one that only begins a character adds none."""
    texts, done = [], ""
    for i in range(len(ids)):
        text = tokenizer.decode(ids[: i + 1])
        whole = not text.endswith("\N{REPLACEMENT CHARACTER}") and text.startswith(done)
        texts.append(text[len(done) :] if whole else "")
        done = text if whole else done
    return texts


def target_frame(tokenizer: Tokenizer, decoder_start: int) -> tuple[int, list[int]]:
    """(token the decoder begins with, tokens before the first word of every target), as the tokenizer frames targets.

    The latter is the language code of mBART-50, M2M100 and NLLB. The first mBART has it behind EOS instead: there it is
    what the decoder begins with.
    """
    head, tail = _frame(tokenizer, "text_target")
    return (tail[-1] if len(tail) > 1 else decoder_start), head


def _frame(tokenizer: Tokenizer, side: str) -> tuple[list[int], list[int]]:
    """The special tokens before and behind a text: the source's (`text`) or the target's (`text_target`)."""
    bare, framed = (tokenizer(**{side: "a"}, add_special_tokens=special)["input_ids"] for special in (False, True))
    begin = next(i for i in range(len(framed) + 1) if framed[i : i + len(bare)] == bare)
    return framed[:begin], framed[begin + len(bare) :]


def set_languages(tokenizer: Tokenizer, data: DataConfig) -> None:
    """Tell a tokenizer of many languages which two it is for. Raises ConfigError where it does not know them."""
    if not hasattr(tokenizer, "src_lang"):
        return
    for name, side in (("src_lang", "text"), ("tgt_lang", "text_target")):
        code = getattr(data, name)
        try:
            setattr(tokenizer, name, code)
            head, tail = _frame(tokenizer, side)
            known = tokenizer.unk_token_id not in head + tail
        except KeyError:
            known = False
        if not known:
            raise ConfigError(f"data.{name} must be a language of the model's tokenizer, got {code!r}: write the code that the "
                              "model's card names, such as deu_Latn (NLLB), de_DE (mBART) or de (M2M100)")
