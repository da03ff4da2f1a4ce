"""BLEU (Papineni et al. 2002), as sacreBLEU computes it, with the tokeniser of the target language."""

from __future__ import annotations

import re

from sacrebleu.metrics.bleu import BLEU

from mtselect.errors import ConfigError
from mtselect.metrics._sacrebleu import SacreBleu


class Bleu(SacreBleu):
    """BLEU-4."""

    title = "BLEU"

    def make(self, tgt_lang: str) -> BLEU:
        """With the language's tokeniser. Raises ConfigError if that is not installed."""
        tokenizer = bleu_tokenizer(tgt_lang)
        try:
            return BLEU(tokenize=tokenizer)
        except RuntimeError as error:  # sacreBLEU's way to say that MeCab is missing
            package = f"sacrebleu[{tokenizer[:2]}]"
            raise ConfigError(f"BLEU for data.tgt_lang {tgt_lang!r} must have the tokenizer {tokenizer!r}, which is not "
                              f"installed: pip install '{package}', or take bleu out of evaluation.metrics") from error


METRIC = Bleu


def bleu_tokenizer(tgt_lang: str) -> str:
    """sacreBLEU's tokeniser for a language given by name or code: `zh`, `ja-mecab`, `ko-mecab`, else `13a`."""
    words = set(re.split(r"[^a-z]+", tgt_lang.lower()))
    if words & {"chinese", "mandarin", "cantonese", "zh", "zho", "chi", "cmn", "yue"}:
        return "zh"
    if words & {"japanese", "ja", "jpn"}:
        return "ja-mecab"
    return "ko-mecab" if words & {"korean", "ko", "kor"} else "13a"
