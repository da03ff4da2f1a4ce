"""seeded_loss: the pairs of lowest loss per target token once the model was trained on the seeds for a short while: likely, and
of the seeds' domain (after Wang et al., WMT 2018, arXiv 1809.00068, who train on trusted pairs to tell noise)."""

from __future__ import annotations

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class SeededLoss(PlainSelector):
    """Training on the seeds and forward passes, no gradient of a candidate. Ties go to the earlier row."""

    needs: frozenset[Need] = frozenset({"seeded_losses"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The lowest of what passes the gate."""
        losses = candidates.seeded_losses
        assert losses is not None
        return take_best(-losses, candidates.passed, n_pairs, seeded_loss=losses)


SELECTOR = SeededLoss
