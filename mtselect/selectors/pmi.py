"""pmi: the pairs whose targets owe most to their sources: loss after another's source minus loss after their own, per token."""

from __future__ import annotations

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class Pmi(PlainSelector):
    """Pointwise mutual information of source and target, as the model that scores has it, with one other source."""

    needs: frozenset[Need] = frozenset({"pmi"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The highest of what passes the gate."""
        assert candidates.pmi is not None
        return take_best(candidates.pmi, candidates.passed, n_pairs, pmi=candidates.pmi)


SELECTOR = Pmi
