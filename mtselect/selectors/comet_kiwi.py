"""comet_kiwi: the pairs of highest quality as COMET's reference-free model sees it (Peter et al., arXiv 2311.05350, train on
the best half of a corpus so)."""

from __future__ import annotations

from collections.abc import Mapping

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Column, Need, PlainSelector, take_best


class CometKiwi(PlainSelector):
    """By `adequacy.kiwi`, in COMET's own environment."""

    needs: frozenset[Need] = frozenset({"kiwi"})
    columns: Mapping[str, Column] = {"kiwi": Column(kind=float, about="quality, as COMET's reference-free model sees it")}

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The highest of what passes the gate."""
        assert candidates.kiwi is not None
        return take_best(candidates.kiwi, candidates.passed, n_pairs, self.columns, kiwi=candidates.kiwi)


SELECTOR = CometKiwi
