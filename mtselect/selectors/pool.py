"""pool: everything that fits the model, also what the warm-up has seen."""

from __future__ import annotations

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, PlainSelector


class Pool(PlainSelector):
    """No gate, no budget."""

    gated = sized = excludes = False

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """All."""
        rows = np.arange(len(candidates.passed))
        return Chosen(rows=rows, n_passed=len(rows))


SELECTOR = Pool
