"""less: each seed in turn takes the pair whose gradient points most its way (LESS, Xia et al., arXiv 2402.04333).

The cosine of the two gradients, without a curvature: a column of benefits at the identity, over the candidate's norm (a seed's
own norm does not change the order of its column). LESS projects gradients at random and scales the candidates' as Adam would;
these are exact and as they are. Seeds in turn, rather than the largest cosine over a task, as Ivison et al. (arXiv 2503.01807)
have it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selection.turns import in_turns
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector


class Less(PlainSelector):
    """At the tracked layers."""

    needs: frozenset[Need] = frozenset({"benefits", "benefit_matrix"})
    fixes: Mapping[str, object] = {"attribution.curvature": "identity"}

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Of what passes the gate; a gradient of zero has no direction and comes last."""
        assert candidates.benefits is not None and candidates.benefit_matrix is not None
        rows = np.flatnonzero(candidates.passed)
        norm = candidates.benefits.norm[rows]
        cosine = np.where(norm[:, None] > 0, candidates.benefit_matrix[rows] / np.maximum(norm, 1e-30)[:, None], -np.inf)
        return Chosen(rows=np.sort(rows[in_turns(cosine, n_pairs)]), n_passed=len(rows))


SELECTOR = Less
