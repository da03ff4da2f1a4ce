"""Selections that look at little or nothing: what a method has to beat."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def random_rows(n_rows: int, budget: int, seed: int) -> NDArray[np.int64]:
    """`budget` of `n_rows` rows, or all where there are fewer, uniformly without replacement, ascending."""
    generator = np.random.default_rng([seed, zlib.crc32(b"selection/random")])
    return np.sort(generator.choice(n_rows, size=min(budget, n_rows), replace=False))


def lowest(losses: NDArray[np.float64], budget: int) -> NDArray[np.int64]:
    """The `budget` rows of lowest loss per token [N], ascending; ties go to the lower row."""
    return np.sort(np.argsort(losses, kind="stable")[:budget])


def all_rows(n_rows: int) -> NDArray[np.int64]:
    """Every row, in order."""
    return np.arange(n_rows, dtype=np.int64)
