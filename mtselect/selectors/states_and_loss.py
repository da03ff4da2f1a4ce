"""states_and_loss: by hidden states and by loss after a short training on the seeds: the sum of a pair's places in both orders.

What gdig does with `rank: z_and_loss`, with the turns of `rds` in the place of influence: no gradient of a candidate.
"""

from __future__ import annotations

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selection.places import place_sums
from mtselect.selection.turns import in_turns
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class StatesAndLoss(PlainSelector):
    """Nearness to the seeds tells the domain, the loss what is likely to be right."""

    needs: frozenset[Need] = frozenset({"states", "seeded_losses"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Places are among what passes the gate; of equal sums the earlier row."""
        states, losses, passed = candidates.states, candidates.seeded_losses, candidates.passed
        assert states is not None and losses is not None
        rows = np.flatnonzero(passed)
        turns = np.zeros(len(passed))
        turns[rows[in_turns(states.pool[rows] @ states.seeds.T, len(rows))]] = np.arange(len(rows))
        return take_best(place_sums([(0.5, -turns), (0.5, -losses)], passed), passed, n_pairs, seeded_loss=losses)


SELECTOR = StatesAndLoss
