"""Each seed in turn takes what is nearest to it: no seed with large scores decides alone.

The draw of LESS as Ivison et al. (arXiv 2503.01807) and BIDS have it: seeds take turns; in its turn a seed takes its best
candidate that nobody has taken yet.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def in_turns(scores: NDArray[np.floating], n_rows: int) -> NDArray[np.int64]:
    """Rows in the order in which they are drawn, [min(n, N)].

    Args:
        scores: [N, Q], larger is better; of equal ones the earlier row.
        n_rows: n.
    """
    n_candidates, n_seeds = scores.shape
    wanted = min(n_rows, n_candidates)
    taken, drawn = np.zeros(n_candidates, bool), np.empty(wanted, np.int64)
    best = [_descending(scores[:, seed], first=2 * -(-wanted // n_seeds)) for seed in range(n_seeds)]
    for turn in range(wanted):
        drawn[turn] = row = next(row for row in best[turn % n_seeds] if not taken[row])
        taken[row] = True
    return drawn


def _descending(scores: NDArray[np.floating], first: int) -> Iterator[int]:
    """Rows from the largest score to the smallest, equal ones in order; the first few are found without sorting all."""
    size = min(max(first, 1), len(scores))
    bound = scores[np.argpartition(-scores, size - 1)[:size]].min()
    for holds in (np.greater, np.equal, np.less):
        rows = np.flatnonzero(holds(scores, bound))
        yield from map(int, rows[np.argsort(-scores[rows], kind="stable")])  # a list of ints would take five times the memory
