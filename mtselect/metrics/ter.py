"""TER (Snover et al. 2006), as sacreBLEU computes it: edits and shifts per reference word; lower is better."""

from __future__ import annotations

from sacrebleu.metrics.ter import TER

from mtselect.metrics._sacrebleu import SacreBleu


class Ter(SacreBleu):
    """Translation edit rate."""

    title = "TER"
    higher_is_better = False

    def make(self, tgt_lang: str) -> TER:
        """The same for every language."""
        return TER()


METRIC = Ter
