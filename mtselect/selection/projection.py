"""A plane on which the sketches can be looked at; nothing is decided by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mtselect.selection.cluster import BLOCK_ROWS, Sketches


def planar_map(sketches: Sketches, n_fit: int = 5000) -> NDArray[np.float32]:
    """Principal plane of the sketches: [N, R] -> [N, 2], fitted on at most `n_fit` evenly spaced rows."""
    rows = np.arange(sketches.shape[0])
    sample = sketches[rows[:: max(1, len(rows) // n_fit)]].astype(np.float32)
    model = PCA(n_components=2, svd_solver="randomized", random_state=0).fit(sample)
    points = np.empty((len(rows), 2), dtype=np.float32)
    for begin in range(0, len(rows), BLOCK_ROWS):
        block = slice(begin, begin + BLOCK_ROWS)
        points[block] = model.transform(sketches[rows[block]].astype(np.float32))
    return points
