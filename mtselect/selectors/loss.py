"""loss: the pairs of lowest loss per target token."""

from __future__ import annotations

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class Loss(PlainSelector):
    """Ties go to the earlier row."""

    needs: frozenset[Need] = frozenset({"losses"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The lowest of what passes the gate."""
        assert candidates.losses is not None
        return take_best(-candidates.losses, candidates.passed, n_pairs, loss=candidates.losses)


SELECTOR = Loss
