"""Selections that look at nothing: what a method has to beat."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from mtselect.errors import ConfigError


def random_rows(n_rows: int, budget: int, seed: int) -> NDArray[np.int64]:
    """`budget` of `n_rows` rows, uniformly without replacement, ascending.

    Raises:
        ConfigError: the budget is larger than the number of rows.
    """
    if budget > n_rows:
        raise ConfigError(f"selection.budget must be at most the number of candidates ({n_rows}), got {budget}: "
                          "lower selection.budget or give a larger data.pool")
    generator = np.random.default_rng([seed, zlib.crc32(b"selection/random")])
    return np.sort(generator.choice(n_rows, size=budget, replace=False))


def all_rows(n_rows: int) -> NDArray[np.int64]:
    """Every row, in order."""
    return np.arange(n_rows, dtype=np.int64)
