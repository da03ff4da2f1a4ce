"""chrF (Popović 2015), as sacreBLEU computes it: F-score of character n-grams up to 6."""

from __future__ import annotations

from sacrebleu.metrics.chrf import CHRF

from mtselect.metrics._sacrebleu import SacreBleu


class Chrf(SacreBleu):
    """chrF2."""

    title = "chrF"

    def make(self, tgt_lang: str) -> CHRF:
        """The same for every language."""
        return CHRF()


METRIC = Chrf
