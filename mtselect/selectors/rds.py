"""rds: each seed in turn takes the pair whose hidden states are nearest to its own (RDS+, Ivison et al., arXiv 2503.01807)."""

from __future__ import annotations

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selection.turns import in_turns
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector


class Rds(PlainSelector):
    """Cosine of position-weighted means of the last layer's states, prompt and target."""

    needs: frozenset[Need] = frozenset({"states"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Of what passes the gate."""
        states = candidates.states
        assert states is not None
        rows = np.flatnonzero(candidates.passed)
        return Chosen(rows=np.sort(rows[in_turns(states.pool[rows] @ states.seeds.T, n_pairs)]), n_passed=len(rows))


SELECTOR = Rds
