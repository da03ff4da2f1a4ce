"""chrF++ (Popović 2017), as sacreBLEU computes it: chrF with word n-grams up to 2."""

from __future__ import annotations

from sacrebleu.metrics.chrf import CHRF

from mtselect.metrics._sacrebleu import SacreBleu


class ChrfPlusPlus(SacreBleu):
    """chrF2++."""

    title = "chrF++"

    def make(self, tgt_lang: str) -> CHRF:
        """The same for every language."""
        return CHRF(word_order=2)


METRIC = ChrfPlusPlus
