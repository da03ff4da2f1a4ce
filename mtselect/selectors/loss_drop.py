"""loss_drop: the pairs whose loss drops most when the model is trained on the seeds for a short while (Yang et al., arXiv
2605.09404: "normalized endpoint loss drop")."""

from __future__ import annotations

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class LossDrop(PlainSelector):
    """Two sets of forward passes, no gradient of a candidate."""

    needs: frozenset[Need] = frozenset({"drops"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The largest drops of what passes the gate, as shares of the loss before."""
        assert candidates.drops is not None
        return take_best(candidates.drops, candidates.passed, n_pairs, loss_drop=candidates.drops)


SELECTOR = LossDrop
