"""random: pairs drawn uniformly, without looking at them."""

from __future__ import annotations

import zlib

import numpy as np

from mtselect.config import SelectionConfig
from mtselect.selectors.base import Candidates, Chosen, PlainSelector


class Random(PlainSelector):
    """Another set for each finetuning seed, so that intervals over seeds cover the draw."""

    drawn = True

    def select(self, candidates: Candidates, n_pairs: int, config: SelectionConfig, seed: int) -> Chosen:
        """Without replacement, of what passes the gate."""
        rows = np.flatnonzero(candidates.passed)
        generator = np.random.default_rng([seed, zlib.crc32(b"selection/random")])
        drawn = generator.choice(len(rows), size=min(n_pairs, len(rows)), replace=False)
        return Chosen(rows=rows[np.sort(drawn)], n_passed=len(rows))


SELECTOR = Random
