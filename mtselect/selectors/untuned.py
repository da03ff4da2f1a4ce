"""untuned: nothing, so that the model stays as it was."""

from __future__ import annotations

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, PlainSelector


class Untuned(PlainSelector):
    """No gate, no budget."""

    gated = sized = False

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """None."""
        return Chosen(rows=np.array([], dtype=np.int64), n_passed=len(candidates.passed))


SELECTOR = Untuned
