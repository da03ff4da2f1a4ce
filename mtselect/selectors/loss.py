"""loss: the pairs of lowest loss per target token."""

from __future__ import annotations

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, Plain


class Loss(Plain):
    """Ties go to the earlier row."""

    needs: frozenset[Need] = frozenset({"losses"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The lowest of what passes the gate."""
        assert candidates.losses is not None
        rows = np.flatnonzero(candidates.passed)
        best = rows[np.argsort(candidates.losses[rows], kind="stable")[:n_pairs]]
        return Chosen(rows=np.sort(best), n_passed=len(rows))


SELECTOR = Loss
