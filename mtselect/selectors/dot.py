"""dot: the pairs whose gradients have the largest mean product with the seeds' (TracIn, Pruthi et al., arXiv 2002.08484)."""

from __future__ import annotations

from collections.abc import Mapping

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector, take_best


class Dot(PlainSelector):
    """One checkpoint, no curvature: what EK-FAC is to beat."""

    needs: frozenset[Need] = frozenset({"benefits"})
    fixes: Mapping[str, object] = {"attribution.curvature": "identity"}

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """The highest of what passes the gate."""
        assert candidates.benefits is not None
        return take_best(candidates.benefits.mean, candidates.passed, n_pairs, benefit=candidates.benefits.mean)


SELECTOR = Dot
