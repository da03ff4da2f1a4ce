"""loss_band: the pairs of middling loss per target token, neither what the model knows nor what it cannot learn.

Marion et al. (arXiv 2309.04564) prune a pretraining corpus so by perplexity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, read_options


@dataclass(frozen=True)
class Options:
    """Where the band lies.

    Args:
        centre: quantile of the loss, 0 (lowest) to 1, around which it lies.
    """

    centre: float = 0.5


class LossBand(PlainSelector):
    """Ranks next to each other; a band that would leave the losses there are is moved inside."""

    needs: frozenset[Need] = frozenset({"losses"})
    options: type = Options

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Of what passes the gate; ties go to the earlier row."""
        assert candidates.losses is not None
        rows = np.flatnonzero(candidates.passed)
        taken = min(n_pairs, len(rows))
        first = np.clip(round(read_options(self, config).centre * len(rows) - taken / 2), 0, len(rows) - taken)
        band = np.argsort(candidates.losses[rows], kind="stable")[first : first + taken]
        return Chosen(rows=np.sort(rows[band]), n_passed=len(rows))


SELECTOR = LossBand
