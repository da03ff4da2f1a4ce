"""A plane on which the sketches can be looked at; nothing is decided by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA


def planar_map(sketches: NDArray[np.floating[Any]], n_fit: int = 5000) -> NDArray[np.float32]:
    """Principal plane of the sketches: [N, R] -> [N, 2], fitted on at most `n_fit` evenly spaced rows."""
    rows = np.asarray(sketches, dtype=np.float32)
    model = PCA(n_components=2, svd_solver="randomized", random_state=0).fit(rows[:: max(1, len(rows) // n_fit)])
    points: NDArray[np.float32] = model.transform(rows).astype(np.float32)
    return points
