"""length: the pairs of longest target (Zhao et al., arXiv 2402.04833, find that hard to beat for instructions)."""

from __future__ import annotations

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class Length(PlainSelector):
    """In tokens of the model."""

    needs: frozenset[Need] = frozenset({"tokens"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The longest of what passes the gate."""
        assert candidates.tokens is not None
        return take_best(candidates.tokens, candidates.passed, n_pairs, tokens=candidates.tokens)


SELECTOR = Length
