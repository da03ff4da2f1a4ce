"""Benefits [N, Q] as columns that compare: each seed's is centred and scaled over the pool first.

    z(n, q) = (benefit(n, q) - m_q) / s_q        m_q, s_q: mean and standard deviation of column q
    z(n)     = mean over q of z(n, q)             what candidates are ranked by, beside their loss
    share(n) = share of the q with z(n, q) > 0    seeds for which the pair is better than the pool's average

Without it the seeds with the largest gradients decide the mean alone. On a base that was never finetuned on such pairs nearly
every pair benefits nearly every seed, so that the share of raw benefits above 0 says nothing (AUC 0.505 in sweeps/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Blocks = Callable[[], Iterator[NDArray[np.floating]]]


def standardise(blocks: Blocks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean z-score [N] and share of positive ones [N].

    A column that is the same for all candidates adds 0 to either.

    Args:
        blocks: gives benefits [n, Q] block by block; asked twice, and one block is in memory at a time.
    """
    mean, deviation = _moments(blocks())
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    z, share = [], []
    for block in blocks():
        scores = (block - mean) * scale
        z.append(scores.mean(1))
        share.append((scores > 0).mean(1))
    return np.concatenate(z), np.concatenate(share)


def _moments(blocks: Iterator[NDArray[np.floating]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column [Q], merged block by block (Chan, Golub and LeVeque 1979)."""
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        here = block.mean(0, dtype=np.float64)
        shift, total = here - mean, count + len(block)
        squares = squares + np.square(block - here, dtype=np.float64).sum(0) + shift**2 * count * len(block) / total
        mean, count = mean + shift * len(block) / total, total
    return mean, np.sqrt(squares / count)
