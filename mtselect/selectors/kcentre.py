"""kcentre: pairs as far apart as can be, so that every other has one near it (Sener and Savarese, arXiv 1708.00489)."""

from __future__ import annotations

import zlib

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, Need, PlainSelector


class KCentre(PlainSelector):
    """Greedy, over vectors of hidden states: n passes over the candidates, so for thousands of pairs, not for millions."""

    needs: frozenset[Need] = frozenset({"states"})

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Of what passes the gate: a random one, then always the one that is farthest from all that were taken."""
        assert candidates.states is not None
        rows = np.flatnonzero(candidates.passed)
        if not (wanted := min(n_pairs, len(rows))):
            return Chosen(rows=rows[:0], n_passed=len(rows))
        vectors = candidates.states.pool[rows]
        taken = [int(np.random.default_rng([seed, zlib.crc32(b"selection/kcentre")]).integers(len(rows)))]
        nearest = vectors @ vectors[taken[0]]  # cosine to the nearest that was taken; lower is farther
        nearest[taken[0]] = np.inf
        while len(taken) < wanted:
            taken.append(int(nearest.argmin()))
            nearest = np.maximum(nearest, vectors @ vectors[taken[-1]])
            nearest[taken[-1]] = np.inf
        return Chosen(rows=rows[np.sort(taken)], n_passed=len(rows))


SELECTOR = KCentre
